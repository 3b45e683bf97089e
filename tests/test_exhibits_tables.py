import math
from dataclasses import replace
from statistics import median

import pandas as pd
import pytest
import torch

from icstn.evidence.estimates import mean_error
from icstn.exhibits import beside, tables
from icstn.experiments import Record, cells, paper

WEIGHTS = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}


def record(spec, error, **kwargs):
    data = {"stand_in": kwargs.pop("stand_in", False), "notes": kwargs.pop("notes", [])}
    status = kwargs.pop("status", "finished")
    metrics = {
        "test_error": error,
        "interval": [error - 0.2, error + 0.2],
        "test_items": 100,
        "test_draws": 2,
    }
    metrics = metrics if status == "finished" else {}
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
    assert (row["σ = 7.5, paper"], row["σ = 7.5, ours"]) == ("0.245", "2.00 ± 1.0")
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


def test_what_a_terminal_shows_is_the_markdown_form():
    table = tables.table_2(runs())
    pd.set_option("display.max_columns", 0)
    assert repr(table) == table.markdown()
    pd.reset_option("display.max_columns")


def test_forms_are_deterministic():
    assert tables.table_1(runs("table_1")).html() == tables.table_1(runs("table_1")).html()


def test_latex_escapes_what_latex_would_read():
    text = tables.table_2([]).latex()
    assert r"$\times$" in text
    assert r"$\to$" in text
    assert "×" not in text
    assert text.count("{") == text.count("}")


def test_other_light_in_training_is_told():
    """Which the paper does not have: of all runs, or of those that had it."""
    assert not any("augmentation" in note for note in tables.table_3(runs("table_3")).notes)
    varied = [record(s, 1.0) for s in cells("table_3", "quick", appearance=0.5)]
    (note,) = (note for note in tables.table_3(varied).notes if "augmentation" in note)
    assert note.startswith("Trained under light")
    assert "strength 0.5); the paper does not" in note
    some = [r for r in varied if r.spec.model in ("CNN", "IC-STN-4")]
    (note,) = (n for n in tables.table_3([*runs("table_3"), *some]).notes if "augmentation" in n)
    assert note.startswith("CNN, IC-STN-4: trained under light")


@pytest.mark.parametrize("make", [tables.table_1, tables.table_2, tables.table_3])
def test_no_records_gives_the_papers_table(make):
    table = make([])
    assert table.ours() == {}
    assert all(math.isnan(x) for x in table.data.ours)


class TestWhatIsSaidOfIntervals:
    ONE = (
        "Ours: a single run in each cell, so that nothing is known of other seeds. "
        "95 % intervals; one seed: the interval covers the test items only."
    )

    def test_one_seed(self):
        table = tables.table_2(runs(seeds=(0,)))
        assert table.notes[0] == f"{self.ONE} Preset: quick."
        for form in (table.html(), table.markdown(), table.latex()):
            assert "deviation" not in form
            assert "±" not in form

    def test_several_seeds(self):
        note = tables.table_2(runs()).notes[0]
        assert note.startswith("Ours: mean ± standard deviation over n seeds. ")
        assert "3 seeds: the interval covers test items and seeds" in note

    def test_seeds_in_some_cells(self):
        more = [record(s, 1.0) for s in cells("table_2", "quick", [1], ["CNN(a)"])]
        note = tables.table_2([*runs(seeds=(0,)), *more]).notes[0]
        assert "where there are several seeds ± standard deviation" in note
        assert "covers the test items, and seeds where there are several" in note

    def test_the_interval_is_that_of_the_ledger(self):
        found = [r for r in runs() if r.spec.model == "STN(a)"]
        estimate = mean_error(found)
        row = tables.table_2(runs()).data.set_index("model").loc["STN(a)"]
        assert (row.ours, row.low, row.high) == (estimate.value, estimate.low, estimate.high)
        assert cell(tables.table_2(runs()), "STN(a)")["95 % interval"] == f"[0.00, {row.high:.2f}]"

    def test_an_interval_that_is_cut_off_says_so(self):
        some = [
            record(s, s.seed + (1.0 if s.model in ("STN(a)", "CNN(b)") else 10.0))
            for s in cells("table_2", "quick", (0, 1, 2))
        ]
        note = tables.table_2(some).notes[-1]
        assert note == "No error is negative: cut off at 0 is the interval of STN(a), CNN(b)."
        assert cell(tables.table_2(some), "CNN(b)")["95 % interval"].startswith("[0.00, ")
        assert not any("cut off" in n for n in tables.table_2(runs(seeds=(0,))).notes)

    def test_how_wide_those_of_table_1_are(self):
        specs = cells("table_1", "quick")
        pairs = [
            [record(replace(s, seed=k), 1.0 + k * i / 20) for k in range(2)] for i, s in enumerate(specs)
        ]
        (note,) = [
            n
            for n in tables.table_1([r for pair in pairs for r in pair]).notes
            if n.startswith("Half the width")
        ]
        halves = [(e := mean_error(pair)).half / e.value for pair in pairs]
        assert max(halves) > 1, "cut off at 0, and yet as wide as it was"
        assert note.startswith(
            f"Half the width of an interval is {100 * median(halves):.0f} % of the error in"
        )
        assert f", {100 * max(halves):.0f} % at most (IC-STN-6 at σ = 10);" in note


def test_no_number_of_table_1_is_zero():
    tiny = [record(s, 0.0000768) for s in cells("table_1", "quick")]
    shown = tables.table_1(tiny).text
    assert set(shown["σ = 2.5, ours"]) == {"0.0000768"}


def test_table_1_fits_the_page():
    """About 76 characters fit; headers break between words."""
    table = tables.table_1(runs("table_1"))
    widths = [max(len(v) for v in table.text[c]) for c in table.text]
    single = tables.table_1(runs("table_1", seeds=(0,)))
    assert sum(max(len(v) for v in single.text[c]) + 2 for c in single.text) <= 76
    assert sum(widths) <= 100


def test_linear_steps_stand_by_model_and_sigma():
    errors = {"SDM": 2.0, "c-STN-6": 1.0, "RNN-4": 5.0}
    specs = [
        s for name in ("baselines", "cascades") for s in cells(name, "full", (0, 1)) if s.model in errors
    ]
    found = [record(s, errors[s.model] * s.sigma + s.seed) for s in specs if s.model != "SDM" or s.seed == 0]
    found.append(record(next(s for s in cells("baselines", "full") if s.model == "LK"), 99.0))
    table = beside.cascades(found)
    assert list(table.text["Model"]) == ["SDM", "c-STN-6", "IC-STN-6", "c-STN-4", "IC-STN-4", "RNN-4"]
    row = cell(table, "c-STN-6")
    assert list(row[["σ = 2.5", "σ = 10", "n", "Capacity"]]) == ["3.00", "10.5", "2", "10"]
    assert (cell(table, "SDM")["σ = 7.5"], cell(table, "SDM")["n"]) == ("15.0", "1")
    assert set(cell(table, "IC-STN-6")[["σ = 5", "Capacity"]]) == {"–"}
    assert "99" not in table.markdown()
    assert table.notes[0] == "Ours: mean over n seeds. Preset: full."
    assert table.notes[-1].endswith("seeds: 24 % of the error at most (c-STN-6 at σ = 2.5).")


def test_tolerance_stands_beside_alignment():
    found = [record(s, 2.0 + s.seed) for s in cells("tolerance", "full", (0, 1))]
    others = {s.model: s for s in cells("table_2", "full")}
    found += [record(others["IC-STN-4(a)"], 1.0), record(others["STN(a)"], 1.0, status="diverged")]
    table = beside.tolerance(found)
    assert list(table.text["Model"]) == list(beside.TOLERANCE)
    assert list(table.text["Error"]) == ["–", *["2.50 ± 0.71"] * 4, "1.00"]
    assert cell(table, "IC-STN-4(a)")["95 % interval"] == "[0.80, 1.20]"
    assert cell(table, "CNN-16x")["Method"] == "both, and sixteen times the size"
    assert table.ours()["CNN-4x"] == 2.5
    assert "STN(a)" not in table.markdown().replace("IC-STN", "")


def test_every_row_beside_the_tables_says_what_it_does():
    """Models of the experiments, each with words of its own."""
    assert set(cells_of("tolerance")) < set(beside.TOLERANCE)
    assert set(cells_of("cascades")) < set(beside.CASCADES)


def cells_of(experiment):
    return {s.model for s in cells(experiment, "full")}
