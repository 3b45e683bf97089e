"""The sentence with which each exhibit's page opens: made from the numbers, whatever they say."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import judged
import numpy as np
import pytest
import torch

from icstn.evidence.alignment import off_center
from icstn.evidence.curves import ErrorCurve
from icstn.exhibits import curves, diagrams, findings
from icstn.exhibits.montages import Averages
from icstn.exhibits.theme import draw_once
from icstn.experiments import paper
from icstn.reproduction import rerun


def planar(errors: dict[str, float], sigma: float) -> list[Any]:
    return [judged.made("table_1", model, e, sigma=sigma) for model, e in errors.items()]


def test_table_1_counts_the_sizes_at_which_the_order_holds() -> None:
    falling = {model: 2.0 / k for k, model in enumerate(paper.TABLE_1, 1)}
    swapped = falling | {"IC-STN-6": 5.0}
    runs = [r for s in paper.SIGMAS for r in planar(swapped if s == 10 else falling, s)]
    text = findings.table_1(runs)
    assert "an error of 0.400 pixels in place of 2.00 at σ = 5 px" in text
    assert "at 3 of the 4 sizes" in text


def test_table_1_against_the_paper_counts_and_names_the_floor_above_it() -> None:
    runs = [r for s in paper.SIGMAS for r in planar(dict.fromkeys(paper.TABLE_1, 2.0), s)]
    floors = [
        judged.made("baselines", "best linear step", 1.0 if s < 5 else 9.0, sigma=s) for s in paper.SIGMAS
    ]
    text = findings.against_the_paper(runs, floors)
    assert "1 of the 5 at σ = 2.5 px, 2 of the 5 at σ = 5 px, 3 of the 5 at σ = 7.5 px, 4 of the 5 at" in text
    assert text.endswith(
        "The best linear step leaves more than the paper's c-STN-1 (9.00 against 5.576 at σ = 5 px) on the "
        "template's side, where these rows compose."
    )
    floors[1] = judged.made("baselines", "best linear step", 1.0, sigma=5.0)
    assert findings.against_the_paper(runs, floors).endswith(
        "step leaves less than the paper's c-STN-1 on the template's side, where these rows compose."
    )
    assert "no finished run of best linear step at σ = 10 px" in findings.against_the_paper(runs, floors[:3])
    other = [judged.made("baselines", "best linear step", 9.3, sigma=s, side="image") for s in paper.SIGMAS]
    both = findings.against_the_paper(runs, floors + other)
    assert (
        "leaves less than the paper's c-STN-1 on the template's side, where these rows compose, and" in both
    )
    assert both.endswith(
        "more than the paper's c-STN-1 (9.30 against 2.699 at σ = 2.5 px, 9.30 against 5.576 at σ = 5 px, "
        "9.30 against 9.218 at σ = 10 px) on the image's, where the paper's do."
    )


def test_table_2_says_the_difference_and_its_sign() -> None:
    better = judged.table("table_2", {"c-STN-1(a)": 3.0, "IC-STN-4(a)": 1.0, "c-STN-1(b)": 6.0})
    worse = judged.table("table_2", {"IC-STN-4(b)": 7.0})
    text = findings.table_2(better + worse)
    assert "by −2.00 [−2.14, −1.86] points (unpaired), from 3.00 to 1.00 % in block (a)" in text
    assert "by 1.00 [0.86, 1.14] points (unpaired), from 6.00 to 7.00 % in block (b)" in text


def test_table_3_counts_the_rows_that_reach_the_paper() -> None:
    errors = {model: row.error + 1 for model, row in paper.TABLE_3.items()} | {"CNN": 1.0}
    assert "1 of the 5 rows come down" in findings.table_3(judged.table("table_3", errors))


def test_sign_noise_says_both_errors_of_the_preset_full_and_nothing_of_other_variations() -> None:
    runs = [judged.made("table_3", "IC-STN-4", 4.0, preset="full", seed=k) for k in range(3)]
    runs.append(judged.made("table_3", "IC-STN-4", 9.0, preset="full", resolution=16))
    missing = findings.sign_noise(runs)
    assert missing == "Nothing can be said yet: there is no finished run of IC-STN-4 at σ = 4.5 px."
    noisy = [judged.made("table_3", "IC-STN-4", 7.5, preset="full", seed=k, sigma=None) for k in range(2)]
    runs += [replace(r, spec=replace(r.spec, sigma=4.5)) for r in noisy]
    text = findings.sign_noise(runs)
    assert text.startswith(
        "IC-STN-4 errs 4.00 [3.90, 4.10] % under 3.5 px (3 seeds) and 7.50 [7.40, 7.60] % "
    )
    assert text.endswith(" under 4.5 px (2 seeds); the paper's 3.184 %.")


def test_tolerance_says_each_error_and_how_much_larger_the_networks_are() -> None:
    errors = {"CNN-undistorted": 57.0, "CNN-unpooled": 18.0, "CNN-4x": 3.7, "CNN-16x": 2.1}
    runs = judged.table("table_2", {"CNN(a)": 7.7, "IC-STN-4(a)": 1.2}) + judged.table("tolerance", errors)
    for k, times in ((4, 4), (5, 16)):
        runs[k] = replace(runs[k], weights={"w": torch.zeros(times * runs[1].weights["w"].numel() + 9)})
    assert findings.tolerance(runs) == (
        "A network that aligns errs 1.20 %. One that tolerates errs 7.70 % with as many parameters, "
        "3.70 % with 4 times and 2.10 % with 16 times as many; without pooling 18.00 %, and without "
        "distorted training digits 57.00 %."
    )
    lost = judged.made("tolerance", "CNN-unpooled", 36.1, seed=1)
    assert "without pooling 18.00 to 36.10 %, seed by seed, and without" in findings.tolerance([*runs, lost])
    assert "no finished run of CNN-16x" in findings.tolerance(runs[:-1])


def test_cascades_count_where_learning_together_is_better_and_say_what_more_steps_gain() -> None:
    runs = [judged.made("baselines", "SDM", 2.0, sigma=s) for s in paper.SIGMAS]
    runs += [judged.made("cascades", "c-STN-6", 1.0 if s < 10 else 3.0, sigma=s) for s in paper.SIGMAS]
    stays, gains = (
        judged.made("cascades", "RNN-4", 4.0, sigma=7.5),
        judged.made("table_1", "IC-STN-4", 4.0, sigma=7.5),
    )
    curve = [{"corner_px": e} for e in (9.0, 4.1, 4.0, 4.0, 4.0, *[4.0] * 7, 3.96)]
    stays = replace(stays, metrics=stays.metrics | {"by_operations": curve})
    curve = [{"corner_px": e} for e in (9.0, 7.0, 6.0, 5.0, 4.0, *[1.5] * 7, 1.0)]
    gains = replace(gains, metrics=gains.metrics | {"by_operations": curve})
    text = findings.cascades([*runs, stays, gains])
    assert "learned one after the other at 3 of the 4 sizes of the perturbation." in text
    assert text.endswith(
        "an ordinary recurrent network keeps 99 % of its error on the table's perturbations of σ = 7.5 px, "
        "IC-STN-4 25 %."
    )


def test_says_which_runs_are_missing() -> None:
    assert findings.table_2([]) == "Nothing can be said yet: there is no finished run of c-STN-1(a)."


def test_the_committed_pages_have_their_runs() -> None:
    root = Path(__file__).resolve().parent.parent
    pages = [*(root / "book").glob("*.ipynb"), *(root / "figures").glob("*.ipynb")]
    assert [p.stem for p in pages if "Nothing can be said yet" in p.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, "only an image leaves"), (3, "pass through"), (4, "from module to module"), (5, "in a loop")],
)
def test_diagrams(number: int, words: str) -> None:
    text = findings.diagram(draw_once(getattr(diagrams, f"figure_{number}")))
    assert words in text
    assert ("3 places" in text) == (number == 4)


def test_figure_6_and_2_say_the_numbers() -> None:
    errors = torch.cat((torch.full((80,), 5.0), torch.full((20,), 30.0)))
    assert "10.0 pixels" in findings.figure_6(7.5, errors)
    assert "one box in ten by more than 30" in findings.figure_6(7.5, errors)
    assert "41 % of the samples, the photograph in 0 %" in findings.figure_2(0.41, 0.0)


def test_figure_7_counts_what_falls_and_what_rises_again() -> None:
    falls, rises = np.array([9.0, 4, 2, 1]), np.array([9.0, 4, 1, 5])
    panels = {"σ": {"c-STN-1": ErrorCurve(falls, 1), "IC-STN-2": ErrorCurve(rises, 2)}}
    text = findings.figure_7(panels)
    assert "the error of 1 of the 2 predictors is below" in text
    assert "; 1 have risen again" in text


def test_figure_7_says_what_reuse_leaves_of_a_single_operations_error() -> None:
    once = {
        "σ = 1": ErrorCurve(np.array([9.0, 4, 2, 1]), 1),
        "σ = 2": ErrorCurve(np.array([9.0, 4, 3, 5]), 1),
    }
    other = ErrorCurve(np.array([9.0, 5, 4, 0.1]), 2)
    panels = {title: {"c-STN-1": curve, "IC-STN-2": other} for title, curve in once.items()}
    assert "a single operation keep 25 % to 75 % of their error at the best number" in findings.figure_7(
        panels
    )
    assert "single operation" not in findings.figure_7({"σ": {"IC-STN-2": other}})


def test_figure_8_measures_how_far_the_ink_is_from_the_middle() -> None:
    def dot(offset: int, down: int = 0) -> torch.Tensor:
        image = torch.zeros(2, 1, 15, 11)
        image[:, 0, 7 + down, 5 + offset] = 0.25
        return image

    assert off_center(dot(3)) == pytest.approx(3)
    assert off_center(dot(-3, 4)) == pytest.approx(5)
    rows = {"initial": dot(4), "1": dot(1), "2": dot(2), "STN": dot(3)}
    text = findings.figure_8(rows)
    assert "Of 4.0 pixels" in text
    assert "the first operation leaves 1.0 and all 2 of them 2.0 (least after operation 1: 1.0)" in text
    assert text.endswith("the STN leaves 3.0.")
    assert findings.off_center_rows(rows).endswith("from row to row: 4.0, 1.0, 2.0, 3.0 pixels.")


def test_figures_9_and_11_name_each_model() -> None:
    image = torch.zeros(1, 1, 4, 4)
    rows = {
        name: Averages(image, image, within, share, sharp)
        for name, within, share, sharp in (
            ("initial", 0.07, 0.98, 0.3),
            ("A", 0.03, 0.8, 0.1),
            ("B", 0.02, 0.6, 0.2),
            ("C", 0.025, 0.7, 0.4),
        )
    }
    text = findings.figure_9(rows)
    assert "from 0.070 to between 0.0200 (B) and 0.0300 (A)" in text
    assert text.endswith("does not explain: initial 98 %, A 80 %, B 60 %, C 70 %.")
    del rows["B"], rows["C"]
    assert "between 0.0300 (A) and 0.0300 (A)" in findings.figure_9(rows)
    assert "does not rise with each row: initial 0.3000, A 0.1000" in findings.figure_11(rows)


def test_figure_10_says_whose_the_black_is() -> None:
    first, last, stn = torch.ones(3, 2, 1, 4, 4)
    last[1, :, :2], stn[:, :, :1] = 0, 0
    rows = {"initial": first, "final": last, "STN": stn}
    text = findings.figure_10(rows, ["yield", "no entry"])
    assert text.startswith("25.0 % of what IC-STN-4 sees")
    assert "and 25.0 % of what the STN sees; the former grows with each operation from 0.0 %" in text
    assert text.endswith("most of all for *no entry* (100 % of it).")
    assert findings.black_rows(rows).endswith("from row to row: 0.0 %, 25.0 %, 25.0 %.")


def test_a_band_over_seeds_leaves_the_scale_alone() -> None:
    """A standard deviation larger than the mean has no lower end on a logarithmic axis."""
    error = np.array([9.0, 1.0, 0.1])
    limits = []
    for spread in (None, 2 * error):
        panels = {"σ": {"IC-STN-2": ErrorCurve(error, 2, spread)}}
        ax = draw_once(partial(curves.figure_7, panels=panels)).axes[0]
        limits.append(ax.get_ylim())
        assert len(ax.collections) == (spread is not None)
    assert limits[0] == limits[1]


def test_rerun_names_command_runs_and_time() -> None:
    runs = [judged.made("table_2", "STN(b)", 7.0, seed=k, preset="full") for k in (0, 2)]
    for run in runs:
        run.provenance.update(training_seconds=3600.0, test_seconds=1800.0)
    runs[0].provenance.update(training_seconds=9e5, training_cpu_seconds=3600.0)
    text = rerun("table_2", runs)
    assert "`icstn reproduce table_2 --preset full --seeds 0,2`: 2 runs, 3.0 hours" in text
    assert "needs no training" in rerun("figure_1")
    assert "less than a minute" in rerun("table_2", [judged.made("table_2", "STN(b)", 7.0)])
