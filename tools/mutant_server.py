"""A warm process that runs chosen tests again and again, each time in a fork.

    python tools/mutant_server.py [TEST …]        (in the tree whose tests it runs)

A request is a line of JSON on stdin, its answer a line on stdout. Without tests, the process has imported
what the tests take longest to import and nothing of the tree itself, so that each fork imports the library
anew; with ``trace`` the fork also writes which test ran which line. With tests, it has collected them, and a
fork puts a changed file's functions in the place of those that are there: nothing is imported, and a file
that differs in more than the bodies of its functions is refused.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import hashlib
import importlib
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType, FunctionType
from typing import IO, Any

import pytest

#: What takes long to import, here once and for all.
HEAVY = (
    "torch torch.nn torch.utils.data torch.export torch.func numpy numpy.testing scipy.optimize scipy.stats"
    " scipy.linalg scipy.ndimage scipy.spatial skimage.data skimage.transform skimage.filters skimage.feature"
    " cv2 PIL.Image PIL.ImageDraw safetensors.torch hypothesis hypothesis.strategies beartype jaxtyping"
    " pooch tqdm filelock platformdirs rich.console rich.table rich.progress typer pandas nbformat"
    " multiprocessing.pool concurrent.futures asyncio ssl http.server urllib.request zipfile tarfile"
)

#: A fork may not take more memory than this: a mistake can ask for any size.
MEMORY = 12 * 2**30

#: The tests that are fast.
FAST = "not slow and not browser and not long"


class Chosen:
    """Keeps only some tests, in a given order, and remembers the first that fails."""

    def __init__(self, order: list[str] | None) -> None:
        self.order, self.failed = order, ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Choose and sort."""
        if self.order is not None:
            place = {name: i for i, name in enumerate(self.order)}
            items[:] = sorted((i for i in items if i.nodeid in place), key=lambda item: place[item.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember a failure."""
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember a file that cannot be imported."""
        if report.failed and not self.failed:
            self.failed = f"{report.nodeid} (import)"


class Watch:
    """Which test runs which line of the library, and how long each takes.

    What a fixture of more than one test runs counts for all that ask for it, and what a cached function
    would remember from another test is forgotten before each.
    """

    def __init__(self, folder: Path) -> None:
        import coverage

        self.folder = folder
        self.cover = coverage.Coverage(data_file=None, include=[f"{folder}/icstn/*"], config_file=False)
        self.cover.start()
        self.seconds: dict[str, float] = {}
        self.fixtures: dict[str, list[str]] = {}
        self.lent: dict[str, str] = {}
        self.users: dict[str, set[str]] = defaultdict(set)
        self.failed: set[str] = set()
        self.starts: set[str] = set()
        self.now: list[str] = []
        self.caches: list[Any] = []
        sys.addaudithook(self._heard)

    def _heard(self, event: str, values: tuple[Any, ...]) -> None:
        """A test that starts another Python runs lines that are not seen here."""
        if event == "subprocess.Popen" and self.now and "python" in f"{values[0]} {values[1]}":
            self.starts.add(self.now[0])

    @contextmanager
    def _within(self, context: str) -> Iterator[None]:
        self.now.append(context)
        self.cover.switch_context(context)
        try:
            yield
        finally:
            self.now.pop()
            self.cover.switch_context(self.now[-1] if self.now else "")

    def pytest_collection_finish(self) -> None:
        """Find what caches."""
        homes = {name for name, _ in modules(self.folder)}
        kinds = (o for o in gc.get_objects() if type(o) is functools._lru_cache_wrapper)
        self.caches = [o for o in kinds if getattr(o, "__module__", "") in homes]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Note what a test runs."""
        for cache in self.caches:
            cache.cache_clear()
        self.fixtures[item.nodeid] = list(getattr(item, "fixturenames", ()))
        began = sum(os.times()[:4])  # of this process and its children, whatever else the machine does
        with self._within(item.nodeid):
            found = yield
        self.seconds[item.nodeid] = round(sum(os.times()[:4]) - began, 3)
        return found

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Note what a fixture of several tests runs."""
        if fixturedef.scope == "function" or not self.now:
            return (yield)
        context = f"fixture {fixturedef.argname} {len(self.lent)}"
        self.lent[context] = fixturedef.argname
        self.users[context].add(self.now[0])
        with self._within(context):
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test that fails as it is tells nothing."""
        if report.failed:
            self.failed.add(report.nodeid)

    def found(self) -> dict[str, Any]:
        """Everything, as JSON: a line's tests are the bits of a number, in hexadecimal."""
        self.cover.stop()
        data, tests = self.cover.get_data(), list(self.seconds)
        mask = {name: 1 << i for i, name in enumerate(tests)}
        for context, argname in self.lent.items():
            users = {t for t in tests if argname in self.fixtures[t]} | self.users[context]
            mask[context] = sum(1 << i for i, t in enumerate(tests) if t in users)
        lines: dict[str, dict[int, str]] = {}
        imported: dict[str, list[int]] = {}
        for file in sorted(data.measured_files()):
            path = str(Path(file).relative_to(self.folder))
            by_line = data.contexts_by_lineno(file)
            lines[path] = {n: f"{_union(mask, contexts):x}" for n, contexts in by_line.items()}
            imported[path] = sorted(n for n, contexts in by_line.items() if "" in contexts)
        return {
            "tests": self.seconds,
            "failed": sorted(self.failed),
            "starts": sorted(self.starts),
            "lines": lines,
            "imported": imported,
            "files": {str(p.relative_to(self.folder)): digest(p) for _, p in modules(self.folder)},
        }


def _union(mask: dict[str, int], contexts: list[str]) -> int:
    value = 0
    for context in contexts:
        value |= mask.get(context, 0)
    return value


def modules(folder: Path) -> list[tuple[str, Path]]:
    """The modules of the tree that are imported."""
    found = [(name, Path(getattr(m, "__file__", None) or "/")) for name, m in list(sys.modules.items())]
    homes = [folder / "icstn", folder / "tests"]
    return [(n, path) for n, path in found if any(map(path.is_relative_to, homes)) and path.is_file()]


def digest(path: Path) -> str:
    """Of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def serve(answers: IO[str], work: Callable[[dict[str, Any], Path], tuple[int, str]]) -> None:
    """Answer requests until stdin ends."""
    for line in sys.stdin:
        request = json.loads(line)
        temporary = Path(tempfile.mkdtemp(prefix="icstn-mutant-run-"))
        try:
            answers.write(json.dumps(attempt(request, temporary, work)) + "\n")
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        answers.flush()


def attempt(request: dict[str, Any], temporary: Path, work: Callable) -> dict[str, Any]:
    """Do it in a fork: pytest's status (-1: too slow, -2: the fork died), and the first test that failed."""
    began = time.monotonic()
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reader)
        try:
            alone(temporary, request)
            status, by = work(request, temporary)
            os.write(writer, (json.dumps({"status": status, "by": by}) + "\n").encode())
        finally:
            os._exit(0)
    os.close(writer)
    text = _read(reader, began + request["limit"])
    end(child)
    answer = {"status": -1, "by": "took too long"} if text is None else json.loads(text or "null")
    answer = answer or {"status": -2, "by": "the process died"}
    return answer | {"seconds": round(time.monotonic() - began, 2)}


def end(child: int) -> None:
    """End a fork with all that it has started."""
    for stop in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            stop(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _read(reader: int, until: float) -> str | None:
    """What the fork says before it ends; None where it does not in time."""
    text = b""
    try:
        while (left := until - time.monotonic()) > 0:
            if select.select([reader], [], [], left)[0]:
                part = os.read(reader, 65536)
                text += part
                if not part or text.endswith(b"\n"):
                    return text.decode()
        return None
    finally:
        os.close(reader)


def alone(temporary: Path, request: dict[str, Any]) -> None:
    """This fork is its own group, ends with its parent, and writes nowhere but in its own folder."""
    os.setsid()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    out = os.open(request.get("log") or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(out, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    os.environ |= {"HOME": str(temporary), "XDG_CACHE_HOME": str(temporary / "cache")}
    if not request.get("trace"):  # what is compiled from a mistake is not kept
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


#: The options of every run of pytest.
OPTIONS = [
    "-q",
    "-s",
    "-p",
    "no:cacheprovider",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
    "-m",
    FAST,
]


def anew(folder: Path) -> Callable[[dict[str, Any], Path], tuple[int, str]]:
    """Import the library and the tests in the fork, and run them."""

    def work(request: dict[str, Any], temporary: Path) -> tuple[int, str]:
        chosen, plugins = Chosen(request["tests"]), []
        plugins = [chosen, *([watch := Watch(folder)] if request.get("trace") else [])]
        own = ["--tb=short"] if request.get("trace") else ["-x", "--tb=no"]
        command = [*OPTIONS, "--basetemp", str(temporary / "pytest"), *own, *request["files"]]
        status = int(pytest.main(command, plugins=plugins))
        if request.get("trace"):
            Path(request["trace"]).write_text(json.dumps(watch.found()), "utf-8")
        return status, chosen.failed

    return work


class Collected:
    """All tests are collected, once; a fork runs some of them on changed functions."""

    def __init__(self, folder: Path, answers: IO[str], temporary: Path) -> None:
        self.folder, self.answers, self.temporary = folder, answers, temporary
        self.items: dict[str, pytest.Item] = {}
        self.functions: dict[tuple[str, str, int], list[FunctionType]] = defaultdict(list)
        self.chosen = Chosen(None)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of running the tests: answer requests."""
        session.config.pluginmanager.register(self.chosen)
        self.items = {item.nodeid: item for item in session.items}
        for found in gc.get_objects():
            code = found.__code__ if type(found) is FunctionType else None
            if code is not None and code.co_filename.startswith(f"{self.folder}/icstn/"):
                self.functions[code.co_filename, code.co_qualname, code.co_firstlineno].append(found)
        gc.freeze()
        serve(self.answers, self.work)
        return True

    def work(self, request: dict[str, Any], temporary: Path) -> tuple[int, str]:
        """Status -3: the change is of another kind."""
        if not self.change(str(self.folder / request["path"]), request["old"], request["new"]):
            return -3, "changes more than functions"
        items = [self.items[name] for name in request["tests"] if name in self.items]
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.chosen.failed:
                return 1, self.chosen.failed
        return 0, ""

    def change(self, path: str, old: str, new: str) -> bool:
        """Put the functions of a changed file in the place of the old ones; whether that was possible."""
        module = next((m for m in list(sys.modules.values()) if getattr(m, "__file__", None) == path), None)
        if module is None:
            return True  # nothing that is collected imports it: processes that a test starts may
        try:
            codes = [module.__loader__.source_to_code(text.encode(), path) for text in (old, new)]
        except SyntaxError:
            return False
        pairs = paired(*codes)
        if pairs is None:
            return False
        for was, now in pairs:
            homes = self.functions[path, was.co_qualname, was.co_firstlineno]
            homes = [f for f in homes if f.__code__ == was]
            if not homes and "<locals>" not in was.co_qualname:
                return False
            for function in homes:
                function.__code__ = now
        return True


def paired(old: CodeType, new: CodeType, body: bool = False) -> list[tuple[CodeType, CodeType]] | None:
    """Functions before and after, of those that differ; None where more than they do.

    ``body``: of a function, which may differ, while modules and classes may not.
    """
    inner = [[c for c in code.co_consts if isinstance(c, CodeType)] for code in (old, new)]
    names = [[c.co_qualname for c in codes] for codes in inner]
    if names[0] != names[1] and not body:
        return None
    if not body and _plain(old) != _plain(new):
        return None
    if body and (old.co_freevars, len(old.co_cellvars) > 0) != (new.co_freevars, len(new.co_cellvars) > 0):
        return None
    found = [(old, new)] if body and old != new else []
    for was, now in zip(*inner, strict=False) if names[0] == names[1] else ():
        function = body or bool(was.co_flags & 0x2)  # CO_NEWLOCALS: not a class
        if (pairs := paired(was, now, function)) is None:
            return None
        found += pairs
    return found


def _plain(code: CodeType) -> tuple:
    """What a module or a class does by itself."""
    constants = [repr(c) for c in code.co_consts if not isinstance(c, CodeType)]
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars


def warm(folder: Path) -> None:
    """Import what is heavy; what is not there is not needed."""
    for name in HEAVY.split():
        with suppress(ImportError):
            importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)
    sys.path.insert(0, str(folder))


class Server:
    """The warm process, from outside."""

    def __init__(self, folder: Path, tests: list[str] | None = None) -> None:
        own = {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), *(tests or [])],
            cwd=folder,
            env=os.environ | own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Run ``tests`` in their order, no longer than ``limit`` seconds; see the two kinds of processes."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        """Ends the process, and with it the fork that is running."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def main() -> None:
    """Serve; what forks print does not reach the answers."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    folder, temporary = Path.cwd(), Path(tempfile.mkdtemp(prefix="icstn-mutant-collected-"))
    if len(sys.argv) == 1:
        warm(folder)
        gc.freeze()
        return serve(answers, anew(folder))
    sys.path.insert(0, str(folder))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    command = [*OPTIONS, "--basetemp", str(temporary / "pytest"), "--tb=no", *sys.argv[1:]]
    pytest.main(command, plugins=[Collected(folder, answers, temporary)])
    return None


if __name__ == "__main__":
    main()
