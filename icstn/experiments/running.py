"""Many runs: train what is missing, side by side, longest first, with one progress bar."""

from __future__ import annotations

import datetime
import json
import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from icstn.experiments.spec import Spec, cost
from icstn.experiments.storage import Record, Records, StorageError, load_record, print_line
from icstn.experiments.tasks import DataOptions
from icstn.experiments.training import pick_device, read_state, train

#: How often runs are given to new processes after one died.
RETRIES = 3

#: Seconds between two lines of progress where there is no terminal: a log of an hour has 120 lines.
LINE_SECONDS = 30.0

#: The end of a bar or of a line of progress.
TIMES = "{elapsed} elapsed, {remaining} left{postfix}"


class RunsFailedError(RuntimeError):
    """Runs that failed; the message gives each with its reason. All others were finished first."""


def ensure(
    specs: Sequence[Spec],
    records: Records,
    *,
    device: str = "auto",
    data: DataOptions | None = None,
    workers: int = 0,
    scheduler: str | None = None,
    progress: bool = True,
    log: Path | None = None,
) -> list[Record]:
    """Records of all specs, in their order; what is missing is trained first.

    A run that fails does not keep the others from being finished, and one whose process dies is taken up
    again at its last checkpoint by another.

    Args:
        specs: wanted runs.
        records: where Records are looked for and written.
        device: see :func:`icstn.experiments.training.train`.
        data: where data come from.
        workers: processes side by side; 0 is one a CPU core (each with one thread), or one for a GPU.
        scheduler: address of a dask.distributed scheduler whose workers do the training instead, such as
            ``tcp://10.0.0.1:8786``; see :mod:`icstn.experiments.cluster`.
        progress: show a bar on stderr while something is trained.
        log: folder for TensorBoard event files.

    Raises:
        DataError, StorageError: as in training, when it hits every failed run alike.
        RunsFailedError: several runs failed, for different reasons.
    """
    data = data or DataOptions()
    if data.stand_in:
        records = records.stand_in()
    missing = sorted({s for s in specs if records.find(s) is None}, key=cost, reverse=True)
    if missing:
        with _Bar(missing, records, progress) as bar:
            if scheduler:
                from icstn.experiments import cluster

                failures = cluster.run(scheduler, missing, records, bar.update, device, data, log)
            else:
                n = min(workers or default_workers(device), len(missing))
                failures = _run(missing, records, bar.update, n, device, data, log)
        raise_failures(failures)
    found = [records.find(s) for s in specs]
    return [record for record in found if record is not None]


def default_workers(device: str) -> int:
    """One process for a GPU; on a CPU one a core, each with one thread."""
    return 1 if pick_device(device).type == "cuda" else cores()


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def train_one(
    spec: Spec, folder: Path, threads: int, device: str, data: DataOptions, log: Path | None
) -> str:
    """A worker's job: train one spec with that many threads; the Record goes to the folder."""
    torch.set_num_threads(threads)
    try:
        return train(spec, Records(folder), device=device, data=data, log=log).spec.key
    except Exception as error:
        raise portable(error) from None


def portable(error: Exception) -> Exception:
    """The error, or its message where it would not survive the way to another process."""
    try:
        return error if str(pickle.loads(pickle.dumps(error))) == str(error) else RuntimeError(str(error))
    except Exception:
        return (ValueError if isinstance(error, ValueError) else RuntimeError)(str(error))


def raise_failures(failures: Mapping[Spec, BaseException]) -> None:
    """One failure, or the same one everywhere, is raised as it is; several are listed.

    Raises:
        RunsFailedError: the failures differ.
    """
    reasons = {f"{type(error).__name__}: {error}" for error in failures.values()}
    if len(reasons) == 1:
        raise next(iter(failures.values()))
    if reasons:
        lines = [f"{spec.key}: {error}" for spec, error in failures.items()]
        raise RunsFailedError(f"{len(failures)} runs failed\n  " + "\n  ".join(lines))


def _run(
    missing: Sequence[Spec],
    records: Records,
    update: Callable[[], None],
    workers: int,
    device: str,
    data: DataOptions,
    log: Path | None,
) -> dict[Spec, BaseException]:
    """Train in local processes; a new pool takes over what a dead process has left."""
    arguments = (records.folder, max(1, cores() // workers), device, data, log)
    failures: dict[Spec, BaseException] = {}
    for _ in range(1 + RETRIES):
        left = [s for s in missing if s not in failures and records.find(s) is None]
        if not left or not (dead := _run_pool(left, arguments, min(workers, len(left)), update, failures)):
            return failures
    why = "a training process was killed again and again (is there enough memory?); what it did is kept"
    return failures | {spec: RunsFailedError(why) for spec in dead}


def _run_pool(
    specs: Sequence[Spec],
    arguments: tuple[Any, ...],
    workers: int,
    update: Callable[[], None],
    failures: dict[Spec, BaseException],
) -> list[Spec]:
    """Train in one pool. Returns the specs left because a process of the pool died."""
    context, dead = multiprocessing.get_context("spawn"), []
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker) as pool:
        try:
            jobs = {_submit(pool, spec, arguments): spec for spec in specs}
            for job in _finished(jobs, update):
                error = job.exception()
                if isinstance(error, BrokenProcessPool):
                    dead.append(jobs[job])
                elif error is not None:
                    failures[jobs[job]] = error
        except BaseException:
            _stop(pool)
            raise
    return dead


def _submit(pool: ProcessPoolExecutor, spec: Spec, arguments: tuple[Any, ...]) -> Future[str]:
    """A job of the pool, which has failed already where the pool is broken."""
    try:
        return pool.submit(train_one, spec, *arguments)
    except BrokenProcessPool as error:
        job: Future[str] = Future()
        job.set_exception(error)
        return job


def _begin_worker() -> None:
    """Ctrl-C is the parent's business: it stops the pool, and checkpoints stay. None outlives its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the parent's end, which a SIGKILL announces to nobody, and end at once."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _stop(pool: ProcessPoolExecutor) -> None:
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()


def _finished(jobs: Iterable[Future[str]], update: Callable[[], None]) -> Iterator[Future[str]]:
    """The jobs as they finish, with an update of the bar every half second."""
    pending = set(jobs)
    while pending:
        done, pending = wait_for(pending, timeout=0.5)
        yield from done
        update()


@dataclass(frozen=True)
class Status:
    """Where a run is.

    Attributes:
        spec: the run.
        state: ``finished``, ``diverged``, ``running``, ``left`` (it can be resumed) or ``damaged``.
        step, iterations: steps done and to do.
        error: test error of a finished run, else the mean training error last reported.
        unit: of the error.
        rate: steps a second, 0 where unknown.
        seconds_left: estimated, 0 unless it is running.
        by: host and process (running or left), device (finished), or the reason (damaged).
    """

    spec: Spec
    state: str
    step: int = 0
    iterations: int = 0
    error: float = math.nan
    unit: str = ""
    rate: float = 0.0
    seconds_left: float = 0.0
    by: str = ""

    def __str__(self) -> str:
        done = f"{self.step}/{self.iterations}"
        error = "" if math.isnan(self.error) else f"{self.error:.3f} {self.unit}"
        rate = f"{self.rate:.1f}/s" if self.rate else ""
        left = f"{datetime.timedelta(seconds=round(self.seconds_left))} left" if self.seconds_left else ""
        columns = f"{self.state:<9}{done:>15}{error:>13}{rate:>10}  {self.spec.key}"
        return "  ".join(part for part in (columns, left, self.by) if part)


def status(records: Records) -> list[Status]:
    """Every run of all folders, by key: finished, diverged, running, left or damaged."""
    found: dict[str, Status] = {}
    for folder in (records.folder, *records.also):
        for path in sorted(folder.glob("*/")):
            if path.name not in found and (row := _status(path)) is not None:
                found[path.name] = row
    return [found[key] for key in sorted(found)]


def _status(folder: Path) -> Status | None:
    if not (folder / "record.json").is_file():
        return _status_under_way(folder)
    try:
        record = load_record(folder)
    except StorageError as error:
        spec = _damaged_spec(folder)
        return None if spec is None else Status(spec, "damaged", by=str(error))
    facts, seconds = record.provenance, float(record.provenance.get("training_seconds", 0))
    step = int(facts.get("steps", record.spec.iterations))
    return Status(
        record.spec,
        record.status,
        step,
        record.spec.iterations,
        record.test_error,
        str(record.metrics.get("unit", "")),
        step / seconds if seconds else 0.0,
        by=str(facts.get("device", "")),
    )


def _status_under_way(folder: Path) -> Status | None:
    state = read_state(folder)
    if state is None or "spec" not in state:
        return None
    spec = Spec.from_dict(state["spec"])
    running = Records(folder.parent).locked(spec)
    to_do = state["iterations"] - state["step"]
    return Status(
        spec,
        "running" if running else "left",
        state["step"],
        state["iterations"],
        state["error"],
        "px" if spec.experiment == "table_1" else "%",
        state["rate"],
        to_do / state["rate"] if running and state["rate"] else 0.0,
        f"{state['host']}, process {state['process']}",
    )


def _damaged_spec(folder: Path) -> Spec | None:
    """Whatever the damaged file says it is, if it says so legibly."""
    try:
        return Spec.from_dict(json.loads((folder / "record.json").read_text())["spec"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _Bar:
    """One bar over the steps of all runs, weighed by their cost; reads the runs' own state files.

    A terminal shows a bar that moves. A log file or a notebook gets a line each :data:`LINE_SECONDS` instead,
    the first one after as long.
    """

    def __init__(self, specs: list[Spec], records: Records, show: bool) -> None:
        self.specs, self.records = specs, records
        self.lines = show and not sys.stderr.isatty()
        self.began = self.shown = time.monotonic()
        self.total = round(sum(cost(s) for s in specs))
        self.before, _ = self._progress()
        self.bar = tqdm(
            total=self.total,
            initial=self.before,
            disable=not show or self.lines,
            file=sys.stderr,
            bar_format="{percentage:3.0f}%|{bar:20}| " + TIMES,
        )

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def update(self) -> None:
        """Read how far each run is, and show it where it is time to."""
        now = time.monotonic()
        if self.lines and now - self.shown < LINE_SECONDS:
            return
        self.shown = now
        n, text = self._progress()
        if self.lines:
            print_line(self._line(n, now - self.began, text))
        else:
            self.bar.n = n
            self.bar.set_postfix_str(text, refresh=True)

    def _line(self, n: int, elapsed: float, text: str) -> str:
        form = "{percentage:3.0f}%, " + TIMES
        options = {"initial": self.before, "bar_format": form, "postfix": text}
        return str(tqdm.format_meter(n, self.total, elapsed, **options))

    def _progress(self) -> tuple[int, str]:
        """What is done in the bar's units, and how each run is doing."""
        done, running, finished = 0.0, [], 0
        for spec in self.specs:
            folder = self.records.path(spec)
            if (folder / "record.json").is_file():
                done += cost(spec)
                finished += 1
            elif (state := read_state(folder)) and {"step", "iterations", "updated"} <= state.keys():
                done += cost(spec) * state["step"] / state["iterations"]
                if time.time() - state["updated"] < 60:
                    running.append(f"{spec.model} {state['error']:.3g} at {state['rate']:.0f}/s")
        return min(round(done), self.total), " · ".join([f"{finished}/{len(self.specs)} runs", *running])
