"""Tables 1 to 3: the paper's test errors and ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from icstn.evidence.estimates import percent
from icstn.exhibits.cells import MISSING, count, interval, notes, seeds, shown, statistics
from icstn.exhibits.forms import Table
from icstn.experiments import paper
from icstn.experiments.experiment import EXPERIMENTS, Experiment
from icstn.experiments.records import Record

#: Columns of :attr:`Table.data`.
COLUMNS = (
    "model",
    "sigma",
    "paper",
    "ours",
    "low",
    "high",
    "sd",
    "n",
    "diverged",
    "capacity",
    "architecture",
)

#: The paper's count of learnable parameters where no run has been counted.
CAPACITY = {model: row.capacity for table in (paper.TABLE_2, paper.TABLE_3) for model, row in table.items()}

_UNIT_OF_TABLE_1 = (
    "The paper does not name the unit of this table; pixels (RMS distance of the corners) is our reading."
)


def table_1(records: Iterable[Record]) -> Table:
    """Table 1, planar alignment: test error in pixels (RMS corner distance) by model and σ."""
    records = list(records)
    data = _data(EXPERIMENTS["table_1"], records)
    text = pd.DataFrame([_wide(rows.to_dict("records")) for _, rows in data.groupby("model", sort=False)])
    remarks = (*notes(records, data["n"]), *_one_layer(data), *_narrow(data), _UNIT_OF_TABLE_1)
    return Table("table_1", "Table 1. Test error of planar alignment, in pixels", data, text, remarks)


def table_2(records: Iterable[Record]) -> Table:
    """Table 2, perturbed MNIST: test error in percent."""
    return _classification("table_2", "Table 2. Test error on perturbed MNIST, in percent", records)


def table_3(records: Iterable[Record]) -> Table:
    """Table 3, perturbed GTSRB: test error in percent.

    Records of the rendered stand-in fill no cell; a note says that there are some.
    """
    return _classification("table_3", "Table 3. Test error on perturbed GTSRB, in percent", records)


def _classification(name: str, title: str, records: Iterable[Record]) -> Table:
    about, records = EXPERIMENTS[name], list(records)
    data = _data(about, records)
    text = pd.DataFrame([_long(row, about.digits) for row in data.to_dict("records")])
    return Table(
        name, title, data.assign(sigma=float("nan")), text, (*notes(records, data["n"]), *_cut_off(data))
    )


def _data(about: Experiment, records: Sequence[Record]) -> pd.DataFrame:
    """One row a cell; statistics are over the seeds of the runs that finished on the real data."""
    rows = []
    for (model, sigma), printed in about.printed.items():
        runs = [r for r in records if (r.spec.model, r.spec.sigma) == (model, sigma)]
        row = {"model": model, "sigma": sigma, "paper": printed, "architecture": about.rows[model]}
        row |= statistics(model, runs)
        rows.append(row | {"capacity": row["capacity"] or CAPACITY.get(model)})
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({"sigma": float, "capacity": "Int64"})


def _long(row: Mapping, digits: int) -> dict[str, str]:
    return {
        "Model": row["model"],
        "Paper": f"{row['paper']:.3f}",
        "Ours": shown(row, digits),
        "95 % interval": interval(row, digits),
        "n": str(row["n"]),
        "Capacity": count(row["capacity"]),
        "Architecture": row["architecture"],
    }


def _wide(cells: Sequence[Mapping]) -> dict[str, str]:
    text = {"Model": cells[0]["model"]}
    for cell in cells:
        text[f"σ = {cell['sigma']:g}, paper"] = f"{cell['paper']:.3f}"
        text[f"σ = {cell['sigma']:g}, ours"] = shown(cell)
    return text | {"n": seeds(cells)}


def _one_layer(data: pd.DataFrame) -> list[str]:
    """The capacity, which all models of Table 1 share."""
    found = sorted(data["capacity"].dropna().unique())
    if not found:
        return []
    counts = " or ".join(count(int(n)) for n in found)
    return [f"Every model is one linear layer of {counts} parameters, applied as often as its name says."]


def _cut_off(data: pd.DataFrame) -> list[str]:
    """Whose intervals would go on below 0, which no error does."""
    models = data.loc[data["low"] == 0, "model"]
    return (
        [f"No error is negative: cut off at 0 is the interval of {', '.join(models)}."] if len(models) else []
    )


def _narrow(data: pd.DataFrame) -> list[str]:
    """How wide the intervals are, for which the table has no room."""
    half = ((data["high"] - data["ours"]) / data["ours"]).fillna(-1.0)  # the lower may be cut off at 0
    if half.max() < 0:
        return []
    middle, most = half[half >= 0].median(), half.max()
    where = data.to_dict("records")[int(half.to_numpy().argmax())]
    return [
        f"Half the width of an interval is {percent(middle)} of the error in the median cell, "
        f"{percent(most)} at most ({where['model']} at σ = {where['sigma']:g}); table_1.csv has them all."
    ]


__all__ = ["COLUMNS", "MISSING", "table_1", "table_2", "table_3"]
