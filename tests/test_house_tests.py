"""The tests themselves: a skipped one says what would run it, and their order may be any."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch
from order import LONGEST, longest_first, shuffled

from icstn.warps import family

CONFTEST = Path(__file__).with_name("conftest.py")
SKIPS = """
import pytest

@pytest.mark.parametrize("reason", ["not today", "to run it, install Chromium"])
def test_called(reason):
    pytest.skip(reason)

@pytest.mark.skipif(True, reason="because")
def test_marked():
    pass

def test_imported():
    pytest.importorskip("no_such_module")

@pytest.mark.long
def test_long():
    pass
"""


def collected(folder: Path, *options: str) -> str:
    """What pytest says of the tests in a folder that has this project's conftest."""
    (folder / "tests").mkdir(exist_ok=True)
    (folder / "tests" / "torch.py").write_text(
        "def set_num_threads(n): pass\n"
    )  # takes long, and is not used
    for name in ("conftest.py", "order.py", "typecheck.py", "warm.py", "warm_process.py"):
        (folder / "tests" / name).write_text(CONFTEST.with_name(name).read_text())
    settings = "[pytest]\nmarkers =\n  slow: x\n  long: x\n  unchecked: x\n  xdist_group: x\n  timeout: x\n"
    (folder / "pytest.ini").write_text(settings)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--assert=plain", *options]
    command.append(str(folder / "tests"))
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


WORKERS = """
import os, pathlib, pytest

@pytest.mark.parametrize("n", range(20))
def test_some(n):
    with pathlib.Path(__file__).with_suffix(".txt").open("a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + " ")
"""


@pytest.mark.slow
def test_a_file_stays_on_one_worker(tmp_path: Path) -> None:
    """What its tests share is then made once: not every pytest-xdist does it with every pytest."""
    (tmp_path / "tests").mkdir()
    for name in "ab":
        (tmp_path / "tests" / f"test_{name}.py").write_text(WORKERS)
    assert "40 passed" in collected(tmp_path, "-n", "2", "--dist", "loadgroup")
    used = [set((tmp_path / "tests" / f"test_{name}.txt").read_text().split()) for name in "ab"]
    assert [len(workers) for workers in used] == [1, 1]


@pytest.mark.slow
def test_a_skipped_test_says_what_would_run_it(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_some.py").write_text(SKIPS)
    told = collected(tmp_path, "-q", "-rN")  # a summary is cut to the width of the terminal, or is not
    assert "1 failed, 3 skipped, 1 error" in told  # a mark is looked at before the test
    assert told.count("skipped without a word on what would run it") == 2
    assert "not today" in told
    assert "because" in told


def test_the_order_is_drawn_from_a_seed() -> None:
    tests = [(f"test_{file}.py", f"test_{file}.py::test_{n}") for file in "abc" for n in range(9)]
    first, second = shuffled(tests, 1), shuffled(tests, 2)
    assert sorted(first) == sorted(tests)
    assert first == shuffled(tests[::-1], 1) != second
    changes = [a for a, b in itertools.pairwise(first) if a[0] != b[0]]
    assert len(changes) == 2, "files stay together"


def test_the_longest_come_first_and_are_there(root: Path) -> None:
    for group in LONGEST:
        assert (root / (group if "/" in group else f"tests/{group}.py")).is_file(), group
    groups = ["test_warps", *LONGEST[::-1], "test_beside"]
    assert sorted(groups, key=longest_first) == [*LONGEST, "test_warps", "test_beside"]


def test_arguments_are_checked_while_a_test_runs() -> None:
    """They are not while tests are collected, which must not last."""
    with pytest.raises(jaxtyping.TypeCheckError):
        family("affine").matrix(torch.zeros(2, 3).tolist())


@pytest.mark.unchecked
def test_arguments_are_not_checked_where_a_test_says_so() -> None:
    with pytest.raises(AttributeError):
        family("affine").matrix(torch.zeros(2, 3).tolist())
