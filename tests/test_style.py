"""Lint, format, types and the floors of the library."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("pyrefly", "check"),
        ("lint-imports",),
    ],
    ids=["lint", "format", "types", "imports"],
)
def test_is_clean(command: tuple[str, ...], root: Path) -> None:
    done = subprocess.run(
        [BIN / command[0], *command[1:]], cwd=root, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_requirements_are_exact_pins(root: Path) -> None:
    lines = (root / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert len({line.split("==")[0].lower() for line in pins}) == len(pins)


def test_requirements_meet_the_lower_bounds(root: Path) -> None:
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (root / "requirements.txt").read_text().splitlines()
    pins = {canonicalize_name(a): b for a, _, b in (line.partition("==") for line in lines) if b}
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    for requirement in map(Requirement, wanted):
        if requirement.name != project["name"]:  # as in icstn[data]
            assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement
