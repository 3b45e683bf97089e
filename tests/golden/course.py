"""The course of a training run, step by step: loss, gradient, clipping, rate, optimizer, average."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from golden import draws
from golden.light import Light
from golden.nets import Row, Weights, initial, like, output
from golden.settings import Settings
from golden.sight import Place, corner_pixels


class Problem(NamedTuple):
    """What is trained on: images ready for a network (one photograph, or one a label), σ, and the warps."""

    images: Tensor
    labels: Tensor | None
    place: Place
    sigma: float
    warp: str


class Course(NamedTuple):
    """Initial and final weights, what is to be tested, and loss and error of each step."""

    start: Weights
    last: Weights
    tested: Weights
    losses: list[float]
    errors: list[float]


def loss_and_error(
    row: Row, weights: Weights, problem: Problem, p: Tensor, item: Tensor, side: str, light: Light, step: int
) -> tuple:
    """Of a step's batch: cross-entropy and % wrong, or squared parameters and pixels."""
    if problem.labels is None:
        q = output(row, weights, problem.images, p, problem.place, side)
        return q.pow(2).sum(1).mean(), corner_pixels(q.detach(), problem.place.width).mean()
    images, label = light.on(problem.images[item], step), problem.labels[item]
    logits = output(row, weights, images, p, problem.place, side)
    likelihood = logits - torch.logsumexp(logits, 1, keepdim=True)
    loss = -likelihood[torch.arange(len(label)), label].mean()
    return loss, 100 * (logits.detach().argmax(1) != label).double().mean()


def run(
    row: Row,
    problem: Problem,
    s: Settings,
    seed: int,
    *,
    steps: int | None = None,
    restart: int = 0,
    start: Weights | None = None,
) -> Course:
    """Train: the cosine falls to zero after ``s.iterations`` steps, of which ``steps`` are taken."""
    first = start or initial(
        row, problem.images.shape[1], problem.place, seed, s.std_predictor, s.std_classifier
    )
    weights, rule = like(row, first.flat), rule_of(s)
    average: list[Tensor] = []
    light = Light(seed, restart, s.appearance)
    losses, errors = [], []
    for step in range(s.iterations if steps is None else steps):
        p, item = draw(problem, s, seed, restart, step)
        leaves = [w.clone().requires_grad_() for w in weights.flat]
        loss, error = loss_and_error(row, like_grad(row, leaves), problem, p, item, s.side, light, step)
        slopes = list(torch.autograd.grad(loss, leaves))
        geometric = len(weights.geometric)
        slopes = clipped(slopes[:geometric], s.clip) + slopes[geometric:]
        bases = [s.rate_predictor] * geometric + [s.rate_classifier] * (len(slopes) - geometric)
        new = rule(weights.flat, slopes, [rate(s, base, step) for base in bases])
        weights = like(row, new)
        average = [s.average * a + (1 - s.average) * w for a, w in zip(average or new, new, strict=True)]
        losses.append(loss.item())
        errors.append(float(error))
    return Course(first, weights, like(row, average) if s.average else weights, losses, errors)


def like_grad(row: Row, leaves: list[Tensor]) -> Weights:
    """Weights that are leaves of a graph."""
    shape = like(row, leaves)
    counts, found, at = [len(p) for p in shape.predictors], [], 0
    for count in counts:
        found.append(leaves[at : at + count])
        at += count
    return Weights(found, leaves[at:])


def draw(problem: Problem, s: Settings, seed: int, restart: int, step: int) -> tuple[Tensor, Tensor]:
    """Initial warps and image numbers of one step."""
    size = (problem.place.height, problem.place.width)
    items = 1 if problem.labels is None else len(problem.labels)
    block, at = divmod(step, draws.BLOCK)
    key = (seed, restart, block, s.batch, problem.sigma, size, problem.warp, items)
    if key not in _BLOCKS:
        _BLOCKS[key] = draws.training_block(*key)
    p, item = _BLOCKS[key]
    return torch.from_numpy(p[at]), torch.from_numpy(item[at])


_BLOCKS: dict[tuple, tuple] = {}


def clipped(slopes: list[Tensor], bound: float) -> list[Tensor]:
    """The predictor's gradient, as one vector no longer than the bound (0: as it is)."""
    if not bound or not slopes:
        return slopes
    length = math.sqrt(sum(float(g.pow(2).sum()) for g in slopes))
    return [g * bound / length for g in slopes] if length > bound else slopes


def rate(s: Settings, base: float, step: int) -> float:
    """Constant, or half a wave of a cosine that would reach zero at the step after the last."""
    return base if s.schedule == "constant" else base * math.cos(math.pi * step / s.iterations / 2) ** 2


def rule_of(s: Settings) -> Callable:
    """(weights, slopes, rates) → weights."""
    return Adam(s.weight_decay) if s.optimizer == "adam" else descend


def descend(weights: list[Tensor], slopes: list[Tensor], rates: list[float]) -> list[Tensor]:
    """Plain gradient descent."""
    return [w - r * g for w, g, r in zip(weights, slopes, rates, strict=True)]


class Adam:
    """Kingma and Ba's algorithm 1 with its usual constants, and a decay that its moments do not see."""

    def __init__(self, decay: float) -> None:
        self.decay, self.t, self.m, self.v = decay, 0, [], []

    def __call__(self, weights: list[Tensor], slopes: list[Tensor], rates: list[float]) -> list[Tensor]:
        self.t += 1
        if not self.m:
            self.m, self.v = [0 * g for g in slopes], [0 * g for g in slopes]
        self.m = [0.9 * m + 0.1 * g for m, g in zip(self.m, slopes, strict=True)]
        self.v = [0.999 * v + 0.001 * g * g for v, g in zip(self.v, slopes, strict=True)]
        one, two = 1 - 0.9**self.t, 1 - 0.999**self.t
        return [
            w - r * self.decay * w - r * (m / one) / ((v / two).sqrt() + 1e-8)
            for w, r, m, v in zip(weights, rates, self.m, self.v, strict=True)
        ]
