"""The paper's checkable statements, in its order, each with the predicate that judges it.

A predicate (``icstn.evidence.predicates``) turns the evidence into findings, :func:`judge` those into a
verdict, by the rules of :mod:`icstn.evidence.verdicts`. A claim with a missing Record is undecided.

Example:
    >>> from icstn.evidence.collection import Evidence
    >>> judge(claim("ic-regressor-constant"), Evidence([])).verdict
    'holds'
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from icstn.evidence.collection import Evidence, MissingError
from icstn.evidence.predicates import composition, digits, lucas_kanade, planar, signs, transformers
from icstn.evidence.predicates.comparisons import contradicted
from icstn.evidence.verdicts import Finding, Verdict, corrected, joint


@dataclass(frozen=True)
class Claim:
    """A statement of the paper.

    Attributes:
        name: identifier.
        place: where the paper says so.
        statement: in our words.
        kind: ``computation`` or ``records``.
        test: the predicate.
        shown: documents of the book where it can be seen.
        rule: what counts as holding, where it is more than a sign, and under which conditions it is tested.
        changed: how the rule was another before, where it was changed with its runs already seen and that
            made another verdict.
    """

    name: str
    place: str
    statement: str
    kind: Literal["computation", "records"]
    test: Callable[[Evidence], list[Finding]]
    shown: tuple[str, ...]
    rule: str = ""
    changed: str = ""


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict.

    Attributes:
        verdict: of the claim.
        findings: the evidence.
        missing: what would have to be there to decide it.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    missing: str = ""

    @property
    def presets(self) -> tuple[str, ...]:
        """Presets of the runs that it rests on."""
        return tuple(dict.fromkeys(cell.preset for f in self.findings for cell in f.cells))

    @property
    def seeds(self) -> tuple[int, ...]:
        """How many runs its cells have, each number once."""
        return tuple(sorted({len(cell.runs) for f in self.findings for cell in f.cells}))


#: Under which conditions the claims on signs are tested.
OF_SIGNS = (
    "Condition: networks trained under light, sharpness and noise that vary, which the paper's are not, on a "
    "copy of the signs that has 32×32 pixels."
)

CLAIMS: tuple[Claim, ...] = (
    # Section 1: introduction
    Claim(
        "tolerance-inefficient",
        "Sec. 1",
        "To tolerate misalignment, by pooling and distorted samples, is less efficient than to remove it.",
        "records",
        digits.tolerance_is_inefficient,
        ("mnist",),
        "IC-STN-4(a) leaves less error than plain networks of its size with both, without distortions and "
        "without pooling, and than plain networks of four and sixteen times its size. As a ratio of "
        "geometric means over seeds, since the errors of the network without pooling differ by factors.",
        "By differences of means it was undecided: one of five runs without pooling never left chance, and "
        "the interval of their mean was as wide as that. The fourth and fifth of these runs were added when "
        "three had been seen.",
    ),
    # Section 2: Lucas-Kanade
    Claim(
        "ic-equivalent",
        "Sec. 2.1",
        "The inverse compositional form of Lucas-Kanade is effectively equivalent to the original.",
        "records",
        lucas_kanade.ic_equivalent,
        ("inverse_compositional", "planar_alignment"),
        "Near the solution, from the same starts, the two answers differ by less than a tenth of a pixel "
        "(median). At every σ of Table 1 as many trials are aligned, to 5 points. Both in their textbook "
        "form: one scale, no blur, at most 50 steps.",
    ),
    Claim(
        "ic-regressor-constant",
        "Sec. 2.1, 4.2",
        "In the inverse compositional form one linear regressor serves every iteration; in the original form "
        "it changes.",
        "computation",
        lucas_kanade.regressor_is_constant,
        ("inverse_compositional", "alignment_as_regression"),
        "One (R, b) replays the library's iterations to 1e-9, and Lucas-Kanade's R moves by more than 1 %.",
    ),
    Claim(
        "greedy-not-optimal",
        "Sec. 2.2",
        "A cascade of linear regressors that is learned greedily is not the best that it could be.",
        "records",
        planar.joint_beats_greedy,
        ("planar_alignment",),
        "At every σ of Table 1, six linear predictors learned together (c-STN-6) leave less error than the "
        "six of SDM. The paper only doubts that greedy learning is optimal; condition: each as its preset "
        "trains it, the cascade that is learned together with more samples.",
    ),
    # Section 3: spatial transformers
    Claim(
        "stn-linear",
        "Sec. 3",
        "A Spatial Transformer whose predictor is one linear layer predicts in the form of eq. (6).",
        "computation",
        transformers.stn_is_linear,
        ("spatial_transformers",),
    ),
    Claim(
        "boundary-effect",
        "Sec. 3, 4.1, Fig. 2",
        "Zooming out, a Spatial Transformer discards what lies outside its input; a c-STN does not.",
        "computation",
        transformers.boundary_effect,
        ("spatial_transformers", "compositional_stn"),
    ),
    Claim(
        "boundary-accumulates",
        "Sec. 4.1",
        "In iterated alignment with Spatial Transformers the boundary effect accumulates.",
        "computation",
        transformers.boundary_accumulates,
        ("spatial_transformers", "compositional_stn"),
    ),
    # Section 4: compositional and inverse compositional STNs
    Claim(
        "derivative-closed-form",
        "Sec. 4.1, eq. (11)",
        "The derivative of the composition with respect to the incoming warp is eq. (11), as printed.",
        "computation",
        transformers.derivative_as_printed,
        ("compositional_stn",),
        "Agrees with automatic differentiation to 1e-9 at a random p_in ≠ 0.",
    ),
    Claim(
        "no-vanishing-gradient",
        "Sec. 4.1",
        "Through many small compositions the gradient neither vanishes nor explodes.",
        "computation",
        transformers.gradient_survives,
        ("compositional_stn",),
        "At depth 32 the gradient with respect to the first update is at least half of that at depth 1, and "
        "no direction of p shrinks below half or grows beyond double. Condition: the updates are given; what "
        "a predictor adds to the derivative, because its answer depends on what the warp shows, is left out.",
    ),
    Claim(
        "c-stn-is-compositional-lk",
        "Sec. 4.1",
        "A c-STN with a linear predictor performs the operations of compositional Lucas-Kanade.",
        "computation",
        transformers.c_stn_is_compositional_lk,
        ("compositional_stn", "ic_stn"),
        "With IC-LK's regressor as its predictor, its warps are IC-LK's to 1e-9. Condition: the update is "
        "inverted and composed on Lucas-Kanade's side, not eq. (10)'s. On the side of eq. (10), with other "
        "warps, as many starts at σ = 2.5 align within 5 points.",
    ),
    Claim(
        "inversion-negligible",
        "Sec. 4.2",
        "Inverting the predicted update explicitly makes a negligible difference.",
        "records",
        composition.inversion_is_negligible,
        ("ic_stn",),
        "The difference in test error lies within ±0.5 points, for every row that was run both ways, with "
        "the table's recipe and under a bound on the predictor's gradient. A training that breaks down "
        "counts with the error that it ends at.",
    ),
    # Section 5.1: planar alignment
    Claim(
        "single-warp-limited",
        "Sec. 5.1, Table 1",
        "One warp operation has limited ability: it leaves the largest error at every size of the "
        "perturbation.",
        "records",
        planar.single_warp_is_limited,
        ("planar_alignment",),
    ),
    Claim(
        "reuse-planar",
        "Sec. 5.1, Table 1",
        "Reusing the predictor for more warp operations aligns better at the same capacity.",
        "records",
        planar.reuse_aligns_better,
        ("planar_alignment",),
        "At each σ, each further operation in training lowers the error.",
    ),
    Claim(
        "beyond-trained",
        "Sec. 5.1, Fig. 7",
        "Applied more often than in training, the predictor goes on reducing the error until it saturates.",
        "records",
        planar.improves_beyond_training,
        ("planar_alignment",),
        "At each σ, every reused predictor's error after the last operation that was tested (12) lies below "
        "the one after the trained number: it has fallen and has stayed down, which a slight rise after the "
        "least does not contradict. In percent of the latter, since errors of seeds differ by factors; over "
        "ten times as many perturbations as the table's, since a few lost trials decide a mean. Where the "
        "error saturates is not tested: Figure 7 shows it.",
        "In pixels, over the table's perturbations, it was undecided, in 4 of the 16 comparisons.",
    ),
    Claim(
        "recurrent-network-stops",
        "Sec. 5.1",
        "An ordinary recurrent network does not go on improving beyond the steps it was trained with.",
        "records",
        planar.recurrent_network_stops,
        ("planar_alignment",),
        "At every σ, an Elman network of IC-STN-4's size, which sees the first crop at each step, has lost "
        "less than 5 % of its error by the twelfth step, from the fourth, the last it was trained with.",
        "It asked for an error that rises, and was undecided. The runs are others by now, too: in those, "
        "every state was saturated from the start. Of these the error would rise at two of the four σ.",
    ),
    # Section 5.2: MNIST
    Claim(
        "cnn-inefficient",
        "Sec. 5.2, Table 2",
        "A plain CNN of the same size copes worse with large spatial variation than any model that aligns.",
        "records",
        digits.cnn_is_inefficient,
        ("mnist",),
    ),
    Claim(
        "geometry-preserved",
        "Sec. 4.1, 5.2, 5.3, Tables 2 and 3",
        "Passing on warp parameters instead of warped images lowers the error of an otherwise equal network.",
        "records",
        digits.geometry_preserved,
        ("mnist", "traffic_signs"),
        "The same modules with as many weights, each network at the rates that the search found for its row. "
        "Those of an STN and of c-STN-1 are not the same; what is left at equal ones is among the ablations, "
        "and in the paper's own training.",
    ),
    Claim(
        "single-deep-poor",
        "Sec. 5.2, Table 2",
        "One deep predictor is a poor use of the capacity: several small ones in a row do better.",
        "records",
        digits.single_deep_is_poor,
        ("mnist",),
        "Two and four small predictors leave less error than the deep one.",
    ),
    Claim(
        "reuse-mnist",
        "Sec. 5.2, Table 2",
        "Reusing the predictor, deep or linear, lowers the classification error at the same capacity.",
        "records",
        digits.reuse_classifies_better,
        ("mnist",),
    ),
    Claim(
        "trade-off",
        "Sec. 5.2, Table 2",
        "IC-STN-4(b) gives up little accuracy against c-STN-4(a) for a large reduction of capacity.",
        "records",
        digits.trade_off,
        ("mnist",),
        "At most half the parameters (rounded to a tenth), and less than 0.5 points of error more.",
    ),
    Claim(
        "reuse-beats-cascade",
        "Table 2, not said in the text",
        "At a comparable capacity, one predictor reused beats as many separate, smaller ones.",
        "records",
        digits.reuse_beats_cascade,
        ("mnist",),
    ),
    Claim(
        "less-capacity",
        "Abstract",
        "IC-STNs do better than conventional STNs with less capacity.",
        "records",
        digits.less_capacity,
        ("mnist",),
    ),
    Claim(
        "variance-decreases",
        "Sec. 5.2, Fig. 9",
        "The variance among aligned samples falls dramatically as warp operations are added.",
        "records",
        digits.variance_decreases,
        ("mnist",),
        "The variance within the classes, which is what Fig. 9 shows, falls with every step from the "
        "perturbed images to IC-STN-4. Since shrinking or dimming all digits lowers it, too, so must the "
        "share of the variance that the class does not explain.",
    ),
    Claim(
        "stn-shrinks",
        "Sec. 5.2, Fig. 9",
        "The original STN answers with down-scaled digits.",
        "records",
        digits.stn_shrinks,
        ("mnist",),
        "Its median final warp shows more than the template: its zoom is above 1.",
    ),
    Claim(
        "stn-crops",
        "Sec. 5.2, 5.3, Figs. 8 and 10",
        "The original STN's output is cropped, while IC-STN recovers what the crop left out.",
        "records",
        digits.stn_crops,
        ("mnist", "traffic_signs"),
        "Of the digits' ink more lies outside the STN's final image than outside IC-STN-4's, and less "
        "outside IC-STN-4's than outside the perturbed image. On signs, which fill their image, more of the "
        "STN's samples see nothing.",
    ),
    # Section 5.3: traffic signs
    Claim(
        "order-signs",
        "Sec. 5.3, Table 3",
        "On traffic signs the error falls from CNN to STN to c-STN-1 to IC-STN-2 to IC-STN-4.",
        "records",
        signs.order_of_models,
        ("traffic_signs",),
        f"Each row leaves less error than the one before it. {OF_SIGNS}",
    ),
    Claim(
        "reuse-signs",
        "Sec. 5.3, Table 3",
        "On traffic signs, too, reusing the predictor lowers the error considerably at the same capacity.",
        "records",
        signs.reuse_improves,
        ("traffic_signs",),
        f"Each step lowers it, and IC-STN-4's error is at most three quarters of c-STN-1's. {OF_SIGNS}",
    ),
    Claim(
        "sharper-means",
        "Sec. 5.3, Fig. 11",
        "Mean aligned signs become sharper with the number of warp operations.",
        "records",
        signs.means_are_sharper,
        ("traffic_signs",),
        f"Over all classes, the mean is sharper with each row. {OF_SIGNS}",
    ),
    Claim(
        "stop-sign-zoomed",
        "Sec. 5.3, Fig. 11",
        "Not all signs are fitted to the box: stop signs are zoomed in on.",
        "records",
        signs.stop_signs_are_zoomed,
        ("traffic_signs",),
        "For some class the median side of IC-STN-4's window differs from the side of the annotated box "
        "(corrected for the number of classes). For stop signs it is smaller, and so small that only the "
        "octagon is left: the largest square in the middle of one has 1/√2 of the side of its box. "
        f"{OF_SIGNS}",
        "It did not ask for the octagon, and held. But the window of the perturbed image is smaller than the "
        "box already, so a network that does nothing passed it.",
    ),
)


def claim(name: str) -> Claim:
    """The claim of that name.

    Raises:
        ValueError: there is none.
    """
    for found in CLAIMS:
        if found.name == name:
            return found
    raise ValueError(f"there is no claim {name!r}: the claims are {', '.join(c.name for c in CLAIMS)}")


def judge(claim: Claim, evidence: Evidence) -> Judgement:
    """Decide a claim from the evidence there is.

    Judged are the runs of the best preset. Where a comparison of theirs holds, and the paper's own training
    says the opposite, that counts against the claim.
    """
    try:
        findings = corrected(evidence.once(claim.test))
    except MissingError as error:
        return Judgement("undecided", (), f"missing: {error}")
    findings += contradicted(evidence, findings)
    return Judgement(joint(f.verdict for f in findings), tuple(findings))


def judge_together(claims: Sequence[Claim], evidence: Evidence) -> dict[str, Verdict]:
    """The verdicts with the comparisons of all claims corrected as one family (Holm), by the claims' names.

    :func:`judge` corrects within each claim, as every claim is a question of its own. Who reads all verdicts
    at once, and asks how likely it is that any of them is wrong, wants this.
    """
    found: dict[str, list[Finding]] = {}
    for c in claims:
        try:
            found[c.name] = evidence.once(c.test)
        except MissingError:
            found[c.name] = []
    family = iter(corrected([f for findings in found.values() for f in findings]))
    after = {name: [next(family) for _ in findings] for name, findings in found.items()}
    return {
        name: joint(f.verdict for f in [*findings, *contradicted(evidence, findings)])
        for name, findings in after.items()
    }
