"""The iterations on one level: which items of a batch go on, and Levenberg-Marquardt's damping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from icstn.classical.level import ALL, Rows
from icstn.classical.lucas_kanade import NormalEquations

Part = TypeVar("Part")


@dataclass
class State:
    """A chunk of a batch on its way: the flags are of the current level, the counts of all."""

    p: Tensor
    iterations: Tensor
    active: Tensor
    done: Tensor
    left: Tensor
    singular: Tensor
    busy: bool = True
    whole: bool = True

    @classmethod
    def start(cls, p: Tensor) -> State:
        """All items active, at their initial warps."""
        no = torch.zeros(p.shape[0], dtype=torch.bool, device=p.device)
        return cls(p, torch.zeros(p.shape[0], dtype=torch.long, device=p.device), ~no, no, no, no)

    def select(self, r: Rows) -> State:
        """Those items."""
        if r is ALL:
            return self
        return State(
            self.p[r], self.iterations[r], self.active[r], self.done[r], self.left[r], self.singular[r]
        )

    def advance(self, new: Tensor, moved: Tensor, limit: float, regular: Tensor, seen: Tensor | None) -> None:
        """Take the step for the items that are still active, and see which of them stop.

        Args:
            new: the warps after the step.
            moved: its length, squared.
            limit: at most this is converged.
            regular: items whose normal equations could be solved.
            seen: items of which enough lies inside the image; None for all.
        """
        self.iterations = self.iterations + self.active
        fine = regular & (moved < 1e12)
        fine = fine if seen is None else fine & seen
        if not bool(fine.all()):
            self.singular = self.singular | (self.active & ~regular)
            self.left = self.left | (self.active & regular & ~fine)
            self.active, self.whole = self.active & fine, False
        self.p = new if self.whole else torch.where(self.active.unsqueeze(-1), new, self.p)
        short = moved <= limit
        if bool(short.any()):
            self.done = self.done | (self.active & short)
            self.active, self.whole = self.active & ~short, False
        self.busy = self.whole or bool(self.active.any())

    def give_up(self, hopeless: Tensor) -> None:
        """Let these items rest where they are."""
        self.active = self.active & ~hopeless
        self.whole = bool(self.active.all())
        self.busy = bool(self.active.any())

    def next_level(self, entry: Tensor) -> None:
        """Everything is active again, from ``entry`` where this level failed."""
        failed = self.left | self.singular
        if bool(failed.any()):
            self.p = torch.where(failed.unsqueeze(-1), entry, self.p)
        self.done = self.left = self.singular = torch.zeros_like(failed)
        self.active, self.busy, self.whole = ~self.done, True, True


class Best:
    """Levenberg-Marquardt: the best warp so far, its normal equations, and λ, for each item.

    A step that made the residual larger costs one iteration: λ grows tenfold and the next step starts
    again from the best warp, whose normal equations are still here.
    """

    def __init__(self, damping: float) -> None:
        self._initial = damping
        self._kept: tuple[tuple[Tensor, ...], Tensor] | None = None

    def choose(self, p: Tensor, step: NormalEquations) -> tuple[Tensor, NormalEquations, Tensor]:
        """The better of the new warp and the best so far, its step, and λ."""
        cost, H = step.cost(), step.H.expand(p.shape[0], -1, -1)
        overlap = torch.ones_like(cost) if step.overlap is None else step.overlap
        new = (p, H, step.b, cost, overlap)
        damping = torch.full_like(cost, self._initial)
        if self._kept is not None:
            old, damping = self._kept
            worse = ~(cost <= old[3]) | (overlap < old[4] / 2)
            damping = torch.where(worse, damping * 10, damping / 10).clamp(1e-8, 1e8)
            new = tuple(
                torch.where(worse.view(-1, *[1] * (n.dim() - 1)), o, n) for o, n in zip(old, new, strict=True)
            )
        self._kept = (new, damping)
        return new[0], step._replace(H=new[1], b=new[2], overlap=new[4]), damping


def slices(n: int, step: int) -> list[slice]:
    """Chunks of a batch; a single one is everything, which needs no indexing."""
    return [ALL] if step >= n else [slice(i, i + step) for i in range(0, n, step)]


def join(parts: list[Part]) -> Part:
    """Chunks of states or of results, put together again."""
    if len(parts) == 1:
        return parts[0]
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return type(parts[0])(*(torch.cat(c) if isinstance(c[0], Tensor) else c[0] for c in columns))
