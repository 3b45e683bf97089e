"""Records by cell: which runs stand behind a number, at which preset, and what was measured of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from icstn.evidence.estimates import Estimate, mean_error
from icstn.experiments.experiment import EXPERIMENTS
from icstn.experiments.recipes import cells, is_own
from icstn.experiments.records import Record

#: Presets from which evidence is taken, the best first.
PREFERRED = ("full", "paper", "quick")


class MissingError(LookupError):
    """Records or measurements that a claim needs are not there; the message lists them."""


class Evidence:
    """Records by cell, and measurements.

    Args:
        records: any Records; those of stand-in data and diverged ones are left out.
        measurements: content of the measurements' file.
        presets: from which evidence may be taken, the best first.
    """

    def __init__(
        self,
        records: Iterable[Record],
        measurements: dict[str, dict[str, Any]] | None = None,
        presets: Sequence[str] = PREFERRED,
    ) -> None:
        self.records = [r for r in records if not r.stand_in]
        self.measurements = measurements or {}
        self.presets = tuple(presets)
        self.used: set[str] = set()

    def runs(
        self, experiment: str, model: str, preset: str, sigma: float | None = None, **changes: Any
    ) -> list[Record]:
        """Finished Records of a cell, by seed.

        Raises:
            MissingError: there is none.
        """
        wanted = [s for s in cells(experiment, preset, models=[model]) if sigma is None or s.sigma == sigma]
        wanted = [replace(s, **changes) for s in wanted]
        found = [r for r in self.records if replace(r.spec, seed=0) in wanted and r.status == "finished"]
        if not found:
            extra = "".join(f", {name}={value}" for name, value in changes.items())
            raise MissingError(f"{model}{'' if sigma is None else f' σ={sigma:g}'}{extra} at {preset}")
        self.used |= {r.spec.key for r in found}
        return sorted(found, key=lambda r: r.spec.seed)

    def preset(self, experiment: str, models: Sequence[str], **changes: Any) -> str:
        """The best preset that has all of these models (at every σ).

        Raises:
            MissingError: none has; the message lists what the one with most lacks.
        """
        lacking = {preset: self._lacking(experiment, models, preset, changes) for preset in self.presets}
        best = min(self.presets, key=lambda p: len(lacking[p]))
        if lacking[best]:
            raise MissingError(_listed(lacking[best]))
        return next(p for p in self.presets if not lacking[p])

    def _lacking(
        self, experiment: str, models: Sequence[str], preset: str, changes: dict[str, Any]
    ) -> list[str]:
        missing = []
        for model in models:
            for sigma in EXPERIMENTS[experiment].sigmas:
                try:
                    self.runs(experiment, model, preset, sigma, **changes)
                except MissingError as error:
                    missing.append(str(error))
        return missing

    def error(
        self, experiment: str, model: str, preset: str, sigma: float | None = None, **changes: Any
    ) -> Estimate:
        """Test error of a cell."""
        return mean_error(self.runs(experiment, model, preset, sigma, **changes))

    def measured(self, experiment: str, model: str, preset: str) -> dict[str, Any]:
        """Measurements of the cell's first seed.

        Raises:
            MissingError: it was not measured, or its Record has changed since.
        """
        record = self.runs(experiment, model, preset)[0]
        found = self.measurements.get(record.spec.key)
        if found is None or found["of"] != identity(record):
            raise MissingError(f"measurements of {model} at {preset} (python -m tools.ledgers --measure)")
        return found


def best_runs(records: Iterable[Record], experiment: str, presets: Sequence[str] = PREFERRED) -> list[Record]:
    """The table's own runs (no variation, no stand-in data) at the preset with most cells, the best first."""
    own = [r for r in records if r.spec.experiment == experiment and not r.stand_in]
    own = [r for r in own if r.spec.model in r.spec.about.rows and is_own(r.spec)]
    groups = {p: [r for r in own if r.spec.preset == p] for p in presets}
    return max(groups.values(), key=lambda runs: len({(r.spec.model, r.spec.sigma) for r in runs}))


def one(records: Iterable[Record], model: str) -> Record:
    """The finished Record of a model with the least seed.

    Raises:
        MissingError: there is none.
    """
    runs = [r for r in records if r.spec.model == model and r.status == "finished"]
    if not runs:
        raise MissingError(
            f"there is no finished run of {model} to draw; train it with another seed or preset"
        )
    return min(runs, key=lambda r: r.spec.seed)


def identity(record: Record) -> str:
    """Digest of a Record's spec and metrics."""
    text = record.spec.json() + json.dumps(record.metrics, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _listed(items: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(items[:most])
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")
