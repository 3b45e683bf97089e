"""Sections 3 and 4: spatial transformers, their boundary effect, and what composition does about it."""

from __future__ import annotations

from itertools import pairwise

from icstn.evidence import computations
from icstn.evidence.collection import Evidence
from icstn.evidence.estimates import percent
from icstn.evidence.predicates.lucas_kanade import tiny
from icstn.evidence.verdicts import Finding, fact


def stn_is_linear(_: Evidence) -> list[Finding]:
    """A linear predictor makes eq. (8) an instance of eq. (6)."""
    r = computations.stn_with_a_linear_layer()
    text = f"largest difference between p and R · I + b: {tiny(r['difference'])}"
    return [fact(text, r["difference"] < 1e-9)]


def boundary_effect(_: Evidence) -> list[Finding]:
    """One zoom-out by a tenth."""
    r = computations.boundary_effect()
    stn = f"samples that see nothing after one zoom-out by a tenth: STN {percent(r['stn'][0], 1)}"
    own = f"c-STN {percent(r['c_stn'][0], 1)}, with the same warp of the same photograph"
    return [fact(stn, r["stn"][0] > 0), fact(own, r["c_stn"][0] == 0)]


def boundary_accumulates(_: Evidence) -> list[Finding]:
    """Several zoom-outs in a row."""
    r = computations.boundary_effect()
    shares = ", ".join(percent(s, 1) for s in r["stn"])
    text = f"lost samples of an STN after 1, 2, … zoom-outs: {shares}"
    last = f"a c-STN's after {len(r['c_stn'])}: {percent(r['c_stn'][-1], 1)}"
    return [fact(text, all(b > a for a, b in pairwise(r["stn"]))), fact(last, r["c_stn"][-1] == 0)]


def derivative_as_printed(_: Evidence) -> list[Finding]:
    """Eq. (11) against automatic differentiation."""
    r = computations.printed_eq_11()
    text = f"largest deviation of the printed form: {r['printed']:.2f}"
    return [fact(f"{text} (with the Δp bracket alone: {tiny(r['right'])})", r["printed"] < 1e-9)]


def gradient_survives(_: Evidence) -> list[Finding]:
    """Through 32 compositions of given updates."""
    j, g = computations.composition_jacobian(), computations.gradient_by_depth()
    depth, low, high = len(j["low"]), j["low"][-1], j["high"][-1]
    span = f"singular values of ∂p_N/∂p_0 at N = {depth}, ‖Δp‖ = 0.05: {low:.2f} to {high:.2f}"
    kept, other = (g[kind][-1] / g[kind][0] for kind in ("c_stn", "stn"))
    text = f"gradient of the first update at depth {g['depth'][-1]:.0f} over depth 1: {kept:.2f}"
    return [
        fact(span, low > 0.5 and high < 2),
        fact(f"{text} (stacked STNs: {other:.2f})", kept > 0.5),
    ]


def c_stn_is_compositional_lk(_: Evidence) -> list[Finding]:
    """A c-STN with IC-LK's regressor, on both sides of composition."""
    r = computations.linear_c_stn()
    same = f"composed on the template's side, its warps differ from IC-LK's by {tiny(r['difference'])}"
    near = (
        f"aligned of {r['n']:.0f} starts: {percent(r['aligned'], 1)} there, "
        f"{percent(r['other_side'], 1)} on the side of eq. (10)"
    )
    return [
        fact(same, r["difference"] < 1e-9),
        fact(near, abs(r["aligned"] - r["other_side"]) <= 0.05),
    ]
