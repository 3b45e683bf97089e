"""The user's cache of data: where it is, how files get into it, and how they are downloaded."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from icstn.datasets.dataset import DataError, Dataset, fingerprint

#: Environment variable that moves the cache.
CACHE_VARIABLE = "ICSTN_CACHE"
CONNECT_SECONDS, READ_SECONDS = 10, 60


class CacheError(DataError):
    """The cache can't be written."""


def cache_dir(name: str = "") -> Path:
    """The cache's folder, ``$ICSTN_CACHE`` or the system's own place for caches; not created here."""
    import platformdirs

    root = os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("icstn", appauthor=False)
    return Path(root).expanduser() / name


@contextmanager
def locked(folder: Path, timeout: float = 1800) -> Iterator[None]:
    """Hold a folder of the cache: one process fills it, the others wait and then find it full.

    Raises:
        CacheError: the folder can't be written.
        DataError: another process has held it for ``timeout`` seconds.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=timeout)
        lock.acquire()
    except Timeout:
        raise DataError(f"another process has held the cache {folder} for {timeout:g} s") from None
    except OSError as error:
        raise CacheError(
            f"the cache {folder} can't be written ({error.strerror}): "
            f"set {CACHE_VARIABLE} to a folder that can be"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A scratch path beside ``path`` that takes its place when the block ends well (atomic)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        yield Path(scratch)
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    finally:
        Path(scratch).unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that no reader ever sees half of it."""
    with replacing(path) as scratch:
        scratch.write_bytes(data)


def md5_of(path: Path) -> str:
    """MD5 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def download(url: str, path: Path, *, progress: bool = False) -> None:
    """Download ``url`` to ``path``, atomically.

    Raises:
        DataError: with the reason, in one line.
    """
    import pooch
    import requests

    fetch = pooch.HTTPDownloader(progressbar=progress, timeout=(CONNECT_SECONDS, READ_SECONDS))
    try:
        with replacing(path) as scratch:
            fetch(url, str(scratch), None)
    except (requests.RequestException, OSError) as error:
        raise DataError(_one_line(error)) from None


def _one_line(error: BaseException) -> str:
    """The innermost reason of a network error, without its nest of wrappers."""
    reason: BaseException = error
    while isinstance(inner := _inner(reason), BaseException):
        reason = inner
    text = str(getattr(reason, "reason", "") or reason).strip() or type(reason).__name__
    return text.splitlines()[0].split("(Caused by")[0].strip()[:200]


def _inner(error: BaseException) -> object:
    reason = getattr(error, "reason", None)
    return reason if isinstance(reason, BaseException) else next(iter(error.args), None)


def cached_dataset(path: Path, build: Callable[[], Dataset]) -> Dataset:
    """The data set stored at ``path``, else what ``build`` makes, stored for the next time.

    Where the cache can't be written a warning says so and the data are built each time.
    """
    if found := load_dataset(path):
        return found
    try:
        with locked(path.parent):
            found = load_dataset(path)
            return found if found is not None else _stored(path, build())
    except CacheError as error:
        warnings.warn(f"{error}; until then this is read afresh each time", stacklevel=3)
        return build()


def load_dataset(path: Path) -> Dataset | None:
    """A stored data set, or ``None`` where there is none or its content is not what was stored."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            about, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        found = Dataset(
            **tensors,
            name=about["name"],
            split=about["split"],
            fingerprint=fingerprint(tensors["images"], tensors["labels"]),
            notes=tuple(json.loads(about["notes"])),
            stand_in=about["stand_in"] == "True",
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, DataError):
        return None
    return found if found.fingerprint == about["fingerprint"] else None


def _stored(path: Path, data: Dataset) -> Dataset:
    about = {key: str(getattr(data, key)) for key in ("name", "split", "fingerprint", "stand_in")}
    about["notes"] = json.dumps(data.notes)
    tensors = {key: getattr(data, key) for key in ("images", "labels", "boxes", "groups")}
    try:
        with replacing(path) as scratch:
            save_file({k: v.contiguous() for k, v in tensors.items() if v is not None}, scratch, about)
    except (OSError, SafetensorError) as error:
        warnings.warn(f"{path} could not be written ({error}); this is read afresh each time", stacklevel=4)
    return data
