import math

import pandas as pd
import pytest
import torch

from icstn.exhibits import tables
from icstn.experiments import Record, cells, paper

WEIGHTS = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}


def record(spec, error, **kwargs):
    data = {"stand_in": kwargs.pop("stand_in", False), "notes": kwargs.pop("notes", [])}
    status = kwargs.pop("status", "finished")
    metrics = {"test_error": error, "test_items": 100, "test_draws": 2} if status == "finished" else {}
    return Record(spec, status, metrics, {}, {"data": data}, dict(WEIGHTS))


def runs(experiment="table_2", seeds=(0, 1, 2), **kwargs):
    return [record(s, 1.0 + s.seed, **kwargs) for s in cells(experiment, "quick", seeds)]


def cell(table, model):
    return table.text.set_index("Model").loc[model]


def test_statistics_are_over_the_seeds():
    table = tables.table_2(runs())
    row = table.data.set_index("model").loc["IC-STN-4(a)"]
    assert (row.ours, row.sd, row.n) == (2.0, 1.0, 3)
    assert cell(table, "IC-STN-4(a)")["Ours"] == "2.00 ± 1.00"


def test_the_papers_numbers_stand_beside_ours():
    table = tables.table_2([])
    assert table.data.paper.tolist() == [row.error for row in paper.TABLE_2.values()]
    assert cell(table, "IC-STN-4(a)")["Paper"] == "1.230"
    assert set(table.text["Ours"]) == {"–"}


def test_one_seed_has_no_spread():
    table = tables.table_2(runs(seeds=(0,)))
    assert cell(table, "CNN(b)")["Ours"] == "1.00"
    assert cell(table, "CNN(b)")["n"] == "1"
    assert table.data.sd.isna().all()


def test_capacity_is_counted_in_the_weights():
    assert set(tables.table_2(runs()).data.capacity) == {10}
    assert tables.table_2([]).data.capacity.tolist() == [row.capacity for row in paper.TABLE_2.values()]


def test_a_diverged_run_is_named_and_left_out():
    lost = record(cells("table_2", "quick", [5], ["STN(a)"])[0], 0, status="diverged")
    table = tables.table_2([*runs(), lost])
    assert table.data.set_index("model").loc["STN(a)", ["ours", "n", "diverged"]].tolist() == [2.0, 3, 1]
    assert any("STN(a) (seed 5)" in note for note in table.notes)
    assert cell(tables.table_2([lost]), "STN(a)")["Ours"] == "diverged"


def test_a_stand_in_fills_no_cell():
    table = tables.table_3(runs("table_3", stand_in=True))
    assert set(table.text["Ours"]) == {"–"}
    assert table.ours() == {}
    assert any("stand-in" in note for note in table.notes)


def test_notes_on_the_data_are_handed_on():
    assert "A private copy." in tables.table_3(runs("table_3", notes=["A private copy."])).notes


def test_table_1_has_a_pair_of_columns_for_each_sigma():
    table = tables.table_1(runs("table_1"))
    assert len(table.data) == 20
    row = cell(table, "IC-STN-6")
    assert (row["σ = 7.5, paper"], row["σ = 7.5, ours"]) == ("0.245", "2.000 ± 1.000")
    assert table.ours()["IC-STN-6 7.5"] == 2.0


def test_forms_agree(tmp_path):
    table = tables.table_2(runs())
    read = pd.read_csv(table.save(tmp_path)[1])
    assert read.ours.tolist() == table.data.ours.tolist()
    for text in (table.html(), table.markdown(), table.latex().replace(r"$\pm$", "±")):
        assert text.count("2.00 ± 1.00") == 12
        assert text.count("1.230") == 1
    assert table.html().count("<tr>") == 13
    assert table.markdown().count("\n| ") == 14


def test_forms_are_deterministic():
    assert tables.table_1(runs("table_1")).html() == tables.table_1(runs("table_1")).html()


def test_latex_escapes_what_latex_would_read():
    text = tables.table_2([]).latex()
    assert r"$\times$" in text
    assert r"$\to$" in text
    assert "×" not in text
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize("make", [tables.table_1, tables.table_2, tables.table_3])
def test_no_records_gives_the_papers_table(make):
    table = make([])
    assert table.ours() == {}
    assert all(math.isnan(x) for x in table.data.ours)
