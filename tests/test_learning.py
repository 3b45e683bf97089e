"""Learning curves: stretches of training, processor time, and what is said of them."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from judged import made

from icstn.evidence.learning import POINTS, learning_curve, learning_curves
from icstn.exhibits.learning import learning_figure, learning_finding
from icstn.exhibits.theme import draw_once, plotted
from icstn.experiments import Record

pytestmark = pytest.mark.unchecked


def run(
    preset: str, errors: list[float], *, seed: int = 0, test_error: float = 1.0, **facts: float
) -> Record:
    curve = {"step": [100 * (k + 1) for k in range(len(errors))], "error": errors, "loss": errors}
    record = made("table_2", "IC-STN-4(b)", test_error, seed=seed, preset=preset)
    return replace(record, curve=curve, provenance=record.provenance | facts)


def test_a_point_is_the_mean_of_a_stretch() -> None:
    errors = [float(k) for k in range(1000, 0, -1)]
    found = learning_curve(run("full", errors, training_cpu_seconds=6e6))
    assert len(found.error) <= POINTS
    ends = (found.iterations / 100).astype(int).tolist()
    assert (ends[0], ends[-1]) == (1, 1000)
    stretches = [b - a for a, b in pairwise(ends)]
    assert stretches == sorted(stretches)
    means = [np.mean(errors[a:b]) for a, b in pairwise([0, *ends])]
    assert found.error.tolist() == pytest.approx(means)
    assert found.minutes == pytest.approx(found.iterations)
    short = learning_curve(run("full", [3.0, 2.0]))
    assert short.error.tolist() == [3.0, 2.0]
    assert np.isnan(short.minutes).all()


def test_reaching() -> None:
    found = learning_curve(run("full", [9.0, 5.0, 6.0, 2.0]))
    assert [found.reaches(error) for error in (9.0, 5.5, 2.0, 1.0)] == [100, 200, 400, None]


def test_the_median_seed_of_each_preset() -> None:
    runs = [run("full", [5.0, e], seed=s, test_error=e) for s, e in enumerate((3.0, 1.0, 2.0))]
    runs += [replace(run("full", [5.0, 0.5], seed=3), status="diverged"), run("quick", [6.0, 4.0])]
    found = learning_curves(runs)
    assert list(found) == ["IC-STN-4(b)"]
    assert {preset: c.error[-1] for preset, c in found["IC-STN-4(b)"].items()} == {"full": 2.0, "quick": 4.0}


def test_the_finding_compares_presets() -> None:
    runs = [run("full", [9.0, 4.0]), run("paper", [9.0, 8.0, 3.5, 3.0]), run("quick", [9.0])]
    text = learning_finding(learning_curves(runs), "IC-STN-4(b)")
    assert text == (
        "`full` brings the training error of IC-STN-4(b) to 4.00 % in 200 iterations; "
        "`paper` is as far after 300; `quick` is not as far after 100."
    )
    assert "no finished run of CNN(b) at `full`" in learning_finding(learning_curves(runs), "CNN(b)")


def test_every_curve_is_drawn_where_its_time_is_known() -> None:
    curves = learning_curves([run("full", [9.0, 4.0], training_cpu_seconds=60.0), run("paper", [9.0, 3.0])])
    figure = draw_once(partial(learning_figure, curves=curves))
    shown = plotted(figure)
    assert set(shown) == {
        "iterations IC-STN-4(b) full",
        "iterations IC-STN-4(b) paper",
        "minutes IC-STN-4(b) full",
    }
    assert shown["minutes IC-STN-4(b) full"].tolist() == [[0.5, 9.0], [1.0, 4.0]]
    before = learning_curves([run("full", [9.0, 4.0])])
    assert len(draw_once(partial(learning_figure, curves=before)).axes) == 1
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["IC-STN-4(b)", "preset full", "preset paper"]


def test_a_curve_can_not_be_changed() -> None:
    curve = learning_curve(run("full", [3.0, 2.0]))
    with pytest.raises(FrozenInstanceError):
        curve.error = None
