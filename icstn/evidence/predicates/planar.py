"""Section 5.1: planar alignment."""

from __future__ import annotations

from dataclasses import replace

from icstn.evidence.collection import Cell, Evidence, Measurements
from icstn.evidence.curves import operations
from icstn.evidence.estimates import Estimate, significant
from icstn.evidence.predicates.comparisons import falls, first_is_worst, lower, together
from icstn.evidence.verdicts import Finding, below, compare
from icstn.experiments import paper

MODELS = tuple(paper.TABLE_1)

#: Percent of its error that a network which no longer improves may yet gain.
NO_GAIN = 5.0


def single_warp_is_limited(e: Evidence) -> list[Finding]:
    """c-STN-1 against each other row, at each σ."""
    return first_is_worst(e, "table_1", MODELS)


def reuse_aligns_better(e: Evidence) -> list[Finding]:
    """Each row against the next, at each σ."""
    return falls(e, "table_1", MODELS)


def improves_beyond_training(e: Evidence) -> list[Finding]:
    """What each row gains from the trained number of operations to the last that is tested, at each σ."""
    rows = [e.cells("table_1", MODELS[1:], sigma) for sigma in paper.SIGMAS]
    return [_beyond(e, cell) for row in rows for cell in row]


def _beyond(e: Evidence, cell: Cell) -> Finding:
    n = operations(cell.runs[0].spec.model)
    found = e.measured(cell)
    last = len(cell.runs[0].metrics["by_operations"]) - 1
    before, after = (significant(found[name].value) for name in ("error_trained", "error_last"))
    text = f"{cell.name}: gain of {last} operations ({after} px), of the error after {n} ({before} px)"
    return compare(text, _gain(found), (cell,), digits=1, unit="%")


def joint_beats_greedy(e: Evidence) -> list[Finding]:
    """As many linear regressors, learned one after the other and learned together, at each σ."""
    pair = (("baselines", "SDM"), ("cascades", "c-STN-6"))
    return [lower(*together(e, pair, sigma)) for sigma in paper.SIGMAS]


def recurrent_network_stops(e: Evidence) -> list[Finding]:
    """What an ordinary recurrent network gains beyond the steps it was trained with, at each σ."""
    cells = [together(e, (("cascades", "RNN-4"), ("table_1", "IC-STN-4")), sigma) for sigma in paper.SIGMAS]
    return [_stops(e, *pair) for pair in cells]


def _stops(e: Evidence, ordinary: Cell, own: Cell) -> Finding:
    gain, other = (_gain(e.measured(cell)) for cell in (ordinary, own))
    n = operations(ordinary.runs[0].spec.model)
    text = f"{ordinary.name}: gain beyond {n} steps, of the error after {n} "
    text += f"({own.name}'s: {other.value:.1f} %)"
    return below(text, gain, (ordinary, own), limit=NO_GAIN, unit="%")


def _gain(found: Measurements) -> Estimate:
    """From the trained number of operations to the last that is tested, in percent of the error."""
    before, after = found["error_trained"], found["error_last"]
    return replace(((before - after) / before).scaled(100).estimate, most=100.0)
