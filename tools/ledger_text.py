"""What the ledgers' pages have in common: marks, the note at their head, wrapped and escaped text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from icstn.evidence.verdicts import VERDICTS

MARKS = {"holds": "✓", "holds in part": "◐", "does not hold": "✗", "undecided": "?"}
REACHED = {"reached": "✓", "not reached": "✗", "undecided": "?", "not run": "–"}
BADGES = dict(zip(VERDICTS, ("bdg-success", "bdg-warning", "bdg-danger", "bdg-secondary"), strict=True))
NOTE = "<!-- Written by `python -m tools.ledgers`; changes made here are lost. -->\n"


def wrap(text: str) -> str:
    """Lines of at most 120 characters."""
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def escaped(text: str) -> str:
    """Text without what Markdown would read."""
    return text.replace("[", r"\[").replace("~", r"\~").replace("|", r"\|").replace("*", r"\*")


def plain(title: str) -> str:
    """A title without its full stop and emphasis."""
    return title.rstrip(".").replace("*", "")


def tally(verdicts: Iterable[str]) -> str:
    """How many claims have which verdict."""
    found = list(verdicts)
    counts = [(name, found.count(name)) for name in VERDICTS]
    return f"{len(found)} claims: " + ", ".join(f"{n} {_verb(name, n)}" for name, n in counts if n) + "."


def _verb(name: str, n: int) -> str:
    if n == 1:
        return name
    return name.replace("holds", "hold").replace("does not", "do not")
