"""Ours beside the paper's: cell by cell, and in which order the models of a block come."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from icstn.evidence.collection import Evidence, MissingError, finished
from icstn.evidence.estimates import Estimate, mean_error, significant
from icstn.experiments.experiment import EXPERIMENTS
from icstn.experiments.records import Record

Reached = Literal["reached", "not reached", "undecided", "not run"]

#: Relative difference up to which two errors count as alike.
ALIKE = 0.1
#: Half an interval, as a share of the paper's number, from which on it holds too much to tell anything alike.
WIDE = 0.2


@dataclass(frozen=True)
class Compared:
    """One cell of Tables 1 to 3.

    Attributes:
        experiment, cell: which one.
        printed: the paper's error.
        ours: None where there is no Record.
        seeds: how many runs are behind ours.
    """

    experiment: str
    cell: str
    printed: float
    ours: Estimate | None
    seeds: int = 0

    @property
    def reached(self) -> Reached:
        """Whether our mean is at or below the paper's error, or above it by more than its interval."""
        if self.ours is None:
            return "not run"
        if self.ours.value <= self.printed:
            return "reached"
        return "not reached" if self.ours.low > self.printed else "undecided"

    def alike(self, share: float = ALIKE) -> bool:
        """Whether the two are the same number: within so much of the paper's, or inside our interval.

        An interval that is wider than :data:`WIDE` of the paper's number on either side does not count.
        """
        if self.ours is None:
            return False
        inside = self.ours.low <= self.printed <= self.ours.high and self.ours.half <= WIDE * self.printed
        return inside or abs(self.ours.value - self.printed) <= share * self.printed


def against_paper(evidence: Evidence, preset: str | None = None) -> list[Compared]:
    """All cells that the paper prints, ours at that preset, or at the best that has been run."""
    return [
        _row(evidence, about.name, model, sigma, printed, preset)
        for about in EXPERIMENTS.values()
        for (model, sigma), printed in about.printed.items()
    ]


def _row(
    evidence: Evidence, experiment: str, model: str, sigma: float, printed: float, preset: str | None
) -> Compared:
    by_sigma = EXPERIMENTS[experiment].by_sigma
    name = f"{model} σ = {sigma:g}" if by_sigma else model
    at = sigma if by_sigma else None
    try:
        if preset is None:
            cell = evidence.best_cell(experiment, model, at)
        else:
            cell = evidence.cell(experiment, model, preset, at)
    except MissingError:
        return Compared(experiment, name, printed, None)
    return Compared(experiment, name, printed, cell.error, len(cell.runs))


@dataclass(frozen=True)
class Order:
    """In which order the models of a block come, ours against the paper's.

    Attributes:
        block: for people, such as ``block (a)`` or ``σ = 5 px``.
        printed: model → the paper's error, of the whole block.
        ours: model → our mean error, of the models that were run.
        sigma: size of the perturbation in pixels.
    """

    block: str
    printed: Mapping[str, float]
    ours: Mapping[str, float]
    sigma: float = math.nan

    @property
    def swapped(self) -> list[tuple[str, str]]:
        """Pairs of models of which the first has the larger error in the paper, but not in ours."""
        pairs = combinations(sorted(self.ours, key=self.printed.__getitem__, reverse=True), 2)
        return [(a, b) for a, b in pairs if self.ours[a] <= self.ours[b]]

    @property
    def lacking(self) -> list[str]:
        """Models of the block without a finished run."""
        return [model for model in self.printed if model not in self.ours]

    def __str__(self) -> str:
        start = f"{self.block}: " if self.block else ""
        if len(self.ours) < 2:
            return f"{start}nothing to compare, {len(self.ours)} of {len(self.printed)} models have a run"
        of = f" (of the {len(self.ours)} models that have a run)" if self.lacking else ""
        if not self.swapped:
            return f"{start}the paper's order{of}"
        pairs = "; ".join(
            f"{a} {significant(self.ours[a])} ≤ {b} {significant(self.ours[b])}, the paper has "
            f"{self.printed[a]:.3f} > {self.printed[b]:.3f}"
            for a, b in self.swapped
        )
        return f"{start}not the paper's order{of}: {pairs}"


def orders(experiment: str, records: Iterable[Record]) -> list[Order]:
    """The order of all models of each block of a table: the blocks of Table 2, the columns of Table 1.

    Args:
        experiment: ``table_1``, ``table_2`` or ``table_3``.
        records: its runs; means are over the seeds of those that finished on the real data.
    """
    about = EXPERIMENTS[experiment]
    blocks: dict[tuple[str, float], dict[str, float]] = {}
    for (model, sigma), error in about.printed.items():
        name = f"σ = {sigma:g} px" if about.by_sigma else f"block {model[-3:]}" if "(" in model else ""
        blocks.setdefault((name, sigma), {})[model] = error
    runs = [r for r in finished(records) if r.spec.experiment == experiment]
    return [
        Order(name, printed, _means([r for r in runs if r.spec.sigma == sigma], printed), sigma)
        for (name, sigma), printed in blocks.items()
    ]


def _means(runs: Iterable[Record], models: Iterable[str]) -> dict[str, float]:
    by_model: dict[str, list[Record]] = {model: [] for model in models}
    for r in runs:
        by_model.get(r.spec.model, []).append(r)
    return {model: mean_error(found).value for model, found in by_model.items() if found}
