"""Packages that only parts of the library need, and the extra of the installation that brings them."""

from __future__ import annotations

from importlib.util import find_spec


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
