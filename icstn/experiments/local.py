"""Runs in processes of this machine, side by side; what a dead process has left is taken up by another."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch

from icstn.experiments.execution import Execution, cores
from icstn.experiments.failures import RunsFailedError, portable
from icstn.experiments.records import Records
from icstn.experiments.spec import RunSpec
from icstn.experiments.training import train

#: How often runs are given to new processes after one died.
RETRIES = 3

#: Where a worker finds the device that is its own.
_DEVICE = "ICSTN_WORKER_DEVICE"


def run(
    missing: Sequence[RunSpec], records: Records, update: Callable[[], None], execution: Execution
) -> dict[RunSpec, BaseException]:
    """Train in local processes; returns the runs that failed, with their errors."""
    failures: dict[RunSpec, BaseException] = {}
    dead: list[RunSpec] = []
    for _ in range(1 + RETRIES):
        left = [s for s in missing if s not in failures and records.find(s) is None]
        if not left or not (dead := _run_pool(left, records.folder, update, execution, failures)):
            return failures
    why = "a training process was killed again and again (is there enough memory?); what it did is kept"
    return failures | {spec: RunsFailedError(why) for spec in dead}


def train_one(spec: RunSpec, folder: Path, threads: int, execution: Execution) -> str:
    """A worker's job: train one spec with that many threads; the Record goes to the folder."""
    torch.set_num_threads(threads)
    execution = replace(execution, device=os.environ.get(_DEVICE, execution.device))
    try:
        return train(spec, Records(folder), execution).spec.key
    except Exception as error:
        raise portable(error) from None


def _run_pool(
    specs: Sequence[RunSpec],
    folder: Path,
    update: Callable[[], None],
    execution: Execution,
    failures: dict[RunSpec, BaseException],
) -> list[RunSpec]:
    """Train in one pool. Returns the specs left because a process of the pool died."""
    workers = min(execution.processes(), len(specs))
    context, dead = beginning(), []
    devices = context.SimpleQueue()
    for k in range(workers):
        devices.put(execution.devices()[k % len(execution.devices())])
    others = set(multiprocessing.active_children())
    threads = max(1, min(cores() // workers, torch.get_num_threads()))
    with ProcessPoolExecutor(workers, context, _begin_worker, (devices, dict(os.environ))) as pool:
        try:
            with _nothing_of_main():
                jobs = {_submit(pool, spec, folder, threads, execution): spec for spec in specs}
            for job in _finished(jobs, update):
                error = job.exception()
                if isinstance(error, BrokenProcessPool):
                    dead.append(jobs[job])
                elif error is not None:
                    failures[jobs[job]] = error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise
    return dead


def beginning() -> multiprocessing.context.BaseContext:
    """How a worker begins: on Linux as a fork of a process that has imported PyTorch and no more."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    return context


@contextmanager
def _nothing_of_main() -> Iterator[None]:
    """Processes that begin meanwhile do not run the caller's script again, of which they need nothing.

    So a script may train without ``if __name__ == "__main__":``.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _submit(
    pool: ProcessPoolExecutor, spec: RunSpec, folder: Path, threads: int, execution: Execution
) -> Future[str]:
    """A job of the pool, which has failed already where the pool is broken."""
    try:
        return pool.submit(train_one, spec, folder, threads, execution)
    except BrokenProcessPool as error:
        job: Future[str] = Future()
        job.set_exception(error)
        return job


def _begin_worker(devices: multiprocessing.SimpleQueue[str], environment: Mapping[str, str]) -> None:
    """Take a device."""
    begin(environment)
    os.environ[_DEVICE] = devices.get()


def begin(environment: Mapping[str, str]) -> None:
    """Be the parent's: with its environment, which a fork of another has not, and for no longer than it.

    Ctrl-C is its business: it stops the pool.
    """
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """Wait for the parent's end, which a SIGKILL announces to nobody, and end at once."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _finished(jobs: Iterable[Future[str]], update: Callable[[], None]) -> Iterator[Future[str]]:
    """The jobs as they finish, with an update of the bar every half second."""
    pending = set(jobs)
    while pending:
        done, pending = wait_for(pending, timeout=0.5)
        yield from done
        update()
