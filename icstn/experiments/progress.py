"""Progress of a run: what it reports, the small file that tells others how far it is, and TensorBoard."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from icstn.experiments.spec import Spec
from icstn.files import StorageError, check_place, write_atomic


class Progress(NamedTuple):
    """How far a run is.

    Attributes:
        step, iterations: steps done and to do.
        error: mean training error since the last report, in %, or pixels for planar alignment.
        rate: steps a second since the last report.
        loss: mean training loss since the last report.
        rate_predictor, rate_classifier: the learning rates of the last step.
    """

    step: int
    iterations: int
    error: float
    rate: float
    loss: float = math.nan
    rate_predictor: float = math.nan
    rate_classifier: float = math.nan


Report = Callable[[Progress], None]


def read_state(folder: Path) -> dict[str, Any] | None:
    """The last reported progress of a run under way; None where there is none, or it can't be read."""
    try:
        state = json.loads((folder / "state.json").read_text())
        numbers = [state[name] for name in ("step", "iterations", "error", "rate")]
        told = isinstance(state["spec"], dict) and state.keys() >= {"host", "process"}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return state if told and all(isinstance(n, int | float) for n in numbers) else None


def write_state(folder: Path, spec: Spec, progress: Progress) -> None:
    """Tell others how far the run is."""
    who = {"updated": time.time(), "host": platform.node(), "process": os.getpid(), "spec": asdict(spec)}
    write_atomic(folder / "state.json", json.dumps(progress._asdict() | who))


def tensorboard(log: Path | None, spec: Spec) -> Report | None:
    """A report that writes TensorBoard event files below that folder; None without one.

    Raises:
        StorageError: TensorBoard is not installed, or the folder can't be written.
    """
    if log is None:
        return None
    check_place(log, "--log", "a TensorBoard log")
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise StorageError("a TensorBoard log needs: pip install 'icstn[tensorboard]'") from error
    writers: list[Any] = []

    def report(progress: Progress) -> None:
        step, names = progress.step, ("loss", "error", "rate_predictor", "rate_classifier")
        if not writers:  # what a killed process logged of steps that are done again is dropped
            writers.append(SummaryWriter(log / spec.key, purge_step=step))
        for name in names:
            writers[0].add_scalar(f"train/{name}", getattr(progress, name), step)
        writers[0].add_scalar("train/steps_per_second", progress.rate, step)
        writers[0].flush()
        if step == progress.iterations:
            writers.pop().close()

    return report
