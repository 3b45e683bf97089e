"""Figures 8 to 11: rows of aligned images, and the mean and variance of aligned appearance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from icstn.evidence.appearance import Appearance
from icstn.exhibits.theme import Theme, tag

#: What a figure of the stand-in says on its face.
STAND_IN = "rendered stand-in, not GTSRB"


def strip(images: Float[Tensor, "n channels h w"], background: str, gap: int = 2) -> np.ndarray:
    """Images side by side, ``gap`` pixels of background between them: ``(h, n·(w + gap) - gap, 3)``."""
    n, _, h, w = images.shape
    out = np.empty((h, n * (w + gap) - gap, 3))
    out[:] = to_rgb(background)
    for k, image in enumerate(images.detach().cpu().clamp(0, 1)):
        out[:, k * (w + gap) : k * (w + gap) + w] = np.moveaxis(image.expand(3, h, w).numpy(), 0, -1)
    return out


def alignment_rows(
    theme: Theme,
    rows: Mapping[str, Float[Tensor, "n channels h w"]],
    *,
    apart: Sequence[str] = (),
    titles: Sequence[str] = (),
    tile: int | float = 0.62,
    remark: str = "",
) -> Figure:
    """Figures 8 and 10: one column a sample, one row a step, images in [0, 1].

    Args:
        theme: colors.
        rows: label of each row → its images, the same samples in each.
        apart: labels of the rows that stand a little apart from the row above.
        titles: what stands above the columns.
        tile: side of an image in inches.
        remark: a warning to the reader that belongs on the figure itself.

    Raises:
        ValueError: the rows do not have the same shape.
    """
    shapes = {label: tuple(images.shape) for label, images in rows.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"every row shows the same samples, so all have one shape; got {shapes}")
    n, _, h, w = next(iter(shapes.values()))
    left = 0.2 + 0.078 * max(map(len, rows))  # inches, as the longest label wants
    width = left + tile * n + 0.08
    fig = plt.figure(
        figsize=(width, (tile + 0.03) * len(rows) * h / w + 0.18 * len(apart) + 0.25 + 0.2 * bool(remark))
    )
    fig.set_layout_engine("none")
    top = fig.get_figheight() - 0.22
    for label, images in rows.items():
        top -= 0.18 if label in apart else 0
        ax = _axes(fig, left, top - tile * h / w, tile * n, tile * h / w)
        top -= tile * h / w + 0.03
        tag(ax.imshow(strip(images, theme.gap), interpolation="none", aspect="auto"), label)
        ax.spines[:].set(visible=theme.dark, color=theme.gap, linewidth=1)
        ax.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9, labelpad=6)
    if remark:
        fig.text(0.5, 0.09 / fig.get_figheight(), remark, ha="center", va="center", color=theme.truth)
    for k, title in enumerate(titles):
        x = (left + tile * (k + 0.5)) / width
        fig.text(x, 1 - 0.11 / fig.get_figheight(), title, ha="center", va="center", fontsize=8)
    return fig


@dataclass(frozen=True)
class Averages:
    """Average images of the classes that are drawn, and numbers over all classes.

    Attributes:
        mean, variance: ``(classes, channels, h, w)``.
        within, unexplained, sharpness: see :class:`icstn.evidence.appearance.Appearance`.
    """

    mean: Tensor
    variance: Tensor
    within: float
    unexplained: float
    sharpness: float

    @classmethod
    def of(cls, found: Appearance, classes: Sequence[int] | None = None) -> Averages:
        """Those of an appearance, of which only some classes (by their place) are drawn."""
        drawn = slice(None) if classes is None else torch.tensor(list(classes))
        numbers = (found.within, found.unexplained, found.sharpness)
        return cls(found.mean[drawn], found.variance[drawn], *numbers)


def figure_9(theme: Theme, rows: Mapping[str, Averages], *, tile: int | float = 0.58) -> Figure:
    """Figure 9: mean (above) and variance (below) of each class, one row a model; gray images in [0, 1].

    All means share one scale, and so do all variances; the numbers beside a row of variances are the
    variance within the classes, and its share of the total variance.
    """
    span, block = tile * len(next(iter(rows.values())).mean), tile * len(rows)
    fig = plt.figure(figsize=(span + 2.3, 2 * block + 0.75))
    fig.set_layout_engine("none")
    for name, images, bottom in (("mean", _means(rows), block + 0.4), ("variance", _variances(rows), 0.05)):
        for k, (label, shown) in enumerate(images.items()):
            ax = _axes(fig, 1.15, bottom + block - tile * (k + 1), span, tile - 0.03)
            tag(ax.imshow(strip(shown, theme.gap, 1), aspect="auto"), f"{name} {label}")
            ax.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9, labelpad=6)
            if name == "variance":
                note = f"{rows[label].within:.4f}   {rows[label].unexplained:.0%}"
                tag(_text(fig, ax, 1.015, 0.5, note, theme.ink, ha="left"), f"number {label}")
        head = _axes(fig, 1.15, bottom + block, span, 0.3)
        _text(fig, head, 0.5, 0.4, name, theme.ink)
    _text(fig, head, 1.012, 0.5, "within class,\nshare of total", theme.muted, ha="left", size=8)
    return fig


def _means(rows: Mapping[str, Averages]) -> dict[str, Tensor]:
    brightest = max(float(stats.mean.max()) for stats in rows.values())
    return {label: (stats.mean / brightest).float() for label, stats in rows.items()}


def _variances(rows: Mapping[str, Averages]) -> dict[str, Tensor]:
    """Of gray images, in the colors of their common scale, ``(classes, 3, h, w)``."""
    ceiling, colors = max(float(stats.variance.max()) for stats in rows.values()), plt.get_cmap("magma")
    shown = {label: (stats.variance.mean(1) / ceiling).clamp(0, 1) for label, stats in rows.items()}
    return {
        label: torch.from_numpy(colors(x.numpy())[..., :3]).movedim(-1, 1).float()
        for label, x in shown.items()
    }


def figure_11(
    theme: Theme,
    rows: Mapping[str, Averages],
    *,
    titles: Sequence[str] = (),
    tile: int | float = 0.88,
    remark: str = "",
) -> Figure:
    """Figure 11: mean aligned appearance, one column a class, one row a model.

    The number below a row's name is the sharpness of the means of *all* classes, drawn or not
    (:attr:`icstn.evidence.appearance.Appearance.sharpness`).
    """
    means = {label: stats.mean.float() for label, stats in rows.items()}
    fig = alignment_rows(theme, means, titles=titles, tile=tile, remark=remark)
    for ax, (label, stats) in zip(fig.axes, rows.items(), strict=True):
        ax.yaxis.label.set_y(0.6)
        number = _text(fig, ax, -0.012, 0.38, f"{stats.sharpness:.4f}", theme.muted, ha="right", size=8)
        tag(number, f"number {label}")
    return fig


def _axes(fig: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Empty axes, measured in inches."""
    w, h = fig.get_size_inches()
    ax = fig.add_axes((left / w, bottom / h, width / w, height / h))
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def _text(
    fig: Figure, ax: Axes, x: float, y: float, text: str, color: str, ha: str = "center", size: int = 9
) -> plt.Text:
    return ax.text(x, y, text, transform=ax.transAxes, ha=ha, va="center", fontsize=size, color=color)
