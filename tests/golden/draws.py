"""Draws: the generator of a set of values, noisy corners, and the warps fitted to them."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

#: Top left, top right, bottom right, bottom left.
CORNERS = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])

#: Steps whose draws are made at once.
BLOCK = 100


def source(*values: object) -> torch.Generator:
    """Seeded by the first 63 bits of the SHA-256 of the values' text."""
    digest = hashlib.sha256(repr(tuple(values)).encode()).hexdigest()
    return torch.Generator().manual_seed(int(digest[:16], 16) // 2)


def moved_corners(generator: torch.Generator, n: int, sigma: float, width: int, height: int) -> np.ndarray:
    """Corners ``(n, 4, 2)`` under σ pixels of their own noise and σ pixels of a common shift; a pixel is
    2/width along x and 2/height along y."""
    own = torch.randn(n, 4, 2, generator=generator).numpy().astype(np.float64)
    common = torch.randn(n, 1, 2, generator=generator).numpy().astype(np.float64)
    return CORNERS + sigma * (own + common) * np.array([2 / width, 2 / height])


def homography_to(target: np.ndarray) -> np.ndarray:
    """p of the homography from the square's corners to four points, by the eight linear equations."""
    rows, right = [], []
    for (x, y), (u, v) in zip(CORNERS, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u - x, v - y]
    return np.linalg.solve(np.array(rows), np.array(right))


def affine_to(target: np.ndarray) -> np.ndarray:
    """p of the affine warp nearest to taking the square's corners to four points."""
    lifted = np.column_stack([CORNERS, np.ones(4)])
    return np.linalg.lstsq(lifted, target - CORNERS, rcond=None)[0].T.ravel()


def warps(generator: torch.Generator, n: int, sigma: float, width: int, height: int, warp: str) -> np.ndarray:
    """Initial warps ``(n, k)``."""
    fit = {"homography": homography_to, "affine": affine_to}[warp]
    return np.stack([fit(target) for target in moved_corners(generator, n, sigma, width, height)])


def training_block(
    seed: int,
    restart: int,
    block: int,
    batch: int,
    sigma: float,
    size: tuple[int, int],
    warp: str,
    items: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Initial warps ``(100, batch, k)`` of a block of steps, and its images' numbers ``(100, batch)``."""
    generator = source("train", seed, restart, block)
    p = warps(generator, BLOCK * batch, sigma, size[1], size[0], warp)
    item = torch.randint(items, (BLOCK, batch), generator=generator).numpy()
    return p.reshape(BLOCK, batch, -1), item
