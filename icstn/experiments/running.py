"""Many runs: train what is missing, side by side, longest first, with one progress bar."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from pathlib import Path

import torch
from tqdm import tqdm

from icstn.experiments.spec import Spec, cost
from icstn.experiments.storage import Record, Records
from icstn.experiments.tasks import DataOptions
from icstn.experiments.training import pick_device, read_state, train


def ensure(
    specs: Sequence[Spec],
    records: Records,
    *,
    device: str = "auto",
    data: DataOptions | None = None,
    workers: int = 0,
    progress: bool = True,
    log: Path | None = None,
) -> list[Record]:
    """Records of all specs, in their order; what is missing is trained first.

    Args:
        specs: wanted runs.
        records: where Records are looked for and written.
        device: see :func:`icstn.experiments.training.train`.
        data: where data come from.
        workers: processes side by side; 0 is one a CPU core (each with one thread), or one for a GPU.
        progress: show a bar on stderr while something is trained.
        log: folder for TensorBoard event files.

    Raises:
        DataError, StorageError: as in training; what was finished by then stays.
    """
    if data is not None and data.stand_in:
        records = records.stand_in()
    missing = sorted({s for s in specs if records.find(s) is None}, key=cost, reverse=True)
    if missing:
        n = min(workers or default_workers(device), len(missing))
        with _Bar(missing, records, progress) as bar:
            _run(missing, records, bar, n, device=device, data=data or DataOptions(), log=log)
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
    return train(spec, Records(folder), device=device, data=data, log=log).spec.key


def _run(
    missing: list[Spec],
    records: Records,
    bar: _Bar,
    workers: int,
    *,
    device: str,
    data: DataOptions,
    log: Path | None,
) -> None:
    threads = max(1, cores() // workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        jobs = [pool.submit(train_one, s, records.folder, threads, device, data, log) for s in missing]
        try:
            _watch(jobs, bar)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(pool._processes.values()):
                process.terminate()
            raise


def _watch(jobs: Sequence[Future[str]], bar: _Bar) -> None:
    pending = set(jobs)
    while pending:
        done, pending = wait_for(pending, timeout=0.5)
        for job in done:
            job.result()
        bar.update()


class _Bar:
    """One bar over the steps of all runs, weighed by their cost; reads the runs' own state files."""

    def __init__(self, specs: list[Spec], records: Records, show: bool) -> None:
        self.specs, self.records = specs, records
        total = sum(cost(s) for s in specs)
        self.bar = tqdm(
            total=round(total),
            disable=not show,
            file=sys.stderr,
            bar_format="{percentage:3.0f}%|{bar:20}| {elapsed} elapsed, {remaining} left{postfix}",
        )

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def update(self) -> None:
        """Read how far each run is."""
        done, running, finished = 0.0, [], 0
        for spec in self.specs:
            folder = self.records.path(spec)
            if (folder / "record.json").is_file():
                done += cost(spec)
                finished += 1
            elif state := read_state(folder):
                done += cost(spec) * state["step"] / state["iterations"]
                if time.time() - state["updated"] < 60:
                    running.append(f"{spec.model} {state['error']:.3g} at {state['rate']:.0f}/s")
        self.bar.n = min(round(done), self.bar.total)
        self.bar.set_postfix_str(
            f" · {finished}/{len(self.specs)} runs · " + ", ".join(running), refresh=True
        )
