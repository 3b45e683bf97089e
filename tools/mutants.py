"""Mutants: one-line mistakes put into the library one at a time, and whether the tests notice them.

    python tools/mutants.py [--parts PART …] [--count N] [--workers N] [--old] [--report]

Each part of the library has a fixed sample of its mutants: places are drawn by a seed, then one of the
operators of cosmic-ray that change something there; a change elsewhere in a file leaves the rest of the
sample as it is. The part ``named`` is a list by hand, of mistakes that tests have once let pass
(``tests/mutants.toml``).

A mutant is put into a copy of the tree, never into the checkout, and meets those of its part's fast tests
that run its line, the quickest first, up to the first that fails. Which these are is measured once and kept
while a test file and what it imports are as they were. What is known of each mutant is kept in
``_build/mutants``, so that a run can be stopped at any time and goes on where it was. A mutant of a file that
has changed meanwhile is new, and a survivor whose tests have changed is tried again.

A survivor is listed, with the reason why it changes nothing where ``tests/mutants.toml`` has one. The exit
status is 1 where a part has a survivor without a reason, or less than 95 % of it are noticed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import json
import math
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from mutant_server import Server
from mutant_tests import ENOUGH as ENOUGH_SECONDS
from mutant_tests import Choice, Known

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / "_build" / "mutants"
REASONS = ROOT / "tests" / "mutants.toml"

#: Of the sample; another number is another sample.
SEED = 13

#: Mutants of a part, and the least share of them that is to be noticed.
COUNT, ENOUGH = 100, 0.95

#: A mutant whose tests take this many times as long as without it, and so many seconds, hangs: it is noticed.
#: On a machine that does other work the seconds are longer.
SLOWER, GRACE = 4.0, 90.0

#: Test files that are imported before the others, where the library has to be imported anew.
FIRST = 3

#: The operator of a mutant that is written by hand.
BY_HAND = "by hand"


class Part(NamedTuple):
    """What is mutated, and the tests that are to notice, the quickest first."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


#: The parts of the library.
PARTS = {
    "experiments": Part(
        ("icstn/experiments/*.py", "icstn/perturb.py"),
        _names(
            "spec perturb golden_training golden_evaluation golden_running checkpoints records training"
            " search baselines planar experiments_running resume experiments_capture two_images"
            " standalone fitting beside bad_files live_view"
        ),
    ),
    "evidence": Part(
        ("icstn/evidence/**/*.py",),
        _names(
            "golden_verdicts golden_evidence estimates alignment comparison claims trace published_measures"
            " exhibits_tables findings computations measurements elsewhere ablations learning"
            " two_images fitting"
        ),
    ),
    "transformers": Part(
        (
            "icstn/transformers.py",
            "icstn/networks.py",
            "icstn/layers.py",
            "icstn/sampling.py",
            "icstn/warps.py",
        ),
        _names("transformers networks layers sampling warps perturb golden_training start"),
    ),
    "datasets": Part(
        ("icstn/datasets/*.py",),
        _names(
            "datasets_splits datasets datasets_mnist datasets_gtsrb bad_files golden_training pairs"
            " datasets_resolution"
        ),
    ),
    "classical": Part(
        ("icstn/classical/*.py",),
        _names("features lean golden_classical lucas_kanade regression tracking baselines alignment_tool"),
    ),
}
PARTS["named"] = Part((), tuple(dict.fromkeys(name for part in PARTS.values() for name in part.tests)))


@dataclass(frozen=True)
class Mutant:
    """A mistake.

    Attributes:
        part: of the library.
        path: of the file, from the checkout.
        line: of the file, from 1.
        before, after: the lines that differ, without indentation.
        operator, occurrence: what cosmic-ray makes it from.
        digest: of the file as it was.
    """

    part: str
    path: str
    line: int
    before: str
    after: str
    operator: str
    occurrence: int
    digest: str

    @property
    def key(self) -> str:
        """The same for the same mistake in the same file."""
        same = f"{self.path} {self.digest} {self.operator} {self.occurrence}"
        return f"{same} {self.after}" if self.operator.startswith(BY_HAND) else same

    def text(self, original: str) -> str:
        """The file with the mistake."""
        if self.operator.startswith(BY_HAND):
            return original.replace(self.before, self.after)
        changed = mutated(original, self.operator, self.occurrence)
        assert changed is not None
        return changed


def sample(part: str, count: int) -> list[Mutant]:
    """A part's mutants, kept in a file: places in an order that the seed decides, for each an operator."""
    if part == "named":
        return named()
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sources(part))).hexdigest()
    path = STATE / f"sample-{part}-{count}-{digest[:12]}.json"
    if not path.is_file():
        STATE.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([asdict(m) for m in _drawn(part, count)]), "utf-8")
    return [Mutant(**entry) for entry in json.loads(path.read_text("utf-8"))]


def _drawn(part: str, count: int) -> list[Mutant]:
    places = []
    for path in sources(part):
        seen: dict[str, int] = defaultdict(int)
        lines = path.read_text("utf-8").splitlines()
        for line, column in sorted(changeable(path.read_text("utf-8"))):
            text = lines[line - 1].strip()
            name = f"{SEED} {path.name} {text} {len(lines[line - 1][:column].strip())}"
            seen[name] += 1
            chance = hashlib.sha256(f"{name} {seen[name]}".encode()).hexdigest()
            places.append((chance, path, (line, column)))
    found: dict[str, Mutant] = {}
    for chance, path, at in sorted(places):
        if len(found) < count:
            choices = changeable(path.read_text("utf-8"))[at]
            mutant = _mutant(part, path, at, *random.Random(chance).choice(choices))
            if mutant is not None:
                found.setdefault(mutant.key, mutant)
    return list(found.values())


def named(path: Path = REASONS) -> list[Mutant]:
    """The mistakes of the list by hand; each has to be in its file once."""
    found = []
    for entry in tomllib.loads(path.read_text("utf-8")).get("wrong", []):
        text = (ROOT / entry["path"]).read_text("utf-8")
        if text.count(entry["before"]) != 1:
            raise SystemExit(f"{entry['what']}: {entry['path']} has {entry['before']!r} not once any more")
        line = text[: text.index(entry["before"])].count("\n") + 1
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        place = (entry["path"], line, entry["before"], entry["after"])
        found.append(Mutant("named", *place, f"{BY_HAND}: {entry['what']}", 0, digest))
    return found


def sources(part: str) -> list[Path]:
    """The files of a part."""
    return sorted(path for pattern in PARTS[part].sources for path in ROOT.glob(pattern))


_KNOWN: dict[str, dict[tuple[int, int], list[tuple[str, int]]]] = {}


def changeable(text: str) -> dict[tuple[int, int], list[tuple[str, int]]]:
    """Places (line, column) of a source → the operators that change something there, by occurrence.

    Annotations are left out: they are not evaluated.
    """
    if text not in _KNOWN:
        _KNOWN[text] = defaultdict(list)
        silent = annotations(text)
        for name, occurrence, place in _occurrences(text):
            if not any(start <= place < end for start, end in silent):
                _KNOWN[text][place].append((name, occurrence))
    return _KNOWN[text]


def annotations(text: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """From where to where a source has annotations, overloads and what only a type checker reads."""
    found: list[ast.AST] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.AnnAssign | ast.arg) and node.annotation is not None:
            found.append(node.annotation)
        elif isinstance(node, ast.FunctionDef):
            found += [node.returns] if node.returns is not None else []
            if any(ast.unparse(d) == "overload" for d in node.decorator_list):
                found += [*node.decorator_list, node]
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            found.append(node)
    return [((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in found]  # type: ignore


def _occurrences(text: str) -> Iterator[tuple[str, int, tuple[int, int]]]:
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    nodes = list(ast_nodes(get_ast(text)))
    for name in operator_names():
        if get_operator(name).arguments():
            continue
        operator = get_operator(name)()
        places = (start for node in nodes for start, _ in operator.mutation_positions(node))
        for occurrence, start in enumerate(places):
            yield name, occurrence, start


def mutated(text: str, operator: str, occurrence: int) -> str | None:
    """The source with the mistake; None where it makes no difference."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    try:
        changed = mutate_code(text, get_operator(operator)(), occurrence)
    except AttributeError:  # cosmic-ray's exception replacer knows no dotted names
        return None
    return None if changed is None or ast.dump(ast.parse(changed)) == ast.dump(ast.parse(text)) else changed


def _mutant(part: str, path: Path, at: tuple[int, int], operator: str, occurrence: int) -> Mutant | None:
    text = path.read_text("utf-8")
    with contextlib.suppress(SyntaxError):
        if (changed := mutated(text, operator, occurrence)) is not None:
            old, new = text.splitlines(), changed.splitlines()
            gone, come = difference(old, new)
            name, digest = str(path.relative_to(ROOT)), hashlib.sha256(text.encode()).hexdigest()[:12]
            return Mutant(part, name, at[0], gone, come, operator, occurrence, digest)
    return None


def difference(old: Sequence[str], new: Sequence[str]) -> tuple[str, str]:
    """The lines between the first and the last that differ, each without its indentation."""
    head = next(
        (i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new))
    )
    tail, most = 0, min(len(old), len(new)) - head
    while tail < most and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    if len(new) - tail == head and tail:  # a line is gone: the next one tells which
        tail -= 1
    return tuple(" ".join(s.strip() for s in x[head : len(x) - tail]) for x in (old, new))  # type: ignore


class State:
    """What is known of mutants: one line of JSON each, appended as soon as it is known."""

    def __init__(self, folder: Path) -> None:
        self.path, self.lock = folder / "outcomes.jsonl", threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self.known: dict[str, dict[str, Any]] = {}
        for line in self.path.read_text("utf-8").splitlines() if self.path.is_file() else ():
            with contextlib.suppress(ValueError):  # the last line of a run that was killed
                self.known |= {(found := json.loads(line))["key"]: found}

    def settled(self, mutant: Mutant, choice: Choice) -> bool:
        """Whether it is known what becomes of it: noticed, or not by the tests as they are, all of them."""
        found = self.known.get(mutant.key)
        if found is None or found["noticed"]:
            return found is not None
        return found.get("met") == choice.files and not found.get("unfit")

    def add(self, mutant: Mutant, outcome: dict[str, Any]) -> None:
        """Keep an outcome."""
        entry = {"key": mutant.key, **asdict(mutant), **outcome}
        with self.lock, self.path.open("a", encoding="utf-8") as file:
            self.known[mutant.key] = entry
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")


class Copy:
    """A copy of the tree in which mutants are tried, one after the other."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="icstn-mutant-"))
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, names.split("\0")):
            if (ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.folder / name)

    def remove(self) -> None:
        """Delete it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def holding(self, mutant: Mutant) -> Iterator[tuple[str, str]]:
        """The mutant is in the copy: the file before and after. What was compiled of the file stays true."""
        path = self.folder / mutant.path
        text, times = path.read_text("utf-8"), path.stat()
        try:
            path.write_text(changed := mutant.text(text), "utf-8")
            os.utime(path, (times.st_atime, times.st_mtime + 10))
            yield text, changed
        finally:
            path.write_text(text, "utf-8")
            os.utime(path, (times.st_atime, times.st_mtime))


class Worker:
    """A copy, and two processes in it: one that has the tests collected, and one that imports all anew."""

    def __init__(self, files: list[str]) -> None:
        self.copy = Copy()
        self.cold = Server(self.copy.folder)
        self.files = files
        self.warm: Server | None = None
        self.unfit: set[str] = set()
        self.sound: set[tuple[bool | str, ...]] = set()

    def try_out(self, mutant: Mutant, choice: Choice) -> dict[str, Any]:
        """Whether a test notices it, which, and how long that took.

        A test that fails here without the mistake, too, after the same tests, is not asked.
        """
        self._collect(mutant.path, choice)
        tests, began = [t for t in choice.tests if t not in self.unfit], time.monotonic()
        outcome = {"noticed": False, "by": "" if tests else "no test runs it", "seconds": 0.0}
        while tests:
            with self.copy.holding(mutant) as (old, new):
                answer, warm = self._ask(mutant.path, old, new, tests, choice)
            outcome = {"noticed": answer["status"] != 0, "by": answer["by"]}
            if not answer["status"] or answer["by"] not in tests:
                break
            met = tests[: tests.index(answer["by"]) + 1]
            if (failed := self._fails_anyway(mutant.path, old, met, choice, warm)) is None:
                break
            self.unfit.add(failed)
            tests.remove(failed)
            outcome = {"noticed": False, "by": ""}
        unfit = [t for t in choice.tests if t in self.unfit]
        return outcome | {"seconds": round(time.monotonic() - began, 1), "unfit": unfit}

    def _collect(self, path: str, choice: Choice) -> None:
        """Have a process with the tests collected, where it is needed: from the library without a mistake."""
        if self.warm is None and not choice.imported:
            self.warm = Server(self.copy.folder, self.files)
            text = (self.copy.folder / path).read_text("utf-8")
            self.warm.ask(path=path, old=text, new=text, tests=[], limit=GRACE * crowd())

    def _ask(
        self, path: str, old: str, new: str, tests: list[str], choice: Choice, warm: bool = True
    ) -> tuple[dict[str, Any], bool]:
        """The answer, and whether the process that has the tests collected could give it."""
        request: dict[str, Any] = {"tests": tests, "limit": (GRACE + SLOWER * choice.seconds) * crowd()}
        if warm and not choice.imported and self.warm:
            answer = self.warm.ask(path=path, old=old, new=new, **request)
            if answer["status"] != -3:
                return answer, True
        files = list(dict.fromkeys(test.split("::")[0] for test in tests))
        return self._anew(files, request), False

    def _fails_anyway(self, path: str, text: str, met: list[str], choice: Choice, warm: bool) -> str | None:
        """The first of these tests that fails without any mistake, if one does."""
        if (warm, *met) in self.sound:
            return None
        answer, _ = self._ask(path, text, text, met, choice, warm)
        if answer["status"] == 0:
            self.sound.add((warm, *met))
        return answer["by"] if answer["status"] and answer["by"] in met else None

    def _anew(self, files: list[str], request: dict[str, Any]) -> dict[str, Any]:
        """With the library imported anew: the tests of the first files, and of the others if they pass."""
        for some in filter(None, (files[:FIRST], files[FIRST:])):
            answer = self.cold.ask(files=some, **request)
            if answer["status"]:
                break
        return answer

    def end(self) -> None:
        """End the processes, delete the copy."""
        for server in filter(None, (self.cold, self.warm)):
            server.end()
        self.copy.remove()


def crowd() -> float:
    """How many times longer than alone a process takes here, about."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Trial:
    """All mutants that are not known yet, by some workers side by side."""

    def __init__(
        self, samples: dict[str, list[Mutant]], state: State, workers: int, old: bool = False
    ) -> None:
        self.samples, self.state, self.workers = samples, state, workers
        self.tests = {part: test_files(part) for part in samples}
        self.files = list(dict.fromkeys(name for names in self.tests.values() for name in names))
        paths = {m.path for found in samples.values() for m in found}
        self.known = Known(ROOT, STATE / "tests", paths, old=old)
        self.free: queue.Queue[Worker] = queue.Queue()
        self.stopped = False

    def run(self) -> None:
        """Try them; Ctrl-C stops, and what is known is kept."""
        made = [Worker(self.files) for _ in range(self.workers)]
        for worker in made:
            self.free.put(worker)
        try:
            with ThreadPoolExecutor(self.workers) as pool:
                try:
                    for wrong in filter(None, pool.map(self._measure, self.known.lacking(self.files))):
                        print(wrong, flush=True)
                    left = self._left()
                    print(f"{len(left)} mutants to try, {self.workers} at a time; Ctrl-C stops", flush=True)
                    list(pool.map(self._try, left))
                except BaseException:
                    self.stopped = True
                    for worker in made:
                        worker.end()
                    raise
        finally:
            for worker in made:
                worker.end()

    def _measure(self, name: str) -> str:
        if self.stopped:
            return ""
        worker, began = self.free.get(), time.monotonic()
        try:
            wrong = self.known.measure(name, worker.cold)
        finally:
            self.free.put(worker)
        print(f"which lines {name} runs: {time.monotonic() - began:.0f} s", flush=True)
        return wrong

    def _left(self) -> list[tuple[Mutant, Choice]]:
        """Those to try, of each part in turn; the quick ones first, for which nothing is imported."""
        in_turn = (m for ms in zip_longest(*self.samples.values()) for m in ms if m is not None)
        left = ((m, self._choice(m)) for m in in_turn)
        found = [(m, choice) for m, choice in left if not self.state.settled(m, choice)]
        return sorted(found, key=lambda pair: pair[1].imported)

    def _choice(self, mutant: Mutant) -> Choice:
        """Of a named wrong all tests that run it, however long they take; the golden ones are first."""
        enough = math.inf if mutant.part == "named" else ENOUGH_SECONDS
        found = self.known.choose(mutant.path, mutant.line, self.tests[mutant.part], enough)
        if mutant.part == "named":
            found.tests.sort(key=lambda test: not test.startswith("tests/test_golden"))
        return found

    def _try(self, given: tuple[Mutant, Choice]) -> None:
        if self.stopped:
            return
        (mutant, choice), worker = given, self.free.get()
        try:
            outcome = worker.try_out(mutant, choice)
        finally:
            self.free.put(worker)
        if not self.stopped:
            self.state.add(mutant, outcome | {"met": choice.files, "left_out": choice.left_out})
            self._tell(mutant, outcome)

    def _tell(self, mutant: Mutant, outcome: dict[str, Any]) -> None:
        own = self.samples[mutant.part]
        known = [self.state.known[m.key] for m in own if m.key in self.state.known]
        share = sum(k["noticed"] for k in known) / len(known)
        word = "noticed" if outcome["noticed"] else "SURVIVED"
        place = f"{mutant.path}:{mutant.line}"
        print(f"{mutant.part} {len(known)}/{len(own)} {word} ({outcome['seconds']:.0f} s) {place}, "
              f"{share:.0%} noticed so far", flush=True)  # fmt: skip


def test_files(part: str) -> list[str]:
    """A part's test files that there are."""
    names = [f"tests/test_{name}.py" for name in PARTS[part].tests]
    return [name for name in names if (ROOT / name).is_file()]


def reasons(path: Path = REASONS) -> dict[tuple[str, str, str], str]:
    """(file, line before, line after) → why it changes nothing."""
    entries = tomllib.loads(path.read_text("utf-8")).get("same", []) if path.is_file() else []
    return {(e["path"], e["before"], e["after"]): e["why"] for e in entries}


def report(samples: dict[str, list[Mutant]], state: State, why: dict[tuple[str, str, str], str]) -> bool:
    """Print each part's share and its survivors; whether all is well."""
    well = True
    for part, mutants in samples.items():
        known = [(m, state.known[m.key]) for m in mutants if m.key in state.known]
        alive = [m for m, found in known if not found["noticed"]]
        same = [m for m in alive if (m.path, m.before, m.after) in why]
        differing = len(known) - len(same)
        share = (len(known) - len(alive)) / differing if differing else 0.0
        print(f"\n{part}: {len(known)} of {len(mutants)} tried, {len(known) - len(alive)} noticed, "
              f"{len(same)} change nothing: {share:.1%} of the others noticed")  # fmt: skip
        for m in alive:
            reason = why.get((m.path, m.before, m.after), "NO REASON GIVEN")
            left_out = state.known[m.key].get("left_out", 0)
            more = f" ({left_out} slower tests were not asked)" if left_out else ""
            unfit = state.known[m.key].get("unfit", [])
            more += f" (not asked, as they fail without it, too: {', '.join(unfit)})" if unfit else ""
            print(f"  {m.path}:{m.line}{more}\n    - {m.before}\n    + {m.after}\n    {reason}")
        well &= len(known) == len(mutants) and share >= ENOUGH and len(same) == len(alive)
    return well


def arguments(given: Iterable[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--count", type=int, default=COUNT, help="mutants of each part but the named ones")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="copies side by side")
    parser.add_argument(
        "--old", action="store_true", help="go by what test files ran before they were changed, if they were"
    )
    parser.add_argument("--report", action="store_true", help="try nothing, tell what is known")
    return parser.parse_args(None if given is None else list(given))


def main() -> int:
    """Try what is not known yet, then report."""
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    samples = {part: sample(part, options.count) for part in options.parts}
    state = State(STATE)
    if not options.report:
        try:
            Trial(samples, state, max(1, options.workers), options.old).run()
        except KeyboardInterrupt:
            print("\nstopped; what is known is kept")
            return 130
    return 0 if report(samples, state, reasons()) else 1


if __name__ == "__main__":
    sys.exit(main())
