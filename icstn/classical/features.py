"""Features of aligned patches: what a regressor sees of I(p) instead of, or besides, its pixels.

A feature is any callable from patches ``(batch, channels, height, width)`` to vectors ``(batch, d)``. The
three named ones are plain functions, so ``functools.partial(hog, cell=5)`` is a feature as well.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from icstn.extras import package

Features = Callable[[Tensor], Tensor]


def pixels(patches: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch d"]:
    """The pixels themselves, row by row and channel by channel; differentiable."""
    return patches.flatten(1)


def hog(
    patches: Float[Tensor, "batch channels height width"],
    *,
    cell: int = 8,
    block: int = 2,
    orientations: int = 8,
) -> Float[Tensor, "batch d"]:
    """Histograms of oriented gradients (Dalal and Triggs, 2005), from scikit-image; not differentiable.

    Args:
        patches: gray images, or any number of channels (each pixel then uses its strongest gradient).
        cell: side of a square cell in pixels.
        block: side of a normalization block in cells.
        orientations: number of histogram bins over half a turn.

    Raises:
        ValueError: a patch holds not even one block of ``block × block`` cells.
    """
    describe = package("classical", "skimage.feature").hog
    if min(patches.shape[-2:]) < cell * block:
        size = "×".join(map(str, patches.shape[-2:]))
        raise ValueError(f"HOG needs {cell * block} pixels a side or more, got {size}: lower `cell`")
    options = {"pixels_per_cell": (cell, cell), "cells_per_block": (block, block)}
    arrays = patches.detach().cpu().numpy()
    rows = [describe(a, orientations, channel_axis=0, **options) for a in arrays]
    return _stack(rows, patches)


def sift(
    patches: Float[Tensor, "batch channels height width"], *, grid: int = 4, scale: float = 2.0
) -> Float[Tensor, "batch d"]:
    """SIFT descriptors (Lowe, 2004) on a regular grid of upright keypoints, from OpenCV; not differentiable.

    Args:
        patches: intensities in [0, 1] (values outside are clipped); several channels are averaged.
        grid: ``grid × grid`` keypoints, 128 numbers each.
        scale: diameter of a keypoint in units of the keypoints' spacing.

    Returns:
        ``(batch, 128 · grid²)`` with values in [0, 1].
    """
    cv2 = package("classical", "cv2")
    height, width = patches.shape[-2:]
    step_x, step_y = width / grid, height / grid
    points = [
        cv2.KeyPoint((i + 0.5) * step_x - 0.5, (j + 0.5) * step_y - 0.5, scale * min(step_x, step_y), 0)
        for j in range(grid)
        for i in range(grid)
    ]
    gray = (patches.detach().mean(1).clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    extractor = cv2.SIFT_create()
    rows = [extractor.compute(np.ascontiguousarray(g), points)[1].ravel() / 255 for g in gray]
    return _stack(rows, patches)


FEATURES: dict[str, Features] = {"pixels": pixels, "hog": hog, "sift": sift}


def feature(features: str | Features) -> Features:
    """The feature of that name (a callable is passed through).

    Raises:
        ValueError: no feature has that name; the message lists those that exist.
    """
    if callable(features):
        return features
    if features not in FEATURES:
        raise ValueError(
            f"unknown features {features!r}: use {', '.join(FEATURES)}, or a callable from patches "
            "(batch, channels, height, width) to vectors (batch, d)"
        )
    return FEATURES[features]


def feature_name(features: str | Features) -> str:
    """The name that a saved model keeps of its features, for example ``hog`` or ``hog(cell=5)``."""
    if isinstance(features, str):
        return features
    if isinstance(features, partial):
        given = [repr(a) for a in features.args] + [f"{k}={v!r}" for k, v in features.keywords.items()]
        return f"{feature_name(features.func)}({', '.join(given)})"
    return getattr(features, "__qualname__", type(features).__qualname__)


def extract(
    features: str | Features, patches: Float[Tensor, "batch channels h w"]
) -> Float[Tensor, "batch d"]:
    """Apply a feature and check what it returns.

    Raises:
        ValueError: the result is not a ``(batch, d)`` tensor.
    """
    out = feature(features)(patches)
    if not isinstance(out, Tensor) or out.dim() != 2 or len(out) != len(patches):
        got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(
            f"features {feature_name(features)!r} must return a tensor ({len(patches)}, d), one row for each "
            f"patch; got {got}"
        )
    return out


def _stack(rows: list[Any], like: Tensor) -> Tensor:
    return torch.from_numpy(np.stack(rows)).to(like.device, like.dtype)
