"""Learning curves of several presets, over iterations and over processor time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from icstn.evidence.estimates import significant
from icstn.evidence.learning import LearningCurve
from icstn.exhibits.theme import Theme, tag

#: How each preset's curves are drawn, the best known first.
STYLES: dict[str, Any] = {"full": "-", "paper": "--", "quick": ":", "smoke": "-."}

Curves = Mapping[str, Mapping[str, LearningCurve]]


def learning_figure(theme: Theme, curves: Curves) -> Figure:
    """Training error against iterations, and against processor minutes where those were counted.

    Args:
        theme: colors.
        curves: model → preset → curve; a color a model, a kind of line a preset.
    """
    every = [curve for presets in curves.values() for curve in presets.values()]
    axis_of = {"iterations": "iterations", "minutes": "processor time (minutes)"}
    if all(np.isnan(curve.minutes).any() for curve in every):
        del axis_of["minutes"]
    fig, grid = plt.subplots(1, len(axis_of), figsize=(8.4, 4.0), sharey=True, squeeze=False)
    for ax, (x, label) in zip(grid[0], axis_of.items(), strict=True):
        for color, (model, presets) in zip(theme.cycle, curves.items(), strict=False):
            for preset, curve in presets.items():
                _curve(ax, curve, x, color, f"{x} {model} {preset}", STYLES[preset])
        ax.set(xscale="log", yscale="log", xlabel=label)
        ax.grid(axis="y")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    grid[0, 0].set_ylabel("training error (%)")
    _legend(fig, theme, curves)
    return fig


def _curve(ax: Axes, curve: LearningCurve, x: str, color: str, gid: str, style: str) -> None:
    at = getattr(curve, x)
    if not np.isnan(at).any():
        tag(ax.plot(at, curve.error, color=color, linestyle=style)[0], gid)


def _legend(fig: Figure, theme: Theme, curves: Curves) -> None:
    colors = zip(theme.cycle, curves, strict=False)
    models = [Line2D((), (), color=c, label=m) for c, m in colors]
    used = [preset for preset in STYLES if any(preset in presets for presets in curves.values())]
    lines = [Line2D((), (), color=theme.ink, linestyle=STYLES[p], label=f"preset {p}") for p in used]
    fig.legend(handles=models + lines, loc="outside lower center", ncols=4, frameon=False)


def learning_finding(curves: Curves, model: str, base: str = "full") -> str:
    """Where one preset ends, and after how many iterations the others are as far."""
    presets = curves.get(model, {})
    if base not in presets:
        return f"Nothing can be said yet: there is no finished run of {model} at `{base}`."
    own = presets[base]
    last, steps = float(own.error[-1]), int(own.iterations[-1])
    text = f"`{base}` brings the training error of {model} to {significant(last)} % in {steps:,} iterations"
    others = [
        f"`{preset}` is not as far after {int(c.iterations[-1]):,}"
        if (reached := c.reaches(last)) is None
        else f"`{preset}` is as far after {reached:,}"
        for preset, c in presets.items()
        if preset != base
    ]
    return "; ".join([text, *others]) + "."
