"""The user's cache of data: where it is, how files get into it, and how they are downloaded."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from icstn.datasets.dataset import DataError, Dataset, fingerprint
from icstn.files import replacing, unwritable

#: Environment variable that moves the cache.
CACHE_VARIABLE = "ICSTN_CACHE"
CONNECT_SECONDS, READ_SECONDS = 10, 60
#: How often a failed download is tried again.
RETRIES = 2


class CacheError(DataError):
    """The cache can't be written."""


def cache_dir(name: str = "") -> Path:
    """The cache's folder, ``$ICSTN_CACHE`` or the system's own place for caches; not created here."""
    import platformdirs

    root = os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("icstn", appauthor=False)
    return Path(root).expanduser() / name


def cache_problem() -> str:
    """Why the cache can't be used, and what to do; empty if it can."""
    reason = unwritable(root := cache_dir())
    return _unusable(root, reason) if reason else ""


def _unusable(folder: Path, reason: str | None) -> str:
    return f"the cache {folder} can't be written ({reason}): set {CACHE_VARIABLE} to a folder that can be"


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
        raise CacheError(_unusable(folder, error.strerror)) from None
    try:
        yield
    finally:
        lock.release()


def md5_of(path: Path) -> str:
    """MD5 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def download(folder: Path, name: str, url: str, known_hash: str | None, *, progress: bool = False) -> Path:
    """A file of the cache, downloaded unless it is there with that hash; a failed attempt is repeated.

    Args:
        folder: where it is kept.
        name: of the file.
        url: where it comes from.
        known_hash: such as ``md5:…``; None accepts what comes.
        progress: show a bar on stderr.

    Raises:
        DataError: with the reason, in one line.
    """
    import pooch
    import requests

    downloader: Any = pooch.HTTPDownloader(progressbar=progress, timeout=(CONNECT_SECONDS, READ_SECONDS))
    source = pooch.create(
        folder, base_url="", registry={name: known_hash}, urls={name: url}, retry_if_failed=RETRIES
    )
    try:
        return Path(source.fetch(name, downloader=downloader))
    except (requests.RequestException, OSError, ValueError) as error:
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
