"""The command ``icstn``, also ``python -m icstn``."""

from __future__ import annotations

import sys

from icstn.extras import require


def main() -> None:
    """Run the command line, or say what it needs."""
    try:
        require("experiments", "typer", "rich")
    except ImportError as error:
        sys.exit(f"icstn: {error}")
    from icstn.cli import app

    app(prog_name="icstn")


if __name__ == "__main__":
    main()
