"""The ledger of equations: the tests in tests/equations are run, and say which equations check out."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.ledger_text import NOTE, plain, wrap

ROOT = Path(__file__).resolve().parent.parent

#: Label of each numbered equation in the chapters.
LABELS = {
    1: "eq-lk-objective", 2: "eq-lk-linear", 3: "eq-ic-objective", 4: "eq-ic-linear", 5: "eq-ic-solution",
    6: "eq-regression", 7: "eq-sdm", 8: "eq-stn", 9: "eq-warp-matrix", 10: "eq-composition",
    11: "eq-composition-derivative",
}  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One test: its sentence and whether it passed."""

    sentence: str
    passed: bool


@dataclass(frozen=True)
class Equation:
    """One test file."""

    file: str
    title: str
    math: str
    checks: tuple[Check, ...]

    @property
    def number(self) -> int:
        """The paper's number, 0 for a remark on its text."""
        match = re.fullmatch(r"test_eq_(\d+)\.py", self.file)
        return int(match[1]) if match else 0

    @property
    def passed(self) -> bool:
        """Whether all its checks pass."""
        return bool(self.checks) and all(c.passed for c in self.checks)


def equations(folder: Path = ROOT / "tests" / "equations") -> list[Equation]:
    """Run the tests and read what they say about themselves."""
    passed = _run(folder)
    found = []
    for path in sorted(folder.glob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        title, _, rest = (ast.get_docstring(tree) or "").partition("\n")
        math = textwrap.dedent(rest.split(".. math::", 1)[1]).strip() if ".. math::" in rest else ""
        tests = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
        checks = (
            Check(" ".join((ast.get_docstring(t) or "").split()), (path.stem, t.name) in passed)
            for t in tests
        )
        found.append(Equation(path.name, title, math, tuple(checks)))
    return found


def _run(folder: Path) -> set[tuple[str, str]]:
    """Names of the tests that pass, as (file, function)."""
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--assert=plain"]
        command += [str(folder), f"--junitxml={report}"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        environment |= {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            raise RuntimeError(f"the equations' tests could not run:\n{done.stdout}{done.stderr}")
        cases = list(ET.parse(report).iter("testcase"))
    results: dict[tuple[str, str], bool] = {}
    for case in cases:
        key = (case.get("classname", "").rsplit(".", 1)[-1], re.sub(r"\[.*", "", case.get("name", "")))
        results[key] = results.get(key, True) and len(case) == 0
    return {key for key, ok in results.items() if ok}


def equations_page(found: Sequence[Equation], labels: set[str]) -> str:
    """book/equations.md."""
    numbered = [e for e in found if e.number]
    remarks = [e for e in found if not e.number]
    checks = [c for e in found for c in e.checks]
    out = [
        NOTE,
        "# Equations\n",
        wrap(
            "Every numbered equation of the paper {cite}`lin2017icstn` has a test of its own, written"
            " from first principles: against a scene whose values and gradients are known as "
            "formulas, numpy's linear algebra, automatic differentiation or finite differences, never"
            " against a second call of the code under test. This page is written by running those "
            "tests, so a mark below is a result and not an opinion."
        ),
        f"\n**{sum(e.passed for e in numbered)} of {len(numbered)} equations and "
        f"{sum(e.passed for e in remarks)} of {len(remarks)} remarks check out, "
        f"in {sum(c.passed for c in checks)} of {len(checks)} tests.**\n",
        "| | equation | what it is | in the book |\n|:-:|---|---|---|",
        *(_row(e, labels) for e in numbered),
        "",
        *(_section(e, f"Eq. ({e.number})", f"check-eq-{e.number:02}", labels) for e in numbered),
        "## Remarks\n",
        wrap(
            "Places where the paper's text can't be taken as it stands: something printed is false (an "
            "erratum), two places disagree (an inconsistency), or something needed is not said (an "
            "omission). Each is shown by tests, and so is what holds instead."
        ),
        "",
        *(_section(e, _kind(e), f"check-{e.file[5:-3].replace('_', '-')}", labels) for e in remarks),
    ]
    return "\n".join(out).rstrip() + "\n"


def _kind(e: Equation) -> str:
    """Erratum, inconsistency or omission: the second word of the file's name."""
    return e.file.split("_")[1].capitalize()


def _row(e: Equation, labels: set[str]) -> str:
    mark = "✓" if e.passed else "✗"
    where = _where(e, labels) or "–"
    return f"| {mark} | [({e.number})](check-eq-{e.number:02}) | {e.title.rstrip('.')} | {where} |"


def _where(e: Equation, labels: set[str]) -> str:
    label = LABELS.get(e.number, "")
    return f"{{eq}}`{label}`" if label in labels else ""


def _section(e: Equation, kind: str, target: str, labels: set[str]) -> str:
    level = "##" if e.number else "###"
    mark = "✓" if e.passed else "✗"
    where = _where(e, labels)
    lines = [f"({target})=", f"{level} {kind} {mark} {plain(e.title)}\n", "```{math}", e.math, "```\n"]
    lines += [f"- {'✓' if c.passed else '✗'} {c.sentence}" for c in e.checks]
    lines += [f"\nDerived at {where}; tested in `tests/equations/{e.file}`.\n" if where else
              f"\nTested in `tests/equations/{e.file}`.\n"]  # fmt: skip
    return "\n".join(lines)
