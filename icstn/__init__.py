"""Inverse Compositional Spatial Transformer Networks, from Lucas-Kanade to IC-STN.

The public names are loaded when they are first used: ``import icstn`` itself brings no PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icstn.classical import (
        Aligner,
        AlignmentResult,
        ConditionalLK,
        SupervisedDescent,
        Tracker,
        align,
        track,
    )
    from icstn.sampling import Frame, sample
    from icstn.start import identity_start, parameter_groups
    from icstn.transformers import ICSTN, STN, Alignment, CompositionalSTN
    from icstn.warps import Warp, affine, homography, similarity, translation

    __version__: str

__all__ = [
    "ICSTN",
    "STN",
    "Aligner",
    "Alignment",
    "AlignmentResult",
    "CompositionalSTN",
    "ConditionalLK",
    "Frame",
    "SupervisedDescent",
    "Tracker",
    "Warp",
    "__version__",
    "affine",
    "align",
    "homography",
    "identity_start",
    "parameter_groups",
    "sample",
    "similarity",
    "track",
    "translation",
]

_HOMES = {
    "icstn.classical": (
        "Aligner",
        "AlignmentResult",
        "ConditionalLK",
        "SupervisedDescent",
        "Tracker",
        "align",
        "track",
    ),
    "icstn.sampling": ("Frame", "sample"),
    "icstn.start": ("identity_start", "parameter_groups"),
    "icstn.transformers": ("ICSTN", "STN", "Alignment", "CompositionalSTN"),
    "icstn.warps": ("Warp", "affine", "homography", "similarity", "translation"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value = importlib.import_module("importlib.metadata").version("icstn")
    elif name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'icstn' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
