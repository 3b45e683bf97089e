"""Mutants: one-line mistakes put into the library one at a time, and whether the tests notice them.

    python tools/mutants.py [--parts PART …] [--count N] [--workers N] [--report]

Each part of the library has a fixed sample of its mutants: places are drawn from a seed, then one of the
operators of cosmic-ray that change something there. A mutant is put into a copy of the tree, never into the
checkout, and meets the fast tests of its part. What is known of each is kept in ``_build/mutants``, so that a
run can be stopped at any time and goes on where it was; a mutant of a file that has changed meanwhile is new.

A survivor is listed, with the reason why it changes nothing where ``tests/mutants.toml`` has one. The exit
status is 1 where a part has a survivor without a reason, or less than 95 % of it are noticed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import json
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
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / "_build" / "mutants"
REASONS = ROOT / "tests" / "mutants.toml"

#: Of the sample; another number is another sample.
SEED = 13

#: Mutants of a part, and the least share of them that is to be noticed.
COUNT, ENOUGH = 100, 0.95

#: A mutant whose tests take this many times as long as without it, and so many seconds, hangs: it is noticed.
SLOWER, GRACE = 4.0, 120.0


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
            " search baselines planar experiments_running resume experiments_capture"
        ),
    ),
    "evidence": Part(
        ("icstn/evidence/**/*.py",),
        _names(
            "golden_verdicts golden_evidence estimates alignment comparison claims trace published_measures"
            " exhibits_tables"
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
        _names("transformers networks layers sampling warps perturb golden_training"),
    ),
    "classical": Part(
        ("icstn/classical/*.py",),
        _names("features lean golden_classical lucas_kanade regression tracking baselines"),
    ),
    "datasets": Part(
        ("icstn/datasets/*.py",),
        _names("datasets_splits datasets datasets_mnist datasets_gtsrb bad_files golden_training wheel"),
    ),
}


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
        return f"{self.path} {self.digest} {self.operator} {self.occurrence}"


def sample(part: str, count: int) -> list[Mutant]:
    """A part's mutants: places drawn from the seed without replacement, and for each an operator."""
    chance = random.Random(f"{SEED} {part}")
    places = [(path, at) for path in sources(part) for at in sorted(changeable(path.read_text("utf-8")))]
    chance.shuffle(places)
    found: dict[str, Mutant] = {}
    for path, at in places:
        if len(found) == count:
            break
        choices = changeable(path.read_text("utf-8"))[at]
        mutant = _mutant(part, path, at, *chance.choice(choices))
        if mutant is not None:
            found.setdefault(mutant.key, mutant)
    return list(found.values())


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

    changed = mutate_code(text, get_operator(operator)(), occurrence)
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

    def test(self, part: str, limit: float | None = None) -> tuple[int, str]:
        """The part's fast tests up to the first that fails: pytest's status (-1: too slow), and its name."""
        tests = [f"tests/test_{name}.py" for name in PARTS[part].tests]
        tests = [name for name in tests if (self.folder / name).is_file()]
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=no", "-p", "no:cacheprovider"]
        command += ["-m", "not slow and not browser and not long", *tests]
        own = {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        options: dict[str, Any] = {"cwd": self.folder, "env": os.environ | own, "text": True}
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "start_new_session": True}
        with subprocess.Popen(command, **options) as process:
            _RUNNING.add(process)
            try:
                text, _ = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                end(process)
                return -1, "took too long"
            finally:
                _RUNNING.discard(process)
        failed = [line for line in text.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return process.returncode, failed[0] if failed else (text.strip().splitlines() or [""])[-1]

    @contextlib.contextmanager
    def holding(self, mutant: Mutant) -> Iterator[None]:
        """The mutant is in the copy."""
        path = self.folder / mutant.path
        text = path.read_text("utf-8")
        changed = mutated(text, mutant.operator, mutant.occurrence)
        assert changed is not None
        try:
            path.write_text(changed, "utf-8")
            yield
        finally:
            path.write_text(text, "utf-8")


_RUNNING: set[subprocess.Popen[str]] = set()


def end(process: subprocess.Popen[str]) -> None:
    """End a test run with all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


class Trial:
    """All mutants that are not known yet, on some copies side by side."""

    def __init__(self, samples: dict[str, list[Mutant]], state: State, workers: int) -> None:
        self.samples, self.state, self.workers = samples, state, workers
        self.copies: queue.Queue[Copy] = queue.Queue()
        self.usual: dict[str, float] = {}
        self.stopped = False

    def run(self) -> None:
        """Try them; Ctrl-C stops, and what is known is kept."""
        left = [m for sample in self.samples.values() for m in sample if m.key not in self.state.known]
        if not left:
            return
        print(f"{len(left)} mutants to try, {self.workers} at a time; Ctrl-C stops, the next run goes on")
        made = [Copy() for _ in range(self.workers)]
        for copy in made:
            self.copies.put(copy)
        try:
            for part in dict.fromkeys(m.part for m in left):
                self._measure(part, made[0])
            with ThreadPoolExecutor(self.workers) as pool:
                try:
                    list(pool.map(self._try, left))
                except BaseException:
                    self._stop()
                    raise
        finally:
            for copy in made:
                copy.remove()

    def _stop(self) -> None:
        self.stopped = True
        for process in list(_RUNNING):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def _measure(self, part: str, copy: Copy) -> None:
        """How long the part's tests take as they are; they have to pass."""
        began = time.monotonic()
        status, line = copy.test(part)
        self.usual[part] = time.monotonic() - began
        if status:
            raise SystemExit(f"the tests of {part} fail without any mutant: {line}")
        print(f"{part}: its tests take {self.usual[part]:.0f} s as they are", flush=True)

    def _try(self, mutant: Mutant) -> None:
        if self.stopped:
            return
        copy, began = self.copies.get(), time.monotonic()
        try:
            with copy.holding(mutant):
                status, line = copy.test(mutant.part, GRACE + SLOWER * self.usual[mutant.part])
        finally:
            self.copies.put(copy)
        if not self.stopped:
            outcome = {"noticed": status != 0, "by": line, "seconds": round(time.monotonic() - began, 1)}
            self.state.add(mutant, outcome)
            self._tell(mutant, outcome)

    def _tell(self, mutant: Mutant, outcome: dict[str, Any]) -> None:
        own = self.samples[mutant.part]
        known = [self.state.known[m.key] for m in own if m.key in self.state.known]
        share = sum(k["noticed"] for k in known) / len(known)
        word = "noticed" if outcome["noticed"] else "SURVIVED"
        place = f"{mutant.path}:{mutant.line}"
        print(f"{mutant.part} {len(known)}/{len(own)} {word} ({outcome['seconds']:.0f} s) {place}, "
              f"{share:.0%} noticed so far", flush=True)  # fmt: skip


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
            print(f"  {m.path}:{m.line}\n    - {m.before}\n    + {m.after}\n    {reason}")
        well &= len(known) == len(mutants) and share >= ENOUGH and len(same) == len(alive)
    return well


def arguments(given: Iterable[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--count", type=int, default=COUNT, help="mutants of each part")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="copies side by side")
    parser.add_argument("--report", action="store_true", help="try nothing, tell what is known")
    return parser.parse_args(None if given is None else list(given))


def main() -> int:
    """Try what is not known yet, then report."""
    options = arguments()
    samples = {part: sample(part, options.count) for part in options.parts}
    state = State(STATE)
    if not options.report:
        try:
            Trial(samples, state, max(1, options.workers)).run()
        except KeyboardInterrupt:
            print("\nstopped; what is known is kept")
            return 130
    return 0 if report(samples, state, reasons()) else 1


if __name__ == "__main__":
    sys.exit(main())
