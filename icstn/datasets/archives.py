"""Reading from zip archives and folder trees alike, without unpacking and without trusting them."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from icstn.datasets.cache import md5_of
from icstn.datasets.dataset import DataError

#: What an honest archive of small pictures never exceeds.
MAX_MEMBER_BYTES = 4 << 20
MAX_TOTAL_BYTES = 4 << 30
MAX_MEMBERS = 200_000
MAX_RATIO = 200

_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)


class ZipTree:
    """The members of a zip archive, read in place.

    Raises:
        DataError: no zip archive; a name that leaves the archive's own folder; or sizes that only a zip
            bomb has (:data:`MAX_MEMBER_BYTES`, :data:`MAX_TOTAL_BYTES`, :data:`MAX_RATIO`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except _UNREADABLE as error:
            raise DataError(f"{path} is no readable zip archive ({error}): fetch it again") from None
        members = [m for m in self._archive.infolist() if not m.is_dir()]
        _check_members(path, members)
        self.names = [m.filename for m in members]

    def read(self, name: str) -> bytes:
        """The bytes of a member.

        Raises:
            DataError: the member is missing, damaged, encrypted or larger than it says.
        """
        try:
            with self._archive.open(name) as member:
                return _bounded(member.read(MAX_MEMBER_BYTES + 1), f"{self.path}: {name}")
        except KeyError:
            raise DataError(f"{self.path} lacks {name}: fetch the archive again") from None
        except _UNREADABLE as error:
            raise DataError(f"{self.path}: {name} can't be read ({error}): fetch it again") from None

    def identity(self) -> str:
        """MD5 of the archive."""
        return md5_of(self.path)


class FolderTree:
    """The files below a folder, by their relative POSIX paths."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stats = dict(sorted(_walk(path)))
        self.names = list(self._stats)

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            DataError: it is missing, unreadable or too large.
        """
        if name not in self._stats:
            raise DataError(f"{self.path} lacks {name}: unpack the archive again")
        try:
            with (self.path / name).open("rb") as file:
                return _bounded(file.read(MAX_MEMBER_BYTES + 1), f"{self.path / name}")
        except OSError as error:
            raise DataError(f"{self.path / name} can't be read ({error.strerror})") from None

    def identity(self) -> str:
        """A hash over all paths, sizes and modification times."""
        return hashlib.md5(repr(self._stats).encode()).hexdigest()


Tree = ZipTree | FolderTree


def open_tree(path: Path) -> Tree:
    """A folder or a zip archive as a tree."""
    return FolderTree(path) if path.is_dir() else ZipTree(path)


def plain_name(name: str) -> bool:
    """Whether a path stays inside the folder that it is relative to."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not (
        name.startswith("/") or "\\" in name or "\0" in name or ":" in name or ".." in parts
    )


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    for member in members:
        if not plain_name(member.filename):
            raise DataError(f"{path} is not safe to read: member {member.filename!r} leaves its folder")
        if member.file_size > MAX_MEMBER_BYTES:
            raise DataError(f"{path} is not safe to read: {member.filename} says {member.file_size:,} bytes")
    total = sum(member.file_size for member in members)
    if len(members) > MAX_MEMBERS or total > min(MAX_TOTAL_BYTES, MAX_RATIO * path.stat().st_size):
        raise DataError(
            f"{path} is not safe to read: {len(members):,} members of {total:,} bytes in an archive of "
            f"{path.stat().st_size:,}"
        )


def _bounded(data: bytes, name: str) -> bytes:
    if len(data) > MAX_MEMBER_BYTES:
        raise DataError(f"{name} is larger than {MAX_MEMBER_BYTES:,} bytes: it is no picture of this set")
    return data


def _walk(root: Path) -> list[tuple[str, tuple[int, int]]]:
    found = []
    for folder, _, files in os.walk(root):
        for file in files:
            path = Path(folder, file)
            stat = path.stat()
            found.append((path.relative_to(root).as_posix(), (stat.st_size, stat.st_mtime_ns)))
    return found
