"""Recipes are chosen on validation data, with equal budgets, by a rule that follows from the runs alone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from test_commands_shown import commands

from icstn.experiments import EXPERIMENTS, Execution, Record, Records, Spec, cells, search
from icstn.experiments.search import (
    DIVERGED,
    SPACES,
    WAITING,
    Candidate,
    SearchOutcome,
    Space,
    Try,
    conduct,
    load_outcome,
    runs,
    save_outcome,
    score,
    so_far,
)
from icstn.reproduction import seed_list
from tools import ledger_recipes
from tools.ledger_recipes import recipes_page

pytestmark = pytest.mark.unchecked


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
    assert lengths[0] < lengths[1] or space.single


def test_what_is_tried() -> None:
    """The spaces once more: of each table values of fields, and the rounds' shares of the preset's length."""
    rates = (1e-3, 2e-3, 5e-3), (1e-4, 2e-4, 4e-4)
    typed = {
        "table_1": ({"rate_predictor": (1e-5, 3e-5, 1e-4), "clip": (0.0, 1.0)}, (0.05, 0.25)),
        "table_2": ({"rate_classifier": rates[0], "rate_predictor": rates[1]}, (0.05, 1.0)),
        "cascades": ({"rate_predictor": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3), "clip": (1.0,)}, (0.05, 0.25)),
        "tolerance": ({"rate_classifier": rates[0][:2], "std_classifier": (0.05, 0.1, 0.2)}, (0.1, 0.5)),
        "table_3": ({"appearance": (0.0, 1.0), "rate_classifier": (1e-3, 2e-3)}, (1 / 3, 1 / 3)),
    }
    assert [s.experiment for s in SPACES.values() if s.single] == ["table_3"]
    assert {s.experiment: (dict(s.values), s.shares) for s in SPACES.values()} == typed


A, B, C = (("rate_predictor", 1e-4),), (("rate_predictor", 2e-4),), (("rate_predictor", 3e-4),)


def test_the_score_is_relative_to_the_best_of_each_row() -> None:
    found = score({A: [1.0, 40.0], B: [2.0, 10.0], C: [None, 20.0]})
    assert found[A] == pytest.approx(2.0)  # √(1 · 4)
    assert found[B] == pytest.approx(2**0.5)  # √(2 · 1)
    assert found[C] == pytest.approx((DIVERGED * 2) ** 0.5)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
    """Errors by a table: the winner of the short round loses the long one. What was asked for, in order."""
    errors = {1: {1e-4: 1.0, 2e-4: 2.0, 3e-4: None}, 2: {1e-4: 5.0, 2e-4: 4.0, 3e-4: 6.0}}
    asked: list[tuple[int, float]] = []

    def play(specs, records, execution):
        found = []
        for s in specs:
            round_ = 1 if s.iterations == 1000 else 2
            asked.append((round_, s.rate_predictor))
            found.append(record(s, errors[round_][s.rate_predictor]))
            records.save(found[-1])
        return found

    monkeypatch.setattr(search, "ensure", play)
    return asked


def record(spec: Spec, error: float | None) -> Record:
    if error is None:
        return Record(spec, "diverged", {}, {}, {})
    metrics = {"test_error": error, "interval": [error - 0.1, error + 0.1]}
    return Record(spec, "finished", metrics, {}, {"training_seconds": 2.0})


SPACE = Space("table_2", {"rate_predictor": (1e-4, 2e-4, 3e-4)}, kept=2)


def test_the_best_go_on_and_the_best_of_them_is_chosen(
    tmp_path: Path, played: list[tuple[int, float]]
) -> None:
    found = conduct(SPACE, Records(tmp_path), Execution())
    assert found.kept == [A, B]
    assert found.chosen == B
    assert set(played) == {(1, 1e-4), (1, 2e-4), (1, 3e-4), (2, 1e-4), (2, 2e-4)}
    assert len(found.tries) == 5 * len(EXPERIMENTS["table_2"].rows)


def test_a_search_that_keeps_all_has_the_longer_round_only(
    tmp_path: Path, played: list[tuple[int, float]]
) -> None:
    found = conduct(replace(SPACE, kept=3), Records(tmp_path), Execution())
    assert found.kept == [A, B, C]
    assert found.chosen == B, "the winner of a short round would be A"
    assert {round_ for round_, _ in played} == {t.round for t in found.tries} == {2}
    assert len(found.tries) == 3 * len(EXPERIMENTS["table_2"].rows)


def test_a_search_goes_on_from_an_unfinished_outcome(tmp_path: Path, played: list[tuple[int, float]]) -> None:
    """On a machine without its Records: what is known is not run again, and the choice is the same."""
    whole = conduct(SPACE, Records(tmp_path), Execution())
    asked, rows = len(played), len(EXPERIMENTS["table_2"].rows)
    known = whole.tries[: rows + 3]
    again = conduct(SPACE, Records(tmp_path / "other"), Execution(), known)
    assert again == whole
    assert len(played) == asked + len(whole.tries) - len(known)


def test_an_unfinished_search_has_what_is_done_and_no_second_round(
    tmp_path: Path, played: list[tuple[int, float]]
) -> None:
    whole = conduct(SPACE, Records(tmp_path), Execution())
    rows = len(EXPERIMENTS["table_2"].rows)
    found = so_far(SPACE, Records(tmp_path / "other"), whole.tries[1 : rows + 3])
    assert found.tries == whole.tries[1 : rows + 3]
    assert so_far(SPACE, Records(tmp_path / "other"), whole.tries) == whole


def test_an_outcome_is_kept_whole(tmp_path: Path, played: list[tuple[int, float]]) -> None:
    found = conduct(SPACE, Records(tmp_path), Execution())
    save_outcome(found, tmp_path / "outcome.json")
    assert load_outcome(tmp_path / "outcome.json") == found


def first_round(tries: tuple[Try, ...]) -> tuple[Try, ...]:
    return tuple(replace(t, round=1) for t in tries)


def test_a_cells_own_best_goes_on_beside_those_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CNN learns at the third candidate only, which no other row wants: it may have it in the end."""

    def play(specs, records, execution):
        for s in specs:
            bad = s.model == "CNN(a)" and s.rate_predictor != 3e-4
            good = s.model == "CNN(a)" or s.rate_predictor != 3e-4
            records.save(record(s, 89.0 if bad else 8.0 + 1e4 * s.rate_predictor if good else 80.0))

    monkeypatch.setattr(search, "ensure", play)
    found = conduct(SPACE, Records(tmp_path), Execution())
    assert found.kept == [A, B]
    assert found.favorites["CNN(a)", 3.5] == C
    assert [t.model for t in found.tries if t.round == 2 and t.candidate == C] == ["CNN(a)"]
    assert set(found.scores(2)) == {A, B}
    assert found.chosen == A
    assert found.exceptions() == {("CNN(a)", 3.5): C}


def test_a_row_has_an_exception_only_beyond_doubt() -> None:
    def tried(candidate: Candidate, model: str, error: float | None, half: float = 0.1) -> Try:
        interval = None if error is None else (error - half, error + half)
        return Try(2, candidate, model, 3.5, 100, error, interval, 1.0, "")

    tries = (
        *(tried(A, m, e) for m, e in (("m1", 1.0), ("m2", 1.15), ("m3", 5.0), ("m4", None))),
        *(tried(B, m, e) for m, e in (("m1", 2.0), ("m2", 1.00), ("m3", 1.0), ("m4", 50.0))),
    )
    found = SearchOutcome(SPACE, (*first_round(tries), *tries))
    assert found.chosen == B
    assert found.exceptions() == {("m1", 3.5): A}
    fewer = (tried(A, "m1", None), tried(A, "m2", 1.0), tried(B, "m1", 9.0), tried(B, "m2", 3.0))
    other = SearchOutcome(SPACE, (*first_round(fewer), *fewer))
    assert other.chosen == B
    assert other.exceptions() == {("m2", 3.5): A}


def test_among_equals_a_row_prefers_what_goes_on_anyway() -> None:
    """A network without a predictor does not care for its rate: no run is made for that."""
    errors = {A: (2.0, 9.0), B: (2.0, 1.0), C: (3.0, 0.5)}
    cells = ("CNN(a)", "IC-STN-4(a)")
    tries = [
        Try(1, c, m, 3.5, 100, e, (e - 0.1, e + 0.1), 1.0, "")
        for c, row in errors.items()
        for m, e in zip(cells, row, strict=True)
    ]
    found = SearchOutcome(replace(SPACE, kept=1), tuple(tries))
    assert found.kept == [C]
    assert found.favorites["CNN(a)", 3.5] == A
    both = SearchOutcome(replace(SPACE, kept=2), tuple(tries))
    assert both.kept == [C, B]
    assert both.favorites == {("CNN(a)", 3.5): B, ("IC-STN-4(a)", 3.5): C}


PUBLISHED = sorted((Path(__file__).parent.parent / "figures" / "searches").glob("*.json"))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda p: p.stem)
def test_published_recipes_are_the_chosen_ones(path: Path) -> None:
    found = load_outcome(path)
    assert found.space == SPACES[path.stem]
    exceptions, adopted = found.exceptions(), []
    for spec in cells(path.stem, "full"):
        recipe = exceptions.get((spec.model, spec.sigma), found.chosen)
        adopted.append(all(getattr(spec, field) == value for field, value in recipe))
    assert all(adopted) == (path.stem not in WAITING)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda p: p.stem)
def test_published_searches_tried_what_they_say(path: Path) -> None:
    found = load_outcome(path)
    wanted = [(round_, c, spec) for round_ in (1, 2) for c, spec in found.plan(round_)]
    assert [(t.round, t.candidate, t.key) for t in found.tries] == [(r, c, s.key) for r, c, s in wanted]


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda p: p.stem)
def test_the_page_of_recipes_shows_each_round_by_its_name(path: Path) -> None:
    found = load_outcome(path)
    own = recipes_page({path.stem: found}, [])
    names = ["The only round"] if found.space.single else ["Round 1", "Round 2"]
    assert re.findall(r"^### (.*):", own, re.MULTILINE) == names


def test_a_rows_own_best_is_shown_beside_those_that_went_on() -> None:
    found = {path.stem: load_outcome(path) for path in PUBLISHED}
    page = " ".join(recipes_page(found, []).split())
    second = [t.error for t in found["tolerance"].tries if (t.round, t.model) == (2, "CNN-unpooled")]
    assert f"CNN-unpooled with F, {min(filter(None, second)):.1f} %" in page
    beside = [o for o in found.values() if {t.candidate for t in o.tries if t.round == 2} - set(o.kept)]
    assert page.count("Beside them a row's own best") == len(beside) == 3


def test_what_stands_beside_a_table_has_the_recipe_that_its_search_chose() -> None:
    found = {path.stem: load_outcome(path) for path in PUBLISHED}
    others = {name: outcome for name, outcome in found.items() if name != "cascades"}
    for outcomes, words in ((found, "Chosen: **predictor's rate 0.00003"), (others, "was set by hand")):
        page = recipes_page(outcomes, [])
        assert words in " ".join(page.split("(cascades-recipe)=")[1].split("(tolerance-")[0].split())
    assert dict(found["cascades"].chosen) == {"rate_predictor": 3e-5, "clip": 1.0}
    rates = {(s.model, s.rate_predictor, s.clip) for s in cells("cascades", "full")}
    assert rates == {("c-STN-4", 3e-5, 1.0), ("c-STN-6", 3e-5, 1.0), ("RNN-4", 1e-3, 1.0)}


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda p: p.stem)
def test_the_page_of_recipes_has_commands_for_what_waits(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Run, they would make the runs that the search has chosen, each once."""
    found, name = load_outcome(path), path.stem

    def shown(file: Path) -> list[str]:
        file.write_text(recipes_page({name: found}, []))
        return [c for c in commands(str(file)) if c.startswith(f"icstn train {name} ")]

    assert not shown(tmp_path / "before.md")
    monkeypatch.setattr(ledger_recipes, "WAITING", (name,))
    wanted = set()
    for spec in cells(name, "full", (0, 1, 2)):
        rates = dict(found.exceptions().get((spec.model, spec.sigma), found.chosen))
        wanted.add(replace(spec, **rates))
    made = []
    for line in shown(tmp_path / "waiting.md"):
        models = re.findall(r'-m "(.*?)"', line)
        values = {field: float(value) for field, value in re.findall(r"--set (\w+)=(\S+)", line)}
        made += cells(name, "full", seed_list(re.findall(r"--seeds (\S+)", line)[0]), models, **values)
    assert len(made) == len(wanted)
    assert set(made) == wanted
