"""The tool that puts mistakes into the library: its lists are current, and it knows what a change changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mutant_server import digest, paired
from mutant_tests import Choice, Known, at_import, statement
from mutants import ROOT, Copy, Worker, named, reasons

SOURCE = '''"""A module."""
from functools import cache

HALF = (
    0.5
)

@cache
def scaled(x: float, by: float = 2.0) -> float:
    """Docstring."""
    if x > 0:
        return (
            x * by
        )
    return -x * by


class Pair:
    size = 2

    def total(self, a: int, b: int) -> int:
        return (lambda c: a + b + c)(0)
'''


def test_each_named_wrong_is_in_its_file_once() -> None:
    found = named()
    assert len({m.operator for m in found}) == len(found) >= 33
    for mutant in found:
        text = (ROOT / mutant.path).read_text("utf-8")
        assert compile(mutant.text(text), mutant.path, "exec") != compile(text, mutant.path, "exec")


def test_each_mutant_that_changes_nothing_is_of_a_line_that_is_there() -> None:
    for (path, before, _), why in reasons().items():
        lines = " ".join(line.strip() for line in (ROOT / path).read_text("utf-8").splitlines())
        assert before.strip() in lines, (path, before)
        assert why.endswith(".")


def test_tests_are_collected_while_the_library_has_no_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that has them collected begins, and has answered, before the mistake is put in."""
    mutant = named()[0]
    sound = (ROOT / mutant.path).read_text("utf-8")
    seen: list[tuple[str, bool]] = []

    class Small(Copy):
        def __init__(self) -> None:
            self.folder = tmp_path
            (tmp_path / mutant.path).parent.mkdir(parents=True)
            (tmp_path / mutant.path).write_text(sound, "utf-8")

    class Server:
        def __init__(self, folder: Path, tests: list[str] | None = None) -> None:
            self.name = "warm" if tests else "cold"
            self.look("begins")

        def ask(self, **request: object) -> dict[str, object]:
            self.look(f"asked {request['tests']}")
            return {"status": 1 if request["tests"] else 0, "by": "tests/test_a.py::test_a"}

        def look(self, what: str) -> None:
            seen.append((f"{self.name} {what}", (tmp_path / mutant.path).read_text("utf-8") == sound))

    monkeypatch.setattr("mutants.Copy", Small)
    monkeypatch.setattr("mutants.Server", Server)
    worker = Worker(["tests/test_a.py"])
    worker.sound.add((True, "tests/test_a.py::test_a"))
    outcome = worker.try_out(mutant, Choice(["tests/test_a.py::test_a"], {}, 1.0, False, 0))
    assert outcome["noticed"] is True
    assert seen == [
        ("cold begins", True),
        ("warm begins", True),
        ("warm asked []", True),
        ("warm asked ['tests/test_a.py::test_a']", False),
    ]


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "icstn" / "module.py"
    path.parent.mkdir()
    path.write_text(SOURCE)
    return path


def test_the_lines_of_a_statement(module: Path) -> None:
    assert statement(module, 5) == {4, 5, 6}
    assert statement(module, 13) == {12, 13, 14}
    assert statement(module, 11) == {11}
    assert statement(module, 9) == {8, 9}
    assert {4, 8, 9, 18, 19} <= at_import(module)
    assert at_import(module).isdisjoint({11, 13, 15, 22})


@pytest.mark.parametrize(
    ("before", "after", "functions"),
    [
        ("x > 0", "x < 0", ["scaled"]),
        ("a + b + c", "a - b + c", ["Pair.total", "Pair.total.<locals>.<lambda>"]),
        ("0.5", "0.6", None),
        ("by: float = 2.0", "by: float = 3.0", None),
        ("@cache\n", "", None),
        ("size = 2", "size = 3", None),
    ],
)
def test_what_differs(before: str, after: str, functions: list[str] | None) -> None:
    """Functions that can take another's place, or more than that: then the module is imported anew."""
    changed = SOURCE.replace(before, after)
    found = paired(*(compile(text, "module.py", "exec") for text in (SOURCE, changed)))
    assert (None if found is None else [old.co_qualname for old, _ in found]) == functions


def test_the_tests_that_run_a_line(module: Path, tmp_path: Path) -> None:
    """Only those, the quick ones first; of a line that an import runs, those that run any function of it,
    and the quick ones of all that import it."""
    known, name = Known(tmp_path, tmp_path / "known", ["icstn/module.py"]), "tests/test_a.py"
    (tmp_path / "tests").mkdir()
    (tmp_path / name).write_text("# as it was")
    tests = {
        f"{name}::{t}": s
        for t, s in (("slow", 3.0), ("quick", 0.1), ("other", 0.2), ("none", 0.0), ("far", 1.0))
    }
    measured = {
        "tests": tests,
        "failed": [],
        "lines": {"icstn/module.py": {4: "0", 11: "3", 12: "3", 22: "4"}},
        "imported": {"icstn/module.py": [4, 8, 9, 18, 19, 21]},
        "files": {path: digest(tmp_path / path) for path in (name, "icstn/module.py")},
    }
    (known.folder / "test_a.json").write_text(json.dumps(measured))
    assert known.lacking([name, "tests/test_gone.py"]) == []
    chosen = {line: known.choose("icstn/module.py", line, [name]) for line in (13, 22, 5, 15)}
    ids = {line: [test.split("::")[1] for test in choice.tests] for line, choice in chosen.items()}
    assert ids == {13: ["quick", "slow"], 22: ["other"], 5: ["none", "quick", "other", "slow"], 15: []}
    assert [chosen[line].imported for line in (13, 5)] == [False, True]
    (tmp_path / name).write_text("# as it is")
    assert known.lacking([name]) == [name]
