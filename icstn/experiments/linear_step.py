"""The best that one linear step can do: the floor under the row c-STN-1 of Table 1.

A c-STN with one linear predictor composes Δp = W x̃ onto p, with x̃ the sampled crop and a 1. On the template's
side and in the affine family, column c of the new warp's matrix less the identity is

    P_c + (I + A) W_c x̃,        c = 1, 2, 3,

with P the 2×3 matrix of the parameters of p, A its first two columns and W_c the two rows of W that predict
column c. The training loss E‖p ∘ Δp‖² is thus a quadratic in each W_c, and its minimum solves

    E[(I + A)ᵀ(I + A) ⊗ x̃x̃ᵀ] vec W_c = −E[(I + A)ᵀ P_c ⊗ x̃].

The expectations are means over samples; a ridge, chosen on other samples, keeps the solution from fitting
their noise. No training by gradient descent can end below it, but for what the samples leave unknown. On the
image's side, (I + D)(I + P), the loss is another quadratic, whose minimum is not computed here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from icstn.experiments.planar import Planar
from icstn.experiments.spec import BaselineSpec
from icstn.experiments.task import seeded
from icstn.perturb import perturbations
from icstn.sampling import sample

#: Samples at a time.
CHUNK = 2000

#: Ridges that are tried, relative to the mean square of a pixel; a tenth of the samples decides.
RIDGES = tuple(10.0**e for e in range(-8, 1))


def best_linear_step(spec: BaselineSpec, task: Planar) -> Tensor:
    """W of the best linear step, ``(6, pixels + 1)`` float64, in the order of the parameters.

    Args:
        spec: gives the seed and the number of samples.
        task: the photograph and its frame.

    Raises:
        ValueError: the task's warps are not affine.
    """
    if task.warp.name != "affine":
        raise ValueError(f"the best linear step is known for affine warps only, not for {task.warp.name}")
    held_out = max(1, spec.samples // 10)
    p = drawn(spec, task, spec.samples, "learn")
    left, right = _moments(task, p)
    q = drawn(spec, task, held_out, "ridge")
    tries = [_solved(left, right, ridge) for ridge in RIDGES]
    losses = [_loss(task, q, w) for w in tries]
    return tries[losses.index(min(losses))]


def stepped(task: Planar, w: Tensor, p: Tensor) -> Tensor:
    """The warps after one linear step, ``(items, 6)``."""
    dp = (_crops(task, p).double() @ w.mT).to(p.dtype)
    return task.warp.compose(p, dp, side="template")


def drawn(spec: BaselineSpec, task: Planar, n: int, what: str) -> Tensor:
    """Perturbations ``(n, 6)`` to ``learn`` from or to choose the ``ridge`` on; the test's are others."""
    generator = seeded("linear step", what, spec.seed, spec.sigma)
    return perturbations(n, spec.sigma, task.frame, task.warp, generator=generator)


def _crops(task: Planar, p: Tensor) -> Tensor:
    """x̃, ``(items, pixels + 1)``."""
    crops = sample(task.photograph, p, task.frame, task.warp).flatten(1)
    return torch.cat((crops, torch.ones_like(crops[:, :1])), 1)


def _moments(task: Planar, p: Tensor) -> tuple[Tensor, Tensor]:
    """Left sides ``(2d, 2d)`` and right sides ``(2d, 3)`` of the normal equations, of all three columns."""
    d = task.frame.height * task.frame.width + 1
    left = torch.zeros(2, d, 2, d, dtype=torch.float64)
    right = torch.zeros(2, d, 3, dtype=torch.float64)
    for part in p.split(CHUNK):
        x, m = _crops(task, part), task.warp.matrix(part)[:, :2]
        linear, moved = m[..., :2], m - torch.eye(2, 3)
        weight, target = linear.mT @ linear, linear.mT @ moved
        for i, j in ((0, 0), (0, 1), (1, 1)):
            left[i, :, j] += (x * weight[:, i, j, None]).mT @ x
        for i in range(2):
            right[i] -= x.mT @ target[:, i]
    left[1, :, 0] = left[0, :, 1]
    return left.view(2 * d, 2 * d) / len(p), right.view(2 * d, 3) / len(p)


def _solved(left: Tensor, right: Tensor, ridge: float) -> Tensor:
    """W, row by row of the 2×3 matrix of the parameters."""
    scale = left.diagonal().mean() * ridge
    factor = torch.linalg.cholesky(left + scale * torch.eye(len(left), dtype=left.dtype))
    found = torch.cholesky_solve(right, factor)
    return found.view(2, -1, 3).transpose(1, 2).reshape(6, -1)


def _loss(task: Planar, p: Tensor, w: Tensor) -> float:
    return float(sum(stepped(task, w, part).square().sum() for part in p.split(CHUNK)) / len(p))
