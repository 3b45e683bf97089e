"""What every preset costs, worked out from the measured steps of tests/benchmarks/speed.py.

    python tools/costs.py      write book/assets/cost.md, which the page on clusters shows

The README shows :func:`summary`; ``python tools/readme.py`` puts it there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from icstn.experiments import EXPERIMENTS, Record, Spec, cells
from icstn.reproduction.rerunning import hours_of

ROOT = Path(__file__).resolve().parent.parent
STEPS = ROOT / "tests" / "benchmarks" / "speed.json"
PAGE = ROOT / "book" / "assets" / "cost.md"
TABLES = tuple(name for name, about in EXPERIMENTS.items() if about.printed)
PRESETS = ("quick", "full", "paper")


def hours(spec: Spec, report: dict[str, Any]) -> float:
    """Core-hours of a run's training: its steps times the processor time of one."""
    if spec.about.kind == "planar":
        step = report["planar"][spec.model]
    else:
        step = report["rows"][spec.experiment][spec.model]["ours"]
    return spec.iterations * step["cpu_ms"] / 3.6e6


def makespan(costs: list[float], workers: int) -> float:
    """Hours until the last is done, the longest first, each to whoever is free."""
    busy = [0.0] * workers
    for cost in sorted(costs, reverse=True):
        busy[busy.index(min(busy))] += cost
    return max(busy)


def row(preset: str, table: str, report: dict[str, Any]) -> str:
    """A line of :func:`page`."""
    specs = [s for t in TABLES if table in (t, "all") for s in cells(t, preset)]
    costs = [hours(spec, report) for spec in specs]
    name = "**all**" if table == "all" else table.replace("_", " ").capitalize()
    wall = [makespan(costs, n) for n in (1, 8, 64)]
    numbers = [sum(costs), max(costs), *wall]
    return f"| {preset} | {name} | {len(specs)} | " + " | ".join(map(shown, numbers)) + " |"


def shown(value: float) -> str:
    """Two digits, which is as far as such an estimate goes."""
    if value < 0.005:
        return "< 0.01"
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.095 else f"{value:.2f}"


def page(report: dict[str, Any]) -> str:
    """Preset × table → core-hours and time on some numbers of cores."""
    lines = [
        "| preset | | runs | core-hours | longest run | on 1 core | on 8 | on 64 |",
        "|:--|:--|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [row(preset, table, report) for preset in PRESETS for table in (*TABLES, "all")]
    where = f"Hours for one seed, from steps measured on one core ({report['processor']})"
    return "\n".join(lines) + f"\n\n{where} with PyTorch {report['torch']}; testing is not counted.\n"


def summary(report: dict[str, Any], records: Iterable[Record]) -> str:
    """Preset × device → time for the three tables with one seed, beside the time that our Records state."""
    lines = [
        "| preset | runs | 1 core | 2 cores | 8 cores | a GPU | our own runs |",
        "|:--|--:|--:|--:|--:|:--|:--|",
    ]
    for preset in PRESETS:
        specs = [s for table in TABLES for s in cells(table, preset)]
        times = [clock(makespan([hours(s, report) for s in specs], n)) for n in (1, 2, 8)]
        runs = [r for r in records if r.spec in specs]
        own = f"{len(runs)} runs, {clock(sum(map(hours_of, runs)))} in all" if runs else "none"
        lines.append(f"| `{preset}` | {len(specs)} | {' | '.join(times)} | not measured | {own} |")
    where = f"steps measured on one idle core ({report['processor']}) with PyTorch {report['torch']}"
    note = f"Training of Tables 1 to 3 with one seed, from {where}, the longest runs first. "
    note += "Our own runs: training by processor time where it was counted, else, like tests, by the wall's "
    note += "clock, on cores that had other work to do."
    return "\n".join(lines) + f"\n\n{note}\n"


def measured() -> dict[str, Any]:
    """The measured steps."""
    return dict(json.loads(STEPS.read_text(encoding="utf-8")))


def clock(hours: float) -> str:
    """Minutes below two hours, else hours."""
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.1f} h" if hours < 10 else f"{hours:.0f} h"


if __name__ == "__main__":
    PAGE.write_text(page(measured()), encoding="utf-8")
    print(PAGE.read_text())
