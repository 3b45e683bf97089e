"""Tests of trained networks held against a second, plain implementation (tests/golden)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import pictures, trial
from golden.draws import CORNERS, affine_to
from golden.nets import ROWS, like
from golden.problems import problem
from golden.settings import settings

from icstn.experiments import DataOptions, Execution, Record, Records, Spec, cells, make_task, training
from icstn.experiments.classification import Classification
from icstn.experiments.planar import Planar

EXECUTION = Execution(device="cpu", mode="eager", data=DataOptions("a folder"))

#: A row of each kind, trained long enough on the few pictures to name some of the test's rightly.
NAMED = [
    ("table_2", "CNN(b)", {"rate_classifier": 5e-3, "iterations": 60, "batch": 10}),
    ("table_2", "STN(b)", {"rate_classifier": 5e-3, "iterations": 60, "batch": 10}),
    ("table_2", "c-STN-2(a)", {"rate_classifier": 5e-3, "iterations": 60, "batch": 10}),
    ("table_2", "IC-STN-2(b)", {"rate_classifier": 5e-3, "iterations": 60, "batch": 10}),
    ("table_3", "IC-STN-2", {"rate_classifier": 5e-3, "iterations": 40, "batch": 10, "average": 0.9}),
]


@pytest.fixture(autouse=True)
def real_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The few real pictures in place of the data sets."""
    pictures.hand_out(monkeypatch)


def spec_of(table: str, preset: str, model: str, seed: int, **changes: Any) -> Spec:
    found = cells(table, preset, [seed], [model], **changes)[0]
    assert isinstance(found, Spec)
    return found


def trained(spec: Spec, folder: Path) -> Record:
    return training.train(spec, Records(folder), EXECUTION)


@pytest.mark.parametrize(("table", "model", "changes"), NAMED, ids=[f"{t}-{m}" for t, m, _ in NAMED])
def test_who_is_misnamed(table: str, model: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """Each image under each draw, the mean, its interval over images, and the error of each draw."""
    spec = spec_of(table, "full", model, 4, sigma=1.5, test_draws=3, **changes)
    record = trained(spec, tmp_path)
    test, weights = problem(table, 1.5, "test"), like(ROWS[table][model], list(record.weights.values()))
    wrong = trial.wrong(ROWS[table][model], weights, test, table, settings(table, "full", model).side, 3)
    assert 0.02 < wrong.mean() < 0.98, "all alike would show nothing"
    assert record.outcomes.dtype == torch.bool
    assert (record.outcomes.numpy() == wrong).all()
    low, high = trial.interval(100 * wrong.mean(0))
    assert record.test_error == pytest.approx(100 * wrong.mean())
    assert record.metrics["interval"] == pytest.approx([max(0, low), high])
    assert record.metrics["errors_by_draw"] == pytest.approx(100 * wrong.mean(1))
    assert (record.metrics["test_items"], record.metrics["test_draws"]) == (len(test.labels), 3)


def test_fewer_items_are_the_first_under_the_same_warps(tmp_path: Path) -> None:
    spec = spec_of("table_2", "full", "CNN(b)", 4, sigma=1.5, iterations=60, batch=10, test_draws=2)
    whole, part = trained(spec, tmp_path), trained(replace(spec, test_items=9), tmp_path)
    assert part.outcomes.equal(whole.outcomes[:, :9])


def test_a_validation_meets_other_warps(tmp_path: Path) -> None:
    """Of the held-out digits, each under its warp of the validation's own draws."""
    changes = {"rate_classifier": 5e-3, "iterations": 60, "batch": 10, "tested_on": "validation"}
    spec = spec_of("table_2", "full", "CNN(b)", 4, sigma=1.5, test_draws=3, **changes)
    record, train = trained(spec, tmp_path), problem("table_2", 1.5)
    n = len(train.labels) // 6
    test = train._replace(images=train.images[-n:], labels=train.labels[-n:])
    weights = like(row := ROWS["table_2"]["CNN(b)"], list(record.weights.values()))
    wrong = trial.wrong(row, weights, test, "table_2", "template", 3, "validation")
    assert (record.outcomes.numpy() == wrong).all()
    task = make_task(spec, EXECUTION.data, "cpu")
    own = trial.perturbed("table_2", "", test, n, 1, "validation")
    torch.testing.assert_close(task.test_warps(n, 1).double(), own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("table", ["table_2", "table_3"])
def test_the_test_set_image_by_image(table: str) -> None:
    """Batch after batch: image i, as a network sees it, under warp i, with label i."""
    model = "CNN(b)" if table == "table_2" else "CNN"
    task = make_task(spec_of(table, "paper", model, 8, test_draws=2), EXECUTION.data, "cpu")
    assert isinstance(task, Classification)
    test = problem(table, split="test")
    for draw in range(2):
        batches = list(task.test_batches(draw, size=7))
        assert max(len(b.label) for b in batches) == 7
        torch.testing.assert_close(
            torch.cat([b.image for b in batches]).double(), test.images, rtol=1e-4, atol=1e-5
        )
        own = trial.perturbed(table, "", test, len(test.labels), draw)
        torch.testing.assert_close(torch.cat([b.p for b in batches]).double(), own, rtol=1e-3, atol=1e-5)
        assert torch.cat([b.label for b in batches]).equal(test.labels)


@pytest.mark.parametrize("table", ["table_1", "table_2", "table_3"])
def test_all_models_and_seeds_of_a_table_meet_the_same_warps(table: str) -> None:
    """So that their errors are paired, item by item; another σ, draw or table has others."""
    specs = [
        spec_of(table, preset, model, seed, sigma=5.0)
        for preset in ("full", "paper")
        for seed, model in zip((0, 7, 11), ROWS[table], strict=False)
    ]
    found = [make_task(s, EXECUTION.data, "cpu").test_warps(20, 0) for s in specs]
    assert all(p.equal(found[0]) for p in found[1:])
    task = make_task(specs[0], EXECUTION.data, "cpu")
    assert not task.test_warps(20, 1).equal(found[0])
    assert (
        not make_task(replace(specs[0], sigma=4.0), EXECUTION.data, "cpu").test_warps(20, 0).equal(found[0])
    )


@pytest.mark.parametrize(
    ("model", "preset"), [("IC-STN-2", "full"), ("IC-STN-2", "paper"), ("c-STN-1", "full")]
)
def test_what_alignment_leaves(model: str, preset: str, tmp_path: Path) -> None:
    """Corner error of each perturbation, mean, median, parameters and interval after each operation."""
    spec = spec_of("table_1", preset, model, 4, sigma=5.0, iterations=30, batch=5, test_items=41)
    record, row = trained(spec, tmp_path), ROWS["table_1"][model]
    plane, side = problem("table_1", 5.0), settings("table_1", preset, model).side
    p = trial.perturbed("table_1", "chelsea", plane, 41, 0)
    weights = like(row, list(record.weights.values()))
    left = trial.pixels_left(row, weights, plane, p, side, 12)
    near = {"rel": 2e-3, "abs": 2e-4}
    assert record.outcomes[0].numpy() == pytest.approx(left[row.operations], **near)
    by = record.metrics["by_operations"]
    assert len(by) == 13
    for told, errors in zip(by, left, strict=True):
        assert told["corner_px"] == pytest.approx(errors.mean(), **near)
        assert told["median_px"] == pytest.approx(np.sort(errors)[20], **near)
        assert told["interval"] == pytest.approx(trial.interval(errors), **near)
        assert told["under_1_px"] == pytest.approx((errors < 1).mean(), abs=0.03)
    assert by[0]["parameters"] == pytest.approx(float(np.sqrt((p.numpy() ** 2).sum(1)).mean()), **near)
    assert record.test_error == by[row.operations]["corner_px"]
    assert record.metrics["interval"] == by[row.operations]["interval"]
    assert np.ptp(np.array(record.metrics["interval"])) > 0.1


def test_unequal_shifts_tell_rms_from_mean() -> None:
    """Corners 3, 0, 0 and 1 pixels off are √(10/4) pixels off in the root mean square, and 1 in the mean."""
    task = make_task(spec_of("table_1", "smoke", "c-STN-1", 0), DataOptions(), "cpu")
    assert isinstance(task, Planar)
    shift = np.array([[3.0, 0], [0, 0], [0, 0], [1, 0]]) * 2 / 50
    p = torch.from_numpy(affine_to(CORNERS + shift))[None]
    moved = np.column_stack([CORNERS, np.ones(4)]) @ np.array([[1, 0], [0, 1], [0, 0]])
    moved = moved + np.column_stack([CORNERS, np.ones(4)]) @ p.numpy().reshape(2, 3).T
    distance = np.linalg.norm(moved - CORNERS, axis=1) * 25
    assert distance.std() > 0.5
    assert task.pixels(p).item() == pytest.approx(np.sqrt((distance**2).mean()), rel=1e-6)
