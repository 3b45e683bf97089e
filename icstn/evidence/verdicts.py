"""Verdicts: what a number with its interval says about a statement, alone and among many.

A comparison *holds* when its 95 % interval lies on the claimed side of its threshold, *does not hold* when it
lies on the other side, and is *undecided* when it includes the threshold. Several comparisons of one claim
are corrected for being many (Holm, 1979): with m comparisons the smallest p-value counts m-fold, the next
m − 1-fold, and so on; a comparison that does not survive is undecided.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from icstn.evidence.collection import Cell
from icstn.evidence.estimates import Estimate, minus

Verdict = Literal["holds", "holds in part", "does not hold", "undecided"]

#: Verdicts from good to open.
VERDICTS: tuple[Verdict, ...] = ("holds", "holds in part", "does not hold", "undecided")

#: Size of the tests.
ALPHA = 0.05


@dataclass(frozen=True)
class Finding:
    """One comparison or fact.

    Attributes:
        text: what it says, with its number and interval.
        verdict: what it means for the claim.
        cells: whose runs it rests on.
        p: p-value of a comparison; none for a fact.
        needed: how many seeds a model would decide a comparison, if that can be said
            (:meth:`icstn.evidence.estimates.Estimate.needed`).
        tested: a comparison's number and its threshold, from which a correction counts ``needed`` anew.
        of_errors: whether the test errors of two cells are compared, the first minus the second.
    """

    text: str
    verdict: Verdict
    cells: tuple[Cell, ...] = ()
    p: float | None = None
    needed: int | None = None
    tested: tuple[Estimate, float] | None = None
    of_errors: bool = False


def fact(text: str, condition: bool, cells: Sequence[Cell] = ()) -> Finding:
    """Something that either is so or is not."""
    return Finding(text, "holds" if condition else "does not hold", tuple(cells))


def compare(
    text: str,
    found: Estimate,
    cells: Sequence[Cell] = (),
    *,
    over: float = 0.0,
    digits: int = 2,
    unit: str = "points",
) -> Finding:
    """Whether a number lies above a threshold.

    Args:
        text: what is compared; the number, its interval and its unit follow it.
        found: the number.
        cells: whose runs it comes from.
        over: the threshold.
        digits, unit: of the number.
    """
    shown = _shown(text, found, digits, unit)
    return _tested(shown, above(found, over), cells, found, over)


def below(
    text: str,
    found: Estimate,
    cells: Sequence[Cell] = (),
    *,
    limit: float,
    digits: int = 2,
    unit: str = "points",
) -> Finding:
    """Whether a number lies below a limit of our choice; says for which limits the verdict is the same."""
    verdict = above(-found, -limit)
    ends, shown = found.decimals(digits), f"{_shown(text, found, digits, unit)}; our limit {limit:.3g}"
    shown += minus(
        f" (below for any above {found.high:.{ends}f}, not below for any under {found.low:.{ends}f})"
    )
    return _tested(shown, verdict, cells, found, limit)


def times(text: str, found: Estimate, cells: Sequence[Cell] = ()) -> Finding:
    """Whether a ratio, of which the logarithm is given, lies above 1."""
    ends = ", ".join(f"{math.exp(end):.1f}" for end in (found.low, found.high))
    shown = f"{text}: {math.exp(found.value):.1f} [{ends}] times"
    return _tested(shown, above(found), cells, found, 0.0)


def within(text: str, found: Estimate, margin: float, cells: Sequence[Cell] = ()) -> Finding:
    """Whether a difference in points is smaller than a margin on either side (two one-sided tests)."""
    sides = {above(found, -margin), above(-found, -margin)}
    verdict: Verdict = "holds" if sides == {"holds"} else "undecided"
    if "does not hold" in sides:
        verdict = "does not hold"
    p = max(found.p_value(margin), found.p_value(-margin))  # the nearer side decides, inside and outside
    least = max(abs(found.low), abs(found.high))
    shown = f"{_shown(text, found)}; our margin ±{margin:g} (within any above {least:.2f})"
    side = margin if found.value > 0 else -margin
    return replace(_tested(shown, verdict, cells, found, side), p=p)


def _tested(text: str, verdict: Verdict, cells: Sequence[Cell], found: Estimate, threshold: float) -> Finding:
    p, needed = found.p_value(threshold), found.needed(threshold)
    return Finding(text, verdict, tuple(cells), p, needed, (found, threshold))


def _shown(text: str, found: Estimate, digits: int = 2, unit: str = "points") -> str:
    return f"{text}: {found.show(digits, unit)}"


def above(found: Estimate, threshold: float = 0.0) -> Verdict:
    """Whether a number lies above a threshold, by its interval."""
    if found.low > threshold:
        return "holds"
    return "does not hold" if found.high < threshold else "undecided"


def corrected(findings: Sequence[Finding]) -> list[Finding]:
    """The findings of one claim with Holm's correction for their number; facts are left as they are.

    The seeds that an undecided one needs are counted with the correction, too.
    """
    order = sorted((f.p, i) for i, f in enumerate(findings) if f.p is not None)
    out, largest = list(findings), 0.0
    for rank, (p, i) in enumerate(order):
        left = len(order) - rank
        largest = max(largest, p * left)
        if largest > ALPHA:
            found, threshold = out[i].tested or (None, 0.0)
            needed = found.needed(threshold, ALPHA / left) if found else None
            out[i] = replace(out[i], verdict="undecided", needed=needed)
    return out


def joint(verdicts: Iterable[Verdict]) -> Verdict:
    """Of a claim made of several findings.

    All hold → holds; some hold and some do not → holds in part; none holds and one does not → does not hold;
    else undecided.
    """
    found = set(verdicts)
    if found == {"holds"}:
        return "holds"
    if "does not hold" in found or "holds in part" in found:
        return "holds in part" if found & {"holds", "holds in part"} else "does not hold"
    return "undecided"
