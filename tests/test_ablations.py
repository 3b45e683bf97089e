"""Ablations: which cells are set beside each other, what is said of them, and what is said of none."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from judged import made

from icstn.evidence import ablations
from icstn.evidence.ablations import Contrast, extrapolated
from icstn.evidence.collection import Evidence, Measurements, identity
from icstn.evidence.elsewhere import MOST, NOISE
from icstn.evidence.estimates import Estimate, Measured
from icstn.experiments import Record, paper
from icstn.experiments.studies import STUDIES
from tools.ledger_ablations import PARTS, ablations_page

pytestmark = pytest.mark.unchecked


def full(table: str, model: str, error: float, **changes: object) -> Record:
    return made(table, model, error, preset=str(changes.pop("preset", "full")), **changes)  # type: ignore[arg-type]


def under_other_noise(error: float) -> Record:
    run = full("table_3", "IC-STN-4", error)
    return replace(run, spec=replace(run.spec, sigma=4.5))


STACK = "[conv(7×7,4)-conv(7×7,8)-P-FC(48)-FC(8)]×4 → conv(9×9,3)-FC(10)"
PAIRS: list[tuple[Callable[[Evidence], list[Contrast]], Record, Record]] = [
    (
        lambda e: ablations.sides(e, "table_2"),
        full("table_2", "c-STN-2(a)", 2.0),
        full("table_2", "c-STN-2(a)", 5.0, side="image"),
    ),
    (
        lambda e: ablations.sides(e, "table_1"),
        full("table_1", "IC-STN-3", 0.2, sigma=7.5),
        full("table_1", "IC-STN-3", 0.5, sigma=7.5, side="image"),
    ),
    (
        ablations.inverses,
        full("table_2", "IC-STN-4(b)", 2.0),
        full("table_2", "IC-STN-4(b)", 5.0, invert=True),
    ),
    (
        ablations.inverses,
        full("table_2", "IC-STN-4(b)", 2.0, clip=1.0),
        full("table_2", "IC-STN-4(b)", 5.0, clip=1.0, invert=True),
    ),
    (
        ablations.shared_stacks,
        full("table_2", "IC-STN-4(a)", 2.0),
        full("table_2", "STN(a)", 5.0, architecture=STACK),
    ),
    (
        ablations.shared_stacks,
        full("table_2", "STN(a)", 2.0),
        full("table_2", "STN(a)", 5.0, architecture=STACK),
    ),
    (
        ablations.families,
        full("table_2", "IC-STN-4(b)", 2.0),
        full(
            "table_2", "IC-STN-4(b)", 5.0, warp="affine", architecture="[FC(6)]×4 → conv(9×9,3)-FC(10)"
        ),
    ),
    (ablations.sign_noise, full("table_3", "IC-STN-4", 2.0), under_other_noise(5.0)),
    (
        ablations.resolutions,
        full("table_3", "IC-STN-2", 2.0),
        full("table_3", "IC-STN-2", 5.0, resolution=24),
    ),
    (
        ablations.same_rates,
        full("table_2", "STN(a)", 5.0, rate_classifier=5e-3, rate_predictor=4e-4),
        full("table_2", "c-STN-1(a)", 2.0),
    ),
    (
        ablations.same_rates,
        full("table_3", "STN", 5.0, rate_classifier=1e-3),
        full("table_3", "c-STN-1", 2.0),
    ),
    (
        ablations.lengths,
        full("table_3", "CNN", 5.0),
        full("table_3", "CNN", 2.0, iterations=24_000),
    ),
    (
        ablations.to_the_letter,
        full("table_2", "CNN(b)", 2.0),
        full("table_2", "CNN(b)", 5.0, preset="paper"),
    ),
]  # fmt: skip


def test_the_noise_of_the_code_is_a_quarter_of_the_half_width() -> None:
    (own,) = {spec.sigma for spec in STUDIES["sign-noise"].specs}
    assert own == 4.5 == 0.25 * 18


@pytest.mark.parametrize(("find", "usual", "varied"), PAIRS)
def test_two_cells_that_differ_in_one_thing(
    find: Callable[[Evidence], list[Contrast]], usual: Record, varied: Record
) -> None:
    assert find(Evidence([usual])) == find(Evidence([varied])) == []
    (contrast,) = find(Evidence([varied, usual]))
    assert (contrast.usual.runs, contrast.varied.runs) == ((usual,), (varied,))
    assert contrast.difference.value == pytest.approx(varied.test_error - usual.test_error)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_errors_are_drawn_on_to_other_sizes(power: float) -> None:
    """Against NumPy's line, and its covariance for weights of one."""
    sides, values = (16.0, 24.0, 32.0), (9.0, 7.5, 6.0)
    errors = {s: Estimate(v, 0.2, 11.0) for s, v in zip(sides, values, strict=True)}
    x = np.array(sides) ** -power
    line, covariance = np.polyfit(x, values, 1, w=np.full(3, 1 / 0.2), cov="unscaled")
    at = np.array([50.0**-power, 1.0])
    found = extrapolated(errors, 50.0, power)
    assert found.value == pytest.approx(line @ at)
    assert found.error == pytest.approx((at @ covariance @ at) ** 0.5)
    assert found.freedom == 11.0


def test_a_line_through_what_lies_on_one() -> None:
    law = {side: Estimate(2.0 + 64.0 / side, 0.1) for side in (16.0, 24.0, 32.0)}
    assert extrapolated(law, 50.0, 1.0).value == pytest.approx(3.28)


def test_every_run_of_the_ablations_is_shown() -> None:
    """With all runs of the studies that vary one thing, each stands in some comparison."""
    named = {part.study for part in PARTS}
    specs = [s for name in named | {"table-1", "table-2", "table-3"} for s in STUDIES[name].specs]
    runs = [Record(s, "finished", {"test_error": 1.0, "interval": [0.9, 1.1]}, {}, {}) for s in specs]
    runs += [made("baselines", "SDM", 1.0, preset="full", sigma=sigma) for sigma in NOISE["table_1"]]
    evidence = Evidence(runs)
    shown = {
        r.spec
        for part in PARTS
        for c in part.contrasts(evidence)
        for cell in (c.usual, c.varied)
        for r in cell.runs
    }
    lacking = [s for name in named for s in STUDIES[name].specs if s not in shown and s.model != "RNN-4"]
    assert {(s.experiment, s.model) for s in lacking} <= {("cascades", m) for m in _unpaired(lacking)}


def _unpaired(specs: list) -> set[str]:
    """Cascades of other lengths, which have no greedy counterpart of as many stages."""
    return {s.model for s in specs if s.experiment == "cascades" and s.model != "c-STN-6"}


class TestThePage:
    def test_fewer_pixels_are_held_against_the_same_seeds(self) -> None:
        """Of which one may be far from the mean; the others tell how far seeds lie apart."""
        runs = [full("table_3", "IC-STN-2", e, seed=s) for s, e in enumerate((7.0, 4.0, 5.0))]
        runs += [full("table_3", "IC-STN-2", e, resolution=side) for side, e in ((16, 10.0), (24, 8.0))]
        first, second = ablations.resolutions(Evidence(runs))
        assert (first.difference.value, second.difference.value) == pytest.approx((3.0, 1.0))
        page = " ".join(ablations_page(Evidence(runs)).split())
        assert "8.00 % at 24, 7.00 % at 32" in page
        assert "The 3 seeds that there are with all pixels lie up to 3.0 points apart." in page

    def test_recipes_that_differ_are_named(self) -> None:
        shared = full("table_2", "STN(b)", 5.0, architecture="[FC(8)]×4 → conv(9×9,3)-FC(10)")
        page = " ".join(ablations_page(Evidence([shared, full("table_2", "IC-STN-4(b)", 2.0)])).split())
        assert "in block (b) the classifier's rate is 0.005, beside 0.002 of IC-STN-4" in page

    def test_signs_of_full_size_are_told_from_three_sizes(self) -> None:
        sides = {16: 4.0 + 6.0, 24: 4.0 + 4.0}
        runs = [full("table_3", "IC-STN-2", 4.0 + 3.0)]
        runs += [full("table_3", "IC-STN-2", e, resolution=side) for side, e in sides.items()]
        page = " ".join(ablations_page(Evidence(runs)).split())
        assert "10.00 % at 16, 8.00 % at 24, 7.00 % at 32" in page
        assert re.search(r"5\.92 \\\[[0-9., ]+\] % by the side, 6\.52 .* by the square", page)
        assert "do not show" not in page
        printed = paper.TABLE_3["IC-STN-2"].error
        assert f"0.5 to 1.1 of the {7 - printed:.1f} points between" in page
        few = " ".join(ablations_page(Evidence(runs[:2])).split())
        assert "Drawn on to" not in few

    def test_three_sizes_that_tell_nothing_say_so(self) -> None:
        runs = [full("table_3", "IC-STN-2", e, seed=s) for s, e in enumerate((5.0, 6.4, 4.2))]
        runs += [full("table_3", "IC-STN-2", e, resolution=side) for side, e in ((16, 5.2), (24, 7.9))]
        page = " ".join(ablations_page(Evidence(runs)).split())
        assert "So these runs do not show that fewer pixels explain any of the 0.9 points between" in page
        assert "with all pixels lie up to 2.2 points apart." in page

    def test_says_what_was_not_run(self) -> None:
        page = ablations_page(Evidence([]))
        left = page.split("## Not run yet")[1]
        assert page.count("Not measured yet") == 2
        assert all(f"`icstn study {part.study}`" in left for part in PARTS)
        assert not any(f"(ablation-{part.study})=" in page for part in PARTS)

    def test_counts_what_is_beyond_doubt(self) -> None:
        runs = [full("table_2", "IC-STN-4(b)", 2.0), full("table_2", "IC-STN-4(a)", 2.0)]
        runs += [full("table_2", "IC-STN-4(b)", 5.0, invert=True)]
        runs += [full("table_2", "IC-STN-4(a)", 2.01, invert=True)]
        page = ablations_page(Evidence(runs))
        assert "icstn study inverse" not in page.split("## Not run yet")[1]
        section = " ".join(page.split("(ablation-inverse)=")[1].split("(ablation-")[0].split())
        assert "the change leaves more error in 1 (IC-STN-4(b)), less in 0, and 1 is undecided" in section
        assert "Holm's correction for their number changes nothing in that." in section
        assert "one seed: the interval covers the test items only" in section
        assert r"| IC-STN-4(b) | explicit inverse | 2.00 % | 5.00 % | 3.00 \[2.86, 3.14] points" in section

    def test_a_row_that_is_changed_in_two_ways_is_named_with_the_change(self) -> None:
        runs = [full("baselines", "SDM", 2.0, sigma=5.0), full("table_1", "IC-STN-6", 1.9, sigma=5.0)]
        runs += [full("cascades", "c-STN-6", 0.5, sigma=5.0)]
        section = ablations_page(Evidence(runs)).split("(ablation-cascades)=")[1].split("(ablation-")[0]
        assert "SDM σ = 5, learned together: c-STN-6" in " ".join(section.split("| row")[0].split())

    def test_tells_of_runs_that_diverged(self) -> None:
        """Means of what is left are kinder to a change than it deserves."""
        runs = [full("table_1", "IC-STN-6", 2.0, sigma=10.0, seed=s) for s in range(3)]
        other = [full("table_1", "IC-STN-6", 16.0, sigma=10.0, seed=s, side="image") for s in range(3)]
        lost = [replace(r, status="diverged", metrics={}) for r in (other[2], other[0])]
        page = " ".join(ablations_page(Evidence([*runs, other[1], *lost])).split())
        assert "no mean has them, with the change: IC-STN-6 σ = 10 with seed 0, 2." in page
        assert "Diverged" not in ablations_page(Evidence([*runs, *other]))
        elsewhere = replace(lost[0], spec=replace(lost[0].spec, batch=7))
        assert "Diverged" not in ablations_page(Evidence([*runs, *other, elsewhere]))

    def test_says_how_far_one_linear_step_could_come(self) -> None:
        runs = [full("table_1", "c-STN-1", 2.0, sigma=5.0), full("table_1", "c-STN-1", 10.5, sigma=10.0)]
        runs += [full("baselines", "best linear step", 1.6, sigma=5.0)]
        runs += [full("baselines", "best linear step", 10.6, sigma=10.0)]
        other = [full("table_1", "c-STN-1", 2.2, sigma=5.0, side="image")]
        page = ablations_page(Evidence([*runs, *other]))
        section = page.split("(ablation-floor)=")[1].split("(ablation-")[0]
        assert "| 5 | template | 1.60 px | 2.00 px | 25.0 % | 5.576 px |" in section
        assert "| 10 | template | 10.6 px | 10.5 px | −0.9 % | 9.218 px |" in section
        words = " ".join(section.split())
        assert "at σ = 10 px on the template's side, so training on this photograph can't be" in words
        assert "Not computed: the image's side" in words
        other += [full("baselines", "best linear step", 2.0, sigma=5.0, side="image")]
        page = ablations_page(Evidence([*runs, *other]))
        assert "| 5 | image | 2.00 px | 2.20 px | 10.0 % | 5.576 px |" in page
        assert "Not computed: the" not in page

    def test_counts_with_a_correction_for_their_number(self) -> None:
        """Two differences with p = 0.027 are beyond doubt one by one, and not as two of two."""
        runs = [full("table_2", f"IC-STN-4({block})", 2.0) for block in "ab"]
        runs += [full("table_2", f"IC-STN-4({block})", 2.16, invert=True) for block in "ab"]
        page = " ".join(ablations_page(Evidence(runs)).split())
        assert "leaves more error in 0, less in 0, and 2 are undecided (one seed" in page
        assert "with Holm's correction for their number; without it: 2, 0, 0." in page
        alone = " ".join(ablations_page(Evidence([runs[0], runs[2]])).split())
        assert (
            "Of 1 comparison the change leaves more error in 1 (IC-STN-4(a)), less in 0, and 0 are" in alone
        )
        assert "Holm" not in alone

    @pytest.mark.parametrize("last", [80.0, 9.9])
    def test_shows_each_seed_where_a_mean_says_little(self, last: float) -> None:
        runs = [full("table_2", "IC-STN-4(b)", 2.0, seed=s) for s in range(3)]
        runs += [
            full("table_2", "IC-STN-4(b)", e, seed=s, invert=True) for s, e in enumerate((last, 2.0, 2.5))
        ]
        section = ablations_page(Evidence(runs)).split("(ablation-inverse)=")[1].split("(ablation-")[0]
        said = "mean says little: 80.0, 2.00, 2.50 %, seed by seed" in " ".join(section.split())
        assert said == ("says little" in section) == (last == 80.0)

    def test_shows_errors_elsewhere(self) -> None:
        run = full("table_2", "IC-STN-2(b)", 3.0)
        after = [90.0, 9.0, 3.0, 2.5, 2.4, 2.5, 2.7, 2.9, 2.8]
        at = {1.75: 1.0, 3.5: 3.0, 5.25: 8.0, 7.0: 20.0}
        numbers = {f"error_after_{n}": x for n, x in enumerate(after)}
        numbers |= {f"error_at_{s:g}": x for s, x in at.items()}
        spread = [0.01 * (-1) ** g for g in range(20)]
        measures = {
            name: Measured(x, tuple(x + d * (k + 1) / 20 for d in spread))
            for k, (name, x) in enumerate(numbers.items())
        }
        found = Measurements(identity(run), 10_000, measures, {})
        page = ablations_page(Evidence([run], {run.spec.key: found}))
        assert len(after) == MOST + 1
        flat = " ".join(page.split())
        assert "IC-STN-2(b) errs least after 4 operations (2.40 %); after 8, against the 2 of" in flat
        assert "of its training: −0.20" in flat
        assert "points, better." in flat
        assert "| IC-STN-2(b) | 90.00 | 9.00 | 3.00 |" in page
        assert "| IC-STN-2(b) | 1.00 | 3.00 | 8.00 | 20.00 |" in page
