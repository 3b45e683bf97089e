"""Section 2: Lucas-Kanade and its inverse compositional form."""

from __future__ import annotations

import torch

from icstn.evidence import computations
from icstn.evidence.collection import Cell, Evidence, MissingError
from icstn.evidence.estimates import Estimate, paired, percent
from icstn.evidence.verdicts import Finding, fact, within
from icstn.experiments.experiment import EXPERIMENTS

#: Corner error in pixels below which a trial counts as aligned.
ALIGNED = 1.0

#: Points by which two shares of aligned trials may differ and still count as equal.
MARGIN = 5.0


def ic_equivalent(e: Evidence) -> list[Finding]:
    """The same answers near the solution, and as many trials aligned at every size of the perturbation."""
    r = computations.lk_against_ic()
    text = f"distance of the two answers at σ = 2.5: median {r['median']:.4f} px of {r['n']} starts"
    about = EXPERIMENTS["baselines"]
    rows = [e.cells(about.name, ("LK", "IC-LK"), sigma) for sigma in about.sigmas]
    return [fact(text, r["median"] < 0.1), *(_as_many_aligned(lk, ic) for lk, ic in rows)]


def _as_many_aligned(lk: Cell, ic: Cell) -> Finding:
    a, b = (_aligned(cell) for cell in (lk, ic))
    text = f"aligned within {ALIGNED:g} px, {lk.name} ({a.mean():.1f} %) − {ic.name} ({b.mean():.1f} %)"
    found: Estimate = paired(a, b)
    return within(text, found, MARGIN, (lk, ic))


def _aligned(cell: Cell) -> torch.Tensor:
    """Share of the draws of each trial that are aligned, in percent, ``(seeds, items)``."""
    if any(r.outcomes.numel() == 0 for r in cell.runs):
        raise MissingError(f"outcomes of the trials of {cell.name}")
    return torch.stack([(r.outcomes < ALIGNED).double().mean(0) * 100 for r in cell.runs])


def regressor_is_constant(_: Evidence) -> list[Finding]:
    """One (R, b) replays IC-LK; Lucas-Kanade's R moves."""
    r = computations.constant_regressor()
    replay = f"one (R, b) replays {r['steps']:.0f} iterations of IC-LK to {tiny(r['replay'])}"
    moved = f"Lucas-Kanade's R changes by {percent(r['lk'])} of its norm along its path"
    return [fact(replay, r["replay"] < 1e-9), fact(moved, r["lk"] > 0.01)]


def tiny(value: float) -> str:
    """Rounding errors differ between machines; that they are rounding errors does not."""
    return "less than 1e-9" if value < 1e-9 else f"{value:.2g}"
