"""What several predicates compare: a row of models, each against the next or the first against all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from icstn.evidence.collection import Cell, Evidence, MissingError
from icstn.evidence.verdicts import Finding, compare
from icstn.experiments.experiment import EXPERIMENTS


def lower(first: Cell, second: Cell) -> Finding:
    """Whether the second cell's error lies below the first's."""
    about = first.runs[0].spec.about
    unit = "points" if about.unit == "%" else about.unit
    text = f"{first.name} − {second.name}"
    found = compare(text, first - second, (first, second), digits=about.digits, unit=unit)
    return replace(found, of_errors=True)


#: The preset that trains as the paper's text has it.
LETTER = "paper"


def contradicted(e: Evidence, findings: Iterable[Finding]) -> list[Finding]:
    """What the paper's own training says to the contrary, where both cells of a comparison were run with it.

    Only where the comparison holds, and beyond the test items of those runs. These count as facts: they come
    from few seeds, and stand for what the statement is about, which is the paper's networks.
    """
    return [
        replace(again, text=f"under the paper's own training, {again.text}", p=None, needed=None, tested=None)
        for f in findings
        if f.of_errors and f.verdict == "holds" and f.cells[0].preset != LETTER
        for again in _again(e, f.cells)
        if again.verdict == "does not hold"
    ]


def _again(e: Evidence, cells: Sequence[Cell]) -> Iterator[Finding]:
    specs = [cell.runs[0].spec for cell in cells]
    with contextlib.suppress(MissingError):
        first, second = (
            e.cell(s.experiment, s.model, LETTER, s.sigma if s.about.by_sigma else None) for s in specs
        )
        yield lower(first, second)


def falls(e: Evidence, experiment: str, models: Sequence[str]) -> list[Finding]:
    """Test error falls from each model to the next, at each σ."""
    return [lower(a, b) for row in _rows(e, experiment, models) for a, b in pairwise(row)]


def first_is_worst(e: Evidence, experiment: str, models: Sequence[str]) -> list[Finding]:
    """The first model has a larger test error than each other, at each σ."""
    return [lower(row[0], b) for row in _rows(e, experiment, models) for b in row[1:]]


def together(e: Evidence, rows: Sequence[tuple[str, str]], sigma: float | None = None) -> list[Cell]:
    """Cells of several experiments, given as (experiment, model), at the best preset that has them all.

    Raises:
        MissingError: no preset has; the message says what the first one lacks.
    """
    lacking = []
    for preset in e.presets:
        try:
            return [e.cell(experiment, model, preset, sigma) for experiment, model in rows]
        except MissingError as error:
            lacking.append(error)
    raise lacking[0]


def _rows(e: Evidence, experiment: str, models: Sequence[str]) -> list[list[Cell]]:
    about = EXPERIMENTS[experiment]
    return [e.cells(experiment, models, sigma if about.by_sigma else None) for sigma in about.sigmas]
