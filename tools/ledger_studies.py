"""The ledger of studies: which runs the book calls for, which are published, and what the rest costs."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from icstn.experiments import Record, Spec, cells
from icstn.experiments.spec import RunSpec
from icstn.experiments.studies import STUDIES, Study
from tools.costs import STEPS, hours, shown
from tools.ledger_text import NOTE, wrap


def studies_page(records: Iterable[Record]) -> str:
    """book/studies.md.

    Args:
        records: the published ones.
    """
    done = {record.spec.key for record in records}
    report = json.loads(STEPS.read_text(encoding="utf-8"))
    every = {spec.key: spec for study in STUDIES.values() for spec in study.specs}
    left = [spec for key, spec in every.items() if key not in done]
    out = [NOTE, "# What was run, and what was not\n", wrap(_INTRODUCTION), ""]
    out.append(
        wrap(f"Of {len(every)} runs {len(every) - len(left)} are published. {_rest(left, report)}") + "\n"
    )
    out += ["| study | published | left, core-hours | |", "|:--|--:|--:|:--|"]
    out += [_line(study, done, report) for study in STUDIES.values()]
    for study in STUDIES.values():
        out += ["", f"(study-{study.name})=", f"## {study.purpose}\n", *_section(study, done, report)]
    return "\n".join(out).rstrip() + "\n"


_INTRODUCTION = """
The tables and the verdicts of this book ask for runs with several seeds, for the same networks composed on
the paper's side, for ablations, and for the paper's own optimizer for as long as the paper trains. Part of
that has not been run. Here is the whole list, in the order of its value, with what is there and what is
missing. A cell with fewer seeds than planned says so wherever it is shown: its interval covers the test
items only, or two seeds. Costs are steps times the measured processor time of one, without testing. To
train what is left of a study, on as many machines as there are, in any order and with any number of stops:
`icstn study table-1`; `icstn study` alone says how far each is.
"""


def _rest(left: list[RunSpec], report: dict[str, Any]) -> str:
    costs = [cost for spec in left if (cost := _hours(spec, report)) is not None]
    text = f"The other {len(left)} take about {sum(costs):.0f} core-hours"
    unknown = len(left) - len(costs)
    return text + (f", without {unknown} whose step was not timed." if unknown else ".")


def _line(study: Study, done: set[str], report: dict[str, Any]) -> str:
    left = [spec for spec in study.specs if spec.key not in done]
    count = f"{len(study.specs) - len(left)} of {len(study.specs)}"
    return f"| [{study.name}](study-{study.name}) | {count} | {_cost(left, report)} | {study.purpose} |"


def _section(study: Study, done: set[str], report: dict[str, Any]) -> list[str]:
    rows: dict[tuple[str, str], list[RunSpec]] = {}
    for spec in study.specs:
        rows.setdefault((spec.about.title, f"{spec.model}{_variation(spec)}"), []).append(spec)
    out = [
        f"`icstn study {study.name}`\n",
        "| | runs | seeds published | left, core-hours |",
        "|:--|--:|:--|--:|",
    ]
    for (title, name), specs in rows.items():
        left = [spec for spec in specs if spec.key not in done]
        there = _seeds([spec for spec in specs if spec.key in done])
        out.append(f"| {title}: {name} | {len(specs)} | {there} | {_cost(left, report)} |")
    return out


def _seeds(specs: list[RunSpec]) -> str:
    if not specs:
        return "none"
    by_seed = Counter(spec.seed for spec in specs)
    most = max(by_seed.values())
    return ", ".join(f"{seed}" if n == most else f"{seed} ({n} runs)" for seed, n in sorted(by_seed.items()))


def _variation(spec: RunSpec) -> str:
    """What tells it from the cell of its table."""
    plain = cells(spec.experiment, spec.preset, (spec.seed,), [spec.model])
    own = next((cell for cell in plain if cell.sigma == spec.sigma), plain[0])
    told = [
        f"{f.name} {getattr(spec, f.name)}"
        for f in fields(spec)
        if f.name != "architecture" and getattr(spec, f.name) != getattr(own, f.name)
    ]
    if (
        isinstance(spec, Spec)
        and isinstance(own, Spec)
        and not told
        and spec.architecture != own.architecture
    ):
        told = [spec.architecture]
    return f", {', '.join(told)}" if told else ""


def _cost(specs: list[RunSpec], report: dict[str, Any]) -> str:
    if not specs:
        return "–"
    known = [_hours(spec, report) for spec in specs]
    return "not timed" if None in known else shown(sum(cost for cost in known if cost is not None))


def _hours(spec: RunSpec, report: dict[str, Any]) -> float | None:
    """Core-hours, as far as the step of its row was timed; at most, where it has more operations."""
    if not isinstance(spec, Spec):
        return None  # a classical method has no steps that would be timed
    own = spec.about.rows.get(spec.model, spec.architecture)
    try:
        return hours(spec, report) * _operations(spec.architecture) / _operations(own)
    except KeyError:
        return None


def _operations(architecture: str) -> int:
    """How often its predictors are applied."""
    return sum(int(n) for n in re.findall(r"\]×(\d+)", architecture)) or 1
