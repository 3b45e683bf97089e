"""The user's cache of data: where it is, how files get into it, and how they are downloaded."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from icstn.datasets.dataset import DataError

#: Environment variable that moves the cache.
CACHE_VARIABLE = "ICSTN_CACHE"
CONNECT_SECONDS, READ_SECONDS = 10, 60


def cache_dir(name: str = "") -> Path:
    """The cache's folder, ``$ICSTN_CACHE`` or the system's own place for caches; not created here."""
    import platformdirs

    root = os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("icstn", appauthor=False)
    return Path(root).expanduser() / name


@contextmanager
def locked(folder: Path, timeout: float = 1800) -> Iterator[None]:
    """Hold a folder of the cache: one process fills it, the others wait and then find it full.

    Raises:
        DataError: the folder can't be written, or another process has held it for ``timeout`` seconds.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=timeout)
        lock.acquire()
    except Timeout:
        raise DataError(f"another process has held the cache {folder} for {timeout:g} s") from None
    except OSError as error:
        raise DataError(
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
