"""From a number, a cell or a key back to the runs behind it."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from judged import made
from typer.testing import CliRunner

from icstn.cli import app
from icstn.evidence.collection import Evidence
from icstn.evidence.trace import again, explain, origins
from icstn.experiments import Records, cells, open_records
from icstn.experiments.spec import RunSpec

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


def called(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    """What the command line would train."""
    asked: list[RunSpec] = []
    monkeypatch.setattr("icstn.experiments.ensure", lambda specs, *_: asked.extend(specs) or [])
    for call in calls:
        done = CliRunner().invoke(app, shlex.split(call)[1:])
        assert done.exit_code == 0, done.output
    return asked


def test_each_published_run_can_be_run_once_more(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    specs = [o.record.spec for o in origins(Records(root / "figures" / "records"))]
    asked = called(again(specs), monkeypatch)
    assert len(asked) == len(specs)
    assert set(asked) == set(specs)


def test_to_run_some_sizes_and_seeds_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    some = cells("table_1", "full", (0, 1, 2, 5), ["c-STN-1", "IC-STN-2"])
    assert again(some) == ["icstn train table_1 --preset full -m c-STN-1 -m IC-STN-2 --seeds 0-2,5"]
    left = [s for s in some if (s.sigma, s.seed) != (5.0, 2) and (s.model, s.sigma) != ("IC-STN-2", 10.0)]
    calls = again(left)
    assert "icstn train table_1 --preset full -m c-STN-1 -m IC-STN-2 --sigma 5 --seeds 0-1,5" in calls
    assert "icstn train table_1 --preset full -m IC-STN-2 --sigma 2.5 --sigma 7.5 --seeds 0-2,5" in calls
    assert set(called(calls, monkeypatch)) == set(left)
    assert again(cells("table_2", "quick")) == ["icstn train table_2 --preset quick"]
    assert "again:        icstn train table_2 --preset quick -m 'IC-STN-4(b)' --set=invert=True" in explain(
        "IC-STN-4(b)", RUNS
    )


def test_a_size_that_the_table_does_not_have_is_refused() -> None:
    done = CliRunner().invoke(app, ["train", "table_1", "--sigma", "3"])
    assert done.exit_code == 2
    assert "there is no σ = 3 here: choose from 2.5, 5, 7.5, 10" in " ".join(done.output.split())


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
