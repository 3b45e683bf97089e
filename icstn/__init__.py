"""Inverse Compositional Spatial Transformer Networks, from Lucas-Kanade to IC-STN."""
