"""Faults in each phase of a reproduction: what is tried, on real processes and real file systems.

    python tests/faults.py [--phases PHASE …]      try, and tell
    python tests/faults.py --write                 try all, and write the page of the book
    python tests/faults.py --page                  write the page anew from the file

A phase is the library's own code on a small world: a server on this machine that has a few digits, archives
with one sign of each class, a network that learns bars, a notebook, a drawing, a book of one page. It is done
in a process of its own, in a folder of its own, which is a file system of its own where that may be mounted.

Kinds of faults: the process is killed with SIGKILL (as it is about to put a file in its place, and at
moments drawn by chance), the disk is full, the folder may only be read, two processes do the same at
once, and the clock jumps by a day, back and forth. After each, the same is done undisturbed, and has to
leave what it leaves in a folder where nothing ever happened.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "book" / "assets" / "faults.json", ROOT / "book" / "faults.md"

#: Bytes of a file system of a folder's own, and of what is left on a full one.
SIZE, LEFT = 64 << 20, 4096

#: Seconds a phase may take, and a process that hangs is ended after.
PATIENCE = 300.0

#: Deaths of a phase at moments drawn by chance.
DEATHS = 3

FAULTS = {
    "killed": "killed with SIGKILL",
    "full": "the disk is full",
    "read-only": "the folder may only be read",
    "twice": "two at once",
    "clock": "the clock jumps",
}


@dataclass(frozen=True)
class Phase:
    """A part of a reproduction.

    Attributes:
        name: of the phase.
        does: in words.
        work: does it in a folder.
        left: what it leaves there, told by a digest; empty where nothing is there yet.
        writes: the call of ``os`` that puts a file in its place, and is a good moment to die; empty where
            another process does that.
        begins: done before, undisturbed.
    """

    name: str
    does: str
    work: Callable[[Path], None]
    left: Callable[[Path], str]
    writes: str = "replace"
    begins: Callable[[Path], None] = lambda folder: None


@dataclass(frozen=True)
class Outcome:
    """What happened.

    Attributes:
        phase, fault: what was tried.
        times: how often.
        said: the sentence of a process that could not go on, empty where it went on.
        held: nothing lost, nothing half-written, one sentence, and the same result in the end.
        why: what did not hold.
    """

    phase: str
    fault: str
    times: int
    said: str
    held: bool
    why: str = ""


class Child:
    """A process that does something and then tells how it ended."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.reader, writer = os.pipe()
        self.began = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.reader)
            self._do(work, writer)
        os.close(writer)

    def _do(self, work: Callable[[], None], writer: int) -> None:
        """In the new process: the sentence goes into the pipe; anything but one is a traceback."""
        os.setsid()
        status, text = 0, ""
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        warnings.simplefilter("ignore")  # as in a command, where they are no errors
        try:
            work()
        except (RuntimeError, OSError, ValueError) as error:  # what icstn tells in a sentence
            status, text = 1, f"icstn: {error}"
        except BaseException as error:
            status, text = 2, f"TRACEBACK {error!r}"
        os.write(writer, text.encode()[:4000])
        os._exit(status)

    def kill(self) -> None:
        """SIGKILL, to it alone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> tuple[int, str]:
        """Its exit status (negative: the signal that ended it), and its sentence."""
        timer = threading.Timer(PATIENCE, self.kill)
        timer.start()
        with os.fdopen(self.reader) as pipe:
            text = pipe.read()
        _, status = os.waitpid(self.pid, 0)
        timer.cancel()
        return os.waitstatus_to_exitcode(status), text


def sandbox(folder: Path) -> bool:
    """Make the folder a file system of its own; False where that may not be done."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "faults", str(folder)]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


def remount(folder: Path, how: str) -> None:
    """Change its options."""
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True, capture_output=True)


def fill(folder: Path) -> Path:
    """Take what room there is but a few bytes; returns the file that takes it."""
    taken = folder / ".filler"
    free = os.statvfs(folder)
    with taken.open("wb") as file:
        file.write(b"\0" * max(0, free.f_bavail * free.f_frsize - LEFT))
    return taken


@contextlib.contextmanager
def world() -> Iterator[Path]:
    """An empty folder, unmounted and removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="icstn-faults-"))
    mounted = sandbox(folder / "place")
    try:
        yield folder / "place"
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder / "place")], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def die_in(name: str, nth: int) -> None:
    """SIGKILL this process in its nth call of ``os.name``, before the call does anything."""
    original, calls = getattr(os, name), itertools.count(1)

    def fatal(*arguments: Any, **options: Any) -> Any:
        if next(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(os, name, fatal)


def jump() -> None:
    """From now on the clock shows a day more or less at each look."""
    original, turn = time.time, itertools.cycle((0, 86_400, -86_400, 31_536_000))
    time.time = lambda: original() + next(turn)
    ns = time.time_ns
    time.time_ns = lambda: ns() + next(turn) * 10**9


def done(phase: Phase, folder: Path) -> tuple[int, str]:
    """The phase, undisturbed, in a process of its own."""
    return Child(lambda: phase.work(folder)).wait()


class Trial:
    """One phase with all faults.

    Args:
        phase: what is disturbed.
        seed: of the moments.
    """

    def __init__(self, phase: Phase, seed: int = 0) -> None:
        self.phase, self.chance = phase, random.Random(seed)
        with world() as folder:
            phase.begins(folder)
            began = time.monotonic()
            status, text = done(phase, folder)
            self.took, self.expected = time.monotonic() - began, phase.left(folder)
            assert (status, text) == (0, ""), f"{phase.name} fails undisturbed: {text}"
            assert self.expected, f"{phase.name} leaves nothing"

    def outcome(self, fault: str) -> Outcome:
        """Try a fault."""
        times, said, problems = getattr(self, f"_{fault.replace('-', '_')}")()
        return Outcome(self.phase.name, fault, times, said, not problems, "; ".join(problems))

    def _killed(self) -> tuple[int, str, list[str]]:
        problems, died = [], 0
        with world() as folder:
            self.phase.begins(folder)
            writing = [1] if self.phase.writes else []
            for death in [*writing, *(self.chance.uniform(0, self.took / 2) for _ in range(DEATHS))]:
                child = Child(lambda: self._dying(folder, death if isinstance(death, int) else 0))  # noqa: B023
                if isinstance(death, float):
                    time.sleep(death)
                    child.kill()
                died += child.wait()[0] == -signal.SIGKILL
                problems += self._half_written(folder)
            problems += self._undisturbed(folder)
        return died, "", problems if died else [*problems, "it was never killed"]

    def _dying(self, folder: Path, nth: int) -> None:
        if nth:
            die_in(self.phase.writes, nth)
        self.phase.work(folder)

    def _full(self) -> tuple[int, str, list[str]]:
        with world() as folder:
            self.phase.begins(folder)
            taken = fill(folder)
            status, said = done(self.phase, folder)
            problems = self._sentence(status, said) + self._half_written(folder)
            taken.unlink()
            return 1, self._shown(said, folder), problems + self._undisturbed(folder)

    def _read_only(self) -> tuple[int, str, list[str]]:
        with world() as folder:
            self.phase.begins(folder)
            before = tree(folder)
            remount(folder, "ro")
            status, said = done(self.phase, folder)
            problems = self._sentence(status, said)
            problems += ["something was written"] if tree(folder) != before else []
            remount(folder, "rw")
            return 1, self._shown(said, folder), problems + self._undisturbed(folder)

    def _twice(self) -> tuple[int, str, list[str]]:
        with world() as folder:
            self.phase.begins(folder)
            both = [Child(lambda: self.phase.work(folder)) for _ in range(2)]
            problems = [
                text or f"exit status {status}" for status, text in (c.wait() for c in both) if status
            ]
            return 1, "", problems + self._undisturbed(folder)

    def _clock(self) -> tuple[int, str, list[str]]:
        with world() as folder:
            self.phase.begins(folder)
            status, text = Child(lambda: (jump(), self.phase.work(folder))[0]).wait()
            problems = [text] if status else []
            return 1, "", problems + self._undisturbed(folder)

    def _sentence(self, status: int, said: str) -> list[str]:
        if status == 0:
            return []  # it keeps nothing there that it can't do without
        return (
            []
            if status == 1 and said.count("\n") == said.count("\n  - ")
            else [f"exit status {status}, said {said!r}"]
        )

    def _half_written(self, folder: Path) -> list[str]:
        try:
            left = self.phase.left(folder)
        except Exception as error:
            return [f"what is there can't be read: {error!r}"]
        return (
            [] if left in ("", self.expected) else ["something else is there than an undisturbed run leaves"]
        )

    def _undisturbed(self, folder: Path) -> list[str]:
        """The same command again goes on to the result that an undisturbed one has."""
        status, text = done(self.phase, folder)
        problems = [f"done again, it ends with {text or status}"] if status else []
        same = self.phase.left(folder) == self.expected
        waste = [p.name for p in folder.rglob(".*.tmp")]
        return problems + ([] if same else ["done again, it leaves something else"]) + waste

    def _shown(self, said: str, folder: Path) -> str:
        for pattern, shown in (
            (str(folder), "…"),
            (r":\d{4,5}/", "/"),
            (r"'/tmp/[^']*/", "'…/"),
            (r"\n  -", ""),
        ):
            said = re.sub(pattern, shown, said)
        return said


def tree(folder: Path) -> dict[str, int]:
    """Files and their sizes."""
    return {str(p): p.stat().st_size for p in folder.rglob("*") if p.is_file()}


def digest(*parts: bytes | str) -> str:
    """Of some bytes."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.encode() if isinstance(part, str) else part)
    return whole.hexdigest()


def try_all(names: list[str], tell: Callable[[str], None] = print) -> list[Outcome]:
    """All faults in some phases."""
    from fault_phases import PHASES

    found = []
    for name in names:
        trial = Trial(PHASES[name])
        for fault in FAULTS:
            found.append(trial.outcome(fault))
            one = found[-1]
            tell(f"{name}, {FAULTS[fault]}: {'held' if one.held else 'DID NOT HOLD: ' + one.why} {one.said}")
    return found


def page(outcomes: list[Outcome], does: dict[str, str]) -> str:
    """The page of the book."""
    tried, held = sum(o.times for o in outcomes), sum(o.held for o in outcomes)
    lines = [
        "<!-- Written by `python tests/faults.py`; changes made here are lost. -->",
        "",
        "# When something goes wrong",
        "",
        "A reproduction takes hours, and hours are long enough for a machine to be switched off. So each",
        "phase of one was disturbed: a real process on a real file system, killed, out of room, locked",
        "out, in company, or with a clock that jumps.",
        f"Of {len(outcomes)} pairs of a phase and a fault, {tried} trials in all, {held} held: nothing was",
        "lost, no file was half-written, a process that could not go on said why in one sentence, and the",
        "same command, given again, left what an undisturbed one leaves.",
        "",
        "| phase | what it does |",
        "|---|---|",
        *(f"| {name} | {words} |" for name, words in does.items()),
        "",
        "| phase | what was tried | what happened |",
        "|---|---|---|",
        *(f"| {o.phase} | {_tried(o)} | {_happened(o)} |" for o in outcomes),
        "",
        "Killed processes die as they are about to put a file in its place, and at moments drawn by",
        "chance. A full disk has 4 KB left. Two at once are two processes that are given the same command",
        "at the same moment. The clock shows another day, or another year, at each look.",
        "",
        "`python tests/faults.py` tries all of it anew in some minutes (the full disk and the locked folder",
        "need a file system of their own, which only root may mount), and `--write` writes this page.",
        "",
    ]
    return "\n".join(lines)


def _tried(o: Outcome) -> str:
    return FAULTS[o.fault] + (f", {o.times} times" if o.fault == "killed" else "")


def _happened(o: Outcome) -> str:
    if not o.held:
        return f"**did not hold**: {o.why}"
    if o.said:
        return f"it says `{o.said.removeprefix('icstn: ')}`, and goes on once that is mended"
    words = {"twice": "both end well, with one result", "clock": "nothing is different",
             "killed": "it goes on; what is there is whole"}  # fmt: skip
    return words.get(o.fault, "it warns, does without the cache, and the result is the same")


def read_results(path: Path = RESULTS) -> tuple[list[Outcome], dict[str, str]]:
    """What was tried, and what the phases do."""
    content = json.loads(path.read_text("utf-8"))
    return [Outcome(**o) for o in content["outcomes"]], content["phases"]


def main() -> int:
    """The command line; the exit status is the number of pairs that did not hold."""
    os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    sys.path[:0] = [str(ROOT / "tools"), str(ROOT)]
    from fault_phases import PHASES

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--phases", nargs="+", choices=list(PHASES), default=list(PHASES))
    parser.add_argument("--write", action="store_true", help="write the results and the page")
    parser.add_argument("--page", action="store_true", help="write the page from the results there are")
    options = parser.parse_args()
    if options.page:
        PAGE.write_text(page(*read_results()), encoding="utf-8")
        return 0
    outcomes = try_all(options.phases)
    if options.write:
        content = {
            "phases": {p.name: p.does for p in PHASES.values()},
            "outcomes": list(map(asdict, outcomes)),
        }
        RESULTS.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        PAGE.write_text(page(*read_results()), encoding="utf-8")
    return sum(not o.held for o in outcomes)


if __name__ == "__main__":
    sys.exit(main())
