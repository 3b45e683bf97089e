"""Choosing a table's recipe by code, on validation data alone.

A search has two rounds. In the first every candidate trains every row of the table for a small share of the
preset's iterations; the best few go on to the second, for a larger share. All rows of a table get the same
candidates and the same budget, and one recipe is chosen for all of them: the one whose validation error,
relative to the best candidate's on the same row, is the least in the geometric mean over rows. The test set
is not read. Lengths are not searched: a longer run is always better here, and is bounded by what it costs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from icstn.experiments.execution import Execution
from icstn.experiments.recipes import cells, varied
from icstn.experiments.records import Record, Records
from icstn.experiments.running import ensure
from icstn.experiments.spec import RunSpec, Spec

Candidate = tuple[tuple[str, Any], ...]

#: Relative error of a run that diverged: worse than any that did not.
DIVERGED = 100.0


@dataclass(frozen=True)
class Space:
    """What a search tries.

    Attributes:
        experiment: the table.
        values: field of the Spec → its values; a candidate is one of each.
        kept: how many candidates go on to the second round.
        shares: of the preset's iterations, in the first and in the second round.
    """

    experiment: str
    values: Mapping[str, Sequence[Any]]
    kept: int = 2
    shares: tuple[float, float] = (0.1, 0.5)

    def candidates(self) -> list[Candidate]:
        """All combinations, in order."""
        choices = ([(name, v) for v in values] for name, values in self.values.items())
        return list(itertools.product(*choices))


#: The search of each table, at the preset ``full``.
SPACES = {
    s.experiment: s
    for s in (
        Space("table_1", {"rate_predictor": (1e-5, 3e-5, 1e-4), "clip": (0.0, 1.0)}),
        Space(
            "table_2",
            {"rate_classifier": (1e-3, 2e-3, 5e-3), "rate_predictor": (1e-4, 2e-4, 4e-4)},
            kept=3,
            shares=(0.05, 0.25),
        ),
        Space("table_3", {"appearance": (0.0, 0.5, 1.0), "rate_classifier": (1e-3, 2e-3)}),
    )
}


def runs(space: Space, candidate: Candidate, round_: int, seeds: Iterable[int] = (0,)) -> list[Spec]:
    """The runs of one candidate: every row of the table, exceptions to its recipe left out.

    Args:
        space: the search.
        candidate: one of its candidates.
        round_: 1 or 2, which is longer.
        seeds: one run each.
    """
    found = []
    for spec in cells(space.experiment, "full", seeds):
        assert isinstance(spec, Spec)
        length = round(spec.iterations * space.shares[round_ - 1])
        common = {"iterations": length, "tested_on": "validation", "test_draws": 1, "clip": 0.0}
        common["restarts"] = 0
        candidate_run = varied(spec, common | dict(candidate))
        assert isinstance(candidate_run, Spec)
        found.append(candidate_run)
    return found


def score(records: Mapping[Candidate, Sequence[Record]]) -> dict[Candidate, float]:
    """Error relative to the best candidate's on the same row, in the geometric mean over the rows.

    Args:
        records: of each candidate, one for each row in the same order.

    Returns:
        1 for a candidate that is the best on every row; the larger the worse.
    """
    rows = list(zip(*records.values(), strict=True))
    logs: dict[Candidate, list[float]] = {c: [] for c in records}
    for row in rows:
        best = min((r.test_error for r in row if r.status == "finished"), default=math.nan)
        for candidate, r in zip(records, row, strict=True):
            relative = max(r.test_error, 1e-9) / max(best, 1e-9) if r.status == "finished" else DIVERGED
            logs[candidate].append(math.log(min(relative, DIVERGED)))
    return {candidate: math.exp(fmean(values)) for candidate, values in logs.items()}


def chosen(
    space: Space, records: Records, execution: Execution | None = None, seeds: Sequence[int] = (0,)
) -> Candidate:
    """Run a search, or go on with it, and return the chosen candidate.

    Args:
        space: what is tried.
        records: where its runs are kept, so that it can be stopped at any time.
        execution: where and how it runs.
        seeds: of the runs.
    """
    first = space.candidates()
    done = ensure([s for c in first for s in runs(space, c, 1, seeds)], records, execution)
    scores = score(_by_candidate(space, first, 1, seeds, done))
    second = sorted(first, key=lambda c: scores[c])[: space.kept]
    done = ensure([s for c in second for s in runs(space, c, 2, seeds)], records, execution)
    scores = score(_by_candidate(space, second, 2, seeds, done))
    return min(second, key=lambda c: scores[c])


def _by_candidate(
    space: Space, candidates: Sequence[Candidate], round_: int, seeds: Sequence[int], found: Iterable[Record]
) -> dict[Candidate, list[Record]]:
    by_spec: dict[RunSpec, Record] = {r.spec: r for r in found}
    return {c: [by_spec[s] for s in runs(space, c, round_, seeds)] for c in candidates}
