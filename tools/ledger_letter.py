"""The paper's own training beside its numbers: what the preset `paper` came to, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from icstn.evidence.collection import Evidence
from icstn.evidence.comparison import ALIKE, Compared, against_paper, orders
from icstn.evidence.estimates import coverage, percent
from icstn.experiments import EXPERIMENTS
from icstn.experiments.recipes import is_own
from icstn.experiments.records import Record
from icstn.experiments.spec import RunSpec, Spec
from icstn.experiments.studies import study
from tools.ledger_text import REACHED, escaped, wrap

PRESET = "paper"

_WORDS = """
Above, optimizer, rates, schedule and length are ours. The preset `paper` takes the paper at its word where
it speaks: plain gradient descent at constant rates, 200,000 iterations, the update composed on the side of
eq. (10). So this is the table that asks whether the paper's *numbers* come out, for the cells that were
planned: the others of the paper's 37, among them all of Table 3, for which the text names no length, were
not. What the text leaves out, such as how the weights begin and the rate of Table 1, is ours here too.
"""


def letter(evidence: Evidence) -> list[str]:
    """The section of the page of verdicts; nothing before the first of these runs."""
    cells = against_paper(evidence, PRESET)
    have = [row for row in cells if row.ours is not None]
    if not have:
        return []
    usual = {(row.experiment, row.cell): row for row in against_paper(evidence, "full")}
    alike, reached = sum(row.alike() for row in have), sum(row.reached == "reached" for row in have)
    count = f"""**Of {len(cells)} cells {len(have)} have been run
        ({coverage([row.seeds for row in have])}): alike, to {percent(ALIKE)}, are {alike}, at or below the
        paper's error {reached}.** Alike by part: {_by_part(have)}."""
    return [
        "(to-the-letter)=",
        "## The paper's own training\n",
        wrap(_WORDS),
        "",
        wrap(count),
        "",
        "| reached | alike | cell | paper | its training | our `full` |\n|:-:|:-:|---|--:|--:|--:|",
        *(_line(row, usual) for row in have),
        "",
        *_orders(evidence),
        *_left(evidence),
    ]


def _by_part(have: Sequence[Compared]) -> str:
    """How many of the cells of each block or table are alike."""
    parts: dict[str, list[bool]] = {}
    for row in have:
        block = f", block {row.cell[-3:]}" if row.cell.endswith(")") else ""
        title = EXPERIMENTS[row.experiment].title.split(",")[0]
        parts.setdefault(title + block, []).append(row.alike())
    return "; ".join(f"{sum(alike)} of {len(alike)} in {part}" for part, alike in parts.items())


def _line(row: Compared, usual: Mapping[tuple[str, str], Compared]) -> str:
    about, ours = EXPERIMENTS[row.experiment], usual[row.experiment, row.cell].ours
    shown = [escaped(e.show(about.digits)) if e else "–" for e in (row.ours, ours)]
    marks = f"| {REACHED[row.reached]} | {'✓' if row.alike() else '✗'} "
    cell = f"{about.title.split(',')[0]}, {row.cell}"
    return f"{marks}| {cell} | {row.printed:.3f} {about.unit} | {' | '.join(shown)} |"


def _orders(evidence: Evidence) -> list[str]:
    """In which order the models of a block come, and how far each is from the next in the paper's order."""
    runs = [r for r in evidence.records if r.spec.preset == PRESET and is_own(r.spec)]
    lines = []
    for table in ("table_1", "table_2"):
        about = EXPERIMENTS[table]
        unit = "points" if about.unit == "%" else about.unit
        for order in (found for found in orders(table, runs) if len(found.ours) > 1):
            sigma = order.sigma if about.by_sigma else None
            models = sorted(order.ours, key=order.printed.__getitem__, reverse=True)
            cells = [evidence.cell(table, model, PRESET, sigma) for model in models]
            apart = [f"{a.name} − {b.name}: {(a - b).show(about.digits, unit)}" for a, b in pairwise(cells)]
            block = f"{about.title.split(',')[0]}, {order}. {'; '.join(apart)}."
            lines.append(f"- {escaped(block)}")
    text = "In which order they come, by their means, and how far each is from the next, item by item:\n"
    return [text, *lines, ""] if lines else []


def _left(evidence: Evidence) -> list[str]:
    """Which of the planned runs are not there; one that diverged is."""
    there = {r.spec.key for r in [*evidence.records, *evidence.diverged]}
    left = [spec for spec in study(PRESET).specs if spec.key not in there]
    text = _lost([r for r in evidence.diverged if r.spec in study(PRESET).specs])
    if left:
        count = f"{len(left)} {'is' if len(left) == 1 else 'are'}"
        text += f"""Of {len(study(PRESET).specs)} planned runs {count} not published: {_names(left)}.
            `icstn study {PRESET}` trains them; {{ref}}`study-{PRESET}` has what they cost."""
    return [wrap(text), ""] if text else []


def _lost(runs: Sequence[Record]) -> str:
    """Which runs ended without a number, and when."""
    if not runs:
        return ""
    when = ", ".join(f"{_names([r.spec])} after {r.provenance['steps']:,} iterations" for r in runs)
    rates = {r.spec.rate_predictor for r in runs if r.spec.about.by_sigma and isinstance(r.spec, Spec)}
    rate = (
        f" For Table 1 the text gives no rate; ours, {', '.join(map(str, rates))}, is too high there."
        if rates
        else ""
    )
    return f"Diverged: {when}.{rate} "


def _names(specs: Sequence[RunSpec]) -> str:
    return ", ".join(f"{s.model} σ = {s.sigma:g}" if s.about.by_sigma else s.model for s in specs)
