"""Executing the notebooks of exhibits, each in a process of its own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from icstn.experiments.execution import cores
from icstn.experiments.local import begin, beginning
from icstn.experiments.records import Records
from icstn.files import check_place, write_atomic
from icstn.reproduction.catalogue import ReproductionError
from icstn.reproduction.comparison import side_by_side
from icstn.reproduction.plans import Job


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
        StorageError: an executed notebook can't be written.
    """
    target = target.resolve()
    check_place(target, "--output")
    paths = [target / f"{job.name}.ipynb" for job in jobs]
    keys = [_key(job, records) for job in jobs]
    stale = [
        (job, path, key) for job, path, key in zip(jobs, paths, keys, strict=True) if _kept_key(path) != key
    ]
    if stale:
        _execute_all(stale, records, min(workers or cores(), len(stale)))
    return {job.name: path for job, path in zip(jobs, paths, strict=True)}


def _execute_all(jobs: Sequence[tuple[Job, Path, str]], records: Records, workers: int) -> None:
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, beginning(), begin, (dict(os.environ),)) as pool:
        try:
            for task in [pool.submit(_execute, *job, records) for job in jobs]:
                task.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


def _execute(job: Job, path: Path, key: str, records: Records) -> None:
    """Execute one notebook, in a process that does nothing else: papermill changes the working directory."""
    import nbformat

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as scratch, _kernels_quiet():
        under_way = Path(scratch) / path.name
        _run(job, under_way, path)
        done: Any = nbformat.read(under_way, 4)
    facts = {"key": key, "about": job.about, "stand_in": job.data.stand_in}
    done.metadata["icstn"] = facts | {"comparison": side_by_side(job, records)}
    write_atomic(path, nbformat.writes(done) + "\n")


@contextlib.contextmanager
def _kernels_quiet() -> Iterator[None]:
    """What this process and its kernel write to stderr by themselves is kept from the terminal.

    Jupyter interrupts a kernel before it ends it, and ends it while it answers: the kernel and the libraries
    under it log either as an error. What a cell writes goes into the notebook.
    """
    own = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(own, 2)
        os.close(own)


def _run(job: Job, under_way: Path, path: Path) -> None:
    """Papermill writes after each cell, so a killed process leaves half a notebook: not where it counts."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    try:
        papermill.execute_notebook(
            str(job.notebook),
            str(under_way),
            parameters=dict(job.parameters),
            kernel_name="python3",
            cwd=str(job.notebook.parent),
            progress_bar=False,
        )
    except PapermillExecutionError as error:
        write_atomic(path, under_way.read_bytes())
        raise ReproductionError(
            f"{job.name} failed in its cell {error.exec_count}: {error.ename}: {error.evalue}; "
            f"the notebook as far as it came is {path}"
        ) from None


def _kept_key(path: Path) -> str:
    """The key of an executed notebook, empty if there is none."""
    try:
        return str(json.loads(path.read_text())["metadata"]["icstn"]["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _key(job: Job, records: Records) -> str:
    """Hash of everything that an executed notebook depends on: its source, parameters, Records, library."""
    digest = hashlib.sha256(json.dumps(job.parameters, sort_keys=True, default=str).encode())
    source = json.loads(job.notebook.read_text())
    digest.update(json.dumps([cell["source"] for cell in source["cells"]]).encode())
    folder = records.stand_in().folder if job.data.stand_in else records.folder
    library = Path(__file__).parents[1]
    for file in [*sorted(library.rglob("*.py")), *sorted(folder.glob("*/record.json"))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()
