"""Variations of Table 2 in how an update is composed: explicitly inverted, or joined on the other side."""

from __future__ import annotations

from typing import Any

from icstn.evidence.ablations import inverses
from icstn.evidence.collection import Cell, Evidence, MissingError
from icstn.evidence.verdicts import Finding, compare, within

#: Rows of which variations may have been run.
VARIED = ("IC-STN-4(b)", "IC-STN-4(a)", "IC-STN-2(b)", "IC-STN-2(a)")

#: Points of error that count as negligible.
NEGLIGIBLE = 0.5


def inversion_is_negligible(e: Evidence) -> list[Finding]:
    """With and without the explicit inverse, for each row that was run both ways.

    And for each that was run both ways under a bound on the gradient.
    """
    pairs = [(usual.name, usual, varied) for usual, varied in _pairs(e, invert=True)]
    pairs += [(c.model, c.usual, c.varied) for c in inverses(e) if c.usual.runs[0].spec.clip]
    return [
        within(f"{name}, explicit inverse − as it is", varied - usual, NEGLIGIBLE, (varied, usual))
        for name, usual, varied in pairs
    ]


def side_of_composition(e: Evidence) -> list[Finding]:
    """The image side (eq. 10) against the template side, for each row that was run on both."""
    return [
        compare(f"{usual.name}, image side − template side", varied - usual, (varied, usual))
        for usual, varied in _pairs(e, side="image")
    ]


def _pairs(e: Evidence, **changes: Any) -> list[tuple[Cell, Cell]]:
    """Each row as it is and with the changes, at the same preset.

    Raises:
        MissingError: no row has been run both ways.
    """
    found: list[tuple[Cell, Cell]] = []
    for model in VARIED:
        for preset in e.presets:
            try:
                varied = e.cell("table_2", model, preset, **changes)
                usual = e.cell("table_2", model, preset)
            except MissingError:
                continue
            if varied.runs[0].spec.key != usual.runs[0].spec.key:
                found.append((usual, varied))
                break
    if not found:
        what = ", ".join(f"{name}={value}" for name, value in changes.items())
        raise MissingError(f"a row of Table 2 run with {what}")
    return found
