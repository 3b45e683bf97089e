"""Small, fast runs of real code for the tests, as a module and as a script that can be killed.

    python tests/runs.py FOLDER MODEL CHANGES [DIE]

trains a Spec of Table 2 on a few rendered digits, each block of steps followed by a checkpoint. DIE is
``fsync:3`` or ``replace:3``: the process kills itself inside its third call of that kind, that is in the
middle of writing a file.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from icstn.datasets import Dataset
from icstn.datasets.dataset import fingerprint
from icstn.experiments import DataOptions, Execution, Record, Records, Spec, cells, training
from icstn.experiments.classification import Classification
from icstn.experiments.progress import Progress
from icstn.experiments.task import Task
from icstn.sampling import Frame


def small_spec(model: str = "IC-STN-2(b)", **changes: Any) -> Spec:
    """A cell of Table 2, shortened."""
    changes = {"iterations": 500, "batch": 4, "test_items": 20, "test_draws": 1, **changes}
    return cells("table_2", "smoke", models=[model], **changes)[0]


def bars(split: str, n: int = 60) -> Dataset:
    """Images of 28×28 whose class is the place of a bright bar."""
    labels = torch.arange(n) % 10
    images = torch.full((n, 1, 28, 28), 20, dtype=torch.uint8)
    for i, label in enumerate(labels.tolist()):
        images[i, 0, 4 + 2 * label : 7 + 2 * label, 8 : 14 + i % 7] = 230
    return Dataset(images, labels, "bars", split, fingerprint(images, labels))


def small_task(spec: Spec, data: DataOptions, device: torch.device | str) -> Task:
    """In place of :func:`icstn.experiments.make_task`: the classification task on the bars."""
    return Classification(
        spec, bars("train"), bars("test"), Frame.full(28, 28), torch.device(device), standardize=False
    )


def train(spec: Spec, folder: Path, *, mode: str = "auto", log: Path | None = None, **options: Any) -> Record:
    """:func:`icstn.experiments.train` on the bars."""
    execution = Execution(device="cpu", mode=mode, log=log)
    original, training.make_task = training.make_task, small_task
    try:
        return training.train(spec, Records(folder), execution, **options)
    finally:
        training.make_task = original


def die_in(name: str, nth: int) -> None:
    """SIGKILL this process inside its nth call of ``os.name``."""
    original, calls = getattr(os, name), 0

    def fatal(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    setattr(os, name, fatal)


def main(folder: str, model: str, changes: str, die: str = "") -> None:
    """Train, telling on stdout when the first step and when each block is done."""
    torch.set_num_threads(1)
    if die:
        name, nth = die.split(":")
        die_in(name, int(nth))
    print("training", flush=True)
    options = {"checkpoint_seconds": 0, "wait": 30}
    train(small_spec(model, **json.loads(changes)), Path(folder), report=tell, **options)


def tell(progress: Progress) -> None:
    """Which block is done."""
    print(f"step {progress.step}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
