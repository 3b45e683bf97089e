"""Classical methods on Table 1's trials: the same trials, the methods they say they are, whole Records."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from icstn.classical import descend, ic_lk
from icstn.evidence.trace import explain
from icstn.exhibits import planar_tables
from icstn.experiments import (
    BASELINES,
    PRESETS,
    BaselineSpec,
    Execution,
    Record,
    Records,
    RunSpec,
    baselines,
    cells,
    ensure,
    linear_step,
)
from icstn.experiments.local import train_one
from icstn.experiments.planar import Planar
from icstn.experiments.tasks import planar_task
from icstn.reproduction import EXHIBITS

pytestmark = pytest.mark.unchecked

pytest.importorskip("skimage.data")

#: Here, without a bar.
HERE = Execution(device="cpu", workers=1, progress=False)

LEARNED = ("SDM", "conditional-LK")


def spec(model: str) -> BaselineSpec:
    """A cell with few items and draws."""
    small = {"test_items": 20} | ({"samples": 150, "steps": 2} if model in LEARNED else {})
    return cells("baselines", "smoke", models=[model], **small)[0]


def task(spec: RunSpec) -> Planar:
    return planar_task(spec, "cpu")


def solved(spec: BaselineSpec) -> tuple[dict, baselines.Method]:
    planar = task(spec)
    method = baselines.METHODS[spec.model](spec, planar)
    return baselines.evaluate(method, planar).metrics, method


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """One Record of each method, as a worker makes it, but in this process, for the sake of the patch."""
    store = Records(tmp_path_factory.mktemp("records"))
    specs = [spec(model) for model in BASELINES]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_step, "RIDGES", (1e-3, 1e-1))  # each is a large system to solve
        for s in specs:
            train_one(s, store.folder, 1, HERE)
    made = ensure(specs, store, HERE)
    assert [r.spec for r in made] == specs
    assert [r.spec for r in store] == sorted(specs, key=lambda s: s.key)
    return made


@pytest.mark.parametrize("preset", PRESETS)
def test_the_trials_are_those_of_table_1(preset: str) -> None:
    rows = cells("table_1", preset, models=["c-STN-1"])
    for row, other in zip(rows, cells("baselines", preset, models=["LK"]), strict=True):
        assert (row.sigma, row.warp, row.image) == (other.sigma, other.warp, other.image)
        assert row.test_items == other.test_items
        a, b = task(row), task(other)
        assert a.frame == b.frame
        assert torch.equal(a.photograph, b.photograph)
        assert torch.equal(a.test_warps(50, 0), b.test_warps(50, 0))


@pytest.mark.parametrize("preset", PRESETS)
def test_what_learns_sees_less_than_an_icstn(preset: str) -> None:
    draws = {s.steps * s.samples for s in cells("baselines", preset, models=LEARNED)}
    seen = {s.iterations * s.batch for s in cells("table_1", preset, models=["IC-STN-6"])}
    assert 0 < max(draws) < min(seen)


def test_what_draws_nothing_runs_once() -> None:
    seeds = [s.seed for s in cells("baselines", "quick", (3, 4), ["IC-LK"])]
    assert seeds == [0] * 4
    assert {s.seed for s in cells("baselines", "quick", (3, 4), ["SDM"])} == {3, 4}


@pytest.mark.parametrize(("model", "bound"), [("LK", 1e-3), ("IC-LK", 1e-3), ("coarse-to-fine", 0.05)])
def test_lucas_kanade_stays_at_the_truth(model: str, bound: float) -> None:
    """The last of them blurs, which shifts its answer by a few hundredths of a pixel."""
    metrics, _ = solved(replace(spec(model), sigma=0.0))
    assert max(step["corner_px"] for step in metrics["by_operations"]) < bound
    assert (metrics["failed"], metrics["status"]) == (0, {"converged": 20})


def test_ic_lk_takes_the_steps_of_the_regressor_it_is() -> None:
    s = spec("IC-LK")
    planar = task(s)
    p = planar.test_warps(5, 0)
    path = baselines.METHODS["IC-LK"](s, planar).align(p).warps
    R = ic_lk(baselines.template(planar), "affine")
    by_hand = descend([R], planar.photograph, p, planar.frame, "affine").p
    torch.testing.assert_close(path[1], by_hand, rtol=1e-3, atol=1e-4)
    assert len(path) == s.steps + 1


@pytest.mark.parametrize("model", BASELINES)
def test_alignment_helps(model: str, records: list[Record]) -> None:
    (record,) = (r for r in records if r.spec.model == model)
    curve = record.metrics["by_operations"]
    assert record.test_error == curve[-1]["corner_px"] < curve[0]["corner_px"] / 2
    assert record.metrics["parameter_error"] == curve[-1]["parameters"] < curve[0]["parameters"] / 2
    assert record.metrics["failed"] <= 4


def test_the_first_entry_is_the_perturbation(records: list[Record]) -> None:
    planar = task(spec("LK"))
    error = planar.pixels(planar.test_warps(20, 0)).mean().item()
    first = [r.metrics["by_operations"][0]["corner_px"] for r in records]
    assert first == pytest.approx([error] * len(records))


def test_steps_of_the_curve(records: list[Record]) -> None:
    steps = {r.spec.model: len(r.metrics["by_operations"]) - 1 for r in records}
    assert steps == {
        "LK": 50,
        "IC-LK": 50,
        "coarse-to-fine": 1,
        "SDM": 2,
        "conditional-LK": 2,
        "best linear step": 1,
    }


def test_nothing_is_left_out() -> None:
    """An item that fails still counts, with its last warp."""
    s = replace(spec("LK"), sigma=25.0, steps=5)
    metrics, method = solved(s)
    planar = task(s)
    found = method.align(planar.test_warps(20, 0))
    assert 0 < metrics["failed"] == sum(word != "converged" for word in found.status)
    assert sum(metrics["status"].values()) == 20
    assert metrics["test_error"] == pytest.approx(planar.pixels(found.warps[-1]).mean().item(), rel=1e-5)


def test_a_record_holds_what_was_learned_and_how(records: list[Record]) -> None:
    by_model = {r.spec.model: r for r in records}
    assert by_model["LK"].weights == {}
    assert sum(w.numel() for w in by_model["SDM"].weights.values()) == 2 * (6 * 2500 + 6)
    assert by_model["conditional-LK"].weights["gradients"].shape == (2, 1, 50, 50, 2)
    for model, record in by_model.items():
        facts = record.provenance
        assert facts["draws"] == {"best linear step": 3000}.get(model, 300 if model in LEARNED else 0)
        assert {"command", "commit", "device", "started", "finished", "training_seconds"} <= set(facts)
        assert facts["data"]["fingerprints"]["image"]


def test_a_run_is_repeatable(tmp_path: Path, records: list[Record]) -> None:
    (again,) = ensure([spec("SDM")], Records(tmp_path), HERE)
    (before,) = (r for r in records if r.spec.model == "SDM")
    assert again.metrics == before.metrics
    assert all(torch.equal(again.weights[name], w) for name, w in before.weights.items())


def test_a_number_leads_back_to_its_run(records: list[Record]) -> None:
    text = explain("baselines SDM sigma=2.5", records)
    assert "is not in the paper" in text
    assert spec("SDM").key in text


def test_they_are_trained_with_table_1() -> None:
    wanted = EXHIBITS["table_1"].specs("quick", iter([0, 1]))
    assert len([s for s in wanted if s.experiment == "table_1"]) == 40
    assert [s.seed for s in wanted if s.experiment == "baselines"] == [0] * 6 * 4


def test_table_of_the_classical_methods(records: list[Record]) -> None:
    table = planar_tables.table_1_classical(records)
    assert table.text["Model"].tolist() == ["no alignment", *BASELINES, *planar_tables.REPEATED]
    rows = table.data[table.data.sigma == 2.5].set_index("model")
    for r in records:
        row = rows.loc[r.spec.model]
        assert row.ours == r.test_error
        assert row["median"] == r.metrics["median_px"]
        assert row.failed == r.metrics["failed"] / 20 * 100
    assert rows.loc["no alignment"].ours == records[0].metrics["by_operations"][0]["corner_px"]
    assert table.data[table.data.sigma == 10].ours.isna().all()
    assert table.text.set_index("Model").loc["LK", "σ = 10, mean"] == planar_tables.MISSING


def test_table_in_parameters() -> None:
    runs = [
        Record(
            s,
            "finished",
            {"test_error": 1.0, "parameter_error": 0.25, "test_items": 9, "test_draws": 1},
            {},
            {},
        )
        for s in cells("table_1", "quick", (0, 1))
    ]
    table = planar_tables.table_1_parameters(runs)
    assert set(table.data.ours) == {0.25}
    assert table.text.set_index("Model").loc["IC-STN-6", "σ = 5"] == "0.250 ± 0"


def test_a_huge_mean_is_shown_as_it_is() -> None:
    s = spec("LK")
    metrics = {"test_error": 123456.0, "median_px": 0.5, "failed": 1, "test_items": 10, "test_draws": 1}
    row = (
        planar_tables.table_1_classical([Record(s, "finished", metrics, {}, {})])
        .text.set_index("Model")
        .loc["LK"]
    )
    assert (row["σ = 2.5, mean"], row["σ = 2.5, median"]) == ("1.23e+5", "0.500")
