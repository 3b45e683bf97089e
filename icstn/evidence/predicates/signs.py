"""Section 5.3: perturbed traffic signs."""

from __future__ import annotations

from itertools import pairwise

from icstn.evidence.collection import Cell, Evidence
from icstn.evidence.estimates import difference, percent
from icstn.evidence.predicates.comparisons import falls
from icstn.evidence.verdicts import ALPHA, Finding, above, below, compare, fact
from icstn.experiments import paper

#: Share of c-STN-1's error that counts as a considerable improvement.
CONSIDERABLE = 0.75

#: The class of stop signs.
STOP = 14

#: Side of the largest square in the middle of an octagon, over the side of the octagon's box.
IN_OCTAGON = 0.5**0.5


def order_of_models(e: Evidence) -> list[Finding]:
    """Each row of Table 3 against the next."""
    return falls(e, "table_3", tuple(paper.TABLE_3))


def reuse_improves(e: Evidence) -> list[Finding]:
    """Each further operation, and all of them together."""
    models = ("c-STN-1", "IC-STN-2", "IC-STN-4")
    first, _, last = e.cells("table_3", models)
    d = difference(first.runs, last.runs, CONSIDERABLE)
    ratio = last.error.value / first.error.value
    text = f"IC-STN-4 has {percent(ratio)} of c-STN-1's error ({_decided(first, last)}); "
    text += f"{percent(CONSIDERABLE)} of c-STN-1's − IC-STN-4's"
    return [*falls(e, "table_3", models), compare(text, d, (first, last))]


def _decided(first: Cell, last: Cell) -> str:
    """For which limits of the share, in whole percents, the verdict would be which."""
    signs = [above(difference(first.runs, last.runs, share / 100)) for share in range(101)]
    least = next((share for share, sign in enumerate(signs) if sign == "holds"), None)
    most = next((share for share in range(100, -1, -1) if signs[share] == "does not hold"), None)
    under = "" if most is None else f", above any up to {most} %"
    return f"below any limit from {least} %{under}" if least is not None else f"below none{under}"


def means_are_sharper(e: Evidence) -> list[Finding]:
    """Sharpness of the class means from the perturbed images to IC-STN-4."""
    cells = e.cells("table_3", ("c-STN-1", "IC-STN-2", "IC-STN-4"))
    values = [e.measured(cells[0])["initial_sharpness"], *(e.measured(c)["sharpness"] for c in cells)]
    names = ["initial", *(cell.name for cell in cells)]
    return [
        compare(
            f"sharpness of the means, {b} ({after.value:.4f}) − {a} ({before.value:.4f})",
            (after - before).estimate,
            cells,
            digits=4,
            unit="",
        )
        for (before, after), (a, b) in zip(pairwise(values), pairwise(names), strict=True)
    ]


def stop_signs_are_zoomed(e: Evidence) -> list[Finding]:
    """The window of the aligned image against the annotated box, for all classes and for stop signs.

    Of these it must be smaller than the box, and small enough to have nothing but the octagon in it.
    """
    (cell,) = e.cells("table_3", ("IC-STN-4",))
    measured = e.measured(cell).by_class
    windows = [found.estimate for found in measured["window"]]
    zoom = measured["zoom"][STOP].value
    off = [w for w in windows if w.p_value(1.0) * len(windows) < ALPHA]
    larger = sum(w.value > 1 for w in off)
    text = f"of {len(windows)} classes the window is larger than the box in {larger}, "
    text += f"smaller in {len(off) - larger}"
    some, text = fact(text, bool(off), (cell,)), "stop signs, side of the window over side of the box"
    out = "so more of them is shown than before" if zoom > 1 else "so less of them is shown than before"
    return [
        some,
        below(f"{text}; zoom of the warp {zoom:.2f}, {out}", windows[STOP], (cell,), limit=1.0, unit=""),
        below(f"{text}, if only the octagon is left", windows[STOP], (cell,), limit=IN_OCTAGON, unit=""),
    ]
