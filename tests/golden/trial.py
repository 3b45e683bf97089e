"""Trials: the perturbed test set, who errs on what, and the 95 % interval of the mean."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from golden import draws
from golden.course import Problem
from golden.nets import Row, Weights, output, trajectory
from golden.sight import corner_pixels


def perturbed(table: str, image: str, problem: Problem, n: int, draw: int, split: str = "test") -> Tensor:
    """The n perturbations of a draw: the same for every model and every seed."""
    generator = draws.source(split, table, image, problem.sigma, draw)
    place = problem.place
    return torch.from_numpy(draws.warps(generator, n, problem.sigma, place.width, place.height, problem.warp))


def wrong(
    row: Row, weights: Weights, problem: Problem, table: str, side: str, n_draws: int, split: str = "test"
) -> np.ndarray:
    """Whether each test image is misnamed under each draw, ``(draws, images)``: image i under warp i."""
    found = []
    for draw in range(n_draws):
        p = perturbed(table, "", problem, len(problem.labels), draw, split)
        logits = output(row, weights, problem.images, p, problem.place, side)
        found.append((logits.argmax(1) != problem.labels).numpy())
    return np.stack(found)


def pixels_left(row: Row, weights: Weights, problem: Problem, p: Tensor, side: str, most: int) -> np.ndarray:
    """Corner error of each perturbation after 0 to ``most`` operations, ``(most + 1, n)``."""
    path = trajectory(row, weights, problem.images, p, problem.place, side, most)
    return np.stack([corner_pixels(q, problem.place.width).numpy() for q in path])


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean ∓ 1.96 standard errors, from the variance with n − 1."""
    n, mean = len(values), float(np.sum(values)) / len(values)
    variance = float(np.sum((values - mean) ** 2)) / (n - 1)
    return mean - 1.96 * math.sqrt(variance / n), mean + 1.96 * math.sqrt(variance / n)
