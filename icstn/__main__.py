"""``python -m icstn``."""

from icstn.cli import app

app(prog_name="icstn")
