"""Intervals: paired, over seeds and items, held against closed forms and against simulated truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from judged import made
from scipy import stats

from icstn.evidence import estimates
from icstn.evidence.estimates import (
    Estimate,
    Measured,
    coverage,
    difference,
    log_ratio,
    mean_error,
    over_seeds,
    paired,
)
from icstn.evidence.verdicts import times
from icstn.experiments import Record, cells

SPEC = cells("table_2", "quick", models=["STN(a)"])[0]


def record(outcomes: torch.Tensor, seed: int = 0, model: str = "STN(a)") -> Record:
    """A Record with these outcomes of its items, ``(draws, items)``."""
    spec = cells("table_2", "quick", (seed,), [model])[0]
    per_item = outcomes.double().mean(0) * (100 if outcomes.dtype == torch.bool else 1)
    error, half = float(per_item.mean()), 1.96 * float(per_item.std()) / math.sqrt(len(per_item))
    metrics = {"test_error": error, "interval": [max(0.0, error - half), error + half]}
    return Record(spec, "finished", metrics, {}, {}, {}, outcomes)


def correlated(generator: torch.Generator, items: int, rates: tuple[float, ...], draws: int = 2) -> list:
    """Whether models of these rates are wrong: an item that is hard is hard for all, under all draws."""
    hardness = torch.rand(items, generator=generator)
    flips = [0.1 * torch.rand(draws, items, generator=generator) for _ in rates]
    return [hardness + flip < rate for flip, rate in zip(flips, rates, strict=True)]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_seeds_are_counted(n: int) -> None:
    """By Records, and by measurements, where one is alone without any of the seeds' spread."""
    assert over_seeds([1.0, 1.2, 1.1, 1.4][:n], [(0.9, 1.2)] * n).seeds == n
    measured = [Measured(1.0 + k, (0.9 + k, 1.1 + k)) for k in range(n)]
    assert Measured.over_seeds(measured, "STN").estimate.seeds == n
    assert measured[0].estimate.seeds == 1


def test_significant_digits() -> None:
    assert [estimates.significant(x) for x in (123.4, 99.96, 0.0, 1000.0)] == ["123", "100.0", "0", "1.00e+3"]
    assert [estimates.significant(x) for x in (1e-6, 0.00075, -0.0005, 2.5e-7)] == [
        "0.00000100",
        "0.000750",
        "−0.000500",
        "2.50e-7",
    ]


class TestOneLevel:
    def test_is_the_closed_form_of_paired_items(self, generator: torch.Generator) -> None:
        a, b = correlated(generator, 3000, (0.2, 0.15))
        found = difference([record(a)], [record(b)])
        d = (a.double().mean(0) - b.double().mean(0)) * 100
        assert found.value == pytest.approx(float(d.mean()))
        assert found.error == pytest.approx(float(d.std()) / math.sqrt(len(d)), rel=0.05)
        assert found.freedom == math.inf
        assert found.remark == ""

    def test_is_narrower_than_the_unpaired_one(self, generator: torch.Generator) -> None:
        a, b = (record(x) for x in correlated(generator, 3000, (0.2, 0.15)))
        bare = [Record(r.spec, r.status, r.metrics, {}, {}) for r in (a, b)]
        loose = difference([bare[0]], [bare[1]])
        assert loose.remark == "unpaired"
        assert loose.value == pytest.approx(difference([a], [b]).value)
        assert difference([a], [b]).half < 0.6 * loose.half

    def test_all_draws_of_an_item_are_kept_together(self, generator: torch.Generator) -> None:
        once = torch.rand(1, 500, generator=generator) < 0.2
        zero = torch.zeros(1, 500, dtype=torch.bool)
        one = difference([record(once)], [record(zero)])
        ten = difference([record(once.expand(10, -1))], [record(zero.expand(10, -1))])
        assert ten.error == pytest.approx(one.error), "the same draw ten times tells nothing new"

    def test_other_items_cannot_be_paired(self, generator: torch.Generator) -> None:
        a, b = (torch.rand(1, n, generator=generator) < 0.2 for n in (500, 400))
        assert difference([record(a)], [record(b)]).remark == "unpaired"

    def test_a_model_does_not_differ_from_itself(self, generator: torch.Generator) -> None:
        a = record(torch.rand(1, 500, generator=generator) < 0.2)
        assert difference([a], [a]) == Estimate(0.0, 0.0, least=-100.0, most=100.0)

    def test_pixels_stay_pixels(self) -> None:
        a, b = record(torch.full((1, 50), 3.0)), record(torch.full((1, 50), 1.0))
        assert difference([a], [b]).value == 2.0

    def test_is_the_same_each_time(self, generator: torch.Generator) -> None:
        a, b = correlated(generator, 300, (0.2, 0.15))
        assert difference([record(a)], [record(b)]) == difference([record(a)], [record(b)])

    @pytest.mark.parametrize("factor", [0.25, 0.5, 1.0])
    def test_a_factor_is_the_first_ones(self, factor: float, generator: torch.Generator) -> None:
        """Value, spread over items and over seeds, in closed form; the two models err on the same items."""
        hardness = torch.randn(400, generator=generator, dtype=torch.float64)
        a, b = (hardness + torch.randn(3, 400, generator=generator) + shift for shift in (9.0, 2.0))
        a += torch.tensor([-0.5, 0.1, 0.8])[:, None]
        found = paired(a, b, factor)
        assert found.value == pytest.approx(float((factor * a - b).mean()))
        of_seeds = float((factor**2 * a.mean(1).var() + b.mean(1).var()) / 3)
        assert found.of_seeds == pytest.approx(of_seeds)
        one = paired(a[:1], b[:1], factor)
        assert one.error == pytest.approx(float((factor * a[0] - b[0]).var() / 400) ** 0.5, rel=0.06)
        assert one.value == pytest.approx(float((factor * a[0] - b[0]).mean()))

    def test_does_not_know_which_comes_first(self, generator: torch.Generator) -> None:
        """a − b is −(b − a), interval and all."""
        a, b = (torch.rand(n, 300, generator=generator, dtype=torch.float64) for n in (3, 5))
        assert (paired(a, b).error, paired(a, b).freedom) == (paired(b, a).error, paired(b, a).freedom)

    def test_of_percentages_has_an_end(self) -> None:
        never, always = torch.zeros(1, 2, dtype=torch.bool), torch.tensor([[True, False]])
        found = difference([record(always), record(always, 1)], [record(never), record(never, 1)])
        assert found.half > 50
        assert (found.low < 0, found.high) == (True, 100.0)
        assert ((-found).low, (-found).high) == (-100.0, -found.low)


class TestRatios:
    def runs(self, errors: list[float], half: float) -> list[Record]:
        return [made("table_2", "STN(a)", e, half=half * e, seed=k) for k, e in enumerate(errors)]

    def test_of_seeds_alone_it_is_welchs_test_of_the_logarithms(self) -> None:
        a, b = [24.8, 12.2, 88.7, 11.4, 12.6], [1.2, 1.3, 1.1, 1.2, 1.25]
        found = log_ratio(self.runs(a, 0.0), self.runs(b, 0.0))
        theirs = stats.ttest_ind(np.log(a), np.log(b), equal_var=False)
        assert found.value == pytest.approx(np.log(stats.gmean(a) / stats.gmean(b)))
        assert found.p_value() == pytest.approx(theirs.pvalue)
        assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval()))
        assert found.remark == ""

    def test_items_add_their_share(self) -> None:
        found = log_ratio(self.runs([8.0], 0.1), self.runs([2.0], 0.05))
        assert found.value == pytest.approx(math.log(4))
        assert found.half == pytest.approx(math.hypot(0.1, 0.05))

    def test_a_ratio_is_shown_as_one(self) -> None:
        found = times("STN over CNN", log_ratio(self.runs([8.0], 0.1), self.runs([2.0], 0.05)))
        assert (found.text, found.verdict) == ("STN over CNN: 4.0 [3.6, 4.5] times", "holds")
        assert times("x", Estimate(-1.0, 0.1)).verdict == "does not hold"
        assert times("x", Estimate(0.1, 0.1)).verdict == "undecided"


class TestTwoLevels:
    @pytest.mark.parametrize("seeds", [2, 3, 5])
    def test_spread_of_seeds_alone_is_that_of_their_mean(self, seeds: int) -> None:
        values = torch.arange(seeds, dtype=torch.float64)[:, None].expand(-1, 40)
        found = paired(values, torch.zeros(1, 40, dtype=torch.float64))
        assert found.error == pytest.approx(float(values[:, 0].std()) / math.sqrt(seeds), rel=0.05)
        assert found.freedom == pytest.approx(seeds - 1, rel=0.1)

    def test_seeds_of_two_models_are_drawn_apart(self) -> None:
        values = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64).expand(-1, 40)
        found = paired(values, values)
        assert found.error == pytest.approx(math.sqrt(2 / 3), rel=0.05)

    def test_covers_the_truth_as_often_as_it_says(self) -> None:
        """Models whose error differs from seed to seed, on items of which some are hard for all."""
        generator, hits, trials = torch.Generator().manual_seed(1), 0, 300
        for _ in range(trials):
            item = torch.randn(1, 60, generator=generator, dtype=torch.float64)
            a, b = (
                truth
                + 0.3 * torch.randn(4, 1, generator=generator, dtype=torch.float64)
                + item
                + 0.5 * torch.randn(4, 60, generator=generator, dtype=torch.float64)
                for truth in (1.0, 0.6)
            )
            found = paired(a, b)
            hits += found.low <= 0.4 <= found.high
        assert 0.92 <= hits / trials <= 0.985

    def test_without_the_level_of_seeds_it_would_not(self) -> None:
        """What an interval from one seed covers: what this seed does on all items, not the truth."""
        generator, hits, trials = torch.Generator().manual_seed(1), 0, 200
        for _ in range(trials):
            a, b = (
                truth
                + 0.3 * torch.randn(1, 1, generator=generator, dtype=torch.float64)
                + 0.5 * torch.randn(1, 60, generator=generator, dtype=torch.float64)
                for truth in (1.0, 0.6)
            )
            found = paired(a, b)
            hits += found.low <= 0.4 <= found.high
        assert hits / trials < 0.7

    def test_a_mean_joins_items_and_seeds(self, generator: torch.Generator) -> None:
        draws = [torch.rand(1, 4000, generator=generator) < rate for rate in (0.1, 0.3)]
        runs = [record(wrong, seed) for seed, wrong in enumerate(draws)]
        found = mean_error(runs)
        seeds = abs(runs[0].test_error - runs[1].test_error) / 2
        assert found.error > seeds
        assert found.freedom == pytest.approx(1, rel=0.1)
        assert found.half == pytest.approx(12.7 * found.error, rel=0.1), "two seeds tell little about seeds"
        assert found.low == 0.0, "no error is negative"
        assert found.high == found.value + found.half
        assert ((-found).low, (-found).high) == (-found.high, 0.0)
        assert mean_error([runs[0]]).low == pytest.approx(runs[0].metrics["interval"][0])
        assert difference(runs[:1], runs[1:]).low < 0


class TestEstimate:
    def test_p_value_and_interval_agree(self) -> None:
        for freedom in (3.0, math.inf):
            found = Estimate(1.0, 0.4, freedom)
            assert found.p_value(found.low) == pytest.approx(0.05, rel=0.01)
            assert found.p_value(1.0) == pytest.approx(1.0)

    def test_shows_its_remark(self) -> None:
        assert Estimate(1.0, 0.5, remark="unpaired").show() == "1.00 [0.02, 1.98] (unpaired)"
        assert Estimate(-0.0004, 0.0007).show(3, "px") == "−0.0004 [−0.0018, 0.0010] px"


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        ([1, 1], "one seed: the interval covers the test items only"),
        ([3, 3], "3 seeds: the interval covers test items and seeds"),
        ([3, 5], "3 to 5 seeds: the interval covers test items and seeds"),
        ([1, 3], "1 to 3 seeds: the interval covers the test items, and seeds where there are several"),
    ],
)
def test_coverage_is_said_in_words(seeds: list[int], text: str) -> None:
    assert coverage(seeds) == text


def test_weights_are_drawn_once_and_sum_to_the_items() -> None:
    counts = estimates.item_counts(37)
    assert counts.shape == (estimates.REPLICATES, 37)
    assert (counts.sum(1, dtype=torch.long) == 37).all()
    assert estimates.item_counts(37) is counts


class TestNeeded:
    """How many seeds would decide: against intervals computed anew for that number."""

    @pytest.mark.parametrize("value", [0.05, 0.21, 0.5])
    @pytest.mark.parametrize("size", [0.05, 0.05 / 14])
    def test_is_the_least_number_that_decides(self, value: float, size: float) -> None:
        items, of_one = 0.02, 0.25

        def of(n: int) -> Estimate:
            seeds = of_one**2 / n
            spread = items**2 + seeds
            return Estimate(value, math.sqrt(spread), spread**2 / (seeds**2 / (n - 1)), "", seeds, n)

        def decided(n: int) -> bool:
            return value > stats.t.ppf(1 - size / 2, of(n).freedom) * of(n).error

        found = of(3)
        if value < -stats.norm.ppf(size / 2) * items:
            assert found.needed(size=size) is None
            return
        n = found.needed(size=size)
        assert n is not None
        assert decided(n)
        assert not decided(n - 1)
        assert (-found).needed(size=size) == n
        assert found.needed(2 * value, size) == n

    def test_nothing_helps_where_the_items_alone_leave_it_open(self) -> None:
        assert Estimate(0.1, 0.2, 2.0, "", 0.01, 3).needed() is None

    def test_one_seed_tells_nothing(self) -> None:
        assert Estimate(0.1, 0.2).needed() is None

    def test_a_decided_one_needs_no_more(self) -> None:
        assert Estimate(9.0, 0.2, 2.0, "", 0.01, 3).needed() == 3

    def test_pairs_know_the_part_of_the_seeds(self) -> None:
        generator = torch.Generator().manual_seed(5)
        a, b = (torch.rand(n, 400, generator=generator, dtype=torch.float64) for n in (4, 3))
        found = paired(a, b)
        assert found.seeds == 3
        assert found.of_seeds == pytest.approx(float(a.mean(1).var() / 4 + b.mean(1).var() / 3))
