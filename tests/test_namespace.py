"""The public names: complete, lazy, typed, and none of them of two minds."""

from __future__ import annotations

import importlib.metadata
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import icstn

WANTED = """ICSTN STN CompositionalSTN Alignment Frame sample Warp translation similarity affine homography
Aligner AlignmentResult align SupervisedDescent ConditionalLK identity_start parameter_groups __version__"""


def python(root: Path, code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(root)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


def test_holds_what_is_promised() -> None:
    assert sorted(icstn.__all__) == sorted(WANTED.split())
    assert {name for name in dir(icstn) if name in WANTED.split()} == set(WANTED.split())


@pytest.mark.parametrize("name", WANTED.split())
def test_each_name_is_the_one_of_its_module(name: str) -> None:
    value = getattr(icstn, name)
    if name == "__version__":
        assert value == importlib.metadata.version("icstn")
    elif name in icstn._HOME:
        assert value is getattr(importlib.import_module(icstn._HOME[name]), name)


def test_importing_brings_no_torch(root: Path) -> None:
    code = "import sys, icstn; icstn.__version__; print('torch' in sys.modules, 'numpy' in sys.modules)"
    assert python(root, code) == "False False"


def test_transformers_bring_no_extra(root: Path) -> None:
    """PyTorch, NumPy and jaxtyping: what the networks need, and no more of ours."""
    code = "import sys; from icstn import ICSTN; print(*sorted(m for m in sys.modules if 'icstn' in m))"
    assert "classical" not in python(root, code)
    assert "datasets" not in python(root, code)


def test_works_with_star_and_from_imports(root: Path) -> None:
    assert python(root, "from icstn import *; print(ICSTN.__module__, align.__name__)") == (
        "icstn.transformers align"
    )


def test_unknown_names_are_said_to_be_unknown() -> None:
    with pytest.raises(AttributeError, match="module 'icstn' has no attribute 'ISCTN'"):
        _ = icstn.ISCTN


def test_no_public_name_is_also_a_module() -> None:
    """A submodule, once imported, would take the function's place."""
    modules = {module.name for module in pkgutil.iter_modules(icstn.__path__)}
    assert not modules & set(icstn.__all__)


def test_types_are_shipped(root: Path) -> None:
    assert (root / "icstn" / "py.typed").exists()
    assert '"py.typed"' in (root / "pyproject.toml").read_text()
