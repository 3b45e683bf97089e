"""Ablations: a row of a table beside the same row with one thing changed, item by item and seed by seed."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from icstn.evidence.collection import Cell, Evidence, MissingError
from icstn.evidence.estimates import Estimate
from icstn.evidence.predicates.comparisons import together
from icstn.evidence.predicates.composition import inverses_under_a_bound
from icstn.experiments import paper
from icstn.experiments.experiment import EXPERIMENTS
from icstn.experiments.studies import AT_SAME_RATES, LENGTHENED, rates, shared_stack, smaller_family

#: Sides, in pixels, that the signs are reduced to; their copy at hand has 32, the networks' input 50.
SIDES = (16, 24, 32)
INPUT_SIDE = 50

#: What stands in place of an IC-STN-4.
SHARED = "four STNs that share a predictor"


@dataclass(frozen=True)
class Contrast:
    """Two cells that differ in one thing.

    Attributes:
        model: the row, for people.
        change: what is changed, for people.
        usual, varied: as in the table, and with the change.
        paired: whether both meet the same test items under the same perturbations.
    """

    model: str
    change: str
    usual: Cell
    varied: Cell
    paired: bool = True

    @property
    def difference(self) -> Estimate:
        """Error with the change minus error without."""
        return self.varied - self.usual


def sides(e: Evidence, table: str) -> list[Contrast]:
    """Composed on the image's side, as eq. (10) prints it, in place of the template's."""
    models = [m for m in EXPERIMENTS[table].rows if "C-STN" in m.upper()]
    return _varied(e, table, models, "composed on the image's side", side="image")


class Floor(NamedTuple):
    """How far c-STN-1 of Table 1 is from what any training of it could reach.

    Attributes:
        sigma: size of the perturbation in pixels.
        side: of composition.
        best, trained: the best linear step, and c-STN-1 as it was trained.
    """

    sigma: float
    side: str
    best: Cell
    trained: Cell


def floors(e: Evidence) -> list[Floor]:
    """The best linear step of either side, beside c-STN-1 at ``full``."""
    found = []
    for sigma in paper.SIGMAS:
        for side, row in (("template", {}), ("image", {"side": "image"})):
            with contextlib.suppress(MissingError):
                best = e.cell("baselines", "best linear step", "full", sigma, **row)
                found.append(Floor(sigma, side, best, e.cell("table_1", "c-STN-1", "full", sigma, **row)))
    return found


def inverses(e: Evidence) -> list[Contrast]:
    """The predicted update inverted before it is composed, as inverse compositional Lucas-Kanade does.

    And the same under a bound on the gradient, in both.
    """
    found = _varied(e, "table_2", ["IC-STN-4(a)", "IC-STN-4(b)"], "explicit inverse", invert=True)
    return found + [Contrast(model, "explicit inverse", *pair) for model, pair in inverses_under_a_bound(e)]


def shared_stacks(e: Evidence) -> list[Contrast]:
    """Four STNs in a row that share one predictor, against IC-STN-4: what differs is what is passed on.

    And against one STN: what differs is how often the predictor is applied.
    """
    found = []
    for block in "ab":
        stack = {"architecture": shared_stack(f"STN({block})")}
        for model, change in ((f"IC-STN-4({block})", SHARED), (f"STN({block})", "applied four times")):
            with contextlib.suppress(MissingError):
                usual, varied = (
                    e.cell("table_2", model, "full"),
                    e.cell("table_2", f"STN({block})", "full", **stack),
                )
                found.append(Contrast(usual.name, change, usual, varied))
    return found


def families(e: Evidence) -> list[Contrast]:
    """Smaller families of warps, of the noise and of the predictor alike."""
    model = "IC-STN-4(b)"
    found: list[Contrast] = []
    for name in ("affine", "similarity", "translation"):
        changes = {"warp": name, "architecture": smaller_family(model, name)}
        found += _varied(e, "table_2", [model], name, paired=False, **changes)
    return found


def sign_noise(e: Evidence) -> list[Contrast]:
    """The noise of the authors' released code in place of the text's."""
    change = f"σ = {paper.SIGMA_OF_THE_CODE:g} px, as in the authors' code"
    return _varied(e, "table_3", ["IC-STN-4"], change, paired=False, sigma=paper.SIGMA_OF_THE_CODE)


def resolutions(e: Evidence) -> list[Contrast]:
    """Signs with fewer pixels."""
    found: list[Contrast] = []
    for side in SIDES[:-1]:
        found += _varied(e, "table_3", ["IC-STN-2"], f"signs of {side}×{side} pixels", resolution=side)
    return [replace(c, usual=_of_seeds(c.usual, c.varied)) for c in found]


def _of_seeds(cell: Cell, other: Cell) -> Cell:
    """The runs of those seeds that the other has, too: one seed more or less is more than what is asked."""
    seeds = {run.spec.seed for run in other.runs}
    return replace(cell, runs=tuple(run for run in cell.runs if run.spec.seed in seeds))


def same_rates(e: Evidence) -> list[Contrast]:
    """STN against c-STN-1, both at the rates of c-STN-1."""
    found = []
    for table, stn, other in AT_SAME_RATES:
        with contextlib.suppress(MissingError):
            usual = e.cell(table, stn, "full", **rates(table, other))
            found.append(Contrast(stn, f"{other} in its place", usual, e.cell(table, other, "full")))
    return found


def lengths(e: Evidence) -> list[Contrast]:
    """Rows above the paper's error, trained for longer than their preset."""
    found: list[Contrast] = []
    for (table, model), steps in LENGTHENED.items():
        found += _varied(e, table, [model], f"{steps:,} iterations", iterations=steps)
    return found


def extrapolated(errors: Mapping[float, Estimate], side: float, power: float) -> Estimate:
    """The error at another resolution, if what is lost falls as a power of an image's side.

    error = a + b side⁻ᵖ, by least squares. The errors count as independent: for cells of the same test items,
    which agree, the interval is too wide rather than too narrow. It does not cover whether that law is right.

    Args:
        errors: by the side in pixels, of two resolutions or more.
        side: to find the error at.
        power: p.
    """
    x = np.array([1.0 / s**power for s in errors])
    shares = 1 / len(x) + (side**-power - x.mean()) * (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    value = sum(share * e.value for share, e in zip(shares, errors.values(), strict=True))
    error = math.hypot(*(share * e.error for share, e in zip(shares, errors.values(), strict=True)))
    return Estimate(float(value), error, min(e.freedom for e in errors.values()))


def cascades(e: Evidence) -> list[Contrast]:
    """Six linear predictors: learned one after the other (SDM), all together, and one in place of six."""
    found = []
    for sigma in paper.SIGMAS:
        for row, change in (
            (("cascades", "c-STN-6"), "learned together"),
            (("table_1", "IC-STN-6"), "one for all"),
        ):
            with contextlib.suppress(MissingError):
                greedy, other = together(e, (("baselines", "SDM"), row), sigma)
                found.append(Contrast(greedy.name, f"{change}: {row[1]}", greedy, other))
    return found


def to_the_letter(e: Evidence) -> list[Contrast]:
    """The paper's own optimizer, rates and length, on its side of composition, in place of our recipe."""
    found = []
    for table in ("table_1", "table_2"):
        for model in EXPERIMENTS[table].rows:
            for sigma in _sigmas(table):
                with contextlib.suppress(MissingError):
                    usual, theirs = (e.cell(table, model, preset, sigma) for preset in ("full", "paper"))
                    found.append(Contrast(usual.name, "preset paper", usual, theirs))
    return found


def _varied(
    e: Evidence, table: str, models: list[str], change: str, *, paired: bool = True, **changes: Any
) -> list[Contrast]:
    """Rows of a table that have been run both ways at ``full``."""
    return [
        Contrast(usual.name, change, usual, varied, paired)
        for model in models
        for usual, varied in _both(e, table, model, changes)
    ]


def _both(e: Evidence, table: str, model: str, changes: dict[str, Any]) -> Iterator[tuple[Cell, Cell]]:
    for sigma in _sigmas(table):
        with contextlib.suppress(MissingError):
            yield e.cell(table, model, "full", sigma), e.cell(table, model, "full", sigma, **changes)


def _sigmas(table: str) -> tuple[float | None, ...]:
    about = EXPERIMENTS[table]
    return about.sigmas if about.by_sigma else (None,)
