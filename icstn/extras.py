"""Packages that only parts of the library need, and the extra of the installation that brings them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


def require(extra: str, *modules: str) -> None:
    """Go on only where these modules can be imported.

    Args:
        extra: of the installation, such as ``data``.
        modules: top-level modules that it brings.

    Raises:
        ImportError: some are not there; the message names them and the extra.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise ImportError(f"this needs {', '.join(missing)}: pip install 'icstn[{extra}]'")


def package(extra: str, module: str) -> ModuleType:
    """A module, imported now.

    Args:
        extra: of the installation, such as ``classical``.
        module: dotted name.

    Raises:
        ImportError: it is not there; the message names it and the extra.
    """
    require(extra, module.partition(".")[0])
    return import_module(module)
