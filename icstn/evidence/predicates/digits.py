"""Section 5.2: perturbed MNIST."""

from __future__ import annotations

import contextlib
from itertools import pairwise

from icstn.evidence.collection import Cell, Evidence, MissingError
from icstn.evidence.estimates import log_ratio, percent
from icstn.evidence.predicates.comparisons import falls, first_is_worst, lower, together
from icstn.evidence.verdicts import Finding, below, compare, fact, times
from icstn.experiments import paper
from icstn.experiments.experiment import TOLERANT

#: Points of error that count as little.
LITTLE = 0.5


def cnn_is_inefficient(e: Evidence) -> list[Finding]:
    """The CNN of each block against every model of the block that aligns."""
    blocks = ([m for m in paper.TABLE_2 if m.endswith(f"({block})")] for block in "ab")
    return [finding for models in blocks for finding in first_is_worst(e, "table_2", models)]


def tolerance_is_inefficient(e: Evidence) -> list[Finding]:
    """Plain networks with and without distortions and pooling, and larger ones, against IC-STN-4(a).

    As ratios: the error of the network without pooling differs from seed to seed by factors.
    """
    rows = [("table_2", "CNN(a)"), *(("tolerance", model) for model in TOLERANT), ("table_2", "IC-STN-4(a)")]
    *plain, own = together(e, rows)
    return [_times(c, own) for c in plain]


def _times(plain: Cell, own: Cell) -> Finding:
    errors = [run.test_error for run in plain.runs]
    seeds = (
        f" (seed by seed {', '.join(f'{x:.1f}' for x in errors)} %)" if max(errors) > 2 * min(errors) else ""
    )
    text = f"{plain.name} over {own.name}, {plain.capacity:,} parameters over {own.capacity:,}{seeds}"
    return times(text, log_ratio(plain.runs, own.runs), (plain, own))


def geometry_preserved(e: Evidence) -> list[Finding]:
    """STN against c-STN-1, which have the same modules, in both tables."""
    pairs = (("table_2", "(a)"), ("table_2", "(b)"), ("table_3", ""))
    return [f for table, block in pairs for f in falls(e, table, (f"STN{block}", f"c-STN-1{block}"))]


def single_deep_is_poor(e: Evidence) -> list[Finding]:
    """One deep predictor against two and four small ones."""
    return first_is_worst(e, "table_2", ("c-STN-1(a)", "c-STN-2(a)", "c-STN-4(a)"))


def reuse_classifies_better(e: Evidence) -> list[Finding]:
    """More operations of one predictor, in both blocks."""
    rows = [(f"c-STN-1({b})", f"IC-STN-2({b})", f"IC-STN-4({b})") for b in "ab"]
    return [finding for models in rows for finding in falls(e, "table_2", models)]


def trade_off(e: Evidence) -> list[Finding]:
    """IC-STN-4(b) against c-STN-4(a): capacity and error."""
    small, large = e.cells("table_2", ("IC-STN-4(b)", "c-STN-4(a)"))
    share = small.capacity / large.capacity
    printed = paper.TABLE_2["IC-STN-4(b)"].error - paper.TABLE_2["c-STN-4(a)"].error
    cost = f"{small.name} − {large.name} (the paper's: {printed:.2f})"
    sizes = f"capacity {small.capacity:,} against {large.capacity:,}: {percent(share)}"
    return [
        fact(sizes, round(share, 1) <= 0.5),
        below(cost, small - large, (small, large), limit=LITTLE),
    ]


def reuse_beats_cascade(e: Evidence) -> list[Finding]:
    """As many operations, of one larger predictor or of several smaller ones."""
    pairs = [e.cells("table_2", (f"c-STN-{n}(a)", f"IC-STN-{n}(a)")) for n in (2, 4)]
    return [lower(cascade, reused) for cascade, reused in pairs]


def less_capacity(e: Evidence) -> list[Finding]:
    """The small IC-STN-4 against the large STN."""
    stn, own = e.cells("table_2", ("STN(a)", "IC-STN-4(b)"))
    text = f"with {own.capacity:,} against {stn.capacity:,} parameters"
    return [lower(stn, own), fact(text, own.capacity < stn.capacity)]


def variance_decreases(e: Evidence) -> list[Finding]:
    """Variance within the classes, and the share of the variance that the class does not explain."""
    cells = e.cells("table_2", ("c-STN-1(a)", "IC-STN-2(a)", "IC-STN-4(a)"))
    return [
        *_fall(e, cells, "within", "variance within the classes", 1, 4, ""),
        *_fall(e, cells, "unexplained", "share that the class does not explain", 100, 1, "points"),
    ]


def _fall(
    e: Evidence, cells: list[Cell], name: str, text: str, factor: float, digits: int, unit: str
) -> list[Finding]:
    values = [e.measured(cells[0])[f"initial_{name}"], *(e.measured(cell)[name] for cell in cells)]
    names = ["initial", *(cell.name for cell in cells)]
    steps = zip(pairwise(values), pairwise(names), strict=True)
    return [
        compare(
            f"{text}, {a} ({factor * before.value:.{digits}f}) − {b} ({factor * after.value:.{digits}f})",
            (before - after).scaled(factor).estimate,
            cells,
            digits=digits,
            unit=unit,
        )
        for (before, after), (a, b) in steps
    ]


def stn_shrinks(e: Evidence) -> list[Finding]:
    """Median magnification of the STN's final warp."""
    (cell,) = e.cells("table_2", ("STN(a)",))
    beside = []
    for model in ("c-STN-1(a)", "IC-STN-2(a)", "IC-STN-4(a)"):
        with contextlib.suppress(MissingError):
            other = e.cell("table_2", model, cell.preset)
            beside.append(f"{model} {e.measured(other)['zoom'].value:.2f}")
    text = f"median zoom of the final warp, {cell.name}" + (f" ({', '.join(beside)})" if beside else "")
    return [compare(text, e.measured(cell)["zoom"].estimate, (cell,), over=1.0, unit="")]


def stn_crops(e: Evidence) -> list[Finding]:
    """What the last image of an STN has lost against that of IC-STN-4: ink of digits, samples of signs."""
    stn, own = e.cells("table_2", ("STN(a)", "IC-STN-4(a)"))
    cut_off, kept = (e.measured(cell)["lost_ink"].scaled(100) for cell in (stn, own))
    before = e.measured(own)["initial_lost_ink"].scaled(100)
    seen = e.cells("table_3", ("STN", "IC-STN-4"))
    black, open_ = (e.measured(cell)["lost"].scaled(100) for cell in seen)
    cut = f"ink of the digits outside the image, {stn.name} ({cut_off.value:.1f} %) − {own.name}"
    back = f"recovered by {own.name}: ink outside before ({before.value:.1f} %) − after alignment"
    signs = f"signs, samples that see nothing, {seen[0].name} ({black.value:.1f} %) − {seen[1].name}"
    return [
        compare(f"{cut} ({kept.value:.1f} %)", (cut_off - kept).estimate, (stn, own)),
        compare(f"{back} ({kept.value:.1f} %)", (before - kept).estimate, (own,)),
        compare(f"{signs} ({open_.value:.1f} %)", (black - open_).estimate, seen),
    ]
