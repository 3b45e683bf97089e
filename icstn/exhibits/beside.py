"""What stands beside the paper's tables: comparisons that it speaks of and does not make."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from icstn.evidence.estimates import percent
from icstn.exhibits.cells import count, interval, notes, seeds, shown, statistics
from icstn.exhibits.forms import Table
from icstn.experiments import paper
from icstn.experiments.records import Record

#: Rows of :func:`cascades`, and how many predictors each has and how they are learned or used.
CASCADES = {
    "SDM": "six, learned one by one",
    "c-STN-6": "six, learned together",
    "IC-STN-6": "one, used six times",
    "c-STN-4": "four, learned together",
    "IC-STN-4": "one, used four times",
    "RNN-4": "recurrent, four steps",
}

#: Rows of :func:`tolerance`, and what each meets misalignment with.
TOLERANCE = {
    "CNN(a)": "pooling and distorted training digits",
    "CNN-undistorted": "pooling alone",
    "CNN-unpooled": "distorted training digits alone",
    "CNN-4x": "both, and four times the size",
    "CNN-16x": "both, and sixteen times the size",
    "IC-STN-4(a)": "alignment",
}


def cascades(records: Iterable[Record]) -> Table:
    """Linear steps learned one by one, together, or once for all: test error of Table 1's trials in pixels.

    Args:
        records: of one preset of ``baselines``, ``cascades`` and ``table_1``; of other rows as well.
    """
    records = [r for r in records if r.spec.model in CASCADES]
    cells = {(m, s): _cell(records, m, s) for m in CASCADES for s in paper.SIGMAS}
    data = pd.DataFrame(cells.values())
    text = []
    for model, method in CASCADES.items():
        own = {s: cells[model, s] for s in paper.SIGMAS}
        errors = {f"σ = {s:g}": shown({**cell, "n": 1}) for s, cell in own.items()}
        size = next((c["capacity"] for c in own.values() if c["capacity"]), None)
        text.append(
            {"Model": model, "Method": method} | errors | {"n": seeds(own.values()), "Capacity": count(size)}
        )
    title = "Linear predictors on the trials of Table 1. Test error in pixels"
    first, *others = notes(records, data["n"], intervals=False)
    remarks = re.sub("^Ours: mean[^.]*", "Ours: mean over n seeds", first), *others, *_spread(data)
    return Table("cascades", title, data, pd.DataFrame(text), remarks)


def tolerance(records: Iterable[Record]) -> Table:
    """Plain networks that tolerate misalignment, beside one that removes it: test error in percent.

    Args:
        records: of one preset of ``tolerance`` and ``table_2``; of other rows as well.
    """
    records = [r for r in records if r.spec.model in TOLERANCE]
    cells = [_cell(records, model) for model in TOLERANCE]
    data = pd.DataFrame(cells)
    text = pd.DataFrame(
        {
            "Model": cell["model"],
            "Method": TOLERANCE[cell["model"]],
            "Error": shown(cell, 2),
            "95 % interval": interval(cell, 2),
            "n": str(cell["n"]),
            "Capacity": count(cell["capacity"]),
        }
        for cell in cells
    )
    title = "To tolerate misalignment, or to remove it. Test error on perturbed MNIST, in percent"
    return Table("tolerance", title, data, text, notes(records, data["n"]))


def _spread(data: pd.DataFrame) -> list[str]:
    """How far seeds lie apart, for which the table has no room."""
    share = (data["sd"] / data["ours"]).fillna(0.0)
    where = data.to_dict("records")[int(share.to_numpy().argmax())]
    at = f"{where['model']} at σ = {where['sigma']:g}"
    return (
        [f"Standard deviation over the seeds: {percent(share.max())} of the error at most ({at})."]
        if share.max()
        else []
    )


def _cell(records: Iterable[Record], model: str, sigma: float | None = None) -> dict[str, Any]:
    runs = [r for r in records if r.spec.model == model and sigma in (None, r.spec.sigma)]
    row: Mapping[str, Any] = {"model": model, "sigma": float("nan") if sigma is None else sigma}
    return {**row, **statistics(model, runs)}
