"""Predicates: one function a claim, evidence in, findings out; a module for each part of the paper."""
