"""Packages that only some of this needs: found when they are used, or named."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def package(module: str, name: str) -> ModuleType:
    """The module, imported now.

    Args:
        module: dotted name.
        name: what the package index calls it.

    Raises:
        ImportError: it is not installed; the message names the extra that brings it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"this needs {name}: pip install 'icstn[classical]'") from error
