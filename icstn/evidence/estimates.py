"""Estimates: the mean error of a cell and the difference of two cells, each with its 95 % interval.

Two things are sampled in a test error: the *test items* and the *seeds* of the training. All models of a
table meet the same items under the same draws, so a difference is taken item by item (:func:`difference`).
Its spread comes from a two-level bootstrap: each replicate draws the seeds of either model and the items with
replacement, an item with all its draws, and the same items for both models. Of S seeds a replicate draws
S − 1, which makes the spread that of the mean of S (Rao & Wu, 1988; the plain bootstrap's is too small by
the factor √((S − 1)/S)). The interval is Student's, with Satterthwaite's degrees of freedom: a
spread that comes from three seeds is itself not well known.

With one seed nothing can be said about other seeds: the interval then covers the test items only, and
:func:`coverage` says so.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from statistics import fmean, variance

import torch
from torch import Tensor

from icstn.experiments.records import Record

#: Normal quantile of the intervals, as the Records have it.
Z = 1.96

#: Bootstrap replicates, and how many are weighted at once.
REPLICATES, CHUNK = 2000, 250


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error.

    Attributes:
        value: the estimate.
        error: its standard error.
        freedom: degrees of freedom of the standard error; infinite where it counts as known.
        remark: what a reader of the interval has to know, often empty.
        of_seeds: the part of the squared standard error that comes from the seeds.
        seeds: how many seeds are behind it, of the model that has fewest.
        least, most: what the number can't be below, such as 0 for an error, or above, such as all of it for a
            share; the interval ends there.
    """

    value: float
    error: float
    freedom: float = math.inf
    remark: str = ""
    of_seeds: float = 0.0
    seeds: int = 1
    least: float = -math.inf
    most: float = math.inf

    @property
    def half(self) -> float:
        """Half the width of the 95 % interval."""
        return self.error * quantile(self.freedom) if self.error else 0.0

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return max(self.least, self.value - self.half)

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return min(self.most, self.value + self.half)

    def p_value(self, threshold: float = 0.0) -> float:
        """Two-sided p-value of the hypothesis that the true value is the threshold."""
        if self.error == 0:
            return float(self.value == threshold)
        from scipy.special import stdtr

        return float(2 * stdtr(min(self.freedom, 1e12), -abs(self.value - threshold) / self.error))

    def needed(self, threshold: float = 0.0, size: float = 0.05) -> int | None:
        """How many seeds a model would make a test of the threshold reject, if the value stayed as it is.

        The part of the spread that comes from the test items does not shrink. None where it alone leaves the
        threshold open, or where one seed tells nothing of the others.

        Args:
            threshold: the value in question.
            size: of the two-sided test; with 0.05 the threshold leaves the 95 % interval.
        """
        from scipy.special import ndtri

        room = ((self.value - threshold) / ndtri(1 - size / 2)) ** 2 - max(0.0, self.error**2 - self.of_seeds)
        if self.seeds < 2 or room <= 0:
            return None
        n = max(self.seeds, math.ceil(self.of_seeds * self.seeds / room))  # as if spreads were known
        while n < 1000 and self._with_seeds(n).p_value(threshold) > size:
            n += 1
        return n

    def _with_seeds(self, n: int) -> Estimate:
        """As ``n`` seeds a model would leave it that spread as these do: Student's quantile falls, too."""
        of_seeds = self.of_seeds * self.seeds / n
        spread = max(0.0, self.error**2 - self.of_seeds) + of_seeds
        doubt = self.error**4 / self.freedom * (self.seeds / n) ** 2 * (self.seeds - 1) / (n - 1)
        return Estimate(self.value, math.sqrt(spread), spread**2 / doubt if doubt else math.inf)

    def __neg__(self) -> Estimate:
        return replace(self, value=-self.value, least=-self.most, most=-self.least)

    def decimals(self, least: int = 2) -> int:
        """How many decimals show it: more than the least where interval or value is small."""
        digits = max(least, -math.floor(math.log10(self.half))) if self.half else least
        return digits + (0 < abs(self.value) < 0.5 * 10**-digits)

    def show(self, digits: int = 2, unit: str = "") -> str:
        """``1.23 [1.10, 1.36] px``, and the remark; more decimals where interval or value is small."""
        digits = self.decimals(digits)
        interval = f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"
        remark = f"({self.remark})" if self.remark else ""
        return " ".join(filter(None, (minus(interval), unit, remark)))


@dataclass(frozen=True)
class Measured:
    """A number that is not a mean over test images, such as the sharpness of class means.

    Attributes:
        value: from all test images.
        left_out: from all but each of a few groups of them, the same groups for all models.
        by_seed: the part of each model in it, the value of each seed's run: what is taken of one model twice,
            such as its error after four operations and after twelve, is compared run by run.
    """

    value: float
    left_out: tuple[float, ...]
    by_seed: Mapping[Hashable, tuple[float, ...]] = field(default_factory=dict)

    @classmethod
    def over_seeds(cls, runs: Sequence[Measured], model: Hashable) -> Measured:
        """The mean over the seeds of a model."""
        left_out = tuple(map(fmean, zip(*(run.left_out for run in runs), strict=True)))
        values = tuple(run.value for run in runs)
        return cls(fmean(values), left_out, {model: values})

    def __sub__(self, other: Measured) -> Measured:
        """The difference on the same images, group by group, and run by run of a model that both are of."""
        left_out = _apart(self.left_out, other.left_out)
        negative = {model: tuple(-x for x in values) for model, values in other.by_seed.items()}
        shared = {
            model: _apart(values, other.by_seed[model])
            for model, values in self.by_seed.items()
            if model in other.by_seed
        }
        return Measured(self.value - other.value, left_out, {**self.by_seed, **negative, **shared})

    def __truediv__(self, other: Measured) -> Measured:
        """The ratio on the same images; what the seeds do to it is to first order."""
        ratio = self.value / other.value
        left_out = tuple(a / b for a, b in zip(self.left_out, other.left_out, strict=True))
        by_seed = (self - other.scaled(ratio)).scaled(1 / other.value).by_seed
        return Measured(ratio, left_out, by_seed)

    def scaled(self, factor: float) -> Measured:
        """In another unit."""
        left_out = tuple(factor * x for x in self.left_out)
        by_seed = {model: tuple(factor * x for x in values) for model, values in self.by_seed.items()}
        return Measured(factor * self.value, left_out, by_seed)

    @property
    def estimate(self) -> Estimate:
        """With the standard error of the delete-a-group jackknife, joined with that over seeds."""
        groups = len(self.left_out)
        seeds = [_of_seeds(values) for values in self.by_seed.values()]
        parts = [((groups - 1) ** 2 / groups * variance(self.left_out), groups - 1.0), *seeds]
        spread = sum(part for part, _ in parts)
        return Estimate(self.value, math.sqrt(spread), _freedom(spread, parts), "", *_seeds(seeds))


def _apart(a: Sequence[float], b: Sequence[float]) -> tuple[float, ...]:
    return tuple(x - y for x, y in zip(a, b, strict=True))


#: What is said of a difference whose Records lack the outcomes of single items.
UNPAIRED = "unpaired"


def quantile(freedom: float) -> float:
    """Student's 97.5 % quantile."""
    if math.isinf(freedom):
        return Z
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def mean_error(runs: Sequence[Record]) -> Estimate:
    """Mean test error over seeds; the interval joins the spread over seeds with that over test items.

    The test items are the same for every seed, so their part does not shrink with the number of seeds. No
    error is negative: Student's interval of a small one, or from two seeds, is cut off at 0.
    """
    found = over_seeds([r.test_error for r in runs], [r.metrics["interval"] for r in runs])
    return replace(found, least=0.0)


def over_seeds(values: Sequence[float], intervals: Sequence[Sequence[float]]) -> Estimate:
    """Mean of one number a seed, from its own value and 95 % interval over the test items in each."""
    items = fmean((interval[1] - value) / Z for value, interval in zip(values, intervals, strict=True))
    seeds = _of_seeds(values)
    spread = items**2 + seeds[0]
    return Estimate(fmean(values), math.sqrt(spread), _freedom(spread, [seeds]), "", *_seeds([seeds]))


def difference(a: Sequence[Record], b: Sequence[Record], factor: float = 1.0) -> Estimate:
    """Mean test error of one cell minus that of another, item by item.

    Args:
        a, b: Records of two cells that meet the same test items under the same draws, one for each seed.
        factor: of the first.

    Returns:
        the paired difference, of percentages no more than 100 points; where Records lack the outcomes of
        single items, or have not the same items, the difference of two independent means, with the remark
        :data:`UNPAIRED`.
    """
    first, second = _by_item(a), _by_item(b)
    if first is None or second is None or first.shape[1] != second.shape[1]:
        return independent(mean_error(a), mean_error(b), factor)
    found = paired(first, second, factor)
    return replace(found, least=-100.0, most=100.0) if a[0].outcomes.dtype == torch.bool else found


def paired(a: Tensor, b: Tensor, factor: float = 1.0) -> Estimate:
    """``factor`` · mean of a − mean of b, whose columns are the same test items.

    Args:
        a, b: error of each item, averaged over its draws, ``(seeds, items)``, float64.
        factor: of the first.
    """
    one, other = (x.numpy().tobytes() for x in (a, b))
    streams = (1, 2) if one <= other else (2, 1)  # of the cells, not their order: a − b is −(b − a)
    replicates = [_resampled(x, stream) for x, stream in zip((a, b), streams, strict=True)]
    spread = float((factor * replicates[0] - replicates[1]).var())
    seeds = [_of_seeds(x.tolist()) for x in (factor * a.mean(1), b.mean(1))]
    value, freedom = float(factor * a.mean() - b.mean()), _freedom(spread, seeds)
    return Estimate(value, math.sqrt(spread), freedom, "", *_seeds(seeds))


def log_ratio(a: Sequence[Record], b: Sequence[Record]) -> Estimate:
    """Logarithm of the errors of one cell over those of another, each the geometric mean over its seeds.

    For cells whose seeds differ by factors: a run that ended far off makes such a mean and its spread larger,
    but does not make them up. What the test items add is to first order, as if the cells had none in common.
    """
    return replace(independent(_log_error(a), _log_error(b)), remark="")


def _log_error(runs: Sequence[Record]) -> Estimate:
    errors, intervals = [max(r.test_error, 1e-9) for r in runs], [r.metrics["interval"] for r in runs]
    ends = [(0.0, math.log(e) + (high - e) / e) for e, (_, high) in zip(errors, intervals, strict=True)]
    return over_seeds([math.log(e) for e in errors], ends)


def coverage(seeds: Iterable[int]) -> str:
    """What intervals cover, from how many seeds their cells have.

    Example:
        >>> coverage([1, 1])
        'one seed: the interval covers the test items only'
    """
    low, high = min(found := list(seeds)), max(found)
    if high == 1:
        return "one seed: the interval covers the test items only"
    if low == 1:
        return f"1 to {high} seeds: the interval covers the test items, and seeds where there are several"
    count = f"{low}" if low == high else f"{low} to {high}"
    return f"{count} seeds: the interval covers test items and seeds"


def _by_item(runs: Sequence[Record]) -> Tensor | None:
    """Error of each test item, ``(seeds, items)``, in the unit of the table; None where a Record has none."""
    if any(r.outcomes.numel() == 0 for r in runs) or len({r.outcomes.shape for r in runs}) != 1:
        return None
    scale = 100 if runs[0].outcomes.dtype == torch.bool else 1
    return torch.stack([r.outcomes.double().mean(0) for r in runs]) * scale


def independent(a: Estimate, b: Estimate, factor: float = 1.0) -> Estimate:
    """``factor`` · a − b as if the two had nothing in common, with the remark :data:`UNPAIRED`."""
    parts = [((factor * a.error) ** 2, a.freedom), (b.error**2, b.freedom)]
    spread, of_seeds = sum(part for part, _ in parts), factor**2 * a.of_seeds + b.of_seeds
    freedom, seeds = _freedom(spread, parts), min(a.seeds, b.seeds)
    return Estimate(factor * a.value - b.value, math.sqrt(spread), freedom, UNPAIRED, of_seeds, seeds)


def _of_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Variance of the mean over seeds, and its degrees of freedom."""
    if len(values) < 2:
        return 0.0, math.inf
    return variance(values) / len(values), len(values) - 1.0


def _seeds(parts: Sequence[tuple[float, float]]) -> tuple[float, int]:
    """What :func:`_of_seeds` found of some models, as an :class:`Estimate` has it."""
    counts = [1 if math.isinf(freedom) else round(freedom) + 1 for _, freedom in parts]
    return sum(part for part, _ in parts), min(counts, default=1)


def _freedom(spread: float, parts: Iterable[tuple[float, float]]) -> float:
    """Satterthwaite's degrees of freedom of a variance, from its uncertain parts."""
    doubt = sum(part**2 / freedom for part, freedom in parts)
    return spread**2 / doubt if doubt else math.inf


def _resampled(errors: Tensor, stream: int) -> Tensor:
    """Bootstrap replicates of the mean of ``(seeds, items)``: items as for all, seeds of a stream's own."""
    by_seed = torch.stack([_replicates(run.numpy().tobytes()) for run in errors], 1)
    if (seeds := errors.shape[0]) == 1:
        return by_seed[:, 0]
    generator = torch.Generator().manual_seed(stream)
    drawn = torch.randint(seeds, (REPLICATES, seeds - 1), generator=generator)
    return by_seed.gather(1, drawn).mean(1)


@lru_cache(maxsize=256)
def _replicates(errors: bytes) -> Tensor:
    """Replicates of the mean of one run's items, float64: a run stands in many comparisons."""
    run = torch.frombuffer(bytearray(errors), dtype=torch.float64)
    return torch.cat([part.double() @ run for part in item_counts(len(run)).split(CHUNK)]) / len(run)


@lru_cache(maxsize=4)
def item_counts(items: int) -> Tensor:
    """How often each item is drawn in each replicate, ``(REPLICATES, items)`` uint8; always the same."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.empty(REPLICATES, items, dtype=torch.uint8)
    for rows in counts.split(CHUNK):
        drawn = torch.randint(items, (len(rows), items), generator=generator)
        drawn += items * torch.arange(len(rows))[:, None]
        rows.copy_(torch.bincount(drawn.flatten(), minlength=rows.numel()).view_as(rows))
    return counts


def significant(value: float, digits: int = 3) -> str:
    """A number to so many significant digits, without a power of ten from a millionth to 1000.

    Example:
        >>> [significant(x) for x in (11.941, -0.3704, 0.0000768, 123456.0)]
        ['11.9', '−0.370', '0.0000768', '1.23e+5']
    """
    if value == 0 or math.isnan(value):
        return f"{value:g}"
    if not 1e-6 <= abs(value) < 1e3:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        return f"{minus(mantissa)}e{int(power):+d}"
    exponent = math.floor(math.log10(abs(value)))
    return minus(f"{value:.{max(0, digits - 1 - exponent)}f}")


def minus(number: str) -> str:
    """A number, or several, with the sign of subtraction in place of the hyphen."""
    return number.replace("-", "−")


def percent(share: float, digits: int = 0) -> str:
    """A share in percent, ``12 %``."""
    return f"{share * 100:.{digits}f} %"
