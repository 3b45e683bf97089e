"""From a number, a cell or a key back to the runs behind it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from judged import made

from icstn.evidence.collection import Evidence
from icstn.evidence.trace import explain, origins
from icstn.experiments import open_records

RUNS = (
    made("table_2", "IC-STN-4(a)", 1.234),
    made("table_2", "IC-STN-4(a)", 1.434, seed=1),
    made("table_1", "IC-STN-4", 0.5, sigma=5.0),
    made("table_2", "IC-STN-4(b)", 2.0, invert=True),
)


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("table_2 IC-STN-4(a)", 2),
        ("ic-stn-4(a)", 2),
        ("IC-STN-4 sigma=5", 1),
        ("1.234", 1),
        ("1.33 %", 2),
        ("0.500", 1),
    ],
)
def test_finds_cells_numbers_and_means(query: str, count: int) -> None:
    text = explain(query, RUNS)
    assert text.count("record:") == count
    assert "commit:       " + "c" * 40 in text


def test_finds_a_key() -> None:
    assert RUNS[2].spec.key in explain(RUNS[2].spec.key, RUNS)


def test_says_what_can_be_asked_for() -> None:
    with pytest.raises(LookupError, match="no Record has 'nothing': ask for a cell such as"):
        explain("nothing", RUNS)


def test_what_a_record_does_not_know_is_not_made_up() -> None:
    bare = {k: v for k, v in RUNS[0].provenance.items() if k != "steps"}
    assert "training:     0 steps in " in explain(RUNS[0].spec.key, [replace(RUNS[0], provenance=bare)])


def test_names_a_variation() -> None:
    assert [o.variation for o in origins(RUNS)] == ["", "", "", "invert=True"]
    assert "invert=True" in explain("IC-STN-4(b)", RUNS)


def test_finds_the_key_from_before_the_migration() -> None:
    old = "table_2-cnn-a-full-seed0-4ddd6cd03d"
    moved = replace(RUNS[0], provenance=RUNS[0].provenance | {"former_key": old})
    assert moved.spec.key in explain(old, [moved])
    assert moved.spec.key in explain(old[:30], [moved])


def test_answers_do_not_depend_on_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICSTN_RECORDS", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    published = open_records("published")
    cell = Evidence(published).cell("table_2", "IC-STN-4(b)", "full")
    found = explain(f"{cell.error.value:.2f}", published)
    assert "cell:         table_2 IC-STN-4(b)" in found
