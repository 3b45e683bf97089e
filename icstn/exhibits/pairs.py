"""Two images in: tables of errors and of success, curves against σ, and what some trials look like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icstn.evidence.collection import finished
from icstn.evidence.estimates import Estimate, significant
from icstn.evidence.success import mean_errors, rates, rates_after, untouched
from icstn.exhibits.cells import MISSING, count, notes
from icstn.exhibits.forms import Table
from icstn.exhibits.theme import Theme, tag
from icstn.experiments.experiment import EXPERIMENTS
from icstn.experiments.records import Record
from icstn.experiments.two_images import ALIGNED, FOUND, SIGMAS, TEMPLATE

#: Experiments whose rows are shown, in order, and the row of the perturbations themselves.
SHOWN, UNTOUCHED = ("two_images_classical", "two_images"), "no alignment"


def by_model(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Finished runs of pairs by model, classical methods first."""
    found: dict[str, list[Record]] = {m: [] for name in SHOWN for m in EXPERIMENTS[name].rows}
    for r in finished(records):
        if r.spec.experiment in SHOWN:
            found[r.spec.model].append(r)
    return {model: sorted(runs, key=lambda r: r.spec.seed) for model, runs in found.items() if runs}


def panels(records: Iterable[Record], beyond: int = 12) -> dict[str, dict[str, list[Estimate]]]:
    """What :func:`success_curves` draws: the tied networks, and the last of them after more steps.

    Args:
        records: as of :func:`two_images`.
        beyond: how many steps that is.
    """
    models = {m: runs for m, runs in by_model(records).items() if not m.startswith("c-STN")}
    found: dict[str, dict[str, list[Estimate]]] = {}
    for threshold, measure in ((ALIGNED, "aligned"), (FOUND, "found")):
        curves = {m: rates(runs, threshold) for m, runs in models.items()}
        last, runs = list(models.items())[-1]
        if runs[0].spec.experiment == SHOWN[1]:
            curves[f"{last}, {beyond} steps"] = rates_after(runs, beyond, measure)
        found[f"within {threshold:g} px"] = curves
    return found


def finding(records: Iterable[Record], sigma: float = 3.0) -> str:
    """What the exhibit shows, in one sentence made from its numbers.

    Args:
        records: as of :func:`two_images`.
        sigma: one of those that were tested.
    """
    models, at = by_model(records), SIGMAS.index(sigma)
    wanted = ("one-shot", "IC-STN-4", "coarse-to-fine")
    if missing := [m for m in wanted if m not in models]:
        return f"Nothing can be said yet: there is no finished run of {', '.join(missing)}."
    one, four, classical = (f"{rates(models[m], FOUND)[at].value:.0f} %" for m in wanted)
    return (
        f"At σ = {sigma:g} px one look at two images brings {one} of the trials within {FOUND:g} pixels, the "
        f"same network applied four times {four}, and the classical aligner {classical}."
    )


def two_images(records: Iterable[Record]) -> Table:
    """Mean and median corner error in pixels at each σ.

    Args:
        records: of ``two_images`` and ``two_images_classical``.
    """
    records = list(records)
    models = by_model(records)
    start = untouched(next(iter(models.values()))[0])
    rows = _untouched(start) + [row for m, runs in models.items() for row in _errors(m, runs)]
    data = pd.DataFrame(rows)
    title = "Two images in. Corner error in template pixels, mean and median"
    remarks = (*_notes(records, models), f"An error counts up to {TEMPLATE} px, the template's side.")
    text = _text(data, lambda r: f"{significant(r['ours'])} / {significant(r['median'])}", models)
    return Table("two_images", title, data, text, remarks)


def two_images_success(records: Iterable[Record]) -> Table:
    """Share of the trials that end aligned, and found, at each σ.

    Args:
        records: as of :func:`two_images`.
    """
    records = list(records)
    models = by_model(records)
    data = pd.DataFrame([row for m, runs in models.items() for row in _success(m, runs)])
    title = f"Two images in. Trials that end within {ALIGNED:g} px, and within {FOUND:g} px, in percent"
    remarks = (
        *_notes(records, models),
        "Where all trials end alike, the bootstrap knows of no spread, and half the interval is 0.",
        f"Half the width of an interval: {data['half'].max():.1f} points at most; the .csv has them all.",
    )
    text = _text(data, lambda r: f"{r['ours']:.0f} / {r['found']:.0f}", models)
    return Table("two_images_success", title, data, text, remarks)


def _notes(records: Sequence[Record], models: Mapping[str, Sequence[Record]]) -> tuple[str, ...]:
    counts = [len(runs) for m, runs in models.items() if m in EXPERIMENTS[SHOWN[1]].rows]
    first, *others = notes(records, counts)
    return first.replace("mean ± standard deviation", "mean"), *others  # the intervals are in the .csv


def _untouched(start: Mapping[str, list[float]]) -> list[dict[str, Any]]:
    parts = zip(SIGMAS, start["mean_px"], start["median_px"], strict=True)
    return [{"model": UNTOUCHED, "sigma": s, "ours": mean, "median": med} for s, mean, med in parts]


def _errors(model: str, runs: Sequence[Record]) -> list[dict[str, Any]]:
    medians = np.mean([r.metrics["median_px"] for r in runs], 0)
    parts = zip(SIGMAS, mean_errors(runs), medians.tolist(), strict=True)
    return [_row(model, s, e, runs) | {"median": median} for s, e, median in parts]


def _success(model: str, runs: Sequence[Record]) -> list[dict[str, Any]]:
    parts = zip(SIGMAS, rates(runs, ALIGNED), rates(runs, FOUND), strict=True)
    return [
        _row(model, s, a, runs)
        | {"half": max(a.half, f.half), "found": f.value, "found_low": f.low, "found_high": f.high}
        for s, a, f in parts
    ]


def _row(model: str, sigma: float, e: Estimate, runs: Sequence[Record]) -> dict[str, Any]:
    return {"model": model, "sigma": sigma, "ours": e.value, "low": e.low, "high": e.high, "n": len(runs)}


def _text(data: pd.DataFrame, write: Any, models: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    rows = []
    for model, group in data.groupby("model", sort=False):
        cells = {f"σ = {r['sigma']:g}": write(r) for r in group.to_dict("records")}
        weights = models[str(model)][0].weights if model in models else {}
        learned = sum(w.numel() for w in weights.values()) or None
        rows.append({"Model": str(model), **cells, "Learned": count(learned) if learned else MISSING})
    return pd.DataFrame(rows)


def success_curves(theme: Theme, panels: Mapping[str, Mapping[str, Sequence[Estimate]]]) -> Figure:
    """Success against σ, with 95 % intervals; classical methods dashed.

    Args:
        theme: colors.
        panels: title → model → percent at each σ.
    """
    fig, axes = plt.subplots(1, len(panels), figsize=(8.4, 3.9), sharey=True, squeeze=False)
    for ax, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for color, (model, estimates) in zip(theme.cycle, curves.items(), strict=False):
            _curve(ax, color, f"{title} {model}", model, estimates)
        ax.set(title=title, xlabel="σ of the corners (pixels)", xticks=SIGMAS, ylim=(0, 100))
        ax.grid(axis="y")
    axes[0, 0].set_ylabel("trials (%)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return fig


def _curve(ax: Axes, color: str, gid: str, model: str, estimates: Sequence[Estimate]) -> None:
    classical = model in EXPERIMENTS[SHOWN[0]].rows
    style: dict[str, Any] = {
        "linestyle": "--" if classical else "-",
        "marker": "s" if classical else "o",
        "markersize": 4,
    }
    values = [e.value for e in estimates]
    tag(ax.plot(SIGMAS, values, color=color, label=model, **style)[0], gid)
    low, high = ([getattr(e, side) for e in estimates] for side in ("low", "high"))
    ax.fill_between(SIGMAS, np.clip(low, 0, 100), np.clip(high, 0, 100), color=color, alpha=0.16, linewidth=0)


class Shown(NamedTuple):
    """One trial as it is drawn.

    Attributes:
        template: ``(height, width)``.
        image: ``(H, W)``.
        truth: corners ``(4, 2)`` of the true box in pixels.
        boxes: name → corners of the box where a method starts or ends, in pixels.
        error: name → its corner error in pixels.
    """

    template: np.ndarray
    image: np.ndarray
    truth: np.ndarray
    boxes: Mapping[str, np.ndarray]
    error: Mapping[str, float]


def trial_pictures(theme: Theme, trials: Sequence[Shown]) -> Figure:
    """Templates above the images that they are looked for in, with boxes: the true one red.

    Args:
        theme: colors.
        trials: one for each column, with the same names of boxes.
    """
    size = (1.75 * len(trials), 3.3)
    ratios = {"height_ratios": (1, 2.2)}
    fig, axes = plt.subplots(2, len(trials), figsize=size, squeeze=False, gridspec_kw=ratios)
    colors = (theme.predictor, theme.crop, theme.appearance)
    for column, (above, below, trial) in enumerate(zip(axes[0], axes[1], trials, strict=True)):
        tag(above.imshow(trial.template, vmin=0, vmax=1), f"template {column}")
        tag(below.imshow(trial.image, vmin=0, vmax=1), f"image {column}")
        for name, color in zip(("truth", *trial.boxes), (theme.truth, *colors), strict=False):
            box = trial.truth if name == "truth" else trial.boxes[name]
            line = _closed(below, box, color)
            line.set_label({"truth": "true place"}.get(name, name))
            tag(line, f"{name} {column}")
        errors = [f"{trial.error[name]:.1f}" for name in trial.boxes]
        below.set_xlabel(" → ".join((errors[0], " / ".join(errors[1:]))) + " px", fontsize=8)
        for ax in (above, below):
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        height, width = trial.image.shape
        below.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    handles, labels = axes[1, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return fig


def _closed(ax: Axes, box: np.ndarray, color: str) -> Any:
    points = np.concatenate([box, box[:1]])
    return ax.plot(*points.T, color=color, linewidth=1.4)[0]
