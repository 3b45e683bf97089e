"""Which tests run which lines of the library, and how long each takes: measured once, kept while true."""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from mutant_server import Server, digest

#: Seconds that the tests of one file may take while their lines are noted.
LIMIT = 1800.0

#: Seconds of a processor that the tests of a mutant may take together; the slowest beyond that are left out.
ENOUGH = 120.0

#: Seconds of a test that is asked although it only imports the file in question.
QUICK = 0.2


@dataclass(frozen=True)
class Choice:
    """The tests that a mistake meets.

    Attributes:
        tests: node ids, in order.
        files: of the tests → digest of the file and all of the tests' own modules that it imports.
        seconds: that the tests take without a mistake.
        imported: whether the line is run by an import.
        left_out: how many tests would have been too many.
    """

    tests: list[str]
    files: dict[str, str]
    seconds: float
    imported: bool
    left_out: int


class Known:
    """What has been measured of test files; they and the sources in question have to be as they were.

    Another source that has changed, or what tests share (conftest, golden), may send a test down other lines.
    It is not asked about these until it is measured again, so that a survivor may be one too many, never one
    too few. With ``old`` any change may do that.
    """

    def __init__(self, root: Path, folder: Path, sources: Iterable[str], *, old: bool = False) -> None:
        self.root, self.folder, self.sources, self.old = root, folder, set(sources), old
        self.found: dict[str, dict[str, Any]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def lacking(self, names: Iterable[str]) -> list[str]:
        """Of some test files, those that have to be measured."""
        return [name for name in names if (self.root / name).is_file() and not self._current(name)]

    def _current(self, name: str) -> bool:
        path = self.folder / f"{Path(name).stem}.json"
        if name not in self.found and path.is_file():
            self.found[name] = json.loads(path.read_text("utf-8"))
        if name not in self.found:
            return False
        files = self.found[name]["files"]
        if self.old:
            return True
        asked = [f for f in files if f in self.sources or f == name]
        if as_it_is := all(self._digest(file) == files[file] for file in asked):
            return as_it_is
        del self.found[name]
        return False

    def _digest(self, file: str) -> str:
        path = self.root / file
        return digest(path) if path.is_file() else ""

    def measure(self, name: str, server: Server) -> str:
        """Run a test file, noting what it runs; what went wrong, if anything."""
        path = self.folder / f"{Path(name).stem}.json"
        answer = server.ask(files=[name], tests=None, limit=LIMIT, trace=str(path), log=f"{path}.log")
        if not path.is_file() or not self._current(name):
            return f"{name}: pytest ended with {answer['status']}; see {path}.log"
        failed = self.found[name]["failed"]
        return f"{name} fails without any mistake: {', '.join(failed)}" if failed else ""

    def choose(self, path: str, line: int, names: Iterable[str], enough: float = ENOUGH) -> Choice:
        """The tests of these files that run the statement at a line, the quickest first.

        A line that an import runs decides about the whole file: it meets the tests that run any function in
        it, and the quick ones of those that import it; all of these where no test runs any.
        """
        lines = statement(self.root / path, line)
        groups: dict[int, list[tuple[float, str]]] = defaultdict(list)
        imported = False
        for name in names:
            known = self.found.get(name)
            if known is None or path not in known["lines"]:
                continue
            outside = at_import(self.root / path) | set(known["imported"][path])
            alone = not lines.isdisjoint(outside)
            imported |= alone
            near, far = self._tests(known, path, lines, outside if alone else None)
            for place, mask in ((0, near), (1, far)):
                for i, (test, seconds) in enumerate(known["tests"].items()):
                    if mask >> i & 1 and test not in known["failed"]:
                        groups[place].append((seconds, test))
        each = sorted(groups[0] + [test for test in groups[1] if not groups[0] or test[0] <= QUICK])
        within = [s for s in accumulate(s for s, _ in each) if s <= enough] or [s for s, _ in each[:1]]
        tests = [test for _, test in each[: len(within)]]
        used = dict.fromkeys(test.split("::")[0] for test in tests)
        files = {name: self._tests_digest(name) for name in used}
        return Choice(tests, files, sum(within[-1:]), imported, len(each) - len(tests))

    @staticmethod
    def _tests(
        known: dict[str, Any], path: str, lines: set[int], outside: set[int] | None
    ) -> tuple[int, int]:
        """Bits of those that run the lines (where an import does: any not outside), and of the others."""
        near, every = 0, (1 << len(known["tests"])) - 1
        for number, mask in known["lines"][path].items():
            if int(number) in lines or (outside is not None and int(number) not in outside):
                near |= int(mask, 16)
        return near, every & ~near if outside is not None else 0

    def _tests_digest(self, name: str) -> str:
        own = {f: d for f, d in self.found[name]["files"].items() if f.startswith("tests/")}
        return " ".join(own[f] for f in sorted(own))


@lru_cache(maxsize=256)
def _statements(path: Path) -> list[tuple[int, int]]:
    """First and last line of each simple statement, and of the head of each that has a body."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.stmt):
            body = [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt | ast.ExceptHandler)]
            first = min((d.lineno for d in getattr(node, "decorator_list", ())), default=node.lineno)
            last = min((n.lineno for n in body), default=(node.end_lineno or node.lineno) + 1) - 1
            found.append((first, max(first, last)))
        elif isinstance(node, ast.ExceptHandler):
            found.append((node.lineno, max(node.lineno, node.body[0].lineno - 1)))
    return found


def statement(path: Path, line: int) -> set[int]:
    """The lines of the statement that a line belongs to."""
    around = [(last - first, first, last) for first, last in _statements(path) if first <= line <= last]
    if not around:
        return {line}
    _, first, last = min(around)
    return set(range(first, last + 1))


@lru_cache(maxsize=256)
def at_import(path: Path) -> set[int]:
    """The lines that are outside the bodies of functions."""
    text = path.read_text("utf-8")
    inside: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside |= set(range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1))
    return set(range(1, text.count("\n") + 2)) - inside
