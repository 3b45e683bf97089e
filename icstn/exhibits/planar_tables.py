"""What stands beside Table 1: its errors in warp parameters, and classical methods on the same trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from icstn.evidence.collection import finished
from icstn.evidence.estimates import significant
from icstn.exhibits.cells import MISSING, count, notes, seeds, shown
from icstn.exhibits.forms import Table
from icstn.experiments.experiment import BASELINES, EXPERIMENTS
from icstn.experiments.records import Record

#: Rows of Table 1 that :func:`table_1_classical` repeats.
REPEATED = ("c-STN-1", "IC-STN-6")

#: The row of the perturbations themselves.
UNTOUCHED = "no alignment"

_OF_CLASSICAL = (
    "Failed: items in percent, for each σ in turn, that the method itself does not call converged: it left "
    "the image, its equations were singular, it still moved at the last iteration, or it stopped at what "
    "does not look like the template. They count in mean and median, with their last warp.",
    "Learned: numbers that were learned from perturbed samples. Methods that learn nothing draw nothing, and "
    "run once.",
    "; ".join(f"{name}: {what}" for name, what in BASELINES.items()) + ".",
)


def table_1_parameters(records: Iterable[Record]) -> Table:
    """Table 1 once more in the space of warp parameters: the mean L2 norm of what is left of p. Only ours."""
    about = EXPERIMENTS["table_1"]
    records = [r for r in records if r.spec.experiment == about.name]
    data = _data(records, list(about.rows), "parameter_error")
    text = pd.DataFrame([_row(rows, {"": shown}) for _, rows in data.groupby("model", sort=False)])
    title = "Table 1, in warp parameters. Test error of planar alignment, as the L2 norm of p"
    note = "A warp parameter has no unit: 1 is half the width of the template."
    return Table("table_1_parameters", title, data, text, (*notes(records, data["n"], False), note))


def table_1_classical(records: Iterable[Record]) -> Table:
    """Classical methods on the trials of Table 1: mean and median error in pixels, and failures.

    Args:
        records: of ``baselines`` and of ``table_1``, from which the initial error and :data:`REPEATED` come.
    """
    records = [r for r in records if r.spec.about.classical or r.spec.model in REPEATED]
    data = _data(records, [UNTOUCHED, *BASELINES, *REPEATED], "test_error")
    words: dict[str, Callable[[Mapping], str]] = {"mean": shown, "median": _median}
    groups = data.groupby("model", sort=False)
    text = pd.DataFrame([_row(rows, words) | _remarks(rows) for _, rows in groups])
    title = "Classical methods on the trials of Table 1, a comparison that the paper does not make"
    counts = data[data["model"] != UNTOUCHED]["n"]
    remarks = (*notes(records, counts, False), *_OF_CLASSICAL)
    return Table("table_1_classical", f"{title}: test error in pixels", data, text, remarks)


def _data(records: Sequence[Record], models: Sequence[str], metric: str) -> pd.DataFrame:
    """One row a model and σ of Table 1's trials; statistics over the runs that finished."""
    sigmas, tested = EXPERIMENTS["table_1"].sigmas, finished(records)
    at = {sigma: [r for r in tested if r.spec.sigma == sigma] for sigma in sigmas}
    return pd.DataFrame([_cell(model, sigma, at[sigma], metric) for model in models for sigma in sigmas])


def _cell(model: str, sigma: float, at: Sequence[Record], metric: str) -> dict[str, Any]:
    runs = [r for r in at if r.spec.model == model]
    found = [r.metrics for r in runs] if model != UNTOUCHED else _untouched(at)
    values = [float(m[metric]) for m in found if metric in m]
    failed = [m["failed"] / m["test_items"] * 100 for m in found if "failed" in m]
    return {
        "model": model,
        "sigma": sigma,
        "ours": _mean(values),
        "sd": stdev(values) if len(values) > 1 else math.nan,
        "n": len(values),
        "median": _mean([m["median_px"] for m in found if "median_px" in m]),
        "failed": _mean(failed),
        "learned": sum(w.numel() for w in runs[0].weights.values()) if runs else 0,
        "draws": max((r.provenance.get("draws", 0) for r in runs), default=0),
    }


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan


def _untouched(records: Sequence[Record]) -> list[dict[str, float]]:
    """Error of the perturbations themselves, which are the same for all."""
    curves = [r.metrics["by_operations"] for r in records if r.metrics.get("by_operations")]
    return [{"test_error": c[0]["corner_px"], "median_px": c[0]["median_px"]} for c in curves[:1]]


def _row(rows: pd.DataFrame, parts: Mapping[str, Callable[[Mapping], str]]) -> dict[str, str]:
    """Texts of one model: a few columns for each σ."""
    cells = rows.to_dict("records")
    text = {"Model": cells[0]["model"]}
    for cell in cells:
        for name, write in parts.items():
            text[f"σ = {cell['sigma']:g}" + (f", {name}" if name else "")] = write(cell)
    return text | {"n": seeds(cells)}


def _median(cell: Mapping) -> str:
    return MISSING if pd.isna(cell["median"]) else significant(cell["median"])


def _remarks(rows: pd.DataFrame) -> dict[str, str]:
    failed = " / ".join(MISSING if pd.isna(share) else f"{share:.1f}" for share in rows["failed"])
    learned = int(rows["learned"].max())
    return {
        "Failed": MISSING if rows["failed"].isna().all() else failed,
        "Learned": count(learned or None),
    }
