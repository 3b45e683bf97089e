"""What all tests share: seeds, threads, shape checks on the library, and who runs beside whom."""

from __future__ import annotations

import functools
import gc
import os
import re
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import hypothesis
import jaxtyping
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT)]  # wherever pytest was started

#: Seconds for a test with such a mark and its fixtures, in place of the `timeout` of pyproject.toml.
TIMEOUTS = {"long": 3600, "slow": 600}

# Every function of the library checks its arguments' types and shapes while the tests run, and not before:
# in the modules that have arrays, for in the others mypy sees whatever there is to see.
jaxtyping.install_import_hook(
    [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in (ROOT / "icstn").rglob("*.py")
        if re.search("Tensor|ndarray|jaxtyping", file.read_text(encoding="utf-8"))
    ],
    "typecheck.check",
)
jaxtyping.config.update("jaxtyping_disable", True)
gc.disable()  # imports leave no garbage, and looking for it took a quarter of the time of collecting tests

import torch  # noqa: E402
import warm  # noqa: E402
import warm_process  # noqa: E402
from order import longest_first, shuffled  # noqa: E402

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# The same examples on every machine, and no deadline: how long one takes is nobody's business here.
hypothesis.settings.register_profile("default", max_examples=25, deadline=None, derandomize=True)
hypothesis.settings.register_profile("long", max_examples=1000, deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked long, too")
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run the tests in an order drawn from SEED")


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("long" if config.getoption("--long") else "default")
    if not hasattr(config, "workerinput"):  # the workers of xdist share one
        config.add_cleanup(warm_process.start())


@pytest.hookimpl(tryfirst=True)  # before xdist, which reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep each test file on one worker, and the long tests for those who ask for them; bound their time."""
    if (seed := config.getoption("--shuffle")) is not None:
        order = shuffled([(str(item.path), item.nodeid) for item in items], seed)
        items.sort(key=lambda item: order.index((str(item.path), item.nodeid)))
    for item in items:
        marked = [seconds for mark, seconds in TIMEOUTS.items() if item.get_closest_marker(mark)]
        if marked and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(max(marked)))
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
        if item.get_closest_marker("long") and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="to run it, ask for the long tests: --long"))
    if config.getoption("--shuffle") is None:
        items.sort(key=lambda item: longest_first(item.get_closest_marker("xdist_group").args[0]))


def pytest_collection_finish() -> None:
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Long computations go unchecked: other tests call each of their functions."""
    jaxtyping.config.update("jaxtyping_disable", item.get_closest_marker("unchecked") is not None)


#: What a reason to skip says: what would run the test, or the package that is not there or too old.
REMEDY = re.compile(r"to run it|could not import|required is")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that is skipped says what would run it, or fails."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2])
        if not REMEDY.search(reason):
            report.outcome = "failed"
            report.longrepr = f"skipped without a word on what would run it: {reason}"
    return report


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session", autouse=True)
def empty_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test may go by what the user's data and Records happen to hold, or leave something there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ICSTN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("ICSTN_RECORDS", str(tmp_path_factory.mktemp("records")))
        yield


@pytest.fixture
def generator() -> torch.Generator:
    """A fresh random source with a fixed seed."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Switch the shape checks off, to see the library's own message about a bad argument."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def printed(python: tuple[str, ...], root: Path, code: str) -> str:
    """What the code prints, and it ends well."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([*python, code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="session")
def fresh_python(root: Path) -> Callable[[str], str]:
    """Runs code in a new process, without the shape checks, and returns what it printed."""
    return functools.partial(printed, (sys.executable, "-c"), root)


@pytest.fixture(scope="session")
def forked_python(root: Path) -> Callable[[str], str]:
    """As ``fresh_python``, for what is not about imports: PyTorch is there already, nothing of ours is."""
    return functools.partial(printed, (*warm.PYTHON, "-c"), root)


@pytest.fixture(scope="session")
def photograph() -> torch.Tensor:
    """A real photograph in [0, 1], ``(1, 3, 300, 451)``."""
    data = pytest.importorskip("skimage.data")
    return torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None].double() / 255
