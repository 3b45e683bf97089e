"""Learning curves: how the training error falls with iterations and with processor time, preset by preset."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from icstn.evidence.collection import finished, median_run
from icstn.experiments.records import Record

#: A curve has so many points at most; each is the mean over a stretch of training.
POINTS = 40


@dataclass(frozen=True)
class LearningCurve:
    """Training error of one run, in the unit of its table.

    Attributes:
        iterations: at the end of each stretch that is averaged.
        error: mean training error over the stretch.
        minutes: processor time until then; NaN throughout where it was not counted.
    """

    iterations: np.ndarray
    error: np.ndarray
    minutes: np.ndarray

    def reaches(self, error: float) -> int | None:
        """After how many iterations the training error is at most so large, or None."""
        low = np.flatnonzero(self.error <= error)
        return int(self.iterations[low[0]]) if len(low) else None


def learning_curves(records: Iterable[Record]) -> dict[str, dict[str, LearningCurve]]:
    """Model → preset → curve of the median seed's run, of the runs that finished on the real data."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for r in finished(records):
        groups.setdefault((r.spec.model, r.spec.preset), []).append(r)
    found: dict[str, dict[str, LearningCurve]] = {}
    for (model, preset), runs in groups.items():
        found.setdefault(model, {})[preset] = learning_curve(median_run(runs))
    return found


def learning_curve(run: Record) -> LearningCurve:
    """The curve of a run, in stretches that grow in proportion to what lies before them."""
    steps, errors = (np.array(run.curve[name], dtype=float) for name in ("step", "error"))
    ends = np.unique(np.geomspace(1, len(steps), POINTS).round().astype(int))
    means = np.array([part.mean() for part in np.split(errors, ends[:-1])])
    iterations = steps[ends - 1]
    seconds = run.provenance.get("training_cpu_seconds", math.nan)
    return LearningCurve(iterations, means, iterations / steps[-1] * seconds / 60)
