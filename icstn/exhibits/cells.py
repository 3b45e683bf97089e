"""A cell of a table from its runs: the number, its spread and interval, as numbers and as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import stdev
from typing import Any

import pandas as pd

from icstn.evidence.collection import Cell, finished
from icstn.evidence.estimates import coverage, minus, significant
from icstn.experiments.records import Record
from icstn.experiments.spec import Spec

#: Where there is no number.
MISSING = "–"


def statistics(model: str, records: Iterable[Record]) -> dict[str, Any]:
    """Of the runs of a cell that finished on the real data.

    Returns:
        ``ours``: mean test error over the seeds; ``low`` and ``high``: its 95 % interval
        (:func:`icstn.evidence.estimates.mean_error`); ``sd``: standard deviation over the seeds, NaN of one;
        ``n``: number of seeds; ``diverged``: number of runs that did; ``capacity``: learnable parameters,
        counted in the weights.
    """
    records = [r for r in records if not r.stand_in]
    runs = sorted(finished(records), key=lambda r: r.spec.seed)
    row: dict[str, Any] = dict.fromkeys(("ours", "low", "high", "sd"), math.nan)
    row |= {"n": len(runs), "diverged": len(records) - len(runs), "capacity": None}
    if runs:
        cell = Cell(model, tuple(runs))
        row |= {"ours": cell.error.value, "low": cell.error.low, "high": cell.error.high}
        row |= {"capacity": cell.capacity or None}
        row |= {"sd": stdev(r.test_error for r in runs)} if len(runs) > 1 else {}
    return row


def shown(cell: Mapping, digits: int | None = None) -> str:
    """Mean, and ± its standard deviation where there are several seeds.

    Args:
        cell: with ``ours``, ``sd``, ``n`` and, of a table of the paper, ``diverged``.
        digits: decimals; by default three significant digits of the mean.
    """
    if pd.isna(cell["ours"]):
        return "diverged" if cell.get("diverged") else MISSING
    text = significant(cell["ours"]) if digits is None else f"{cell['ours']:.{digits}f}"
    if cell["n"] < 2:
        return text
    spread = significant(cell["sd"], 2) if digits is None else f"{cell['sd']:.{digits}f}"
    return f"{text} ± {spread}"


def interval(cell: Mapping, digits: int) -> str:
    """``[1.10, 1.36]``."""
    low, high = (minus(f"{cell[end]:.{digits}f}") for end in ("low", "high"))
    return MISSING if pd.isna(cell["low"]) else f"[{low}, {high}]"


def count(value: object) -> str:
    """A whole number, or a dash."""
    return MISSING if pd.isna(value) else f"{value:,}"  # type: ignore[call-overload]


def seeds(cells: Iterable[Mapping]) -> str:
    """How many runs some cells have: ``3``, or ``1–3``."""
    counts = sorted({cell["n"] for cell in cells})
    return "–".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))


def notes(records: Sequence[Record], counts: Iterable[int], intervals: bool = True) -> tuple[str, ...]:
    """What a reader of a table has to know of its runs.

    Args:
        records: all runs that the table was made of.
        counts: how many seeds its cells have.
        intervals: whether the table shows any.
    """
    seeds = [n for n in counts if n]
    parts = [_of_seeds(seeds), f"95 % intervals; {coverage(seeds)}." if seeds and intervals else ""]
    out = [" ".join(filter(None, (*parts, _presets(records))))]
    sizes = sorted({(r.metrics["test_items"], r.metrics["test_draws"]) for r in finished(records)})
    for items, draws in sizes:
        times = f"{draws} perturbation{'s' * (draws > 1)} each"
        out.append(f"Tested on {items:,} items, {times}, alike for all models.")
    out.append(augmented(records))
    if failed := [f"{r.spec.model} (seed {r.spec.seed})" for r in records if r.status != "finished"]:
        out.append(f"Diverged and left out of the means: {', '.join(failed)}.")
    if any(r.stand_in for r in records):
        out.append(
            "Some runs used rendered stand-in data; their numbers are not the data set's and fill no cell."
        )
    real = [r.provenance.get("data", {}) for r in records if not r.stand_in]
    return (*filter(None, out), *sorted({note for data in real for note in data.get("notes", ())}))


def augmented(records: Iterable[Record]) -> str:
    """Which runs saw other light in training than the data has, empty where none did."""
    specs = [r.spec for r in records if isinstance(r.spec, Spec)]
    varied = [s for s in specs if s.appearance]
    if not varied:
        return ""
    models = list(dict.fromkeys(s.model for s in varied))
    who = "Trained" if len(varied) == len(specs) else f"{', '.join(models)}: trained"
    strengths = " or ".join(f"{x:g}" for x in sorted({s.appearance for s in varied}))
    return (
        f"{who} under light, sharpness and noise that vary from sample to sample (augmentation of "
        f"appearance, strength {strengths}); the paper does not do so."
    )


def _of_seeds(counts: Sequence[int]) -> str:
    if not counts:
        return ""
    if max(counts) == 1:
        return "Ours: a single run in each cell, so that nothing is known of other seeds."
    if min(counts) == 1:
        return "Ours: mean, and where there are several seeds ± standard deviation over them."
    return "Ours: mean ± standard deviation over n seeds."


def _presets(records: Sequence[Record]) -> str:
    presets = sorted({r.spec.preset for r in records})
    return f"Preset: {', '.join(presets)}." if presets else ""
