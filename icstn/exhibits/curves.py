"""Figure 7: test error against the number of warp operations applied."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from icstn.evidence.curves import ErrorCurve
from icstn.exhibits.theme import Theme, tag


def figure_7(
    theme: Theme, panels: Mapping[str, Mapping[str, ErrorCurve]], *, ylabel: str = "test error (pixels)"
) -> Figure:
    """Figure 7: a panel for each size of the perturbation, a curve a model, its dot at the trained number.

    Each panel has a scale of its own. With several seeds a band shows their standard deviation.

    Args:
        theme: colors.
        panels: title of the panel → name of the model → its curve.
        ylabel: what the error is, with its unit.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    size = (7.6 if columns == 2 else 6.2, 3.0 * rows + 0.3 if columns == 2 else 3.9)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharex=True)
    for ax, (title, curves) in zip(axes.ravel(), panels.items(), strict=False):
        _panel(ax, theme, title, curves)
    for ax in axes.ravel()[len(panels) :]:
        ax.set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel("warp operations applied")
    for ax in axes[:, 0]:
        ax.set_ylabel(ylabel)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), frameon=False)
    return fig


def _panel(ax: Axes, theme: Theme, title: str, curves: Mapping[str, ErrorCurve]) -> None:
    for color, (name, curve) in zip(theme.cycle, curves.items(), strict=False):
        steps = np.arange(len(curve.error))
        tag(ax.plot(steps, curve.error, color=color, label=name)[0], f"{title} {name}")
        dot = ax.plot(curve.trained, curve.error[curve.trained], "o", color=color, markersize=7)[0]
        dot.set(markeredgecolor=theme.background, markeredgewidth=1.2, zorder=3)
        tag(dot, f"{title} {name} trained")
    ax.set_yscale("log")
    ax.set_title(title)
    ax.grid(axis="y")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _bands(ax, theme, curves)
    low, high = np.log10(ax.get_ylim())
    ax.yaxis.set_major_locator(LogLocator(subs=(1,) if high - low > 3 else (1, 3)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _bands(ax: Axes, theme: Theme, curves: Mapping[str, ErrorCurve]) -> None:
    """Standard deviations over seeds, cut off where the curves' own scale ends."""
    bottom, top = ax.get_ylim()
    for color, curve in zip(theme.cycle, curves.values(), strict=False):
        if curve.spread is not None:
            below, above = (curve.error + sign * curve.spread for sign in (-1, 1))
            steps = np.arange(len(curve.error))
            ax.fill_between(steps, np.maximum(below, bottom / 2), above, color=color, alpha=0.18, linewidth=0)
    ax.set_ylim(bottom, top)
