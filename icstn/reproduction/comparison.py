"""A reader's own runs beside the published numbers."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from icstn.experiments.experiment import EXPERIMENTS
from icstn.experiments.records import Record, Records
from icstn.experiments.spec import RunSpec
from icstn.reproduction.plans import Job

Cell = tuple[str, float]


def side_by_side(job: Job, records: Records) -> str:
    """The paper's numbers, the published ones and those of these runs, side by side, in Markdown.

    Args:
        job: an exhibit that has been made; one that is no table of the paper gives an empty text.
        records: where its Records are.
    """
    published = job.notebook.parent / "rendered" / f"{job.name}.csv"
    if job.name not in EXPERIMENTS or not EXPERIMENTS[job.name].printed or not published.is_file():
        return ""
    about, theirs = EXPERIMENTS[job.name], _published(published, job.name)
    own = _own(job.specs, records.stand_in() if job.data.stand_in else records, about.digits)
    title = "Yours, on rendered signs" if job.data.stand_in else "Yours"
    head = ["Model", *(["σ"] if about.by_sigma else []), "Paper", "Published", title]
    lines = [head, [":--", *["--:"] * (len(head) - 1)]]
    for (model, sigma), printed in about.printed.items():
        known = theirs.get((model, sigma))
        numbers = [f"{printed:.3f}", "–" if known is None else f"{known:.{about.digits}f}"]
        where = [model, *([f"{sigma:g}"] if about.by_sigma else [])]
        lines.append([*where, *numbers, own.get((model, sigma), "–")])
    units = f"Test errors in {about.unit}" + ("; σ in pixels." if about.by_sigma else ".")
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{units}"


def _published(path: Path, experiment: str) -> dict[Cell, float]:
    """The numbers of a table as it is committed, from the file that its notebook has rendered."""
    [*_, only] = EXPERIMENTS[experiment].sigmas
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["ours"]]
    return {(row["model"], float(row["sigma"] or only)): float(row["ours"]) for row in rows}


def _own(specs: Sequence[RunSpec], records: Records, digits: int) -> dict[Cell, str]:
    """The mean test error of each cell over its seeds."""
    cells: dict[Cell, list[Record]] = {}
    for record in filter(None, map(records.find, specs)):
        cells.setdefault((record.spec.model, record.spec.sigma), []).append(record)
    return {cell: _mean(runs, digits) for cell, runs in cells.items()}


def _mean(runs: Sequence[Record], digits: int) -> str:
    errors = [r.test_error for r in runs if r.status == "finished"]
    if len(errors) == len(runs):
        return f"{fmean(errors):.{digits}f}"
    lost = f"{len(runs) - len(errors)} of {len(runs)} diverged"
    return f"{fmean(errors):.{digits}f} ({lost})" if errors else "diverged"
