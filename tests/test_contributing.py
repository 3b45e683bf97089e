"""The worked examples of CONTRIBUTING.md run, one after the other, as a reader would type them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import warm


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_examples_run(root: Path) -> None:
    """In a process of their own, since they add to the lists of the library."""
    code = blocks((root / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert len(code) == 4
    assert all("assert" in block for block in code)
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        [*warm.PYTHON, "-c", "\n".join(code)], text=True, capture_output=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_the_files_it_names_exist(root: Path) -> None:
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:icstn|tests|tools|figures)/[\w/.]+\.py)`", text))
    assert len(named) >= 5
    assert [name for name in named if not (root / name).is_file()] == []


def test_the_picture_shows_every_floor(root: Path) -> None:
    picture = (root / "CONTRIBUTING.md").read_text(encoding="utf-8").split("```")[1]
    modules = {
        p.stem for p in (root / "icstn").iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()
    }
    hidden = {"__init__", "__main__"}
    assert [m for m in sorted(modules - hidden) if m not in picture] == []
