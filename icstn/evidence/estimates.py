"""Estimates: a number with its 95 % interval, and the mean error of a cell over its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from icstn.experiments.records import Record

#: Normal quantile of the intervals.
Z = 1.96


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes:
        value: the estimate.
        half: half the width of the interval.
    """

    value: float
    half: float

    @property
    def low(self) -> float:
        """Lower end."""
        return self.value - self.half

    @property
    def high(self) -> float:
        """Upper end."""
        return self.value + self.half

    def __sub__(self, other: Estimate) -> Estimate:
        return Estimate(self.value - other.value, math.hypot(self.half, other.half))

    def show(self, digits: int = 2) -> str:
        """``1.23 [1.10, 1.36]``."""
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def mean_error(runs: Sequence[Record], metric: str = "test_error") -> Estimate:
    """Mean over seeds; the interval joins the spread over seeds with that over test items.

    The test items are the same for every seed, so their part does not shrink with the number of seeds. It
    ignores that two models meet the same perturbations, which makes the interval of a difference too wide
    rather than too narrow.
    """
    values = [float(r.metrics[metric]) for r in runs]
    items = fmean((r.metrics["interval"][1] - r.metrics["interval"][0]) / 2 for r in runs)
    seeds = Z * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return Estimate(fmean(values), math.hypot(items, seeds))
