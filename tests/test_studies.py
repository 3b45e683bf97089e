"""Studies: runs that exist, each once, what is left of them, and the command that trains it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from judged import made
from typer.testing import CliRunner

from icstn.cli import app
from icstn.experiments import Execution, Records, Spec, SpecError, cells, ensure
from icstn.experiments.models import build_model
from icstn.experiments.studies import STUDIES, Study, study
from icstn.sampling import Frame
from icstn.transformers import STN
from icstn.warps import FAMILIES
from tools.costs import STEPS
from tools.ledger_studies import studies_page

SPECS = [spec for one in STUDIES.values() for spec in one.specs]


@pytest.mark.parametrize("name", STUDIES)
def test_each_run_stands_once_and_builds(name: str) -> None:
    specs = study(name).specs
    assert specs
    assert len({spec.key for spec in specs}) == len(specs)
    for spec in {(s.model, s.architecture): s for s in specs if isinstance(s, Spec)}.values():
        model = build_model(spec, Frame.full(28, 28), 1)
        last = [] if model.transformer is None else list(model.transformer.parameters())[-1:]
        assert all(len(bias) == FAMILIES[spec.warp].dim for bias in last if spec.kind != "RNN")


def test_no_run_is_of_two_studies() -> None:
    assert set(Counter(spec.key for spec in SPECS).values()) == {1}


@pytest.mark.parametrize(
    ("name", "seeds"), [("table-1", 3), ("table-2", 5), ("image-side", 3), ("image-floor", 1), ("table-3", 3)]
)
def test_seeds_of_the_tables(name: str, seeds: int) -> None:
    cells_ = Counter((s.experiment, s.model, s.sigma) for s in study(name).specs)
    assert set(cells_.values()) == {seeds}


def test_the_image_side_has_every_row_that_composes() -> None:
    found = {(s.experiment, s.model) for s in study("image-side").specs}
    assert {m for t, m in found if t == "table_1"} == {"c-STN-1", *(f"IC-STN-{n}" for n in (2, 3, 4, 6))}
    block_a = {"c-STN-1(a)", "c-STN-2(a)", "c-STN-4(a)", "IC-STN-2(a)", "IC-STN-4(a)"}
    assert {m for t, m in found if t == "table_2"} == block_a | {"c-STN-1(b)", "IC-STN-2(b)", "IC-STN-4(b)"}
    assert {s.side for s in study("image-side").specs if isinstance(s, Spec)} == {"image"}


def test_longer_training_is_longer_and_nothing_else() -> None:
    runs = study("length").specs
    usual = {(s.model, s.seed): s for table in ("table_2", "table_3") for s in cells(table, "full", range(3))}
    ratios = {asdict(s)["iterations"] / asdict(usual[s.model, s.seed])["iterations"] for s in runs}
    assert ratios == {4.0}
    same = {replace(s, iterations=1) == replace(usual[s.model, s.seed], iterations=1) for s in runs}
    assert same == {True}


def test_four_stns_share_one_predictor() -> None:
    spec = study("shared-stn").specs[-1]
    assert isinstance(spec, Spec)
    transformer = build_model(spec, Frame.full(28, 28), 1).transformer
    assert isinstance(transformer, STN)
    assert transformer.operations == 4
    assert sum(p.numel() for p in transformer.parameters()) == 28 * 28 * 8 + 8


def test_the_papers_own_rows() -> None:
    found = study("paper").specs
    assert {s.preset for s in found} == {"paper"}
    assert {s.sigma for s in found if s.experiment == "table_1"} == {2.5, 10.0}
    assert Counter(s.experiment for s in found) == {"table_2": 9, "table_1": 6}


def test_the_page_counts_what_is_published() -> None:
    run = made("table_1", "IC-STN-6", 0.5, sigma=5.0, preset="full")
    nothing, one = studies_page([]), studies_page([run])
    total = len(SPECS)
    assert f"Of {total} runs 0 are published. The other {total} take about" in " ".join(nothing.split())
    assert f"Of {total} runs 1 are published." in " ".join(one.split())
    assert "| [table-1](study-table-1) | 1 of 60 |" in one
    assert "IC-STN-6 | 12 | 0 |" in one
    assert "c-STN-1 | 12 | none |" in one
    assert "STN(b), [FC(8)]×4 →" in one
    assert "IC-STN-4, sigma 4.5 |" in one


def test_costs_are_steps_times_their_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = tmp_path / "speed.json"
    steps.write_text('{"planar": {"IC-STN-6": {"cpu_ms": 36.0}}, "rows": {"table_2": {}, "table_3": {}}}')
    monkeypatch.setattr("tools.ledger_studies.STEPS", steps)
    assert steps != STEPS
    line = next(row for row in studies_page([]).splitlines() if "IC-STN-6 | 12" in row)
    assert line.endswith("| none | 1.2 |")  # 12 · 10,000 · 36 ms


def test_four_in_a_row_cost_four_times_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = tmp_path / "speed.json"
    timed = {name: {"ours": {"cpu_ms": 9.0}} for name in ("STN(b)", "IC-STN-4(b)")}
    steps.write_text(json.dumps({"planar": {}, "rows": {"table_2": timed, "table_3": {}}}))
    monkeypatch.setattr("tools.ledger_studies.STEPS", steps)
    rows = [row for row in studies_page([]).splitlines() if "(b), " in row]
    costs = {row.split("MNIST: ")[1].split(" |")[0]: row.split(" | ")[-1].rstrip(" |") for row in rows}
    assert float(costs["STN(b), [FC(8)]×4 → conv(9×9,3)-FC(10)"]) == 0.6  # 3 · 20,000 · 4 · 9 ms
    assert float(costs["IC-STN-4(b), side image"]) == 0.2  # rounded; 3 · 20,000 · 9 ms


RUN = CliRunner()


def test_an_unknown_one_is_refused() -> None:
    with pytest.raises(SpecError, match="no study 'table_1': choose from table-1"):
        study("table_1")
    assert RUN.invoke(app, ["study", "nothing"]).exit_code == 2


def test_what_is_left_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = cells("table_1", "smoke", (0, 1), ["c-STN-1"], iterations=2, test_items=4)
    monkeypatch.setitem(STUDIES, "small", Study("small", "a trial", tuple(specs[:2])))
    place = ["--records", str(tmp_path), "--workers", "1", "--device", "cpu"]
    ensure(specs[:1], Records(tmp_path), Execution(device="cpu", workers=1))
    listed = RUN.invoke(app, ["study", *place]).output
    assert "small          1 of   2 runs  a trial" in listed
    again = RUN.invoke(app, ["study", "small", *place])
    assert again.exit_code == 0, again.output
    assert again.output.count("table_1-c-stn-1-sigma") >= 2
    assert "small          2 of   2 runs  a trial" in RUN.invoke(app, ["study", *place]).output
