"""Execution: where and how runs are done, which changes none of their numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch

#: The value of a ``data`` parameter that asks for rendered traffic signs.
STAND_IN = "stand-in"


@dataclass(frozen=True)
class DataOptions:
    """Where data come from.

    Attributes:
        folder: the user's own data folder (``--data``), or none.
        stand_in: use the rendered stand-in in place of GTSRB.
    """

    folder: str | None = None
    stand_in: bool = False

    @classmethod
    def parse(cls, data: str | os.PathLike[str] | None) -> DataOptions:
        """From a parameter: a folder, None, or ``"stand-in"``."""
        if data == STAND_IN:
            return cls(None, True)
        return cls(None if data is None else os.fspath(data))


@dataclass(frozen=True)
class Execution:
    """Where and how runs are done.

    Attributes:
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` (every GPU of this machine) or
            ``cuda:1`` (that one).
        mode: how a training step is run, see :mod:`icstn.experiments.capture`.
        data: where data come from.
        workers: processes side by side; 0 is one a CPU core (each with one thread), or one a GPU.
        scheduler: address of a dask.distributed scheduler whose workers do the training instead, such as
            ``tcp://10.0.0.1:8786``; see :mod:`icstn.experiments.clusters`.
        log: folder for TensorBoard event files, or none.
        progress: show a bar on stderr while something is trained.
    """

    device: str = "auto"
    mode: str = "auto"
    data: DataOptions = field(default_factory=DataOptions)
    workers: int = 0
    scheduler: str | None = None
    log: Path | None = None
    progress: bool = True

    def devices(self) -> list[str]:
        """The devices that local processes share: every GPU, or the one that was asked for."""
        found = pick_device(self.device)
        if found.type == "cuda" and found.index is None:
            return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        return [str(found)]

    def processes(self) -> int:
        """How many local processes work side by side: as asked, else one a GPU, or one a CPU core."""
        devices = self.devices()
        return self.workers or (len(devices) if devices[0].startswith("cuda") else cores())


def pick_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:1`` → a device.

    Raises:
        ValueError: an unknown name, or a GPU is asked for that is not there.
    """
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
        raise ValueError(f"unknown device {name!r}: choose auto, cpu, cuda or cuda:1")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device is available to PyTorch here; use --device cpu or auto")
    if index and int(index) >= torch.cuda.device_count():
        raise ValueError(f"this machine has {torch.cuda.device_count()} GPUs, numbered from 0; got {name!r}")
    return torch.device(f"{kind}:{index}" if index else kind)


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
