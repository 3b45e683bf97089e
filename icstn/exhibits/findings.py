"""What each exhibit shows, in one sentence: the first thing that its page says, made from the numbers shown.

Every function says what the numbers say, also where they say something else than the paper does. Where the
runs of a sentence are missing it names them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from icstn.evidence import ablations
from icstn.evidence.alignment import off_center
from icstn.evidence.collection import Cell, Evidence, MissingError, finished
from icstn.evidence.comparison import orders
from icstn.evidence.curves import ErrorCurve, operations
from icstn.evidence.estimates import percent, significant
from icstn.exhibits.diagrams import wiring
from icstn.exhibits.montages import Averages
from icstn.experiments import paper
from icstn.experiments.experiment import EXPERIMENTS
from icstn.experiments.records import Record

_LEAD = "At the same capacity, to use one predictor four times instead of once changes the error by"

Sentence = Callable[..., str]


def _needs_runs(sentence: Sentence) -> Sentence:
    @wraps(sentence)
    def safe(*records: Sequence[Record]) -> str:
        try:
            return sentence(*records)
        except MissingError as error:
            return f"Nothing can be said yet: there is no finished run of {error}."

    return safe


@_needs_runs
def table_1(records: Sequence[Record]) -> str:
    """The least and the most often applied layer in the middle of the table, and the order at each σ."""
    first, last = (_cell(records, model, 5.0) for model in ("c-STN-1", "IC-STN-6"))
    before, after = (significant(cell.error.value) for cell in (first, last))
    blocks = orders("table_1", records)
    ordered = sum(not (block.swapped or block.lacking) for block in blocks)
    every = f"at {_count(ordered, len(blocks))} sizes of the perturbation every further operation lowers it"
    return (
        f"One linear layer, applied six times in place of once, leaves an error of {after} pixels in place "
        f"of {before} at σ = 5 px; {every}."
    )


@_needs_runs
def against_the_paper(records: Sequence[Record], floors: Sequence[Record]) -> str:
    """How many of Table 1's errors come down to the paper's, and where those of c-STN-1 never could.

    Args:
        floors: of the best linear step, on the template's side and where it was computed on the image's.
    """
    printed = EXPERIMENTS["table_1"].printed
    parts = []
    for sigma in paper.SIGMAS:
        models = [model for model, at in printed if at == sigma]
        reached = sum(_cell(records, m, sigma).error.value <= printed[m, sigma] for m in models)
        parts.append(f"{_count(reached, len(models))} at σ = {sigma:g} px")
    by_side = {
        side: [r for r in floors if getattr(r.spec, "side", "") == side] for side in ("template", "image")
    }
    text = f"At or below the paper's error: {', '.join(parts)}. The best linear step leaves "
    text += f"{_floor(by_side['template'])} on the template's side, where these rows compose"
    if by_side["image"]:
        text += f", and {_floor(by_side['image'])} on the image's, where the paper's do"
    return f"{text}."


def _floor(best: Sequence[Record]) -> str:
    """Where the best linear step leaves more than the paper's c-STN-1."""
    above = []
    for sigma in paper.SIGMAS:
        floor = _cell(best, "best linear step", sigma).error.value
        error = EXPERIMENTS["table_1"].printed["c-STN-1", sigma]
        above += [f"{significant(floor)} against {error:g} at σ = {sigma:g} px"] if floor > error else []
    return f"more than the paper's c-STN-1 ({', '.join(above)})" if above else "less than the paper's c-STN-1"


@_needs_runs
def table_2(records: Sequence[Record]) -> str:
    """What four uses of a predictor are worth in either block."""
    parts = [_reuse(records, f"c-STN-1({b})", f"IC-STN-4({b})") + f" in block ({b})" for b in "ab"]
    return f"{_LEAD} {'; by '.join(parts)}."


@_needs_runs
def table_3(records: Sequence[Record]) -> str:
    """What four uses of a predictor are worth, and how many rows come down to the paper's error."""
    text = _reuse(records, "c-STN-1", "IC-STN-4")
    printed = EXPERIMENTS["table_3"].printed
    cells = [(_cell(records, model), error) for (model, _), error in printed.items()]
    reached = sum(cell.error.value <= error for cell, error in cells)
    return f"{_LEAD} {text}; {_count(reached, len(cells))} rows come down to the paper's error."


@_needs_runs
def sign_noise(records: Sequence[Record]) -> str:
    """What IC-STN-4 errs under the noise of the authors' released code, beside the text's.

    Args:
        records: of Table 3, with that variation among them.
    """
    found = ablations.sign_noise(Evidence(records))
    if not found:
        raise MissingError(f"IC-STN-4 at σ = {paper.SIGMA_OF_THE_CODE:g} px")
    noise = {EXPERIMENTS["table_3"].sigmas[0]: found[0].usual, paper.SIGMA_OF_THE_CODE: found[0].varied}
    parts = [f"{c.error.show(unit='%')} under {s:g} px ({len(c.runs)} seeds)" for s, c in noise.items()]
    return f"IC-STN-4 errs {' and '.join(parts)}; the paper's {paper.TABLE_3['IC-STN-4'].error:g} %."


@_needs_runs
def tolerance(records: Sequence[Record]) -> str:
    """What plain networks err that tolerate misalignment, beside IC-STN-4(a), which removes it."""
    own = _cell(records, "IC-STN-4(a)")
    plain = [_cell(records, model) for model in ("CNN(a)", "CNN-4x", "CNN-16x")]
    sizes = [f"{c.error.value:.2f} % with {c.capacity / own.capacity:.0f} times" for c in plain[1:]]
    least, most = (_cell(records, f"CNN-{how}") for how in ("unpooled", "undistorted"))
    return (
        f"A network that aligns errs {own.error.value:.2f} %. One that tolerates errs "
        f"{plain[0].error.value:.2f} % with as many parameters, {' and '.join(sizes)} as many; without "
        f"pooling {_spread(least)}, and without distorted training digits {_spread(most)}."
    )


def _spread(cell: Cell) -> str:
    """The mean error, or from where to where the seeds lie when one has more than twice another's."""
    low, high = (end(r.test_error for r in cell.runs) for end in (min, max))
    if high > 2 * low:
        return f"{low:.2f} to {high:.2f} %, seed by seed"
    return f"{cell.error.value:.2f} %"


@_needs_runs
def cascades(records: Sequence[Record]) -> str:
    """Whether linear steps are better learned together, and whether an ordinary recurrent network goes on."""
    pairs = [[_cell(records, m, s).error.value for m in ("SDM", "c-STN-6")] for s in paper.SIGMAS]
    less = sum(together < greedy for greedy, together in pairs)
    sigma = 7.5  # at 5 px a single lost trial makes up much of the mean
    kept = [_kept(_cell(records, model, sigma)) for model in ("RNN-4", "IC-STN-4")]
    return (
        "Six linear steps learned together leave less error than six learned one after the other at "
        f"{_count(less, len(pairs))} sizes of the perturbation. Applied twelve times after training with "
        f"four, an ordinary recurrent network keeps {percent(kept[0])} of its error on the table's "
        f"perturbations of σ = {sigma} px, IC-STN-4 {percent(kept[1])}."
    )


def _kept(cell: Cell) -> float:
    """The error after the last operation that was tested, as a share of that after the trained number."""
    curves = [[step["corner_px"] for step in r.metrics["by_operations"]] for r in cell.runs]
    n = operations(cell.runs[0].spec.model)
    return sum(curve[-1] for curve in curves) / sum(curve[n] for curve in curves)


def diagram(figure: Figure) -> str:
    """Figures 1, 3, 4 and 5: which way the warp parameters take, read off the drawing's arrows."""
    arrows = wiring(figure)
    way = next(words for arrow, words in _WAYS.items() if arrow in arrows["geometry"])
    looks = sum(bool(re.match(r"(input|image) → .*warp", arrow)) for arrow in arrows["appearance"])
    places = "one place" if looks == 1 else f"{looks} places"
    return f"Warp parameters {way}; the source image is sampled in {places}."


#: An arrow that tells a diagram from the others → what it means.
_WAYS = {
    "predictor → warp": "stay between the predictor and the warp, and only an image leaves the module",
    "compose → next": "pass through the module and leave it together with the untouched image",
    "compose → warp": "go round in a loop through one predictor, and an image leaves it at the end",
    "p_2 → last warp": "pass from module to module, and only the last of them makes an image to be handed on",
}


def figure_2(lost: float, kept: float) -> str:
    """Shares of the samples that see nothing, of the crop and of the photograph."""
    return (
        f"Zoomed out under the same warp, the crop has nothing to show in {percent(lost)} of the samples, "
        f"the photograph in {percent(kept)}."
    )


def figure_6(sigma: float, error: Float[Tensor, " n"]) -> str:
    """How far off the perturbed boxes are.

    Args:
        sigma: of the noise, in pixels.
        error: RMS corner distance of each, in pixels.
    """
    tenth = float(error.quantile(0.9))
    return (
        f"Noise of σ = {sigma:g} px leaves the corners {float(error.mean()):.1f} pixels from their places on "
        f"average, and one box in ten by more than {tenth:.0f}."
    )


def figure_7(panels: Mapping[str, Mapping[str, ErrorCurve]]) -> str:
    """How many predictors end below the error at the trained number of operations, and what reuse leaves of
    the error of those that trained for one."""
    curves = [curve for panel in panels.values() for curve in panel.values()]
    ratios = np.array([c.error[-1] / c.error[c.trained] for c in curves])
    last = min(len(c.error) for c in curves) - 1
    risen = sum(c.error[-1] > 1.1 * c.error[c.best] for c in curves)
    below = _count(int((ratios < 1).sum()), len(curves))
    median = f"in the median {percent(float(np.median(ratios)))} of it"
    return (
        f"After {last} operations the error of {below} predictors is below the one at the number that they "
        f"were trained with, {median}; {risen} have risen again by more than a tenth from their least."
        f"{_untrained_reuse(curves)}"
    )


def _untrained_reuse(curves: Sequence[ErrorCurve]) -> str:
    """Predictors that were applied once in training, applied again: the least that is left of their error."""
    left = [c.error[c.best] / c.error[c.trained] for c in curves if c.trained == 1]
    if not left:
        return ""
    span = " to ".join(dict.fromkeys(percent(float(x)) for x in (min(left), max(left))))
    return (
        f" Those that trained for a single operation keep {span} of their error at the best number of them."
    )


def figure_8(rows: Mapping[str, Tensor]) -> str:
    """How far the ink is from the middle, step by step; the last row is the STN's."""
    *steps, stn = (off_center(images) for images in rows.values())
    least = int(np.argmin(steps))
    when = "at the end" if least == len(steps) - 1 else f"after operation {least}"
    return (
        f"Of {steps[0]:.1f} pixels by which the digits' ink is off the middle, the first operation leaves "
        f"{steps[1]:.1f} and all {len(steps) - 1} of them {steps[-1]:.1f} (least {when}: {min(steps):.1f}); "
        f"the STN leaves {stn:.1f}."
    )


def off_center_rows(rows: Mapping[str, Tensor]) -> str:
    """Under Figure 8: how far the ink is from the middle, in each row."""
    shown = ", ".join(f"{off_center(images):.1f}" for images in rows.values())
    return f"Ink off the middle, from row to row: {shown} pixels."


def figure_9(rows: Mapping[str, Averages]) -> str:
    """Variance within the classes, least and most, and the share that the class does not explain."""
    (_, first), *models = rows.items()
    ordered = sorted((stats.within, label) for label, stats in models)
    (low, small), (high, large) = ordered[0], ordered[-1]
    shares = ", ".join(f"{label} {percent(stats.unexplained)}" for label, stats in rows.items())
    return (
        f"The variance within the classes falls from {first.within:.3f} to between {low:.4f} ({small}) and "
        f"{high:.4f} ({large}); the share of it all that the class does not explain: {shares}."
    )


def figure_10(rows: Mapping[str, Float[Tensor, "n channels h w"]], names: Sequence[str]) -> str:
    """Share of black in the final samples, and whose it is; the last row is the STN's."""
    black = {label: (images == 0).all(1).float().mean((1, 2)) for label, images in rows.items()}
    *steps, stn = (float(shares.mean()) for shares in black.values())
    last = list(black.values())[-2]
    grows = "grows" if all(a < b for a, b in pairwise(steps)) else "does not grow"
    worst, share = names[int(last.argmax())], float(last.max() / last.sum().clamp_min(1e-9))
    return (
        f"{percent(steps[-1], 1)} of what IC-STN-4 sees in the end lies beyond the photograph, and "
        f"{percent(stn, 1)} of what the STN sees; the former {grows} with each operation from "
        f"{percent(steps[0], 1)}, most of all for *{worst}* ({percent(share)} of it)."
    )


def black_rows(rows: Mapping[str, Float[Tensor, "n channels h w"]]) -> str:
    """Under Figure 10: the share of samples that lie beyond the photograph, in each row."""
    shares = (float((images == 0).all(1).float().mean()) for images in rows.values())
    return f"Black, from row to row: {', '.join(percent(share, 1) for share in shares)}."


def figure_11(rows: Mapping[str, Averages]) -> str:
    """Sharpness of the means of all classes, model by model."""
    values = [stats.sharpness for stats in rows.values()]
    rises = "rises" if all(a < b for a, b in pairwise(values)) else "does not rise"
    shown = ", ".join(f"{label} {stats.sharpness:.4f}" for label, stats in rows.items())
    return f"The sharpness of the mean signs {rises} with each row: {shown}."


def _cell(records: Iterable[Record], model: str, sigma: float | None = None) -> Cell:
    """The finished runs of a model among some Records.

    Raises:
        MissingError: there is none.
    """
    runs = [r for r in finished(records) if r.spec.model == model and sigma in (None, r.spec.sigma)]
    name = model + ("" if sigma is None else f" at σ = {sigma:g} px")
    if not runs:
        raise MissingError(name)
    return Cell(name, tuple(sorted(runs, key=lambda r: r.spec.seed)))


def _reuse(records: Sequence[Record], once: str, often: str) -> str:
    first, last = _cell(records, once), _cell(records, often)
    a, b = (f"{cell.error.value:.2f}" for cell in (first, last))
    return f"{(last - first).show(unit='points')}, from {a} to {b} %"


def _count(some: int, all_: int) -> str:
    return f"all {all_}" if some == all_ else f"none of the {all_}" if some == 0 else f"{some} of the {all_}"
