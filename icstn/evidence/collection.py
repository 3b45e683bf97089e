"""Records by cell: which runs stand behind a number, at which preset, and what was measured of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from icstn.evidence.estimates import Estimate, Measured, difference, mean_error
from icstn.experiments.experiment import EXPERIMENTS
from icstn.experiments.recipes import cells, is_own
from icstn.experiments.records import Record
from icstn.experiments.spec import RunSpec

T = TypeVar("T")

#: Presets from which evidence is taken, the best first.
PREFERRED = ("full", "paper", "quick")


class MissingError(LookupError):
    """Records or measurements that a claim needs are not there; the message lists them."""


@dataclass(frozen=True)
class Measurements:
    """What was measured of a Record.

    Attributes:
        of: :func:`identity` of the Record.
        items: number of test images.
        measures: name → value over all test images.
        by_class: name → value for each class.
    """

    of: str
    items: int
    measures: Mapping[str, Measured]
    by_class: Mapping[str, Sequence[Measured]]

    def __getitem__(self, name: str) -> Measured:
        return self.measures[name]


@dataclass(frozen=True)
class Cell:
    """The runs behind one number.

    Attributes:
        name: for people, such as ``IC-STN-4 σ = 5``.
        runs: finished Records that differ in nothing but their seed, by seed.
    """

    name: str
    runs: tuple[Record, ...] = field(repr=False)

    @property
    def error(self) -> Estimate:
        """Mean test error."""
        return mean_error(self.runs)

    @property
    def preset(self) -> str:
        """Of the runs."""
        return self.runs[0].spec.preset

    @property
    def capacity(self) -> int:
        """Learnable parameters, counted in the weights."""
        return sum(w.numel() for w in self.runs[0].weights.values())

    def __sub__(self, other: Cell) -> Estimate:
        """Difference of the test errors, paired where the Records allow it."""
        return difference(self.runs, other.runs)


class Evidence:
    """Records by cell, and measurements.

    Args:
        records: any Records; those of stand-in data are left out, and diverged ones kept apart.
        measurements: key of a Record → what was measured of it.
        presets: from which evidence may be taken, the best first.
    """

    def __init__(
        self,
        records: Iterable[Record],
        measurements: Mapping[str, Measurements] | None = None,
        presets: Sequence[str] = PREFERRED,
    ) -> None:
        records = list(records)
        self.records = finished(records)
        self.diverged = [r for r in records if r.status == "diverged" and not r.stand_in]
        self.measurements = measurements or {}
        self.presets = tuple(presets)
        self._runs: dict[RunSpec, list[Record]] = {}
        for record in sorted(self.records, key=lambda r: r.spec.seed):
            self._runs.setdefault(replace(record.spec, seed=0), []).append(record)
        self._cells: dict[tuple[str, str, str], list[RunSpec]] = {}
        self._findings: dict[Callable[[Evidence], Any], Any] = {}

    def once(self, test: Callable[[Evidence], T]) -> T:
        """What a test finds in this evidence, computed once.

        Raises:
            MissingError: what it needs is not there.
        """
        if test not in self._findings:
            try:
                self._findings[test] = test(self)
            except MissingError as error:
                self._findings[test] = error
        if isinstance(found := self._findings[test], MissingError):
            raise found
        return cast("T", found)

    def cell(
        self, experiment: str, model: str, preset: str, sigma: float | None = None, /, **changes: Any
    ) -> Cell:
        """The finished runs of a cell, or with changes of fields of its Spec those of a variation.

        Raises:
            MissingError: there is none.
        """
        name = model + ("" if sigma is None else f" σ = {sigma:g}")
        name += "".join(f", {key}={value}" for key, value in changes.items())
        key = (experiment, preset, model)
        if key not in self._cells:
            self._cells[key] = cells(experiment, preset, models=[model])
        wanted = [s for s in self._cells[key] if sigma is None or s.sigma == sigma]
        found = [r for s in wanted for r in self._runs.get(replace(s, **changes), ())]
        if not found:
            raise MissingError(f"{name} at {preset}")
        return Cell(name, tuple(sorted(found, key=lambda r: r.spec.seed)))

    def preset(self, experiment: str, models: Sequence[str], **changes: Any) -> str:
        """The best preset that has all of these models (at every σ).

        Raises:
            MissingError: none has; the message lists what the one with most lacks.
        """
        lacking = {preset: self._lacking(experiment, models, preset, changes) for preset in self.presets}
        best = min(self.presets, key=lambda p: len(lacking[p]))
        if lacking[best]:
            raise MissingError(_listed(lacking[best]))
        return best

    def _lacking(
        self, experiment: str, models: Sequence[str], preset: str, changes: dict[str, Any]
    ) -> list[str]:
        about, missing = EXPERIMENTS[experiment], []
        for model in models:
            for sigma in about.sigmas if about.by_sigma else (None,):
                try:
                    self.cell(experiment, model, preset, sigma, **changes)
                except MissingError as error:
                    missing.append(str(error))
        return missing

    def cells(self, experiment: str, models: Sequence[str], sigma: float | None = None) -> list[Cell]:
        """The models' cells at the best preset that has them all.

        Raises:
            MissingError: as :meth:`preset`.
        """
        preset = self.preset(experiment, models)
        return [self.cell(experiment, model, preset, sigma) for model in models]

    def best_cell(self, experiment: str, model: str, sigma: float | None = None) -> Cell:
        """The cell at the best preset that has it.

        Raises:
            MissingError: there is no run of it.
        """
        for preset in self.presets:
            with contextlib.suppress(MissingError):
                return self.cell(experiment, model, preset, sigma)
        raise MissingError(f"a run of {model} in {experiment}")

    def measured(self, cell: Cell) -> Measurements:
        """Measurements of the cell, the means over its seeds.

        Raises:
            MissingError: a run was not measured, or its Record has changed since.
        """
        found = [self.measurements.get(record.spec.key) for record in cell.runs]
        fresh = [m for m, r in zip(found, cell.runs, strict=True) if m and m.of == identity(r)]
        if len(fresh) < len(cell.runs):
            raise MissingError(f"measurements of {cell.name} at {cell.preset}")
        return _mean(fresh)


def _mean(runs: Sequence[Measurements]) -> Measurements:
    first, model = runs[0], tuple(run.of for run in runs)

    def mean(of: Sequence[Measured]) -> Measured:
        return Measured.over_seeds(of, model)

    return Measurements(
        first.of,
        first.items,
        {name: mean([run[name] for run in runs]) for name in first.measures},
        {
            name: [mean(of) for of in zip(*(run.by_class[name] for run in runs), strict=True)]
            for name in first.by_class
        },
    )


def finished(records: Iterable[Record]) -> list[Record]:
    """The Records whose numbers count: runs on the real data that did not diverge."""
    return [r for r in records if r.status == "finished" and not r.stand_in]


def best_runs(records: Iterable[Record], experiment: str, presets: Sequence[str] = PREFERRED) -> list[Record]:
    """The table's own runs (no variation, no stand-in data) at the preset with most cells, the best first."""
    own = [r for r in records if r.spec.experiment == experiment and not r.stand_in]
    own = [r for r in own if r.spec.model in r.spec.about.rows and is_own(r.spec)]
    groups = {p: [r for r in own if r.spec.preset == p] for p in presets}
    return max(groups.values(), key=lambda runs: len({(r.spec.model, r.spec.sigma) for r in runs}))


def one(records: Iterable[Record], model: str) -> Record:
    """The finished Record of a model that is drawn or shown where there is room for one: the median seed's.

    Raises:
        MissingError: there is none.
    """
    runs = [r for r in records if r.spec.model == model and r.status == "finished"]
    if not runs:
        raise MissingError(
            f"there is no finished run of {model} to draw; train it with another seed or preset"
        )
    return median_run(runs)


def median_run(runs: Iterable[Record]) -> Record:
    """Of runs that differ in their seed, the one with the median test error (of two, the lower one)."""
    ordered = sorted(runs, key=lambda r: (r.test_error, r.spec.seed))
    return ordered[(len(ordered) - 1) // 2]


def identity(record: Record) -> str:
    """Digest of a Record's spec and metrics."""
    text = record.spec.digest + json.dumps(record.metrics, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _listed(items: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(items[:most])
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")
