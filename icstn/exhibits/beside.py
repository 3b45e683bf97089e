"""What stands beside Tables 1 and 2, not in the paper: cascades, a recurrent network, plain networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from icstn.exhibits.cells import count, interval, notes, seeds, shown, statistics
from icstn.exhibits.forms import Table
from icstn.experiments.experiment import BASELINES, CASCADES, EXPERIMENTS
from icstn.experiments.records import Record

#: Rows of :func:`cascades`, and what each is.
ROWS = {
    "c-STN-1": "one linear predictor, learned by descent",
    "best linear step": BASELINES["best linear step"],
    "SDM": "six linear predictors, learned one after the other",
    **CASCADES,
    "IC-STN-4": "one linear predictor, used four times",
    "IC-STN-6": "one linear predictor, used six times",
}

#: Rows of :func:`tolerance`, and what each is.
PLAIN = {
    "CNN(a)": "the plain network of Table 2",
    "CNN-undistorted": "the same, trained on digits in their places",
    "CNN-unpooled": "of the same size, without pooling",
    "CNN-4x": "four times as large",
    "CNN-16x": "sixteen times as large",
    "IC-STN-4(a)": "aligns first",
}


def cascades(records: Iterable[Record]) -> Table:
    """Linear predictors on the trials of Table 1: reused, separate, learned greedily; a recurrent network.

    Args:
        records: of ``table_1``, ``baselines`` and ``cascades``.
    """
    about = EXPERIMENTS["cascades"]
    data = _data(records, ROWS, about.sigmas)
    text = []
    for model, rows in data.groupby("model", sort=False):
        cells = rows.to_dict("records")
        errors = {f"σ = {c['sigma']:g}": shown(c) for c in cells}
        text.append({"Model": model, **errors, "n": seeds(cells), "Learned": _learned(cells)})
    own = [r for r in records if r.spec.model in ROWS]
    words = "; ".join(f"{name}: {what}" for name, what in ROWS.items()) + "."
    title = "Beside Table 1. Linear predictors on its trials: test error in pixels"
    return Table("cascades", title, data, pd.DataFrame(text), (*notes(own, data["n"], False), words))


def tolerance(records: Iterable[Record]) -> Table:
    """Plain networks on the trials of Table 2, and one that aligns.

    Args:
        records: of ``table_2`` and ``tolerance``.
    """
    records = list(records)
    about = EXPERIMENTS["tolerance"]
    data = _data(records, PLAIN, about.sigmas)
    text = [
        {
            "Model": row["model"],
            "Error": shown(row, about.digits),
            "95 % interval": interval(row, about.digits),
            "n": str(row["n"]),
            "Capacity": count(row["capacity"]),
            "Method": PLAIN[row["model"]],
        }
        for row in data.astype({"capacity": "Int64"}).to_dict("records")
    ]
    own = [r for r in records if r.spec.model in PLAIN]
    title = "Beside Table 2. Tolerance by distortions, pooling and size: test error in percent"
    return Table("tolerance", title, data, pd.DataFrame(text), notes(own, data["n"]))


def _data(records: Iterable[Record], models: Iterable[str], sigmas: Sequence[float]) -> pd.DataFrame:
    """One row a model and σ; statistics over the seeds of the runs that finished on the real data."""
    records, rows = list(records), []
    for model in models:
        for sigma in sigmas:
            runs = [r for r in records if (r.spec.model, r.spec.sigma) == (model, sigma)]
            row: dict[str, Any] = {"model": model, "sigma": sigma}
            rows.append(row | statistics(model, runs))
    return pd.DataFrame(rows)


def _learned(cells: Sequence[Mapping]) -> str:
    """How many numbers a model has learned."""
    found = [c["capacity"] for c in cells if not pd.isna(c["capacity"])]
    return count(int(max(found)) if found else None)
