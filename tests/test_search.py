"""Recipes are chosen on validation data, with equal budgets, by a rule that follows from the runs alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from icstn.experiments import EXPERIMENTS, Execution, Record, Records, cells, search
from icstn.experiments.search import DIVERGED, SPACES, Candidate, Space, runs, score


def record(error: float | None) -> Record:
    metrics = {} if error is None else {"test_error": error}
    spec = runs(SPACES["table_2"], (), 1)[0]
    return Record(spec, "diverged" if error is None else "finished", metrics, {}, {})


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("round_", [1, 2])
def test_every_row_gets_the_same_and_no_test_data(name: str, round_: int) -> None:
    space = SPACES[name]
    rows = set(EXPERIMENTS[name].rows)
    for candidate in space.candidates():
        specs = runs(space, candidate, round_)
        assert {s.model for s in specs} == rows
        assert len(specs) == len(rows) * len(EXPERIMENTS[name].sigmas)
        assert {s.tested_on for s in specs} == {"validation"}
        for field in ("iterations", "rate_predictor", "rate_classifier", "clip", "appearance", "batch"):
            assert len({getattr(s, field) for s in specs}) == 1, field
        assert all(getattr(s, field) == value for s in specs for field, value in candidate)
    lengths = [runs(space, space.candidates()[0], r)[0].iterations for r in (1, 2)]
    assert lengths == [round(share * cells(name, "full")[0].iterations) for share in space.shares]
    assert lengths[0] < lengths[1]


def test_the_score_is_relative_to_the_best_of_each_row() -> None:
    a, b, c = (("x", 1),), (("x", 2),), (("x", 3),)
    found = score(
        {
            a: [record(1.0), record(40.0)],
            b: [record(2.0), record(10.0)],
            c: [record(None), record(20.0)],
        }
    )
    assert found[a] == pytest.approx(2.0)  # √(1 · 4)
    assert found[b] == pytest.approx(2**0.5)  # √(2 · 1)
    assert found[c] == pytest.approx((DIVERGED * 2) ** 0.5)


def test_the_best_go_on_and_the_best_of_them_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With errors played by a table: the winner of the short round loses at full length."""
    space = Space("table_2", {"rate_predictor": (1e-4, 2e-4, 3e-4)}, kept=2)
    errors = {1: {1e-4: 1.0, 2e-4: 2.0, 3e-4: 9.0}, 2: {1e-4: 5.0, 2e-4: 4.0}}
    asked: list[tuple[int, float]] = []

    def played(specs, records, execution):
        found = []
        for s in specs:
            round_ = 1 if s.iterations == 2000 else 2
            asked.append((round_, s.rate_predictor))
            found.append(Record(s, "finished", {"test_error": errors[round_][s.rate_predictor]}, {}, {}))
        return found

    monkeypatch.setattr(search, "ensure", played)
    winner: Candidate = search.chosen(space, Records(tmp_path), Execution())
    assert winner == (("rate_predictor", 2e-4),)
    assert set(asked) == {(1, 1e-4), (1, 2e-4), (1, 3e-4), (2, 1e-4), (2, 2e-4)}
