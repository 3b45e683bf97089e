"""The same runs on a dask.distributed cluster: wherever its workers are, Records come back here.

A worker trains with the very function that a local process does. Where client and workers share the folder
of Records, a run whose worker dies goes on from its checkpoint on another worker. Where they do not, each
worker keeps checkpoints in a folder of its own, and the finished Record travels back as bytes.

Start workers with one thread each (``dask worker ADDRESS --nthreads 1``); with ``--resources GPU=1`` on a
machine with GPUs, one worker a GPU, and ``device="cuda"``, each run has a GPU to itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from icstn.datasets import DataError
from icstn.experiments.execution import Execution
from icstn.experiments.failures import portable
from icstn.experiments.records import Record, Records, default_folder, load_record
from icstn.experiments.spec import RunSpec
from icstn.experiments.training import train
from icstn.files import StorageError, write_atomic

#: How often the scheduler tries a run again that ended in an error or with its worker.
RETRIES = 3

#: The files of a Record, in the order in which they are written.
FILES = ("weights.safetensors", "outcomes.safetensors", "record.json")

#: Errors that trying again does not mend.
FINAL = (DataError, StorageError, ValueError)


def run(
    specs: Sequence[RunSpec], records: Records, update: Callable[[], None], execution: Execution
) -> dict[RunSpec, BaseException]:
    """Train on a cluster. Returns the runs that failed, with their errors.

    Args:
        specs: runs to train, most expensive first.
        records: where the Records go.
        update: called now and then, and after each run.
        execution: the scheduler's address, device, data and log as the workers see them; ``cuda`` asks for
            one worker resource ``GPU`` a run.

    Raises:
        StorageError: no scheduler answers, no worker offers a GPU, or dask.distributed is not installed.
    """
    distributed, address = _import(), execution.scheduler
    try:
        client = distributed.Client(address, timeout="20s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise StorageError(f"no dask scheduler answers at {address} ({error})") from error
    with client, client.as_current():
        options = {"retries": RETRIES, "pure": False, "resources": _resources(client, execution.device)}
        folder = str(records.folder.resolve())
        jobs = {client.submit(train_there, spec, folder, execution, **options): spec for spec in specs}
        try:
            return _collect(distributed, jobs, records, update)
        except BaseException:
            client.cancel(list(jobs), force=True)
            raise


def train_there(spec: RunSpec, folder: str, execution: Execution) -> dict[str, bytes] | Exception:
    """A worker's job: train, and return the Record's files, or an error that trying again does not mend."""
    torch.set_num_threads(_threads())
    try:
        records = Records(usable(folder))
        train(spec, records, execution)
        return {name: (records.path(spec) / name).read_bytes() for name in FILES}
    except FINAL as error:
        return portable(error)


def receive(records: Records, spec: RunSpec, files: dict[str, bytes]) -> Record:
    """Write a Record that came back as bytes, unless it is there; either way it is read and verified.

    Raises:
        StorageError: it was damaged on its way, or the folder can't be written.
    """
    folder = records.path(spec)
    if not (folder / "record.json").is_file():
        for name in FILES:
            write_atomic(folder / name, files[name])
    return load_record(folder, spec)


def usable(folder: str) -> Path:
    """That folder where it can be made, else the worker's own."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        return Path(folder)
    except OSError:
        return default_folder()


def _collect(
    distributed: Any, jobs: dict[Any, RunSpec], records: Records, update: Callable[[], None]
) -> dict[RunSpec, BaseException]:
    failures: dict[RunSpec, BaseException] = {}
    pending = set(jobs)
    while pending:
        try:
            done, pending = distributed.wait(pending, timeout=1, return_when="FIRST_COMPLETED")
        except TimeoutError:
            done = set()
        for job in done:
            try:
                result = job.result()
                if isinstance(result, Exception):
                    raise result
                receive(records, jobs[job], result)
            except Exception as error:  # one run's error, which may be of any kind, costs no other run
                failures[jobs[job]] = error
            job.release()
        update()
    return failures


def _resources(client: Any, device: str) -> dict[str, int] | None:
    if not device.startswith("cuda"):
        return None
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if workers and not any(w["resources"].get("GPU") for w in workers):
        raise StorageError("no worker offers a GPU; start them with: dask worker … --resources GPU=1")
    return {"GPU": 1}


def _threads() -> int:
    from distributed import get_worker

    return max(1, int(get_worker().state.nthreads))


def _import() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise StorageError("a cluster needs dask.distributed: pip install icstn[cluster]") from error
    return distributed
