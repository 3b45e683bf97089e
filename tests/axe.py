"""axe-core, which finds what keeps people out of a page: fetched once by npm, checked, and kept."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from icstn.datasets.cache import cache_dir

#: MPL-2.0; used by the tests alone, and no part of what the project ships.
PACKAGE = "axe-core@4.14.1"
SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
#: Web Content Accessibility Guidelines 2.2, level AA.
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
RUN = """tags => axe.run(document, {runOnly: tags}).then(result => result.violations.flatMap(
    found => found.nodes.map(node => `${found.id}: ${node.html.slice(0, 120)}`)))"""


def script() -> str:
    """axe.min.js, or nothing where it neither is nor can be fetched."""
    file = cache_dir("axe-core") / f"{SHA256[:16]}.js"
    if not file.is_file() and not _fetch(file):
        return ""
    text = file.read_bytes()
    assert hashlib.sha256(text).hexdigest() == SHA256, f"{file} is not {PACKAGE}: delete it"
    return text.decode()


def violations(page: Any, source: str) -> list[str]:
    """What axe finds on a page as it is now."""
    page.evaluate(source)
    found: list[str] = page.evaluate(RUN, TAGS)
    return found


def _fetch(file: Path) -> bool:
    if shutil.which("npm") is None:
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["npm", "pack", PACKAGE], cwd=file.parent, capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode:
        return False
    archive = file.parent / done.stdout.strip().splitlines()[-1]
    with tarfile.open(archive) as tar:
        member = tar.extractfile("package/axe.min.js")
        assert member is not None
        file.write_bytes(member.read())
    archive.unlink()
    return True
