"""Files: the one atomic write, and the one place that finds the checkout."""

from __future__ import annotations

import contextlib
import glob
import os
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path


class StorageError(RuntimeError):
    """A file that can't be read or written, or is damaged; the message says which and what to do."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A scratch file beside ``path`` that takes its place, flushed to the disk, when the block ends well.

    Whatever happens, the old or the new content is there in whole. The scratch file is gone in any case; one
    that a killed process has left goes with the next write of the same file.

    Raises:
        OSError: the folder can't be made or written, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    start = f".{path.name[:80]}.{platform.node()[:40]}."
    _sweep(path.parent, start)
    handle, name = tempfile.mkstemp(prefix=f"{start}{os.getpid()}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    scratch = Path(name)
    try:
        yield scratch
        with scratch.open("rb+") as file:
            os.fsync(file.fileno())
        scratch.chmod(0o644)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _sweep(folder: Path, start: str) -> None:
    """Remove the scratch files of a name whose writers on this machine are dead."""
    for left in folder.glob(f"{glob.escape(start)}*.tmp"):
        process = left.name.removeprefix(start).partition(".")[0]
        if process.isdecimal() and not _alive(int(process)):
            left.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def check_place(folder: Path, option: str, what: str = "results") -> None:
    """Refuse a folder that can't be made or written to, before there is anything to write; nothing is made.

    Args:
        folder: where something is to be written.
        option: that the user would name another one with.
        what: is to be written.

    Raises:
        StorageError: the folder, or the nearest that there is above it, is a file or may not be written to.
    """
    if reason := unwritable(folder):
        raise StorageError(f"cannot write {what} to {folder} ({reason}); choose another {option}")


def check_file(path: Path) -> None:
    """Refuse a file that can't be written, before there is anything to write; nothing is made.

    Raises:
        StorageError: it is a folder, or its own can't be made or written to.
    """
    reason = "it is a folder" if path.is_dir() else unwritable(path.parent)
    if reason:
        raise StorageError(f"cannot write {path} ({reason}); name another file")


def unwritable(folder: Path) -> str:
    """Why a folder can't be made or written to; empty if it can."""
    try:
        nearest = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    except OSError as error:
        return error.strerror or str(error)
    if not nearest.is_dir():
        return f"{nearest} is a file"
    return "" if os.access(nearest, os.W_OK | os.X_OK) else f"no permission to write to {nearest}"


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that, whatever happens, the old or the new content is there in whole.

    Raises:
        StorageError: the disk is full or the folder can't be written; what was there before stays.
    """
    data = data.encode() if isinstance(data, str) else data
    try:
        with replacing(path) as scratch:
            scratch.write_bytes(data)
    except OSError as error:
        raise StorageError(f"cannot write {path} ({error}); what was there before is untouched") from error


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        StorageError: it is not there or can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path} ({error})") from error


def checkout(*, own: bool = False) -> Path | None:
    """The project's checkout: the one that the library was imported from, else the one we stand in, if any.

    A checkout has notebooks in ``figures`` and Records in ``figures/records``; an installed wheel has not.

    Args:
        own: only the one that the library was imported from.
    """
    here = Path.cwd()
    roots = (Path(__file__).resolve().parents[1], *(() if own else (here, *here.parents)))
    return next((root for root in roots if (root / "figures" / "table_2.ipynb").is_file()), None)
