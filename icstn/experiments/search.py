"""Choosing a table's recipe by code, on validation data alone.

A search has two rounds. In the first every candidate trains every row of the table for a small share of the
preset's iterations; the best few go on to the second, for a larger share, and beside them each row's own
best, so that a row that needs an exception can show it. A small search sends all its candidates to the
second round at once. All rows of a table get the same candidates and the same budget, and one recipe is
chosen for all of them: the one whose validation error, relative to the best candidate's on the same row, is
the least in the geometric mean over rows. The test set is not read. Lengths are not searched: a longer run is
always better here, and is bounded by what it costs.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from icstn.experiments.execution import Execution
from icstn.experiments.recipes import cells, varied
from icstn.experiments.records import Record, Records
from icstn.experiments.running import ensure
from icstn.experiments.spec import Spec
from icstn.files import write_atomic

Candidate = tuple[tuple[str, Any], ...]

#: Relative error of a run that diverged: worse than any that did not.
DIVERGED = 100.0


@dataclass(frozen=True)
class Space:
    """What a search tries.

    Attributes:
        experiment: the table.
        values: field of the Spec → its values; a candidate is one of each.
        kept: how many candidates go on to the second round; if all do, it is the only one.
        shares: of the preset's iterations, in the first and in the second round.
    """

    experiment: str
    values: Mapping[str, Sequence[Any]]
    kept: int = 2
    shares: tuple[float, float] = (0.05, 0.25)

    def candidates(self) -> list[Candidate]:
        """All combinations, in order."""
        choices = ([(name, v) for v in values] for name, values in self.values.items())
        return list(itertools.product(*choices))

    @property
    def single(self) -> bool:
        """Whether there is one round only, which is called the second."""
        return self.kept >= len(self.candidates())


#: The search of each table, at the preset ``full``.
SPACES = {
    s.experiment: s
    for s in (
        Space("table_1", {"rate_predictor": (1e-5, 3e-5, 1e-4), "clip": (0.0, 1.0)}),
        # short runs like rates at which a whole one does worse
        Space(
            "table_2",
            {"rate_classifier": (1e-3, 2e-3, 5e-3), "rate_predictor": (1e-4, 2e-4, 4e-4)},
            kept=3,
            shares=(0.05, 1.0),
        ),
        Space("cascades", {"rate_predictor": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3), "clip": (1.0,)}),
        # from small weights the network without pooling never leaves chance, so their spread is searched, too
        Space(
            "tolerance",
            {"rate_classifier": (1e-3, 2e-3), "std_classifier": (0.05, 0.1, 0.2)},
            shares=(0.1, 0.5),
        ),
        # other light in training pays where a run begins to know its signs by heart: a first round would
        # send it away
        Space(
            "table_3",
            {"appearance": (0.0, 1.0), "rate_classifier": (1e-3, 2e-3)},
            kept=4,
            shares=(1 / 3, 1 / 3),
        ),
    )
}


#: Tables whose choice waits for its runs: their published Records, and the preset, have the former recipe.
WAITING: tuple[str, ...] = ()


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


@dataclass(frozen=True)
class Try:
    """One run of a search, without its weights.

    Attributes:
        round, candidate: which candidate's, in which round.
        model, sigma: the cell of the table.
        iterations: its length.
        error: on the validation set; None if the run diverged.
        interval: 95 %, over the validation items; None if the run diverged.
        seconds: of training.
        key: of its Record.
    """

    round: int
    candidate: Candidate
    model: str
    sigma: float
    iterations: int
    error: float | None
    interval: tuple[float, float] | None
    seconds: float
    key: str

    @classmethod
    def of(cls, round_: int, candidate: Candidate, record: Record) -> Try:
        """What is kept of a Record."""
        spec, done = record.spec, record.status == "finished"
        assert isinstance(spec, Spec)
        interval = tuple(record.metrics["interval"]) if done else None
        seconds = float(record.provenance.get("training_seconds", 0.0))
        error = record.test_error if done else None
        cell = (spec.model, spec.sigma, spec.iterations)
        return cls(round_, candidate, *cell, error, interval, seconds, spec.key)


@dataclass(frozen=True)
class SearchOutcome:
    """All that a search has tried, from which its choice follows.

    Attributes:
        space: what was tried.
        tries: its runs.
    """

    space: Space
    tries: tuple[Try, ...]

    def scores(self, round_: int) -> dict[Candidate, float]:
        """Of the candidates that a round has tried on every row, see :func:`score`."""
        errors: dict[Candidate, list[float | None]] = {}
        whole = self.space.candidates() if round_ == 1 else self.kept
        for t in self.tries:
            if t.round == round_ and t.candidate in whole:
                errors.setdefault(t.candidate, []).append(t.error)
        return score(errors)

    @property
    def kept(self) -> list[Candidate]:
        """Those that went on to the second round, the best of the first round first."""
        if self.space.single:
            return self.space.candidates()
        scores = self.scores(1)
        return sorted(scores, key=lambda c: scores[c])[: self.space.kept]

    @property
    def favorites(self) -> dict[tuple[str, float], Candidate]:
        """The best candidate of each cell in the first round, among equals one that went on."""
        best: dict[tuple[str, float], Try] = {}
        first, kept = [t for t in self.tries if t.round == 1 and t.error is not None], self.kept
        for t in sorted(first, key=lambda t: t.candidate not in kept):
            rival = best.setdefault((t.model, t.sigma), t)
            if rival.error is not None and t.error is not None and t.error < rival.error:
                best[t.model, t.sigma] = t
        return {cell: t.candidate for cell, t in best.items()}

    def plan(self, round_: int) -> list[tuple[Candidate, Spec]]:
        """The runs of a round: every cell for each of its candidates, in the second also its favorite."""
        if round_ == 1 and self.space.single:
            return []
        candidates = self.space.candidates() if round_ == 1 else self.kept
        planned = [(c, spec) for c in candidates for spec in runs(self.space, c, round_)]
        for cell, own in self.favorites.items() if round_ == 2 else ():
            if own not in candidates:
                planned += [(own, s) for s in runs(self.space, own, 2) if (s.model, s.sigma) == cell]
        return planned

    @property
    def chosen(self) -> Candidate:
        """The best of the second round."""
        scores = self.scores(2)
        return min(scores, key=lambda c: scores[c])

    def exceptions(self) -> dict[tuple[str, float], Candidate]:
        """Cells for which another candidate of the second round is better beyond doubt.

        Beyond doubt means that the two intervals do not overlap, or that the chosen candidate diverged.
        """
        second = [t for t in self.tries if t.round == 2]
        mine = {(t.model, t.sigma): t for t in second if t.candidate == self.chosen}
        found: dict[tuple[str, float], Try] = {}
        for t in (t for t in second if t.error is not None):
            cell = (t.model, t.sigma)
            rival = found.get(cell, mine[cell])
            if rival.error is None or t.error < rival.error:  # type: ignore[operator]
                found[cell] = t
        return {cell: t.candidate for cell, t in found.items() if _beyond_doubt(t, mine[cell])}


def _beyond_doubt(better: Try, worse: Try) -> bool:
    return worse.interval is None or (better.interval is not None and better.interval[1] < worse.interval[0])


def score(errors: Mapping[Candidate, Sequence[float | None]]) -> dict[Candidate, float]:
    """Error relative to the best candidate's on the same row, in the geometric mean over the rows.

    Args:
        errors: of each candidate, one for each row in the same order; None for a run that diverged.

    Returns:
        1 for a candidate that is the best on every row; the larger the worse.
    """
    rows = list(zip(*errors.values(), strict=True))
    logs: dict[Candidate, list[float]] = {c: [] for c in errors}
    for row in rows:
        best = min((e for e in row if e is not None), default=math.nan)
        for candidate, error in zip(errors, row, strict=True):
            relative = DIVERGED if error is None else max(error, 1e-9) / max(best, 1e-9)
            logs[candidate].append(math.log(min(relative, DIVERGED)))
    return {candidate: math.exp(fmean(values)) for candidate, values in logs.items()}


def conduct(
    space: Space, records: Records, execution: Execution | None = None, known: Iterable[Try] = ()
) -> SearchOutcome:
    """Run a search, or go on with it.

    Args:
        space: what is tried.
        records: where its runs are kept, so that it can be stopped at any time.
        execution: where and how it runs.
        known: runs that need not be made again, such as those of an unfinished outcome from elsewhere.
    """
    known = list(known)
    for round_ in (1, 2):
        done = {t.key for t in known}
        plan = so_far(space, records, known).plan(round_)
        ensure([spec for _, spec in plan if spec.key not in done], records, execution)
    return so_far(space, records, known)


def so_far(space: Space, records: Records, known: Iterable[Try] = ()) -> SearchOutcome:
    """What there is of a search, finished or not, in its order; nothing is run.

    The second round has no place before the first is complete.
    """
    by_key, found = {t.key: t for t in known}, SearchOutcome(space, ())
    for round_ in (1, 2):
        plan = found.plan(round_)
        tries = (_done(round_, c, spec, records, by_key) for c, spec in plan)
        found = SearchOutcome(space, found.tries + tuple(t for t in tries if t))
        if round_ == 1 and len(found.tries) < len(plan):
            break
    return found


def _done(
    round_: int, candidate: Candidate, spec: Spec, records: Records, known: Mapping[str, Try]
) -> Try | None:
    if spec.key in known:
        return known[spec.key]
    record = records.find(spec)
    return None if record is None else Try.of(round_, candidate, record)


def save_outcome(outcome: SearchOutcome, path: Path) -> None:
    """Write a search's outcome as JSON."""
    space = asdict(outcome.space)
    tries = [asdict(t) | {"candidate": dict(t.candidate)} for t in outcome.tries]
    rows = ",\n  ".join(json.dumps(t) for t in tries)
    write_atomic(path, f'{{"space": {json.dumps(space)},\n "tries": [\n  {rows}]}}\n')


def load_outcome(path: Path) -> SearchOutcome:
    """The inverse of :func:`save_outcome`."""
    content = json.loads(path.read_text(encoding="utf-8"))
    space = content["space"]
    values = {name: tuple(found) for name, found in space["values"].items()}
    read = Space(space["experiment"], values, space["kept"], tuple(space["shares"]))
    return SearchOutcome(read, tuple(map(_try, content["tries"])))


def _try(values: dict[str, Any]) -> Try:
    interval = values["interval"] and tuple(values["interval"])
    return Try(**values | {"candidate": tuple(values["candidate"].items()), "interval": interval})
