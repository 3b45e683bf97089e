"""Packages of npm that the tests use and the project does not ship: fetched once, checked, and kept."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path

from icstn.datasets.cache import cache_dir


def folder(package: str, sha256: str) -> Path | None:
    """The unpacked package; nothing where it neither is nor can be fetched.

    Args:
        package: with its version, such as ``axe-core@4.14.1``.
        sha256: of its archive.
    """
    kept = cache_dir("npm") / sha256[:16]
    if not kept.is_dir():
        archive = _fetched(package, kept.parent)
        if archive is None:
            return None
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        assert found == sha256, f"{package} has changed: its archive's SHA-256 is {found}"
        with tarfile.open(archive) as tar:
            tar.extractall(kept, filter="data")
        archive.unlink()
    return kept / "package"


def _fetched(package: str, place: Path) -> Path | None:
    if shutil.which("npm") is None:
        return None
    place.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["npm", "pack", package], cwd=place, capture_output=True, text=True, check=False, timeout=120
    )
    return None if done.returncode else place / done.stdout.strip().splitlines()[-1]
