"""Variations of Table 2 in how an update is composed: explicitly inverted, or joined on the other side."""

from __future__ import annotations

import contextlib
from typing import Any

from icstn.evidence.collection import Cell, Evidence, MissingError
from icstn.evidence.verdicts import Finding, compare, within
from icstn.experiments.studies import BOUND

#: Rows of which variations may have been run.
VARIED = ("IC-STN-4(b)", "IC-STN-4(a)", "IC-STN-2(b)", "IC-STN-2(a)")

#: Points of error that count as negligible.
NEGLIGIBLE = 0.5


def inversion_is_negligible(e: Evidence) -> list[Finding]:
    """With and without the explicit inverse, for each row that was run both ways.

    And for each that was run both ways under a bound on the gradient.
    """
    pairs = [(pair[0].name, pair) for pair in _pairs(e, invert=True)]
    pairs += inverses_under_a_bound(e)
    return [
        within(f"{name}, explicit inverse − as it is", varied - usual, NEGLIGIBLE, (varied, usual))
        for name, (usual, varied) in pairs
    ]


def inverses_under_a_bound(e: Evidence) -> list[tuple[str, tuple[Cell, Cell]]]:
    """Rows that were run without and with the explicit inverse under a bound on the predictor's gradient."""
    found = []
    for model in VARIED:
        with contextlib.suppress(MissingError):
            usual, varied = (e.cell("table_2", model, "full", clip=BOUND, invert=x) for x in (False, True))
            found.append((f"{model} under a bounded gradient", (usual, varied)))
    return found


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
