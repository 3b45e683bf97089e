"""The public names: complete, lazy, typed, and none of them of two minds."""

from __future__ import annotations

import importlib.metadata
import pkgutil
from collections.abc import Callable
from pathlib import Path

import pytest

import icstn

WANTED = """ICSTN STN CompositionalSTN Alignment Frame sample Warp translation similarity affine homography
Aligner AlignmentResult align Tracker track SupervisedDescent ConditionalLK identity_start parameter_groups
__version__"""


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


def test_importing_brings_no_torch(fresh_python: Callable[[str], str]) -> None:
    code = "import sys, icstn; icstn.__version__; print('torch' in sys.modules, 'numpy' in sys.modules)"
    assert fresh_python(code).strip() == "False False"


def test_transformers_bring_no_extra(fresh_python: Callable[[str], str]) -> None:
    """PyTorch, NumPy and jaxtyping: what the networks need, and no more of ours."""
    code = "import sys; from icstn import ICSTN; print(*sorted(m for m in sys.modules if 'icstn' in m))"
    loaded = fresh_python(code)
    assert "icstn.transformers" in loaded
    assert "classical" not in loaded
    assert "datasets" not in loaded


def test_works_with_star_and_from_imports(fresh_python: Callable[[str], str]) -> None:
    printed = fresh_python("from icstn import *; print(ICSTN.__module__, align.__name__)")
    assert printed.strip() == "icstn.transformers align"


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
