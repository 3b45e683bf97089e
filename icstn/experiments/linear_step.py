"""The best that one linear step can do: the floor under the row c-STN-1 of Table 1.

A c-STN with one linear predictor composes Δp = W x̃ onto p, with x̃ the sampled crop and a 1. In the affine
family the new warp's matrix less the identity is linear in W. With M the 3×3 matrix of p, P its first two
rows less the identity's, A the first two columns of P, and W_rc the row of W for entry (r, c), it is

    Σ_r (I + A)_{:,r} W_rc x̃ + P_{:,c}    in column c, on the template's side, M(p) M(Δp),
    Σ_c W_rc x̃ M_{c,:} + P_{r,:}          in row r, on the image's side, M(Δp) M(p), as eq. (10) has it.

The training loss E‖p ∘ Δp‖² is thus a quadratic in each W_{:,c}, or each W_{r,:}, and its minimum solves

    E[(I + A)ᵀ(I + A) ⊗ x̃x̃ᵀ] vec W_{:,c} = −E[(I + A)ᵀ P_{:,c} ⊗ x̃],
    E[M Mᵀ ⊗ x̃x̃ᵀ] vec W_{r,:} = −E[M P_{r,:}ᵀ ⊗ x̃].

The expectations are means over samples; a ridge, chosen on other samples, keeps the solution from fitting
their noise. No training by gradient descent can end below it, but for what the samples leave unknown.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from icstn.experiments.planar import Planar
from icstn.experiments.spec import BaselineSpec
from icstn.experiments.task import seeded
from icstn.perturb import perturbations
from icstn.sampling import sample
from icstn.warps import Side

#: Samples at a time.
CHUNK = 2000

#: Ridges that are tried, relative to the mean square of a pixel; a tenth of the samples decides.
RIDGES = tuple(10.0**e for e in range(-8, 1))


def best_linear_step(spec: BaselineSpec, task: Planar) -> Tensor:
    """W of the best linear step, ``(6, pixels + 1)`` float64, in the order of the parameters.

    Args:
        spec: gives the seed, the number of samples and the side of composition.
        task: the photograph and its frame.

    Raises:
        ValueError: the task's warps are not affine.
    """
    if task.warp.name != "affine":
        raise ValueError(f"the best linear step is known for affine warps only, not for {task.warp.name}")
    side = cast(Side, spec.side)
    held_out = max(1, spec.samples // 10)
    p = drawn(spec, task, spec.samples, "learn")
    left, right = _moments(task, p, side)
    q = drawn(spec, task, held_out, "ridge")
    tries = [_solved(left, right, ridge, side) for ridge in RIDGES]
    losses = [_loss(task, q, w, side) for w in tries]
    return tries[losses.index(min(losses))]


def stepped(task: Planar, w: Tensor, p: Tensor, side: Side) -> Tensor:
    """The warps after one linear step, ``(items, 6)``."""
    dp = (_crops(task, p).double() @ w.mT).to(p.dtype)
    return task.warp.compose(p, dp, side=side)


def drawn(spec: BaselineSpec, task: Planar, n: int, what: str) -> Tensor:
    """Perturbations ``(n, 6)`` to ``learn`` from or to choose the ``ridge`` on; the test's are others."""
    generator = seeded("linear step", what, spec.seed, spec.sigma)
    return perturbations(n, spec.sigma, task.frame, task.warp, generator=generator)


def _crops(task: Planar, p: Tensor) -> Tensor:
    """x̃, ``(items, pixels + 1)``."""
    crops = sample(task.photograph, p, task.frame, task.warp).flatten(1)
    return torch.cat((crops, torch.ones_like(crops[:, :1])), 1)


def _moments(task: Planar, p: Tensor, side: Side) -> tuple[Tensor, Tensor]:
    """Left sides ``(k·d, k·d)`` and right sides ``(k·d, 6 / k)`` of the normal equations.

    k is 2 on the template's side, where a column of W_rc is found at once, and 3, a row, on the image's.
    """
    d, k = task.frame.height * task.frame.width + 1, 2 if side == "template" else 3
    left = torch.zeros(k, d, k, d, dtype=torch.float64)
    right = torch.zeros(k, d, 6 // k, dtype=torch.float64)
    for part in p.split(CHUNK):
        x, (weight, target) = _crops(task, part), _quadratic(task.warp.matrix(part), side)
        for i in range(k):
            for j in range(i, k):
                left[i, :, j] += (x * weight[:, i, j, None]).mT @ x
            right[i] -= x.mT @ target[:, i]
    for i in range(k):
        for j in range(i):
            left[i, :, j] = left[j, :, i]
    return left.view(k * d, k * d) / len(p), right.view(k * d, 6 // k) / len(p)


def _quadratic(m: Tensor, side: Side) -> tuple[Tensor, Tensor]:
    """What x̃x̃ᵀ and x̃ are weighted with, ``(items, k, k)`` and ``(items, k, 6 / k)``."""
    moved = (m - torch.eye(3))[:, :2]
    factor, moved = (m[:, :2, :2].mT, moved) if side == "template" else (m, moved.mT)
    return factor @ factor.mT, factor @ moved


def _solved(left: Tensor, right: Tensor, ridge: float, side: Side) -> Tensor:
    """W, row by row of the 2×3 matrix of the parameters."""
    system = left.clone()
    system.diagonal().add_(left.diagonal().mean() * ridge)
    found = torch.cholesky_solve(right, torch.linalg.cholesky(system))
    parts = found.view(6 // right.shape[1], -1, right.shape[1]).transpose(1, 2)
    return (parts if side == "template" else parts.transpose(0, 1)).reshape(6, -1)


def _loss(task: Planar, p: Tensor, w: Tensor, side: Side) -> float:
    return float(sum(stepped(task, w, part, side).square().sum() for part in p.split(CHUNK)) / len(p))
