"""The page of verdicts: whether the paper's claims hold and its numbers come out, and what stays open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean

from icstn.evidence import ablations
from icstn.evidence.claims import CLAIMS, Claim, Judgement, judge, judge_together
from icstn.evidence.collection import Evidence, MissingError
from icstn.evidence.comparison import ALIKE, WIDE, Compared, against_paper
from icstn.evidence.estimates import Estimate, coverage, over_seeds, percent, significant
from icstn.evidence.predicates.composition import side_of_composition
from icstn.evidence.verdicts import VERDICTS, Verdict, compare, corrected
from icstn.evidence.verdicts import above as above_threshold
from icstn.exhibits.cells import augmented
from icstn.experiments import EXPERIMENTS, Record
from icstn.experiments.studies import LONGER
from tools.ledger_letter import letter
from tools.ledger_text import MARKS, NOTE, REACHED, escaped, tally, wrap

#: A mean that is not at or below the paper's error.
ABOVE = ("not reached", "undecided")


def summary_page(evidence: Evidence, documents: set[str]) -> str:
    """book/does_the_paper_hold.md."""
    judged = [(c, judge(c, evidence)) for c in CLAIMS]
    cells = against_paper(evidence)
    out = [
        NOTE,
        "# Does the paper hold?\n",
        wrap(
            "A reproduction answers two questions that are easily taken for one. Do its *claims* "
            "hold: does reuse help, does geometry preservation help, is the trade-off as good as "
            "stated? And do its *numbers* come out: does the same cell of the same table show the "
            "same error? The first is what a reader builds on. The second depends on training "
            "details, some of which the paper doesn't give."
        ),
        "\n## Its claims\n",
        f"**{tally(j.verdict for _, j in judged)}** Each links to its evidence.\n",
        *(_group(name, judged) for name in VERDICTS),
        *_family(judged, judge_together(CLAIMS, evidence)),
        "## Its numbers\n",
        *_numbers(cells, evidence.records),
        *_above(evidence, cells),
        *letter(evidence),
        *_side(evidence),
        "## What stays open\n",
        *_open(judged, cells, evidence.records),
        _after(documents),
    ]
    return "\n".join(out).rstrip() + "\n"


def _family(judged: Sequence[tuple[Claim, Judgement]], together: Mapping[str, Verdict]) -> list[str]:
    """What the verdicts become when the comparisons of all claims are corrected as one family."""
    many = sum(f.p is not None for _, j in judged for f in j.findings)
    text = (
        "Each claim's comparisons are corrected for being many within the claim. Taken as one family, all "
        f"{many} comparisons of all claims corrected together (Holm), "
    )
    start, rest = text.split(". ", 1)
    text = f"{start}. **{rest}"
    changed = [(c, j, together[c.name]) for c, j in judged if together[c.name] != j.verdict]
    if not changed:
        return [wrap(text + "no verdict changes.**"), ""]
    lines = [f"- [{c.statement}](claim-{c.name}): {j.verdict} → {verdict}" for c, j, verdict in changed]
    return [
        wrap(f"{text}{len(changed)} of these verdicts change{'s' * (len(changed) == 1)}:**"),
        "",
        *lines,
        "",
    ]


def _numbers(cells: Sequence[Compared], records: Sequence[Record]) -> list[str]:
    have = [row for row in cells if row.ours is not None]
    if not have:
        return ["No cell has been run yet at a preset whose numbers mean anything.\n"]
    reached = sum(row.reached == "reached" for row in have)
    alike = {share: sum(row.alike(share) for row in have) for share in (ALIKE / 2, ALIKE, 2 * ALIKE)}
    spread = ", ".join(f"{n} within {percent(share)}" for share, n in alike.items())
    text = (
        "The table sets the paper's test errors beside ours: the mean over seeds with its 95 % "
        f"interval ({coverage([row.seeds for row in have])}; cut off at 0, since no error is negative), from "
        "the best preset that has been run. "
        "*Reached*: ✓ our mean is at or below the paper's, ✗ it is above by more than its interval, ? "
        f"anything else. *Alike*: the two are the same number, to {percent(ALIKE)} or to our interval where "
        f"that is within {percent(WIDE)} on either side. A "
        "cell that is reached and not alike does not show that the paper's number was reproduced: the recipe "
        "is another, and in Table 1 so is the photograph. "
        "Table 1 is measured on another photograph than the paper's, so its cells can be compared in size "
        f"but not digit by digit.{_copy(records)}{_light(records)}"
    )
    return [
        wrap(text),
        f"\n**Of {len(have)} cells {reached} are at or below the paper's error. Alike are {spread}.**\n",
        "| reached | alike | cell | paper | ours | seeds |\n|:-:|:-:|---|--:|--:|--:|",
        *(_cell(row) for row in cells),
        "",
    ]


def _copy(records: Sequence[Record]) -> str:
    """That the signs of Table 3 are not the official ones, if they are not."""
    signs = [r for r in records if r.spec.experiment == "table_3"]
    notes = {note for r in signs for note in r.provenance.get("data", {}).get("notes", ())}
    if not any("not of their annotated size" in note for note in notes):
        return ""
    return (
        " Nor can those of Table 3: its signs come from a copy in which nearly all images were rescaled to "
        "32×32 pixels."
    )


def _light(records: Sequence[Record]) -> str:
    """That signs were trained under varied light, if they were."""
    note = augmented(r for r in records if (r.spec.experiment, r.spec.preset) == ("table_3", "full"))
    return note and f" Table 3, preset `full`: {note[0].lower()}{note[1:]}"


def _above(evidence: Evidence, cells: Sequence[Compared]) -> list[str]:
    """Cells whose mean lies above the paper's error, by table, and what is known of the reasons."""
    lines = []
    for experiment, reasons in (
        ("table_1", (_limits, _to_the_letter)),
        ("table_2", (_training, _longer, _to_the_letter)),
        ("table_3", (_training, _longer, _to_the_letter, _pixels)),
    ):
        above = [c for c in cells if c.experiment == experiment and c.reached in ABOVE]
        if above:
            title = EXPERIMENTS[experiment].title.split(",")[0]
            known = " ".join(filter(None, (reason(evidence, above) for reason in reasons)))
            names = ", ".join(c.cell for c in above)
            lines.append(wrap(f"- {title}: {names}.{_within(above)} {known or 'No cause is known.'}"))
    return ["## What stays above the paper\n", *lines, ""] if lines else []


def _within(above: Sequence[Compared]) -> str:
    """Which of these may be at the paper's error after all."""
    names = [c.cell for c in above if c.reached == "undecided"]
    if not names:
        return ""
    return f" The interval of {_and(names)} has the paper's error inside."


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


#: Share of a run, at its end, whose training error counts as that of the trained network.
LAST = 0.1


def _training(evidence: Evidence, above: Sequence[Compared]) -> str:
    """How well these networks know what they were trained on, and so what kind of gap is left."""
    known = {c.cell: e for c in above if (e := _on_training_items(evidence, c)) is not None}
    if not known:
        return ""
    shown = ", ".join(f"{name} {escaped(e.show(unit='%'))}" for name, e in known.items())
    runs = [run for c in above for run in evidence.best_cell(c.experiment, c.cell).runs]
    light = " and lit" if augmented(runs) else ""
    text = f"""In the last {percent(LAST)} of their training the networks erred on the training items,
        perturbed{light} as in training, as follows (the intervals are of the seeds): {shown}. """
    sure = [c for c in above if c.reached == "not reached" and c.cell in known]
    which = {c.cell: above_threshold(known[c.cell], c.printed) for c in sure if known[c.cell].seeds > 1}
    if short := [name for name, verdict in which.items() if verdict == "holds"]:
        text += f"""For {_and(short)} that is more than the paper's test error, so what is lacking first is
            training. """
    if rest := [name for name, verdict in which.items() if verdict == "does not hold"]:
        text += f"""For {_and(rest)} it is less than the paper's test error, so part of the gap is
            what does not carry over to new items. """
    if unknown := [name for name, verdict in which.items() if verdict == "undecided"]:
        text += f"For {_and(unknown)} the seeds do not tell which of the two it is."
    return text


def _on_training_items(evidence: Evidence, c: Compared) -> Estimate | None:
    """Mean over the runs of a cell, with their spread; None where no curve was kept."""
    runs = evidence.best_cell(c.experiment, c.cell).runs
    ends = [r.curve["error"][-max(1, round(LAST * len(r.curve["error"]))) :] for r in runs if r.curve]
    means = [fmean(errors) for errors in ends]
    return over_seeds(means, [(mean, mean) for mean in means]) if means else None


def _longer(evidence: Evidence, above: Sequence[Compared]) -> str:
    """What longer training of these rows came to."""
    names = {c.cell: c.printed for c in above}
    found = [
        f"{c.model} {c.varied.error.value:.2f} % ({names[c.model]:g} there)"
        for c in ablations.lengths(evidence)
        if c.model in names and c.usual.runs[0].spec.experiment == above[0].experiment
    ]
    if not found:
        return ""
    return f"Trained {LONGER} times as long: {', '.join(found)} ({{ref}}`ablation-length`)."


def _to_the_letter(evidence: Evidence, above: Sequence[Compared]) -> str:
    """Which of these rows the paper's own training brings to the paper's error."""
    theirs = {
        (c.experiment, c.cell): c.ours for c in against_paper(evidence, "paper") if c.reached == "reached"
    }
    found = {c.cell: e for c in above if (e := theirs.get((c.experiment, c.cell))) is not None}
    if not found:
        return ""
    unit = EXPERIMENTS[above[0].experiment].unit
    shown = ", ".join(f"{name} {escaped(e.show(unit=unit))}" for name, e in found.items())
    return f"The paper's own training does reach it ({{ref}}`to-the-letter`): {shown}."


def _limits(evidence: Evidence, _: Sequence[Compared]) -> str:
    """Where no single linear step can have the paper's error, and where the paper's own errors are odd."""
    printed = {s: e for (model, s), e in EXPERIMENTS["table_1"].printed.items() if model == "c-STN-1"}
    floors, found = ablations.floors(evidence), []
    for sigma, error in printed.items():
        best = {f.side: f.best.error.value for f in floors if f.sigma == sigma}
        if shown := [f"{significant(e)} px on the {side}'s side" for side, e in best.items() if e > error]:
            found.append(
                f"At σ = {sigma:g} px the single linear step that is best by c-STN-1's loss leaves "
                f"{' and '.join(shown)}, so training can't be expected to bring it to the paper's {error:g} "
                "px on this photograph ({ref}`ablation-floor`)."
            )
    for (before, more), (sigma, error) in pairwise(printed.items()):
        if error < more:
            found.append(
                f"The paper's c-STN-1 errs less at σ = {sigma:g} px ({error:g}) than at {before:g} px "
                f"({more:g}), where a larger perturbation should leave more. Why is not known."
            )
    return " ".join(found)


def _pixels(evidence: Evidence, _: Sequence[Compared]) -> str:
    """That the signs have fewer pixels than the paper's."""
    if not _copy(evidence.records):
        return ""
    shown = bool(ablations.resolutions(evidence))
    measured = (
        "{ref}`ablation-resolution` asks what that costs" if shown else "what that costs was not measured"
    )
    return f"The signs have fewer pixels than the paper's; {measured}."


def _side(evidence: Evidence) -> list[str]:
    """What the paper does not ask: on which side the update should join."""
    try:
        findings = corrected(side_of_composition(evidence))
    except MissingError:
        return []
    text = (
        "Eq. (10) composes the update on the image's side, Lucas-Kanade on the template's. For a fixed "
        "target both ask the predictor for the same warp; they differ in how an imperfect step acts. Our "
        "presets but `paper` use the template's side. What that is worth, all else equal, "
        "with Holm's correction for the number of comparisons"
    )
    everywhere = [*ablations.sides(evidence, "table_2"), *ablations.sides(evidence, "table_1")]
    text += " (each row of Tables 1 and 2: {ref}`ablation-image-side`):" if everywhere else ":"
    lines = [f"- {MARKS[f.verdict]} {escaped(f.text)} (preset `{f.cells[0].preset}`; "
             f"{coverage([len(cell.runs) for cell in f.cells])})" for f in findings]  # fmt: skip
    if planar := ablations.sides(evidence, "table_1"):
        found = [f.verdict for f in corrected([compare("", c.difference) for c in planar])]
        lines.append(
            f"- In Table 1, of {len(planar)} rows, the image's side leaves less error in "
            f"{found.count('does not hold')}, more in {found.count('holds')}."
        )
    return ["## Beyond the paper: the side of composition\n", wrap(text), "", *lines, ""]


def _group(verdict: str, judged: Sequence[tuple[Claim, Judgement]]) -> str:
    chosen = [c for c, j in judged if j.verdict == verdict]
    if not chosen:
        return ""
    lines = [f"### {MARKS[verdict]} {verdict[0].upper()}{verdict[1:]}\n"]
    return "\n".join([*lines, *(f"- [{c.statement}](claim-{c.name}) ({c.place})" for c in chosen), ""])


def _cell(row: Compared) -> str:
    about = EXPERIMENTS[row.experiment]
    shown = escaped(row.ours.show(about.digits)) if row.ours else "–"
    alike = "–" if row.ours is None else "✓" if row.alike() else "✗"
    marks = f"| {REACHED[row.reached]} | {alike} "
    return (
        f"{marks}| {about.title.split(',')[0]}, {row.cell} | {row.printed:.3f} {about.unit} | {shown} | "
        f"{row.seeds or '–'} |"
    )


def _open(
    judged: Sequence[tuple[Claim, Judgement]], cells: Sequence[Compared], records: Sequence[Record]
) -> list[str]:
    lines = [
        f"- {c.statement} {escaped(j.missing[0].upper() + j.missing[1:])}." for c, j in judged if j.missing
    ]
    unrun = sum(row.ours is None for row in cells)
    lines += [f"- Cells without a run of ours: {unrun} of {len(cells)}."] if unrun else []
    unsure = [(c, j) for c, j in judged if j.verdict == "undecided" and not j.missing]
    lines += [f"- {c.statement} {_doubt(j)}" for c, j in unsure]
    alone = sum(row.seeds == 1 for row in cells)
    if alone:
        lines.append(f"- Cells with a single seed, whose intervals know nothing of other seeds: {alone}.")
    if not any(r.spec.preset == "paper" for r in records):
        lines.append(
            "- The paper's own network, eq. (10)'s side of composition under plain gradient descent for as "
            "long as the paper trains: no run of the preset `paper` is published. Verdicts and numbers are "
            "about the same architectures under our recipe."
        )
    return [*lines, ""] if lines else ["Nothing: every claim is decided, and every cell has several runs.\n"]


def _doubt(j: Judgement) -> str:
    """How many comparisons of an undecided claim are, and what would decide them."""
    unsure = [f for f in j.findings if f.verdict == "undecided"]
    text = f"Open in {len(unsure)} of {len(j.findings)} comparisons; the others hold. "
    if len(unsure) == len(j.findings):
        text = f"Open in each of {len(unsure)} comparisons. "
    if len(j.findings) == 1:
        text = "The interval includes both answers. "
    needed = [f.needed for f in unsure]
    if None not in needed:
        return f"{text}If the means stay, {max(n for n in needed if n)} seeds a model would decide it."
    if j.seeds == (1,):
        return f"{text}One seed does not tell how many would decide it."
    stuck = needed.count(None)
    return f"{text}More seeds alone would not decide {stuck} of them: the test items leave them open."


def _after(documents: set[str]) -> str:
    links = [
        f"{{doc}}`{name}`" for name in ("planar_alignment", "mnist", "traffic_signs") if name in documents
    ]
    tour = f"The experiments are told in {', '.join(links)}; " if links else ""
    return wrap(
        f"{tour}every number above can be followed to its runs in {{doc}}`provenance`, every formula to its "
        "test in {doc}`equations`."
    )
