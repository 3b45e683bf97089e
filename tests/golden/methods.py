"""Methods beside Table 1, plainly: two forms of Lucas-Kanade by Gauss-Newton, and a cascade."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from golden import draws
from golden.course import Problem
from golden.sight import matrix, parameters, seen
from icstn.experiments import BaselineSpec


def slopes(image: Tensor, per_x: float, per_y: float) -> tuple[Tensor, Tensor]:
    """Central differences, the border continued, per normalized unit."""
    wide = F.pad(image, (1, 1, 1, 1), mode="replicate")
    across = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2 * per_x
    return across, (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2 * per_y


def descent_images(across: Tensor, down: Tensor) -> Tensor:
    """Gradient ``(n, h, w)`` times the Jacobian of an affine warp: ``(n, 6, h·w)``."""
    height, width = across.shape[-2:]
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height).double(), torch.linspace(-1, 1, width).double(), indexing="ij"
    )
    one = torch.ones_like(x)
    return torch.stack([g * t for g in (across, down) for t in (x, y, one)], 1).flatten(2)


def forwards(plane: Problem, p: Tensor, spec: BaselineSpec) -> Tensor:
    """Lucas and Kanade: p + (Σ sdᵀ sd)⁻¹ Σ sdᵀ (T − I(p)), sd of the image's gradient at W(x; p)."""
    target = seen(plane.images, torch.zeros(1, 6).double(), plane.place).flatten(1)
    across, down = slopes(plane.images, *plane.place.half)
    for _ in range(spec.steps):
        sd = descent_images(*(seen(g, p, plane.place)[:, 0] for g in (across, down)))
        error = target - seen(plane.images, p, plane.place).flatten(1)
        p = p + _solved(sd, error)
    return p


def inverse(plane: Problem, p: Tensor, spec: BaselineSpec) -> Tensor:
    """Baker and Matthews: M(p) M(Δp)⁻¹, with all but I(p) − T computed once from the template."""
    target = seen(plane.images, torch.zeros(1, 6).double(), plane.place)
    half = ((plane.place.width - 1) / 2, (plane.place.height - 1) / 2)
    sd = descent_images(*(g[:, 0] for g in slopes(target, *half)))
    for _ in range(spec.steps):
        error = seen(plane.images, p, plane.place).flatten(1) - target.flatten(1)
        dp = _solved(sd.expand(len(p), -1, -1), error)
        p = parameters(matrix(p) @ torch.linalg.inv(matrix(dp)), 6)
    return p


def _solved(sd: Tensor, error: Tensor) -> Tensor:
    return torch.linalg.solve(sd @ sd.mT, (sd @ error[..., None])).squeeze(-1)


def cascade(plane: Problem, p: Tensor, spec: BaselineSpec) -> Tensor:
    """Supervised descent: each stage regresses what the stages before it leave of fresh draws on pixels."""
    stages: list[tuple[np.ndarray, np.ndarray]] = []
    for stage in range(spec.steps):
        generator = torch.Generator().manual_seed(spec.seed * 10_007 + stage)
        drawn = draws.warps(
            generator, spec.samples, plane.sigma, plane.place.width, plane.place.height, "affine"
        )
        left = _descended(plane, torch.from_numpy(drawn), stages)
        pixels = seen(plane.images, left, plane.place).flatten(1).numpy()
        stages.append(_ridge(pixels, left.numpy(), 10.0))
    return _descended(plane, p, stages)


def _descended(plane: Problem, p: Tensor, stages: list[tuple[np.ndarray, np.ndarray]]) -> Tensor:
    for slope, offset in stages:
        pixels = seen(plane.images, p, plane.place).flatten(1).numpy()
        dp = torch.from_numpy(pixels @ slope + offset)
        p = parameters(matrix(p) @ torch.linalg.inv(matrix(dp)), 6)
    return p


def _ridge(x: np.ndarray, y: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression with a free offset; the penalty is in units of samples × mean variance."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    u, d, v = np.linalg.svd(x - mean_x, full_matrices=False)
    penalty = ridge * len(x) * x.var(0).mean()
    slope = v.T @ ((d / (d**2 + penalty))[:, None] * (u.T @ (y - mean_y)))
    return slope, mean_y - mean_x @ slope
