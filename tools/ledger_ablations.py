"""The page of ablations: what each part is worth, and how the networks do away from their training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from icstn.evidence import ablations
from icstn.evidence.ablations import Contrast
from icstn.evidence.collection import Cell, Evidence, Measurements, MissingError
from icstn.evidence.elsewhere import MOST, NOISE
from icstn.evidence.estimates import Estimate, coverage, percent, significant
from icstn.evidence.verdicts import above, compare, corrected
from icstn.experiments.experiment import EXPERIMENTS
from icstn.experiments.recipes import cells
from icstn.experiments.spec import Spec
from icstn.experiments.studies import BOUND, STUDIES
from tools.ledger_text import NOTE, escaped, wrap


class Part(NamedTuple):
    """One comparison of the page.

    Attributes:
        title: its heading.
        words: what is changed, and why one would ask.
        contrasts: finds the cells.
        study: whose runs it shows, for the command line.
    """

    title: str
    words: str
    contrasts: Callable[[Evidence], Sequence[Contrast]]
    study: str


def ablations_page(evidence: Evidence) -> str:
    """book/ablations.md."""
    out = [NOTE, "# What each part is worth\n", wrap(_INTRODUCTION), ""]
    found = [(part, part.contrasts(evidence)) for part in PARTS]
    for part, contrasts in found:
        out += [*_part(part, contrasts), *_diverged(evidence, part.study)] if contrasts else []
        out += _full_size(evidence, contrasts) if part.contrasts is ablations.resolutions else []
        out += _floors(evidence) if part.study == "image-side" else []
    out += ["(ablation-operations)=", "## More operations than in training\n", wrap(_OPERATIONS), ""]
    out += _operations(evidence)
    out += ["(ablation-noise)=", "## Other noise than in training\n", wrap(_NOISE), "", *_noise(evidence)]
    out += _left([part for part, contrasts in found if not contrasts])
    return "\n".join(out).rstrip() + "\n"


_INTRODUCTION = """
A table of the paper changes several things from row to row. Here one thing is changed at a time, and all else
is as in the row of the preset `full`, unless a section says otherwise: the same architecture, recipe, test
items and perturbations, and the same seeds as far as both have them; a range such as 3–5 says that one has
more. The
differences are taken item by item, with seeds as a second level where there are several, and an interval that
lies on one side of zero is a difference beyond doubt. Two sections train nothing: they apply the networks of
the tables where they were not trained. What has not been run stands at the end.
"""


def _rate(model: str) -> str:
    (spec,) = cells("table_2", "full", models=[model])
    assert isinstance(spec, Spec)
    return f"{spec.rate_classifier:g}"


def _length(table: str, preset: str) -> str:
    """Iterations of a preset."""
    spec = cells(table, preset)[0]
    assert isinstance(spec, Spec)
    return f"{spec.iterations:,}"


PARTS = (
    Part(
        "On which side an update joins",
        "Eq. (10) composes the predicted update on the image's side, M(Δp) M(p); Lucas-Kanade, the authors' "
        "motivation, on the template's, M(p) M(Δp). For a fixed target the predictor can learn either "
        "({doc}`warps`); they differ in how an imperfect step acts. Our preset `full` uses the template's "
        "side, so this is what separates its rows from the paper's own networks, but for the recipe.",
        lambda e: [*ablations.sides(e, "table_2"), *ablations.sides(e, "table_1")],
        "image-side",
    ),
    Part(
        "Reuse without passing on the warp",
        "IC-STN-4 does two things at once: it applies one predictor four times, and it passes on warp "
        "parameters in place of warped images. Four Spatial Transformers in a row that share one predictor "
        "do the first alone. The paper does not make this comparison. It has as many weights and as many "
        "operations on either side; what differs is whether what left the crop can come back. Beside one "
        "Spatial Transformer, the four show what reuse is worth by itself. They have the recipe of that "
        f"one, so that in block (b) the classifier's rate is {_rate('STN(b)')}, beside "
        f"{_rate('IC-STN-4(b)')} of IC-STN-4.",
        ablations.shared_stacks,
        "shared-stn",
    ),
    Part(
        "An explicit inverse",
        "Lucas-Kanade's inverse compositional form inverts the update before it composes it. Sec. 4.2 of the "
        "paper says that a network loses nothing when it learns the inverse instead. With the row's own "
        "recipe training may break down under an explicit inverse, so both are also trained under a bound on "
        f"the norm of the predictor's gradient, {BOUND:g} as in Table 1; that it helps was seen on "
        "validation data.",
        ablations.inverses,
        "inverse",
    ),
    Part(
        "Learned together, or one after the other",
        "Supervised descent learns its linear regressors greedily, each on what those before it have left. "
        "Six of them can also be learned together, end to end (c-STN-6), or be one and the same (IC-STN-6). "
        "The usual row is the greedy one. The ledger of claims looks at the first of these questions only, "
        "so it corrects for half as many comparisons, and may decide one that is open here.",
        ablations.cascades,
        "cascades",
    ),
    Part(
        "What is sampled from, at the same rates",
        "An STN and c-STN-1 differ in the image that they sample from, and in Tables 2 and 3 also in the "
        "rates that the search found for them. Here both have those of c-STN-1. In {ref}`to-the-letter` both "
        "have the paper's.",
        ablations.same_rates,
        "same-rates",
    ),
    Part(
        "Smaller families of warps",
        "Fewer parameters to predict, and noise of as few degrees of freedom: the same noise at the corners, "
        "fitted to the family. So the task changes with the network. There is less to put right, and less "
        "that the network can put right, such as the slant and the size that digits have by themselves.",
        ablations.families,
        "families",
    ),
    Part(
        "Which noise the signs had",
        "The paper's text gives 3.5 pixels; the authors' released code has a quarter of the template's half "
        "width by default, which is 4.5 pixels of 36.",
        ablations.sign_noise,
        "sign-noise",
    ),
    Part(
        "How many pixels a sign has",
        "Most images of the copy at hand were rescaled to 32×32 pixels. What that costs can't be measured "
        "without the originals, but what a further reduction costs can.",
        ablations.resolutions,
        "resolution",
    ),
    Part(
        "Longer training",
        "Rows whose error is above the paper's, trained longer: all else is as it was, and the cosine "
        f"schedule is drawn out. The paper trains for {_length('table_2', 'paper')} iterations, our preset "
        f"`full` for {_length('table_2', 'full')} on digits and {_length('table_3', 'full')} on signs.",
        ablations.lengths,
        "length",
    ),
    Part(
        "To the letter",
        "The paper's own training: plain gradient descent at constant rates for 200,000 iterations, on its "
        "side of composition. Ours in the preset `full` has Adam, a cosine schedule, a twentieth to a tenth "
        "of the iterations, and the template's side.",
        ablations.to_the_letter,
        "paper",
    ),
)

_OPERATIONS = f"""
A predictor that passes on warp parameters can be applied as often as one likes. The classification error
after 0, 1, … {MOST} operations, whatever it was trained for; the classifier only ever saw what the trained
number leaves. Each image is perturbed once, as the first of the table's perturbations, so that the trained
number has not quite the table's error. For planar alignment {{doc}}`../figures/figure_7` shows the same.
"""

_NOISE = """
Every network was trained at one size of the noise. Here is its error under others, each digit or sign
perturbed once. A row of Table 1 stands once for each σ that it was trained at.
"""


def _left(parts: Sequence[Part]) -> list[str]:
    """What was not run, and how to: {doc}`studies` has the cost."""
    if not parts:
        return []
    out = ["(ablation-left)=", "## Not run yet\n", "What it costs is on the page {doc}`studies`.\n"]
    return out + [wrap(f"**{p.title}** (`icstn study {p.study}`). {p.words}") + "\n" for p in parts]


def _part(part: Part, found: Sequence[Contrast]) -> list[str]:
    lines = [f"(ablation-{part.study})=", f"## {part.title}\n", wrap(part.words), ""]
    lines += [wrap(_summary(found)), ""]
    lines += ["| row | change | as it is | changed | difference | seeds |", "|:--|:--|--:|--:|:--|--:|"]
    return [*lines, *map(_line, found), "", *_uneven(found)]


def _floors(e: Evidence) -> list[str]:
    """What any training of c-STN-1 of Table 1 could at best reach, beside what ours did and the paper's."""
    found, printed = ablations.floors(e), EXPERIMENTS["table_1"].printed
    if not found:
        return []
    names = ("best linear step", "c-STN-1", "above it", "the paper's c-STN-1")
    rows = [f"| σ | side | {' | '.join(names)} |", f"|--:|:--|{'--:|' * len(names)}"]
    beyond = []
    for sigma, side, best, trained in found:
        theirs, above = printed["c-STN-1", sigma], trained.error.value / best.error.value - 1
        values = (_mean(best), _mean(trained), percent(above, 1).replace("-", "−"), f"{theirs:g} px")
        rows.append(f"| {sigma:g} | {side} | {' | '.join(values)} |")
        beyond += [f"at σ = {sigma:g} px on the {side}'s side"] if theirs < best.error.value else []
    text = """A single linear step can be had at its best without training: the loss of c-STN-1 is quadratic
        in its weights on either side ({mod}`icstn.experiments.linear_step`). That loss is in warp parameters;
        in pixels a little less may be left elsewhere than at its minimum. """
    text += f"The paper's number lies below that {' and '.join(beyond) or 'nowhere'}"
    text += ", so training on this photograph can't be expected to reach it there." if beyond else "."
    if lacking := {"template", "image"} - {f.side for f in found}:
        text += f" Not computed: the {lacking.pop()}'s side (`icstn study image-floor`)."
    title = "### How far a single linear step could come\n"
    return ["(ablation-floor)=", title, wrap(text), "", *rows, ""]


#: Runs of one cell are shown one by one where the worst has that many times the error of the best.
UNEVEN = 5.0


def _uneven(found: Sequence[Contrast]) -> list[str]:
    """What each seed came to where a mean and its interval hide that some runs failed."""
    out = []
    for name, cell in ((f"{c.model}, {c.change}", c.varied) for c in found):
        errors, unit = [run.test_error for run in cell.runs], cell.runs[0].spec.about.unit
        if len(errors) > 1 and max(errors) > UNEVEN * min(errors):
            shown = ", ".join(significant(e) for e in errors)
            text = f"""The runs of *{name}* differ so much that their mean says little: {shown} {unit},
                seed by seed. The change has the recipe of the row as it is; at other rates fewer or more may
                fail."""
            out += [wrap(text), ""]
    return out


def _diverged(e: Evidence, name: str) -> list[str]:
    """Which runs of a study ended without a number: the means are of the others."""
    lost: dict[str, list[int]] = {}
    for run in e.diverged:
        if run.spec in STUDIES[name].specs:
            sigma = f" σ = {run.spec.sigma:g}" if run.spec.about.by_sigma else ""
            lost.setdefault(f"{run.spec.model}{sigma}", []).append(run.spec.seed)
    if not lost:
        return []
    shown = "; ".join(f"{who} with seed {', '.join(map(str, sorted(seeds)))}" for who, seeds in lost.items())
    text = "Diverged, restarted and diverged again, so that no mean has them, with the change: "
    return [wrap(f"{text}{shown}."), ""]


def _full_size(e: Evidence, found: Sequence[Contrast]) -> list[str]:
    """What the same network would come to on signs that had not been reduced."""
    if len(found) < len(ablations.SIDES) - 1:
        return []
    cells = [*(c.varied for c in found), found[0].usual]
    errors = {float(side): cell.error for side, cell in zip(ablations.SIDES, cells, strict=True)}
    shown = ", ".join(f"{e.value:.2f} % at {side:g}" for side, e in errors.items())
    laws = {"side": 1.0, "square of the side": 2.0}
    there = {law: ablations.extrapolated(errors, ablations.INPUT_SIDE, p) for law, p in laws.items()}
    guesses = ", ".join(f"{escaped(e.show(unit='%'))} by the {law}" for law, e in there.items())
    model = found[0].model
    printed = EXPERIMENTS["table_3"].printed[model, EXPERIMENTS["table_3"].sigmas[0]]
    gain = [errors[32.0].value - e.value for e in there.values()]
    gap = f"""the {errors[32.0].value - printed:.1f} points between {model}'s {errors[32.0].value:.2f} % here
        and the paper's {printed:g} %"""
    text = f"""Drawn on to the {ablations.INPUT_SIDE} pixels that the images have here, along a line in the
        reciprocal ({shown}): {guesses}. """
    if min(gain) > 0:
        text += f"""So fewer pixels than the original images have explain {min(gain):.1f} to {max(gain):.1f}
            of {gap}. """
    else:
        text += f"So these runs do not show that fewer pixels explain any of {gap}. "
    everyone = e.cell("table_3", model, "full").runs
    if len(runs := [r.test_error for r in everyone]) > 1:
        text += f"""The {len(runs)} seeds that there are with all pixels lie up to
            {max(runs) - min(runs):.1f} points apart. """
    text += """It is a guess with three points to lean on; the intervals do not cover the choice of the line,
        and no original image was seen."""
    return [wrap(text), ""]


def _line(c: Contrast) -> str:
    about = c.usual.runs[0].spec.about
    usual, varied = (_mean(cell) for cell in (c.usual, c.varied))
    unit = "points" if about.unit == "%" else about.unit
    seeds = "–".join(str(n) for n in dict.fromkeys(sorted(len(cell.runs) for cell in (c.usual, c.varied))))
    shown = escaped(c.difference.show(about.digits, unit))
    return f"| {c.model} | {c.change} | {usual} | {varied} | {shown} | {seeds} |"


def _mean(cell: Cell) -> str:
    about, value = cell.runs[0].spec.about, cell.error.value
    return f"{value:.{about.digits}f} %" if about.unit == "%" else f"{significant(value)} {about.unit}"


#: So many rows are named beside their count.
NAMED = 6


def _summary(found: Sequence[Contrast]) -> str:
    """In which rows the change leaves more error beyond doubt, in which less; what intervals cover."""
    findings = [compare("", c.difference) for c in found]
    alone, together = ([f.verdict for f in some] for some in (findings, corrected(findings)))
    often = {model for model, n in Counter(c.model for c in found).items() if n > 1}
    names = [f"{c.model}, {c.change}" if c.model in often else c.model for c in found]
    more, less = (
        _counted([name for name, v in zip(names, together, strict=True) if v == which])
        for which in ("holds", "does not hold")
    )
    covers = coverage(len(cell.runs) for c in found for cell in (c.usual, c.varied))
    open_ = together.count("undecided")
    text = f"Of {len(found)} comparison{'s' * (len(found) > 1)} the change leaves more error in {more}, "
    text += f"less in {less}, and {open_} {'is' if open_ == 1 else 'are'} undecided ({covers})."
    if len(found) == 1:
        return text
    if alone == together:
        return f"{text} Holm's correction for their number changes nothing in that."
    counts = ", ".join(str(alone.count(v)) for v in ("holds", "does not hold", "undecided"))
    return f"{text} That is with Holm's correction for their number; without it: {counts}."


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} ({'; '.join(names)})" if 0 < len(names) <= NAMED else str(len(names))


def _operations(e: Evidence) -> list[str]:
    rows = [
        (cell, found)
        for table in ("table_2", "table_3")
        for cell, found in _measured(e, table)
        if "error_after_1" in found.measures
    ]
    if not rows:
        return ["Not measured yet.\n"]
    names = [f"error_after_{n}" for n in range(MOST + 1)]
    head = ["| row | " + " | ".join(str(n) for n in range(MOST + 1)) + " |", "|:--|" + "--:|" * (MOST + 1)]
    lines = [_values(f"{_title(cell)}{cell.name}", found, names, 2) for cell, found in rows]
    wide = max(found[name].estimate.half for _, found in rows for name in names)
    note = f"Half the width of a 95 % interval is {wide:.2f} points at most."
    return [*(_least(cell, found) for cell, found in rows), "", *head, *lines, "", note, ""]


def _least(cell: Cell, found: Measurements) -> str:
    errors = [found[f"error_after_{n}"] for n in range(MOST + 1)]
    n, trained = min(range(MOST + 1), key=lambda k: errors[k].value), int(cell.name.split("-")[2][0])
    change: Estimate = (errors[MOST] - errors[trained]).estimate
    word = {"holds": "worse", "does not hold": "better", "undecided": "undecided"}[above(change)]
    title = f"{_title(cell)}{cell.name}"
    return (
        f"- {title} errs least after {n} operations ({errors[n].value:.2f} %); after {MOST}, against the "
        f"{trained} of its training: {escaped(change.show(unit='points'))}, {word}."
    )


def _noise(e: Evidence) -> list[str]:
    lines: list[str] = []
    for table, sigmas in NOISE.items():
        rows = [(c, m) for c, m in _measured(e, table) if f"error_at_{sigmas[0]:g}" in m.measures]
        if not rows:
            continue
        about = EXPERIMENTS[table]
        lines += [f"{about.title}, error in {about.unit}:\n"]
        lines += [
            "| row | " + " | ".join(f"σ = {s:g}" for s in sigmas) + " |",
            "|:--|" + "--:|" * len(sigmas),
        ]
        names, digits = [f"error_at_{s:g}" for s in sigmas], None if about.by_sigma else 2
        lines += [_values(cell.name, found, names, digits) for cell, found in rows]
        shares = [m[name].estimate.half / m[name].value for _, m in rows for name in names if m[name].value]
        lines += ["", f"Half the width of a 95 % interval is {percent(max(shares))} of the error at most.\n"]
    return lines or ["Not measured yet.\n"]


def _values(title: str, found: Measurements, names: Sequence[str], digits: int | None) -> str:
    values = [found[name].value for name in names]
    shown = [significant(v) if digits is None else f"{v:.{digits}f}" for v in values]
    return f"| {title} | " + " | ".join(shown) + " |"


def _measured(e: Evidence, table: str) -> list[tuple[Cell, Measurements]]:
    """The rows of a table at ``full`` that were run and measured."""
    about, found = EXPERIMENTS[table], []
    for sigma in about.sigmas if about.by_sigma else (None,):
        for model in about.rows:
            try:
                cell = e.cell(table, model, "full", sigma)
                found.append((cell, e.measured(cell)))
            except MissingError:
                continue
    return found


def _title(cell: Cell) -> str:
    return "signs, " if cell.runs[0].spec.experiment == "table_3" else ""
