"""Where a number comes from: command, commit, versions, hardware, time."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from icstn.files import checkout

#: Packages whose versions a Record names.
PACKAGES = ("icstn", "torch", "numpy", "safetensors")


def gathered(device: torch.device) -> dict[str, Any]:
    """Facts about this process, as JSON-able values."""
    return {
        "command": _command(),
        "commit": commit(),
        "versions": {"python": platform.python_version(), **_versions()},
        "device": _device_name(device),
        **_gpu(device),
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


#: Options that say where something lies on this machine, or how much of it to use.
OF_THE_MACHINE = ("--records", "--data", "--output", "--out", "--log", "--scheduler", "--workers")


def _command() -> str:
    """How this process was called, as far as it means something elsewhere."""
    program = Path(sys.argv[0]).name
    program = "icstn" if program == "__main__.py" else program or "python"
    return shlex.join([program, *_portable(sys.argv[1:])])


def _portable(arguments: Sequence[str]) -> list[str]:
    """The arguments without options :data:`OF_THE_MACHINE`."""
    left: list[str] = []
    value = False
    for argument in arguments:
        if not value and argument.partition("=")[0] not in OF_THE_MACHINE:
            left.append(argument)
        value = not value and argument in OF_THE_MACHINE
    return left


def commit() -> str:
    """The checkout's commit, with ``+changes`` where the library differs from it; empty outside git."""
    root = checkout(own=True)
    if root is None:
        return ""
    head = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "icstn")
    return f"{head}+changes" if head and changed else head


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _gpu(device: torch.device) -> dict[str, Any]:
    """What else decides a number that a GPU computes."""
    if device.type != "cuda":
        return {}
    return {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32": {
            "matmul": torch.backends.cuda.matmul.allow_tf32,
            "convolution": torch.backends.cudnn.allow_tf32,
        },
        "deterministic": {
            "algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn": torch.backends.cudnn.deterministic,
            "benchmark": torch.backends.cudnn.benchmark,
        },
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {cpu_model()}"


def cpu_model() -> str:
    """The processor's name, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
