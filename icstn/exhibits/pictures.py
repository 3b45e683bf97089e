"""Figures 2 and 6: a photograph, boxes on it and what is sampled from them."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib.patheffects as pe
import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from icstn.exhibits.theme import Theme, tag
from icstn.sampling import Frame, sample
from icstn.warps import Warp, affine, corners, family

#: Perturbed boxes, on any photograph.
YELLOW = "#ffd447"


def pixels(image: Float[Tensor, "channels H W"]) -> np.ndarray:
    """Image in [0, 1] → array for ``imshow``, ``(H, W)`` or ``(H, W, 3)``; values outside are clipped."""
    array = image.detach().cpu().clamp(0, 1).numpy()
    return array[0] if len(array) == 1 else np.moveaxis(array[:3], 0, -1)


def outline(p: Float[Tensor, " k"], frame: Frame, warp: Warp) -> np.ndarray:
    """Closed outline of the warped template in pixels of the image, ``(5, 2)``."""
    square = frame.to_pixels(warp.apply(p, corners(p.dtype, p.device)))
    return torch.cat((square, square[:1])).detach().cpu().numpy()


@dataclass(frozen=True)
class BoundaryEffect:
    """What Figure 2 shows, as arrays in [0, 1].

    Attributes:
        image: (a) the source image.
        crop: (b) the template-sized crop, a Spatial Transformer's input.
        zoom_in: (c) the crop resampled under the zoom-in warp.
        stn: (d) the crop resampled under the zoom-out warp.
        cstn: (e) the source image sampled under the composed zoom-out warp.
        crop_box, in_box, out_box: outlines in the image's pixels, ``(5, 2)``.
        lost: share of the samples of (d) that fall outside the crop.
        frame: where the crop lies.
    """

    image: np.ndarray
    crop: np.ndarray
    zoom_in: np.ndarray
    stn: np.ndarray
    cstn: np.ndarray
    crop_box: np.ndarray
    in_box: np.ndarray
    out_box: np.ndarray
    lost: float
    frame: Frame


def boundary_effect(
    image: Float[Tensor, "1 channels H W"],
    frame: Frame,
    zoom_in: Float[Tensor, "1 k"],
    zoom_out: Float[Tensor, "1 k"],
    warp: Warp | str = affine,
) -> BoundaryEffect:
    """Sample an image as an STN and as a c-STN does (Fig. 2).

    Args:
        image: photograph in [0, 1].
        frame: where the crop lies.
        zoom_in, zoom_out: warps predicted from the crop.
        warp: their family.
    """
    warp = family(warp)
    start, whole = torch.zeros_like(zoom_in), Frame.full(frame.height, frame.width)
    crop = sample(image, start, frame, warp)
    inside = sample(torch.ones_like(crop), zoom_out, whole, warp)
    return BoundaryEffect(
        image=pixels(image[0]),
        crop=pixels(crop[0]),
        zoom_in=pixels(sample(crop, zoom_in, whole, warp)[0]),
        stn=pixels(sample(crop, zoom_out, whole, warp)[0]),
        cstn=pixels(sample(image, zoom_out, frame, warp)[0]),
        crop_box=outline(start[0], frame, warp),
        in_box=outline(zoom_in[0], frame, warp),
        out_box=outline(zoom_out[0], frame, warp),
        lost=float((inside[:, 0] == 0).double().mean()),
        frame=frame,
    )


def figure_2(theme: Theme, effect: BoundaryEffect) -> Figure:
    """Figure 2, the boundary effect: (a) image, (b) crop, (c) zoom-in, (d) and (e) zoom-out."""
    fig, ax = plt.subplot_mosaic(
        "aabc;aade", figsize=(7.7, 3.9), width_ratios=(1.2, 1.2, 1, 1), gridspec_kw={"wspace": 0.05}
    )
    _show(ax["a"], effect.image, "image", "(a) original image")
    _box(ax["a"], effect.crop_box, theme.crop, "crop box", width=2.4)
    _box(ax["a"], effect.in_box, theme.outline, "zoom-in box", style=(0, (1.2, 1.4)))
    _box(ax["a"], effect.out_box, theme.outline, "zoom-out box", style=(0, (1.2, 1.4)))
    for name, label, box in (("c", "(c)", effect.in_box), ("d", "(d)", effect.out_box)):
        _note(ax["a"], box[0], f"{label}{'(e)' if name == 'd' else ''}", theme)
    _note(ax["a"], effect.crop_box[3], "(b)", theme, above=True)
    _show(ax["b"], effect.crop, "crop", "(b) crop, the input")
    _frame(ax["b"], theme.crop)
    _show(ax["c"], effect.zoom_in, "zoom-in", "(c) zoom-in")
    _show(ax["d"], effect.stn, "zoom-out STN", "(d) zoom-out, STN")
    _show(ax["e"], effect.cstn, "zoom-out c-STN", "(e) zoom-out, c-STN")
    for key in "cde":
        _frame(ax[key], theme.muted, style=(0, (1.2, 1.4)))
    return fig


@dataclass(frozen=True)
class PlanarPicture:
    """What Figure 6 shows.

    Attributes:
        image: photograph, as pixels in [0, 1].
        truth: outline of the ground-truth box, ``(5, 2)``.
        boxes: outlines of the perturbed boxes drawn on it, ``(n, 5, 2)``.
        samples: the perturbed images, ``(m, h, w[, 3])``.
        sigma: size of the perturbation in template pixels.
    """

    image: np.ndarray
    truth: np.ndarray
    boxes: np.ndarray
    samples: np.ndarray
    sigma: int | float


def planar(
    image: Float[Tensor, "1 channels H W"],
    frame: Frame,
    p: Float[Tensor, "batch k"],
    *,
    sigma: int | float,
    warp: Warp | str = affine,
    boxes: int = 6,
    photo: tuple[Tensor, Frame] | None = None,
) -> PlanarPicture:
    """Arrays of Figure 6.

    Args:
        image: photograph in [0, 1].
        frame: ground-truth box and size of the samples.
        p: perturbed warps (:func:`icstn.perturb.perturbations`); all are sampled.
        sigma: what p was drawn with, in template pixels.
        warp: family of p.
        boxes: how many of them to draw on the photograph.
        photo: the photograph and frame to draw, if finer ones than those that are sampled.
    """
    warp = family(warp)
    drawn, place = photo or (image, frame)
    return PlanarPicture(
        image=pixels(drawn[0]),
        truth=outline(torch.zeros_like(p[0]), place, warp),
        boxes=np.stack([outline(q, place, warp) for q in p[:boxes]]),
        samples=np.stack([pixels(crop) for crop in sample(image, p, frame, warp)]),
        sigma=sigma,
    )


def figure_6(theme: Theme, shown: PlanarPicture, *, columns: int = 6) -> Figure:
    """Figure 6: (a) photograph with the ground-truth box (red) and perturbed boxes (yellow), (b) samples.

    One perturbed box stands out, and so does, first of all, its sample.
    """
    fig = plt.figure(figsize=(7.7, 2.9))
    left, right = fig.subfigures(1, 2, width_ratios=(1.05, 1), squeeze=False)[0]
    ax = left.subplots()
    _show(ax, shown.image, "image", "(a) ground truth and perturbed boxes")
    for k, box in reversed(list(enumerate(shown.boxes))):
        _box(ax, box, YELLOW, f"box {k}", width=0.8 if k else 2.6, style="-" if k == 0 else (0, (4, 2)))
    _box(ax, shown.truth, "#ff3b3f", "ground truth", width=2.6)
    right.suptitle(rf"(b) perturbed samples, $\sigma$ = {shown.sigma:g} px", fontsize=10.5)
    tiles = right.subplots(-(-len(shown.samples) // columns), columns, squeeze=False)
    for k, tile in enumerate(tiles.ravel()):
        tile.set_axis_off()
        if k < len(shown.samples):
            _show(tile, shown.samples[k], f"sample {k}")
    tiles[0, 0].set_axis_on()
    _frame(tiles[0, 0], YELLOW)
    return fig


def _show(ax: Axes, array: np.ndarray, gid: str, title: str = "") -> None:
    tag(ax.imshow(array, vmin=0, vmax=1, interpolation="none"), gid)
    ax.set(xticks=[], yticks=[], xlim=(-0.5, array.shape[1] - 0.5), ylim=(array.shape[0] - 0.5, -0.5))
    ax.set_title(title, pad=4)
    ax.spines[:].set_visible(False)


def _box(
    ax: Axes, box: np.ndarray, color: str, gid: str, *, width: int | float = 1.8, style: str | tuple = "-"
) -> None:
    line = ax.plot(*box.T, color=color, linewidth=width, linestyle=style)[0]
    line.set_path_effects([pe.Stroke(linewidth=width + 1.6, foreground="#000000aa"), pe.Normal()])
    tag(line, gid)


def _frame(ax: Axes, color: str, style: str | tuple = "-") -> None:
    ax.spines[:].set(visible=True, color=color, linewidth=2, linestyle=style)


def _note(ax: Axes, at: np.ndarray, text: str, theme: Theme, *, above: bool = False) -> None:
    offset = (5, 5) if above else (4, -5)
    note = ax.annotate(text, (at[0], at[1]), xytext=offset, textcoords="offset points", fontsize=9)
    note.set(color=theme.outline, va="bottom" if above else "top")
    note.set_path_effects([pe.withStroke(linewidth=2.2, foreground="#000000")])
