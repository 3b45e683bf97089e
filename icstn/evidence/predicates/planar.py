"""Section 5.1: planar alignment."""

from __future__ import annotations

from icstn.evidence.collection import Cell, Evidence
from icstn.evidence.curves import operations
from icstn.evidence.estimates import Estimate, independent, over_seeds
from icstn.evidence.predicates.comparisons import falls, first_is_worst
from icstn.evidence.verdicts import Finding, compare
from icstn.experiments import paper

MODELS = tuple(paper.TABLE_1)


def single_warp_is_limited(e: Evidence) -> list[Finding]:
    """c-STN-1 against each other row, at each σ."""
    return first_is_worst(e, "table_1", MODELS)


def reuse_aligns_better(e: Evidence) -> list[Finding]:
    """Each row against the next, at each σ."""
    return falls(e, "table_1", MODELS)


def improves_beyond_training(e: Evidence) -> list[Finding]:
    """The error at the trained number of operations against the one at the last that was tested."""
    rows = [e.cells("table_1", MODELS[1:], sigma) for sigma in paper.SIGMAS]
    return [_beyond(cell) for row in rows for cell in row]


def _beyond(cell: Cell) -> Finding:
    n = operations(cell.runs[0].spec.model)
    last = min(len(r.metrics["by_operations"]) for r in cell.runs) - 1
    steps = range(n + 1, last + 1)
    best = min(steps, key=lambda k: _after(cell, k).value)
    least = _after(cell, best).value
    text = f"{cell.name}: least after {best} operations ({least:.3g} px); error after {n} − after {last}"
    return compare(text, independent(_after(cell, n), _after(cell, last)), (cell,), digits=3, unit="px")


def _after(cell: Cell, k: int) -> Estimate:
    """Corner error after k operations."""
    steps = [r.metrics["by_operations"][k] for r in cell.runs]
    return over_seeds([s["corner_px"] for s in steps], [s["interval"] for s in steps])
