"""The paper's checkable statements, each as a predicate over Records or a computation.

A claim is judged *holds*, *does not hold* or *undecided* by code alone. A comparison holds when its 95 %
interval lies on the claimed side, fails when it lies on the other, and is undecided in between or where a
Record is missing. A claim made of several comparisons holds when all do, and fails when one does.

Example:
    >>> from icstn.evidence.collection import Evidence
    >>> judge(claim("ic-regressor-constant"), Evidence([])).verdict
    'holds'
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from icstn.evidence import computations
from icstn.evidence.collection import Evidence, MissingError
from icstn.evidence.estimates import Estimate
from icstn.experiments import paper
from icstn.experiments.experiment import EXPERIMENTS

Verdict = Literal["holds", "does not hold", "undecided"]


@dataclass(frozen=True)
class Finding:
    """One comparison or number.

    Attributes:
        text: what it says, with its number and interval.
        verdict: what it means for the claim.
    """

    text: str
    verdict: Verdict


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict.

    Attributes:
        verdict: of the claim.
        findings: the evidence.
        missing: what would have to be there to decide it.
        preset: of the Records used, empty for a computation.
        seeds: how many runs the Records' cells have, least and most.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    missing: str = ""
    preset: str = ""
    seeds: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Claim:
    """A statement of the paper.

    Attributes:
        name: identifier.
        statement: in our words.
        place: where the paper says so.
        rule: what counts as holding, where it is more than a sign.
        shown: documents of the book where it can be seen.
        kind: ``computation`` or ``records``.
        test: the predicate.
    """

    name: str
    statement: str
    place: str
    rule: str
    shown: tuple[str, ...]
    kind: Literal["computation", "records"]
    test: Callable[[Evidence], Outcome]


Outcome = tuple[list[Finding], str]
_CLAIMS: dict[str, Claim] = {}


def claims() -> list[Claim]:
    """All claims, in the paper's order."""
    return list(_CLAIMS.values())


def claim(name: str) -> Claim:
    """The claim of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in _CLAIMS:
        raise ValueError(f"there is no claim {name!r}: the claims are {', '.join(_CLAIMS)}")
    return _CLAIMS[name]


def judge(claim: Claim, evidence: Evidence) -> Judgement:
    """Decide a claim from the evidence there is."""
    evidence.used = set()
    try:
        findings, preset = claim.test(evidence)
    except MissingError as error:
        return Judgement("undecided", (), f"missing: {error}")
    return Judgement(joint(f.verdict for f in findings), tuple(findings), "", preset, _seeds(evidence))


def joint(verdicts: Iterable[Verdict]) -> Verdict:
    """All hold → holds; one does not → does not hold; else undecided."""
    found = list(verdicts)
    if "does not hold" in found:
        return "does not hold"
    return "undecided" if "undecided" in found or not found else "holds"


def above(difference: Estimate, threshold: float = 0.0) -> Verdict:
    """Whether a difference lies above a threshold, by its interval."""
    if difference.low > threshold:
        return "holds"
    return "does not hold" if difference.high < threshold else "undecided"


def _seeds(evidence: Evidence) -> tuple[int, int]:
    groups: dict[str, int] = {}
    for key in evidence.used:
        cell = key.rsplit("-seed", 1)[0]
        groups[cell] = groups.get(cell, 0) + 1
    return (min(groups.values()), max(groups.values())) if groups else (0, 0)


def _register(
    name: str,
    place: str,
    statement: str,
    *,
    shown: Sequence[str],
    rule: str = "",
    kind: Literal["computation", "records"] = "records",
) -> Callable[[Callable[[Evidence], Outcome]], Callable[[Evidence], Outcome]]:
    def add(test: Callable[[Evidence], Outcome]) -> Callable[[Evidence], Outcome]:
        _CLAIMS[name] = Claim(name, statement, place, rule, tuple(shown), kind, test)
        return test

    return add


def _is(condition: bool) -> Verdict:
    return "holds" if condition else "does not hold"


def _tiny(value: float) -> str:
    """Rounding errors differ between machines; that they are rounding errors does not."""
    return "less than 1e-9" if value < 1e-9 else f"{value:.2g}"


def _falls(e: Evidence, experiment: str, models: Sequence[str], unit: str = "points") -> Outcome:
    """Test error falls from each model to the next."""
    preset = e.preset(experiment, models)
    findings = []
    for a, b in pairwise(models):
        d = e.error(experiment, a, preset) - e.error(experiment, b, preset)
        findings.append(Finding(f"{a} − {b}: {d.show()} {unit}", above(d)))
    return findings, preset


# Section 2: Lucas-Kanade.


@_register(
    "ic-equivalent",
    "Sec. 2.1",
    "The inverse compositional form of Lucas-Kanade is effectively equivalent to the original.",
    rule="From the same starts, the success rates differ by at most 5 points, and where both succeed the "
    "answers differ by less than a tenth of a pixel (median).",
    shown=("inverse_compositional",),
    kind="computation",
)
def _ic_equivalent(_: Evidence) -> Outcome:
    r = computations.lk_against_ic()
    rates = f"aligned within half a pixel: LK {r['lk']:.1%}, IC-LK {r['ic']:.1%} of {r['n']} starts"
    apart = f"distance of their answers: median {r['median']:.4f} px, 95th percentile {r['p95']:.4f} px"
    same = _is(abs(r["lk"] - r["ic"]) <= 0.05)
    return [Finding(rates, same), Finding(apart, _is(r["median"] < 0.1))], ""


@_register(
    "ic-regressor-constant",
    "Sec. 2.1, 4.2",
    "In the inverse compositional form one linear regressor serves every iteration; in the original form it "
    "changes.",
    rule="One (R, b) replays the library's iterations to 1e-9, and Lucas-Kanade's R moves by more than 1 %.",
    shown=("inverse_compositional", "alignment_as_regression"),
    kind="computation",
)
def _ic_regressor_constant(_: Evidence) -> Outcome:
    r = computations.constant_regressor()
    replay = f"one (R, b) replays {r['steps']:.0f} iterations of IC-LK to {_tiny(r['replay'])}"
    moved = f"Lucas-Kanade's R changes by {r['lk']:.0%} of its norm along its path"
    return [Finding(replay, _is(r["replay"] < 1e-9)), Finding(moved, _is(r["lk"] > 0.01))], ""


# Section 3: spatial transformers.


@_register(
    "stn-linear",
    "Sec. 3",
    "A Spatial Transformer whose predictor is one linear layer predicts in the form of eq. (6).",
    shown=("spatial_transformers",),
    kind="computation",
)
def _stn_linear(_: Evidence) -> Outcome:
    r = computations.stn_with_a_linear_layer()
    text = f"largest difference between p and R · I + b: {_tiny(r['difference'])}"
    return [Finding(text, _is(r["difference"] < 1e-9))], ""


@_register(
    "boundary-effect",
    "Sec. 3, 4.1, Fig. 2",
    "Zooming out, a Spatial Transformer discards what lies outside its input; a c-STN does not.",
    shown=("spatial_transformers", "compositional_stn"),
    kind="computation",
)
def _boundary(_: Evidence) -> Outcome:
    r = computations.boundary_effect()
    stn = f"samples that see nothing after one zoom-out by a tenth: STN {r['stn'][0]:.1%}"
    own = f"c-STN {r['c_stn'][0]:.1%}, with the same warp of the same photograph"
    return [Finding(stn, _is(r["stn"][0] > 0)), Finding(own, _is(r["c_stn"][0] == 0))], ""


@_register(
    "boundary-accumulates",
    "Sec. 4.1",
    "In iterated alignment with Spatial Transformers the boundary effect accumulates.",
    shown=("spatial_transformers", "compositional_stn"),
    kind="computation",
)
def _accumulates(_: Evidence) -> Outcome:
    r = computations.boundary_effect()
    shares = ", ".join(f"{s:.1%}" for s in r["stn"])
    grows = all(b > a for a, b in pairwise(r["stn"]))
    last = f"a c-STN's after {len(r['c_stn'])}: {r['c_stn'][-1]:.1%}"
    return [
        Finding(f"lost samples of an STN after 1, 2, … zoom-outs: {shares}", _is(grows)),
        Finding(last, _is(r["c_stn"][-1] == 0)),
    ], ""


# Section 4: compositional and inverse compositional STNs.


@_register(
    "derivative-closed-form",
    "Sec. 4.1, eq. (11)",
    "The derivative of the composition with respect to the incoming warp is eq. (11), as printed.",
    rule="Agrees with automatic differentiation to 1e-9 at a random p_in ≠ 0.",
    shown=("compositional_stn",),
    kind="computation",
)
def _eq_11(_: Evidence) -> Outcome:
    r = computations.printed_eq_11()
    return [
        Finding(f"largest deviation of the printed form: {r['printed']:.2f}", _is(r["printed"] < 1e-9)),
        Finding(f"with the Δp bracket alone: {_tiny(r['right'])}", _is(r["right"] < 1e-9)),
    ], ""


@_register(
    "no-vanishing-gradient",
    "Sec. 4.1",
    "Through many small compositions the gradient neither vanishes nor explodes.",
    rule="At depth 32 the gradient with respect to the first update is at least half of that at depth 1, and "
    "no direction of p shrinks below half or grows beyond double.",
    shown=("compositional_stn",),
    kind="computation",
)
def _gradients(_: Evidence) -> Outcome:
    j, g = computations.composition_jacobian(), computations.gradient_by_depth()
    depth = len(j["low"])
    span = (
        f"singular values of ∂p_N/∂p_0 at N = {depth}, ‖Δp‖ = 0.05: {j['low'][-1]:.2f} to {j['high'][-1]:.2f}"
    )
    kept, other = (g[kind][-1] / g[kind][0] for kind in ("c_stn", "stn"))
    text = f"gradient of the first update at depth {g['depth'][-1]:.0f} over depth 1: {kept:.2f}"
    return [
        Finding(span, _is(j["low"][-1] > 0.5 and j["high"][-1] < 2)),
        Finding(f"{text} (stacked STNs: {other:.2f})", _is(kept > 0.5)),
    ], ""


@_register(
    "c-stn-is-compositional-lk",
    "Sec. 4.1",
    "A c-STN with a linear predictor performs the operations of compositional Lucas-Kanade.",
    rule="With IC-LK's regressor as its predictor, and the update composed on Lucas-Kanade's side, its warps "
    "are IC-LK's to 1e-9; on the side of eq. (10), with other warps, as many starts align within 5 points.",
    shown=("compositional_stn", "ic_stn"),
    kind="computation",
)
def _linear_c_stn(_: Evidence) -> Outcome:
    r = computations.linear_c_stn()
    same = f"composed on the template's side, its warps differ from IC-LK's by {_tiny(r['difference'])}"
    near = (
        f"aligned of {r['n']:.0f} starts: {r['aligned']:.1%} there, "
        f"{r['other_side']:.1%} on the side of eq. (10)"
    )
    return [
        Finding(same, _is(r["difference"] < 1e-9)),
        Finding(near, _is(abs(r["aligned"] - r["other_side"]) <= 0.05)),
    ], ""


_INVERTED = ("IC-STN-4(b)", "IC-STN-4(a)", "IC-STN-2(b)", "IC-STN-2(a)")


@_register(
    "inversion-negligible",
    "Sec. 4.2",
    "Inverting the predicted update explicitly makes a negligible difference.",
    rule="The interval of the difference in test error lies within ±0.5 points.",
    shown=("ic_stn",),
)
def _inversion(e: Evidence) -> Outcome:
    return _variation(e, "explicit inverse", invert=True)


def _variation(e: Evidence, what: str, **changes: Any) -> Outcome:
    """Same model with and without a change, within half a point of each other."""
    problem: MissingError | None = None
    for model in _INVERTED:
        try:
            preset = e.preset("table_2", [model], **changes)
            d = e.error("table_2", model, preset, **changes) - e.error("table_2", model, preset)
        except MissingError as error:
            problem = problem or error
            continue
        inside = d.low > -0.5 and d.high < 0.5
        outside = d.low > 0.5 or d.high < -0.5
        verdict: Verdict = "holds" if inside else "does not hold" if outside else "undecided"
        return [Finding(f"{model}, {what} − as it is: {d.show()} points", verdict)], preset
    assert problem is not None
    raise problem


# Section 5.1: planar alignment.


@_register(
    "single-warp-limited",
    "Sec. 5.1, Table 1",
    "One warp operation has limited ability: it leaves the largest error at every size of the perturbation.",
    shown=("planar_alignment",),
)
def _single(e: Evidence) -> Outcome:
    models = list(paper.TABLE_1)
    preset = e.preset("table_1", models)
    findings = []
    for sigma in paper.SIGMAS:
        first = e.error("table_1", models[0], preset, sigma)
        others = {m: e.error("table_1", m, preset, sigma) for m in models[1:]}
        nearest = max(others, key=lambda m: others[m].value)
        d = first - others[nearest]
        findings.append(
            Finding(f"σ = {sigma:g}: {models[0]} − {nearest} (the next): {d.show(3)} px", above(d))
        )
    return findings, preset


@_register(
    "reuse-planar",
    "Sec. 5.1, Table 1",
    "Reusing the predictor for more warp operations aligns better at the same capacity.",
    shown=("planar_alignment",),
)
def _reuse_planar(e: Evidence) -> Outcome:
    models = list(paper.TABLE_1)
    preset = e.preset("table_1", models)
    findings = []
    for sigma in paper.SIGMAS:
        errors = [e.error("table_1", m, preset, sigma) for m in models]
        steps = [a - b for a, b in pairwise(errors)]
        least = min(steps, key=lambda d: d.low)
        a, b = list(pairwise(models))[steps.index(least)]
        shown = " → ".join(f"{x.value:.3f}" for x in errors)
        text = f"σ = {sigma:g}: {shown} px; smallest gain {a} − {b}: {least.show(3)}"
        findings.append(Finding(text, joint(above(d) for d in steps)))
    return findings, preset


@_register(
    "beyond-trained",
    "Sec. 5.1, Fig. 7",
    "Applied more often than in training, the predictor goes on reducing the error until it saturates.",
    rule="For each σ, every reused predictor's error after some larger number of operations lies below the "
    "one at the trained number (beyond both intervals), and at the last of them within 10 % of its least.",
    shown=("planar_alignment",),
)
def _beyond(e: Evidence) -> Outcome:
    models = list(paper.TABLE_1)[1:]
    preset = e.preset("table_1", models)
    findings = []
    for sigma in paper.SIGMAS:
        parts = [_beyond_one(e, m, preset, sigma) for m in models]
        text = "; ".join(f"{m} {shown}" for m, (shown, _) in zip(models, parts, strict=True))
        findings.append(Finding(f"σ = {sigma:g}: {text} px", joint(v for _, v in parts)))
    return findings, preset


def _beyond_one(e: Evidence, model: str, preset: str, sigma: float) -> tuple[str, Verdict]:
    n = int(model.rsplit("-", 1)[1])
    record = e.runs("table_1", model, preset, sigma)[0]
    curve = record.metrics["by_operations"]
    best = min(range(n + 1, len(curve)), key=lambda k: curve[k]["corner_px"])
    at, least, last = (curve[k] for k in (n, best, -1))
    lower = least["interval"][1] < at["interval"][0]
    higher = curve[n + 1]["interval"][0] > at["interval"][1]
    flat = last["corner_px"] <= 1.1 * least["corner_px"]
    verdict: Verdict = "holds" if lower and flat else "does not hold" if higher or not flat else "undecided"
    return (
        f"{at['corner_px']:.3f} at {n}, {least['corner_px']:.3f} at {best}, {last['corner_px']:.3f} last",
        verdict,
    )


# Section 5.2: MNIST.


@_register(
    "cnn-inefficient",
    "Sec. 5.2, Table 2",
    "A plain CNN of the same size copes worse with large spatial variation than any model that aligns.",
    shown=("mnist",),
)
def _cnn(e: Evidence) -> Outcome:
    rows = list(paper.TABLE_2)
    preset = e.preset("table_2", rows)
    findings = []
    for block in "ab":
        cnn = e.error("table_2", f"CNN({block})", preset)
        others = [m for m in rows if m.endswith(f"({block})") and not m.startswith("CNN")]
        worst = max(others, key=lambda m: e.error("table_2", m, preset).value)
        d = cnn - e.error("table_2", worst, preset)
        findings.append(
            Finding(f"CNN({block}) − {worst} (the worst that aligns): {d.show()} points", above(d))
        )
    return findings, preset


@_register(
    "geometry-preserved",
    "Sec. 4.1, 5.2, 5.3, Tables 2 and 3",
    "Passing on warp parameters instead of warped images lowers the error of an otherwise equal network.",
    shown=("mnist", "traffic_signs"),
)
def _geometry(e: Evidence) -> Outcome:
    pairs = (
        ("table_2", "STN(a)", "c-STN-1(a)"),
        ("table_2", "STN(b)", "c-STN-1(b)"),
        ("table_3", "STN", "c-STN-1"),
    )
    findings, presets = [], []
    for experiment, a, b in pairs:
        found, preset = _falls(e, experiment, (a, b))
        findings += found
        presets.append(preset)
    return findings, _joined(presets)


def _joined(presets: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(presets))


@_register(
    "single-deep-poor",
    "Sec. 5.2, Table 2",
    "One deep predictor is a poor use of the capacity: several small ones in a row do better.",
    shown=("mnist",),
)
def _deep(e: Evidence) -> Outcome:
    return _falls(e, "table_2", ("c-STN-1(a)", "c-STN-2(a)", "c-STN-4(a)"))


@_register(
    "reuse-mnist",
    "Sec. 5.2, Table 2",
    "Reusing the predictor, deep or linear, lowers the classification error at the same capacity.",
    shown=("mnist",),
)
def _reuse_mnist(e: Evidence) -> Outcome:
    a, preset = _falls(e, "table_2", ("c-STN-1(a)", "IC-STN-2(a)", "IC-STN-4(a)"))
    b, _ = _falls(e, "table_2", ("c-STN-1(b)", "IC-STN-2(b)", "IC-STN-4(b)"))
    return a + b, preset


@_register(
    "trade-off",
    "Sec. 5.2, Table 2",
    "IC-STN-4(b) gives up little accuracy against c-STN-4(a) for a large reduction of capacity.",
    rule="At most half the parameters (rounded to a tenth), and less than 0.5 points of error more.",
    shown=("mnist",),
)
def _trade_off(e: Evidence) -> Outcome:
    pair = ("IC-STN-4(b)", "c-STN-4(a)")
    preset = e.preset("table_2", pair)
    d = e.error("table_2", pair[0], preset) - e.error("table_2", pair[1], preset)
    small, large = (_capacity(e, m, preset) for m in pair)
    printed = paper.TABLE_2[pair[0]].error - paper.TABLE_2[pair[1]].error
    return [
        Finding(
            f"capacity {small:,} against {large:,}: {small / large:.0%}", _is(round(small / large, 1) <= 0.5)
        ),
        Finding(
            f"{pair[0]} − {pair[1]}: {d.show()} points (the paper's: {printed:.2f})",
            above(Estimate(0.5, 0) - d),
        ),
    ], preset


def _capacity(e: Evidence, model: str, preset: str) -> int:
    return sum(w.numel() for w in e.runs("table_2", model, preset)[0].weights.values())


@_register(
    "reuse-beats-cascade",
    "Sec. 5.2, Table 2",
    "At a comparable capacity, one predictor reused beats as many separate, smaller ones.",
    shown=("mnist",),
)
def _cascade(e: Evidence) -> Outcome:
    two, preset = _falls(e, "table_2", ("c-STN-2(a)", "IC-STN-2(a)"))
    four, _ = _falls(e, "table_2", ("c-STN-4(a)", "IC-STN-4(a)"))
    return two + four, preset


@_register(
    "less-capacity",
    "Abstract",
    "IC-STNs do better than conventional STNs with less capacity.",
    shown=("mnist",),
)
def _less(e: Evidence) -> Outcome:
    findings, preset = _falls(e, "table_2", ("STN(a)", "IC-STN-4(b)"))
    small, large = _capacity(e, "IC-STN-4(b)", preset), _capacity(e, "STN(a)", preset)
    return [*findings, Finding(f"with {small:,} against {large:,} parameters", _is(small < large))], preset


@_register(
    "variance-decreases",
    "Sec. 5.2, Fig. 9",
    "The variance among aligned samples falls dramatically as warp operations are added.",
    rule="Within the classes, the variance that the class does not explain falls from the perturbed images "
    "to c-STN-1, IC-STN-2 and IC-STN-4, in all by a third or more.",
    shown=("mnist",),
)
def _variance(e: Evidence) -> Outcome:
    models = ("c-STN-1(a)", "IC-STN-2(a)", "IC-STN-4(a)")
    preset = e.preset("table_2", models)
    found = [e.measured("table_2", m, preset) for m in models]
    within = [found[0]["initial_within"], *(f["within"] for f in found)]
    share = [found[0]["initial_unexplained"], *(f["unexplained"] for f in found)]
    falls = all(b < a for a, b in pairwise(share))
    names = "initial → " + " → ".join(models)
    numbers = " → ".join(f"{v:.1%}" for v in share)
    plain = " → ".join(f"{v:.4f}" for v in within)
    return [
        Finding(f"share unexplained by the class, {names}: {numbers} (variance {plain})", _is(falls)),
        Finding(f"in all a fall by {1 - share[-1] / share[0]:.0%}", _is(share[-1] <= share[0] * 2 / 3)),
    ], preset


@_register(
    "stn-shrinks",
    "Sec. 5.2, Fig. 9",
    "The original STN answers with down-scaled digits.",
    rule="Its median final warp shows more than the template (zoom above 1), and more than c-STN-1's.",
    shown=("mnist",),
)
def _shrinks(e: Evidence) -> Outcome:
    models = ("STN(a)", "c-STN-1(a)")
    preset = e.preset("table_2", models)
    stn, own = (e.measured("table_2", m, preset)["zoom"] for m in models)
    text = f"median zoom of the final warp: STN(a) {stn:.2f}, c-STN-1(a) {own:.2f}"
    return [Finding(text, _is(stn > 1 and stn > own))], preset


@_register(
    "stn-crops",
    "Sec. 5.2, 5.3, Figs. 8 and 10",
    "The original STN's output is cropped, while IC-STN recovers what the crop left out.",
    rule="More of an STN's output samples see nothing than of IC-STN-4's, on both data sets.",
    shown=("mnist", "traffic_signs"),
)
def _crops(e: Evidence) -> Outcome:
    findings, presets = [], []
    for experiment, stn, own in (("table_2", "STN(a)", "IC-STN-4(a)"), ("table_3", "STN", "IC-STN-4")):
        preset = e.preset(experiment, (stn, own))
        a, b = (e.measured(experiment, m, preset)["lost"] for m in (stn, own))
        findings.append(Finding(f"samples that see nothing: {stn} {a:.1%}, {own} {b:.1%}", _is(a > b)))
        presets.append(preset)
    return findings, _joined(presets)


# Section 5.3: traffic signs.


@_register(
    "order-signs",
    "Sec. 5.3, Table 3",
    "On traffic signs the error falls from CNN to STN to c-STN-1 to IC-STN-2 to IC-STN-4.",
    shown=("traffic_signs",),
)
def _order(e: Evidence) -> Outcome:
    return _falls(e, "table_3", tuple(paper.TABLE_3))


@_register(
    "reuse-signs",
    "Sec. 5.3, Table 3",
    "On traffic signs, too, reusing the predictor lowers the error considerably at the same capacity.",
    rule="Each step lowers it, and IC-STN-4's error is at most three quarters of c-STN-1's.",
    shown=("traffic_signs",),
)
def _reuse_signs(e: Evidence) -> Outcome:
    models = ("c-STN-1", "IC-STN-2", "IC-STN-4")
    findings, preset = _falls(e, "table_3", models)
    first, last = (e.error("table_3", m, preset) for m in (models[0], models[-1]))
    margin = Estimate(0.75 * first.value, 0.75 * first.half) - last
    text = f"IC-STN-4 has {last.value / first.value:.0%} of c-STN-1's error"
    return [*findings, Finding(text, above(margin))], preset


@_register(
    "sharper-means",
    "Sec. 5.3, Fig. 11",
    "Mean aligned signs become sharper with the number of warp operations.",
    shown=("traffic_signs",),
)
def _sharper(e: Evidence) -> Outcome:
    models = ("c-STN-1", "IC-STN-2", "IC-STN-4")
    preset = e.preset("table_3", models)
    found = [e.measured("table_3", m, preset) for m in models]
    values = [found[0]["initial_sharpness"], *(f["sharpness"] for f in found)]
    shown = " → ".join(f"{v:.4f}" for v in values)
    grows = all(b > a for a, b in pairwise(values))
    return [Finding(f"sharpness of the means, initial → {' → '.join(models)}: {shown}", _is(grows))], preset


@_register(
    "stop-sign-zoomed",
    "Sec. 5.3, Fig. 11",
    "Not all signs are fitted to the box: stop signs are zoomed in on.",
    rule="IC-STN-4's median zoom is below 1 for stop signs, and below the median over the classes.",
    shown=("traffic_signs",),
)
def _stop(e: Evidence) -> Outcome:
    preset = e.preset("table_3", ("IC-STN-4",))
    zooms = e.measured("table_3", "IC-STN-4", preset)["zoom_by_class"]
    stop, middle = zooms[14], sorted(zooms)[len(zooms) // 2]
    text = f"median zoom of the final warp: stop signs {stop:.2f}, median of the classes {middle:.2f}"
    return [Finding(text, _is(stop < 1 and stop < middle))], preset


# What we add: the side of composition, and the numbers themselves.


def side_of_composition(evidence: Evidence) -> Outcome:
    """Test error with the update on the image side (eq. 10) minus that on the template side.

    Raises:
        MissingError: no model has been run on both.
    """
    found: list[Finding] = []
    presets = []
    for model in _INVERTED:
        try:
            preset = evidence.preset("table_2", [model], side="image")
            usual = evidence.error("table_2", model, preset)
        except MissingError:
            continue
        other = evidence.error("table_2", model, preset, side="image")
        if getattr(evidence.runs("table_2", model, preset)[0].spec, "side", "") == "image":
            continue
        d = other - usual
        found.append(Finding(f"{model}, image side − template side: {d.show()} points", above(d)))
        presets.append(preset)
    if not found:
        raise MissingError("a model run on both sides of composition")
    return found, _joined(presets)


def against_paper(evidence: Evidence) -> list[tuple[str, str, float, Estimate | None, Verdict]]:
    """Whether ours is at or below the paper's, cell by cell.

    Returns:
        rows of experiment, cell, the paper's number, ours (None where there is no Record) and the verdict.
    """
    rows: list[tuple[str, str, float, Estimate | None, Verdict]] = []
    for about in EXPERIMENTS.values():
        for (model, sigma), printed in about.printed.items():
            name = f"{model} σ = {sigma:g}" if about.by_sigma else model
            try:
                ours = evidence.error(about.name, model, _best(evidence, about.name, model, sigma), sigma)
            except MissingError:
                rows.append((about.name, name, printed, None, "undecided"))
                continue
            verdict: Verdict = (
                "holds" if ours.value <= printed else "does not hold" if ours.low > printed else "undecided"
            )
            rows.append((about.name, name, printed, ours, verdict))
    return rows


def _best(evidence: Evidence, experiment: str, model: str, sigma: float) -> str:
    for preset in evidence.presets:
        try:
            evidence.runs(experiment, model, preset, sigma)
        except MissingError:
            continue
        return preset
    raise MissingError(model)
