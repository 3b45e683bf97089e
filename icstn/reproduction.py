"""Reproducing exhibits: the list of them, the Records that they show, and their notebooks, executed."""

from __future__ import annotations

import ast
import hashlib
import json
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from icstn.experiments.execution import STAND_IN, DataOptions, Execution, cores, pick_device
from icstn.experiments.experiment import EXPERIMENTS
from icstn.experiments.recipes import cells
from icstn.experiments.records import Record, Records, open_records
from icstn.experiments.running import ensure
from icstn.experiments.spec import RunSpec
from icstn.files import checkout


class ReproductionError(ValueError):
    """An exhibit that does not exist, a parameter that it does not have, or a notebook that failed."""


@dataclass(frozen=True)
class Exhibit:
    """One table or figure.

    Attributes:
        title: what it shows.
        experiment: the experiment whose runs it needs, or empty.
        models: only these rows; empty for all.
        beside: a further experiment whose runs it shows, or empty.
        tables: names of the tables that its notebook renders.
    """

    title: str
    experiment: str = ""
    models: tuple[str, ...] = ()
    beside: str = ""
    tables: tuple[str, ...] = ()

    def specs(self, preset: str, seeds: Iterable[int]) -> list[RunSpec]:
        """The runs it needs."""
        if not self.experiment:
            return []
        seeds = list(seeds)
        own = cells(self.experiment, preset, seeds, self.models or None)
        return own + (cells(self.beside, preset, seeds) if self.beside else [])

    @property
    def signs(self) -> bool:
        """Whether it shows runs on traffic signs, which not everybody can have."""
        return bool(self.experiment) and EXPERIMENTS[self.experiment].data == "gtsrb"


EXHIBITS: dict[str, Exhibit] = {
    "table_1": Exhibit(
        "Planar alignment: test error",
        "table_1",
        beside="baselines",
        tables=("table_1", "table_1_parameters", "table_1_classical"),
    ),
    "table_2": Exhibit("Perturbed MNIST: classification error", "table_2", tables=("table_2",)),
    "table_3": Exhibit("Perturbed GTSRB: classification error", "table_3", tables=("table_3",)),
    "figure_1": Exhibit("The Spatial Transformer"),
    "figure_2": Exhibit("The boundary effect"),
    "figure_3": Exhibit("The compositional STN"),
    "figure_4": Exhibit("Concatenated c-STNs"),
    "figure_5": Exhibit("The IC-STN"),
    "figure_6": Exhibit("Planar alignment: image and perturbed samples"),
    "figure_7": Exhibit("Error against the number of warp operations", "table_1"),
    "figure_8": Exhibit("Sample alignments on MNIST", "table_2", ("STN(a)", "IC-STN-4(a)")),
    "figure_9": Exhibit(
        "Mean and variance of aligned digits",
        "table_2",
        ("STN(a)", "c-STN-1(a)", "IC-STN-2(a)", "IC-STN-4(a)"),
    ),
    "figure_10": Exhibit("Sample alignments on GTSRB", "table_3", ("STN", "IC-STN-4")),
    "figure_11": Exhibit("Mean aligned traffic signs", "table_3", ("STN", "c-STN-1", "IC-STN-2", "IC-STN-4")),
}


@dataclass(frozen=True)
class Request:
    """What is to be reproduced. Its paths are absolute, whatever was given.

    Attributes:
        exhibits: names as in :data:`EXHIBITS`, see :func:`choose`.
        preset, seeds: which runs; seeds as in :func:`seed_list`.
        records: folder of the Records, or the user's own.
        output: folder of the results.
        parameters: further parameters of all notebooks.
    """

    exhibits: tuple[str, ...]
    preset: str = "quick"
    seeds: str = "0"
    records: Path | None = None
    output: Path = Path("_build/reproduce")
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("records", "output"):
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, path.expanduser().resolve())

    @property
    def store(self) -> Records:
        """Where Records are looked for and written, by an absolute path."""
        return Records(Records(self.records).folder.resolve())

    @property
    def rendered(self) -> Path:
        """Where the notebooks write their tables and figures."""
        return self.output / "rendered"


@dataclass(frozen=True)
class Job:
    """One exhibit, ready to be made.

    Attributes:
        name: of the exhibit.
        specs: the runs that it needs.
        data: where they find their data.
        notebook: its source.
        parameters: of its notebook.
    """

    name: str
    specs: tuple[RunSpec, ...]
    data: DataOptions
    notebook: Path
    parameters: Mapping[str, Any]


def choose(names: Iterable[str]) -> tuple[str, ...]:
    """Exhibit names as the user wrote them (``table_2``, ``table2`` or ``figure-7``); none is all.

    Raises:
        ReproductionError: no exhibit has that name; the message lists those that exist.
    """
    wanted = list(names)
    by_letters = {name.replace("_", ""): name for name in EXHIBITS}
    keys = [name.lower().replace("_", "").replace("-", "") for name in wanted]
    for name, key in zip(wanted, keys, strict=True):
        if key not in by_letters:
            raise ReproductionError(f"unknown exhibit {name!r}: choose from {', '.join(EXHIBITS)}")
    return tuple(dict.fromkeys(by_letters[k] for k in keys)) or tuple(EXHIBITS)


def obtain(
    experiment: str,
    models: Sequence[str] | None = None,
    *,
    preset: str = "quick",
    seeds: int | str | Sequence[int] = 0,
    device: str = "auto",
    data: str | None = None,
    records: str | None = None,
) -> list[Record]:
    """The Records that an exhibit shows; what is missing is trained first, with a progress bar.

    Args:
        experiment: ``table_1``, ``table_2``, ``table_3`` or ``baselines``.
        models: only these rows.
        preset, device, data, records: the notebook's parameters.
        seeds: see :func:`seed_list`.

    Raises:
        ValueError, DataError, StorageError: a parameter is no good; the message says which.
    """
    specs = cells(experiment, preset, seed_list(seeds), models)
    execution = Execution(device=device, data=DataOptions.parse(data))
    return ensure(specs, open_records(records), execution)


def seed_list(seeds: int | str | Sequence[int]) -> list[int]:
    """Seeds as a list, from a number, a list or a text.

    Raises:
        ReproductionError: the text names no seeds.

    Example:
        >>> seed_list("0,2,5-7")
        [0, 2, 5, 6, 7]
    """
    if isinstance(seeds, int):
        return [seeds]
    if not isinstance(seeds, str):
        return [int(seed) for seed in seeds]
    try:
        ranges = [[int(end) for end in part.split("-")] for part in seeds.split(",")]
    except ValueError:
        ranges = []
    found = [seed for ends in ranges for seed in range(ends[0], ends[-1] + 1)]
    if not found or any(len(ends) > 2 for ends in ranges):
        raise ReproductionError(f"seeds are numbers such as 0, 0,1,2 or 0-4; got {seeds!r}")
    return found


def plan(request: Request, execution: Execution) -> list[Job]:
    """What there is to do, all of it checked before anything starts.

    Raises:
        ReproductionError, SpecError, DataError: something that was asked for does not exist.
    """
    pick_device(execution.device)
    seeds = seed_list(request.seeds)
    specs = {name: EXHIBITS[name].specs(request.preset, seeds) for name in request.exhibits}
    figures, data = _figures(), _absolute(execution.data)
    signs = _signs(request.exhibits, data)
    jobs = []
    for name in request.exhibits:
        own = signs if EXHIBITS[name].signs else replace(data, stand_in=False)
        notebook = figures / f"{name}.ipynb"
        parameters = _parameters(notebook, request, execution.device, own)
        jobs.append(Job(name, tuple(specs[name]), own, notebook, parameters))
    return jobs


def train(jobs: Sequence[Job], records: Records, execution: Execution) -> None:
    """Train what is missing, all exhibits that share their data at once.

    Raises:
        DataError, StorageError, RunsFailedError: see :func:`icstn.experiments.ensure`.
    """
    for data in dict.fromkeys(job.data for job in jobs):
        wanted = dict.fromkeys(spec for job in jobs if job.data == data for spec in job.specs)
        ensure(list(wanted), records, replace(execution, data=data))


def execute(jobs: Sequence[Job], target: Path, records: Records, workers: int = 0) -> dict[str, Path]:
    """Execute the notebooks, each in a process of its own, a few at a time; unchanged ones are kept.

    Args:
        jobs: what to execute.
        target: folder of the executed notebooks.
        records: their content decides whether an executed notebook is still valid.
        workers: notebooks at a time; 0 is one a CPU core.

    Returns:
        the executed notebooks, by exhibit.

    Raises:
        ReproductionError: a notebook failed; the message holds its own error.
    """
    _import_papermill()
    target = target.resolve()
    target.mkdir(parents=True, exist_ok=True)
    paths = [target / f"{job.name}.ipynb" for job in jobs]
    keys = [_key(job, records) for job in jobs]
    stale = [
        (job, path, key) for job, path, key in zip(jobs, paths, keys, strict=True) if _kept_key(path) != key
    ]
    if stale:
        _execute_all(stale, min(workers or cores(), len(stale)))
    return {job.name: path for job, path in zip(jobs, paths, strict=True)}


def tables(names: Iterable[str], rendered: Path) -> str:
    """The text of all tables of some exhibits, each under its caption as a heading.

    Args:
        names: exhibits; those without a table have no part in it.
        rendered: folder that their notebooks have rendered to.
    """
    texts = [(rendered / f"{table}.md").read_text() for name in names for table in EXHIBITS[name].tables]
    return "\n".join(re.sub(r"\A\*\*(.*)\*\*$", r"## \1", text, flags=re.MULTILINE) for text in texts)


def _figures() -> Path:
    root = checkout()
    if root is None:
        raise ReproductionError(
            "the exhibits' notebooks are not in the installed package: run this in the project's checkout"
        )
    return root / "figures"


def _absolute(data: DataOptions) -> DataOptions:
    return (
        data if data.folder is None else replace(data, folder=str(Path(data.folder).expanduser().resolve()))
    )


def _signs(names: Iterable[str], data: DataOptions) -> DataOptions:
    """Where exhibits of traffic signs find them: they fall back to the stand-in, in so many words."""
    from icstn.datasets import DataError, gtsrb

    if data.stand_in or not any(EXHIBITS[n].signs for n in names):
        return data
    try:
        gtsrb("test", data.folder)
    except DataError as error:
        note = "GTSRB can't be had, so a rendered stand-in takes its place and fills no table."
        print(f"{note}\n{error}\n", file=sys.stderr)
        return DataOptions.parse(STAND_IN)
    return data


def _parameters(notebook: Path, request: Request, device: str, data: DataOptions) -> dict[str, Any]:
    """The common parameters that the notebook has (a diagram needs no data), and the user's own."""
    known = _import_papermill().inspect_notebook(str(notebook))
    given = {
        "preset": request.preset,
        "seeds": request.seeds,
        "device": device,
        "records": str(request.store.folder),
        "output": str(request.rendered),
        "data": STAND_IN if data.stand_in else data.folder,
    }
    parameters = {name: value for name, value in given.items() if name in known} | dict(request.parameters)
    _check(notebook.stem, parameters, known)
    return parameters


def _check(exhibit: str, parameters: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuse parameters that the notebook does not have, or whose type is not its default's."""
    for name, value in parameters.items():
        if name not in known:
            raise ReproductionError(f"{exhibit} has no parameter {name!r}: it has {', '.join(known)}")
        default = ast.literal_eval(known[name]["default"])
        if default is not None and value is not None and not _same_type(value, default):
            kind = type(default).__name__
            raise ReproductionError(f"{exhibit}: {name} is a {kind} such as {default!r}, not {value!r}")


def _same_type(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, type(default))


def _execute_all(jobs: Sequence[tuple[Job, Path, str]], workers: int) -> None:
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _leave_interrupts) as pool:
        try:
            for task in [pool.submit(_execute, *job) for job in jobs]:
                task.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


def _leave_interrupts() -> None:
    """Ctrl-C is the parent's business. The kernels inherit this: Jupyter interrupts them before their end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _execute(job: Job, path: Path, key: str) -> None:
    """Execute one notebook, in a process that does nothing else: papermill changes the working directory."""
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        papermill.execute_notebook(
            str(job.notebook),
            str(path),
            parameters=dict(job.parameters),
            kernel_name="python3",
            cwd=str(job.notebook.parent),
            progress_bar=False,
        )
    except PapermillExecutionError as error:
        raise ReproductionError(
            f"{job.name} failed in its cell {error.exec_count}: {error.ename}: {error.evalue}; "
            f"the notebook as far as it came is {path}"
        ) from None
    done = nbformat.read(path, 4)
    done.metadata["icstn"] = key
    nbformat.write(done, path)


def _kept_key(path: Path) -> str:
    """The key of an executed notebook, empty if there is none."""
    try:
        return str(json.loads(path.read_text())["metadata"]["icstn"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _key(job: Job, records: Records) -> str:
    """Hash of everything that an executed notebook depends on: its source, parameters, Records, library."""
    digest = hashlib.sha256(json.dumps(job.parameters, sort_keys=True, default=str).encode())
    source = json.loads(job.notebook.read_text())
    digest.update(json.dumps([cell["source"] for cell in source["cells"]]).encode())
    folder = records.stand_in().folder if job.data.stand_in else records.folder
    library = Path(__file__).parent
    for file in [*sorted(library.rglob("*.py")), *sorted(folder.glob("*/record.json"))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _import_papermill() -> Any:
    try:
        import papermill
    except ImportError as error:
        raise ReproductionError("executing notebooks needs: pip install 'icstn[exhibits]'") from error
    return papermill
