"""Figures 1, 3, 4 and 5: the four architectures, drawn from one set of parts.

Coordinates are inches of the figure. Every arrow carries a ``gid`` "appearance: a → b" or
"geometry: a → b", so that the wiring of a diagram can be read back (:func:`wiring`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import matplotlib.colors as mcolors
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

from icstn.exhibits.theme import Theme

Flow = Literal["appearance", "geometry"]
Number = int | float
Point = tuple[Number, Number]

IMAGE, IMAGE_IN, IMAGE_OUT = r"$\mathcal{I}$", r"$\mathcal{I}_{\mathrm{in}}$", r"$\mathcal{I}_{\mathrm{out}}$"
P, DP, P_IN, P_OUT = (
    r"$\mathbf{p}$",
    r"$\Delta\mathbf{p}$",
    r"$\mathbf{p}_{\mathrm{in}}$",
    r"$\mathbf{p}_{\mathrm{out}}$",
)


class Canvas:
    """A figure measured in inches, with the parts that the diagrams share.

    Args:
        theme: colors.
        width, height: inches.
    """

    def __init__(self, theme: Theme, width: Number, height: Number) -> None:
        self.theme = theme
        self.figure = plt.figure(figsize=(width, height), layout="constrained")
        self.figure.set_layout_engine("none")
        self.ax = self.figure.add_axes((0, 0, 1, 1))
        self.ax.set(xlim=(0, width), ylim=(0, height))
        self.ax.set_axis_off()

    def text(self, x: Number, y: Number, text: str, *, size: Number = 12, color: str | None = None) -> None:
        """Centred text."""
        self.ax.text(x, y, text, ha="center", va="center", fontsize=size, color=color or self.theme.ink)

    def module(self, left: Number, bottom: Number, right: Number, top: Number, title: str = "") -> None:
        """The area of one module, behind its parts, its title above it."""
        self._box(left, bottom, right - left, top - bottom, self.theme.surface, self.theme.grid, 0)
        if title:
            self.text((left + right) / 2, top + 0.15, title, size=10, color=self.theme.muted)

    def warp(self, x: Number, y: Number, width: Number = 0.8, height: Number = 0.5) -> None:
        """The operation that samples an image under a warp."""
        self._box(x - width / 2, y - height / 2, width, height, self.theme.background, self.theme.ink, 2)
        self.text(x, y, "warp", size=11)

    def picture(self, x: Number, y: Number, label: str, *, tilt: Number = 0, size: Number = 0.72) -> None:
        """An image: a letter that is more or less misaligned, its symbol below."""
        half, blue = size / 2, self.theme.appearance
        frame = Polygon(
            [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)],
            facecolor=self.theme.background,
            edgecolor=blue,
            linewidth=1.6,
            zorder=2,
        )
        self.ax.add_patch(frame)
        letter = self._letter(x, y, size, tilt)
        letter.set_clip_path(frame)
        self.text(x, y - half - 0.17, label)

    def predictor(self, x: Number, y: Number, label: str = "", *, width: Number = 0.78) -> None:
        """The geometric predictor, a solid trapezoid that narrows from appearance to few parameters."""
        left, right, tall, short, depth = x - width / 2, x + width / 2, 0.46, 0.24, 0.13
        front = [(left, y - tall), (right, y - short), (right, y + short), (left, y + tall)]
        top = [(left, y + tall), (right, y + short), (right + depth, y + short + depth)]
        top.append((left + depth, y + tall + depth))
        side = [(right, y - short), (right + depth, y - short + depth), (right + depth, y + short + depth)]
        side.append((right, y + short))
        for points, shade in ((front, 1.0), (top, 1.18), (side, 0.8)):
            face = _shade(self.theme.predictor, shade)
            self.ax.add_patch(Polygon(points, facecolor=face, edgecolor="#1b1f24", linewidth=1.1, zorder=2))
        if label:
            self.ax.text(x, y, label, ha="center", va="center", fontsize=11, color="#1b1f24", zorder=3)

    def compose(self, x: Number, y: Number) -> None:
        """The composition of two warps."""
        circle = Circle((x, y), 0.19, facecolor=self.theme.background, edgecolor=self.theme.geometry)
        circle.set(linewidth=1.8, zorder=2)
        self.ax.add_patch(circle)
        self.text(x, y, r"$\circ$", size=15, color=self.theme.geometry)

    def flow(self, kind: Flow, name: str, points: Sequence[Point], *, head: bool = True) -> None:
        """An arrow along the points, with round corners; ``name`` reads "a → b"."""
        style = "-|>,head_length=6,head_width=3.2" if head else "-"
        color = getattr(self.theme, kind)
        arrow = FancyArrowPatch(path=_rounded(points), arrowstyle=style, mutation_scale=1, color=color)
        arrow.set(linewidth=2.0, zorder=1.5, capstyle="round", joinstyle="miter")
        arrow.set_gid(f"{kind}: {name}")
        self.ax.add_patch(arrow)

    def dot(self, kind: Flow, x: Number, y: Number) -> None:
        """Where a flow branches."""
        self.ax.add_patch(Circle((x, y), 0.055, color=getattr(self.theme, kind), zorder=2))

    def legend(self, x: Number, y: Number) -> None:
        """What the colors mean, in one line."""
        for offset, color, word in (
            (0, self.theme.appearance, "appearance"),
            (1.35, self.theme.geometry, "geometry"),
        ):
            self.ax.plot([x + offset, x + offset + 0.28], [y, y], color=color, linewidth=2.4)
            self.ax.text(x + offset + 0.36, y, word, va="center", fontsize=9, color=self.theme.muted)
        patch = Polygon(
            [(x + 2.5, y - 0.09), (x + 2.5, y + 0.09), (x + 2.72, y + 0.05), (x + 2.72, y - 0.05)]
        )
        patch.set(facecolor=self.theme.predictor, edgecolor="#1b1f24", linewidth=0.8)
        self.ax.add_patch(patch)
        self.ax.text(x + 2.8, y, "geometric predictor", va="center", fontsize=9, color=self.theme.muted)

    def _box(self, x: Number, y: Number, w: Number, h: Number, face: str, edge: str, z: Number) -> None:
        style = "round,pad=0,rounding_size=0.09"
        box = FancyBboxPatch((x, y), w, h, boxstyle=style, facecolor=face, edgecolor=edge)
        box.set(linewidth=1.2, zorder=z)
        self.ax.add_patch(box)

    def _letter(self, x: Number, y: Number, size: Number, tilt: Number) -> PathPatch:
        path = TextPath((0, 0), "A", size=size * 0.78)
        box = path.get_extents()
        place = Affine2D().translate(-(box.x0 + box.x1) / 2, -(box.y0 + box.y1) / 2).rotate_deg(tilt)
        place = place.translate(x + 0.006 * tilt * size, y - 0.004 * tilt * size)
        patch = PathPatch(
            place.transform_path(path), facecolor=self.theme.appearance, linewidth=0, zorder=2.2
        )
        self.ax.add_patch(patch)
        return patch


def figure_1(theme: Theme) -> Figure:
    """Spatial Transformer: one warp, predicted from the image that it resamples (eq. 8)."""
    c = Canvas(theme, 7.4, 3.0)
    c.module(1.62, 0.5, 5.42, 2.72, "Spatial Transformer")
    c.picture(0.75, 1.05, IMAGE_IN + r"$(\mathbf{0})$", tilt=24)
    c.flow("appearance", "input → warp", [(1.13, 1.05), (4.18, 1.05)])
    c.dot("appearance", 1.95, 1.05)
    c.flow("appearance", "input → predictor", [(1.95, 1.05), (1.95, 2.1), (2.68, 2.1)])
    c.predictor(3.09, 2.1, r"$f$")
    c.flow("geometry", "predictor → warp", [(3.62, 2.1), (4.6, 2.1), (4.6, 1.32)])
    c.text(4.82, 1.75, P, color=theme.geometry)
    c.warp(4.6, 1.05)
    c.flow("appearance", "warp → output", [(5.01, 1.05), (6.23, 1.05)])
    c.picture(6.6, 1.05, IMAGE_OUT + r"$(\mathbf{0})$")
    c.legend(1.45, 0.2)
    return c.figure


def figure_3(theme: Theme) -> Figure:
    """c-STN: the warp parameters, not the warped image, go on to what follows (eq. 10)."""
    c = Canvas(theme, 8.0, 3.75)
    c.module(1.3, 0.5, 6.95, 3.38, "c-STN module")
    c.picture(0.62, 0.95, IMAGE, tilt=24)
    c.text(0.62, 3.0, P_IN, color=theme.geometry, size=13)
    _module(c, 1.95, "in", labels=(IMAGE + r"$(\mathbf{p}_{\mathrm{in}})$", 14))
    c.flow("appearance", "image → next", [(1.95, 0.95), (7.3, 0.95)])
    c.text(7.6, 0.95, IMAGE)
    c.flow("geometry", "compose → next", [(6.3, 3.0), (7.3, 3.0)])
    c.text(7.63, 3.0, P_OUT, color=theme.geometry, size=13)
    c.legend(1.7, 0.2)
    return c.figure


def _module(c: Canvas, x: Number, source: str, *, labels: tuple[str, Number]) -> None:
    """The parts of one c-STN module; p arrives on the upper lane, the image on the lower one."""
    c.flow("appearance", "image → warp", [(1.0, 0.95), (x, 0.95), (x, 1.7)])
    c.dot("appearance", x, 0.95)
    c.flow("geometry", f"p_{source} → warp", [(0.95, 3.0), (x, 3.0), (x, 2.27)])
    c.dot("geometry", x, 3.0)
    c.flow("geometry", f"p_{source} → compose", [(x, 3.0), (x + 3.94, 3.0)])
    c.warp(x, 1.98)
    c.flow("appearance", "warp → warped image", [(x + 0.41, 1.98), (x + 0.84, 1.98)])
    c.picture(x + 1.22, 1.98, labels[0], tilt=labels[1])
    c.flow("appearance", "warped image → predictor", [(x + 1.59, 1.98), (x + 2.2, 1.98)])
    c.predictor(x + 2.62, 1.98, r"$f$")
    c.flow("geometry", "predictor → compose", [(x + 3.15, 1.98), (x + 4.15, 1.98), (x + 4.15, 2.79)])
    c.text(x + 3.62, 2.15, DP, color=c.theme.geometry)
    c.compose(x + 4.15, 3.0)


def figure_4(theme: Theme) -> Figure:
    """Concatenated c-STNs: each module resamples the source image, each with a predictor of its own."""
    c = Canvas(theme, 9.6, 3.5)
    c.picture(0.6, 0.8, IMAGE, tilt=26)
    c.text(0.6, 2.75, r"$\mathbf{p}_0$", color=theme.geometry, size=13)
    for k, x in enumerate((1.2, 4.05), start=1):
        _small_module(c, x, k)
    c.flow("geometry", "p_2 → last warp", [(6.69, 2.75), (7.95, 2.75), (7.95, 2.08)])
    c.flow("appearance", "image → last warp", [(4.5, 0.8), (7.95, 0.8), (7.95, 1.52)])
    _gap(c, 7.15, 2.75, "geometry")
    _gap(c, 7.15, 0.8, "appearance")
    c.text(8.2, 2.45, r"$\mathbf{p}_N$", color=theme.geometry)
    c.warp(7.95, 1.8)
    c.flow("appearance", "last warp → output", [(8.36, 1.8), (8.73, 1.8)])
    c.picture(9.1, 1.8, IMAGE + r"$(\mathbf{p}_N)$")
    c.legend(2.6, 0.16)
    return c.figure


def _small_module(c: Canvas, left: Number, k: int) -> None:
    """Module k of Figure 4, 2.7 inches wide."""
    x, before = left + 0.45, f"p_{k - 1}"
    c.module(left, 0.45, left + 2.68, 3.1, f"c-STN {k}")
    c.flow("appearance", f"image → warp {k}", [(x - 2.85 if k > 1 else 0.97, 0.8), (x, 0.8), (x, 1.52)])
    c.dot("appearance", x, 0.8)
    c.flow("geometry", f"{before} → warp {k}", [(x - 0.67, 2.75), (x, 2.75), (x, 2.08)])
    c.dot("geometry", x, 2.75)
    c.flow("geometry", f"{before} → compose {k}", [(x, 2.75), (x + 1.79, 2.75)])
    c.warp(x, 1.8, 0.66)
    c.flow("appearance", f"warp {k} → predictor {k}", [(x + 0.34, 1.8), (x + 0.76, 1.8)])
    c.predictor(x + 1.14, 1.8, rf"$f_{k}$", width=0.7)
    c.flow("geometry", f"predictor {k} → compose {k}", [(x + 1.63, 1.8), (x + 1.98, 1.8), (x + 1.98, 2.55)])
    c.text(x + 1.66, 2.4, rf"$\Delta\mathbf{{p}}_{k}$", color=c.theme.geometry, size=11)
    c.compose(x + 1.98, 2.75)


def _gap(c: Canvas, x: Number, y: Number, kind: Flow) -> None:
    """Three dots on a line: modules left out."""
    c.ax.plot([x - 0.2, x + 0.2], [y, y], color=c.theme.background, linewidth=5, zorder=2)
    for dx in (-0.12, 0, 0.12):
        c.ax.add_patch(Circle((x + dx, y), 0.03, color=getattr(c.theme, kind), zorder=3))


def figure_5(theme: Theme) -> Figure:
    """IC-STN: one predictor, applied again and again to the warped source image."""
    c = Canvas(theme, 8.2, 4.1)
    c.module(1.5, 0.98, 6.78, 3.76, r"repeated $N$ times with the same predictor")
    c.picture(0.65, 1.75, IMAGE_IN, tilt=24)
    c.flow("appearance", "input → warp", [(1.02, 1.75), (1.93, 1.75)])
    c.warp(2.35, 1.75)
    c.flow("appearance", "warp → warped image", [(2.76, 1.75), (3.21, 1.75)])
    c.picture(3.6, 1.75, "", tilt=12)
    c.text(4.24, 1.2, IMAGE_IN + r"$(\mathbf{p})$")
    c.flow("appearance", "warped image → predictor", [(3.97, 1.75), (4.6, 1.75)])
    c.predictor(5.0, 1.75, r"$f$")
    c.flow("geometry", "predictor → compose", [(5.53, 1.75), (6.2, 1.75), (6.2, 2.64)])
    c.text(5.9, 1.95, DP, color=theme.geometry)
    c.compose(6.2, 2.85)
    c.flow("geometry", "compose → warp", [(6.0, 2.85), (2.35, 2.85), (2.35, 2.02)])
    c.text(4.6, 3.02, P, color=theme.geometry)
    c.dot("geometry", 3.2, 2.85)
    c.flow("geometry", "p → compose", [(3.2, 2.85), (3.2, 3.44), (6.2, 3.44), (6.2, 3.06)])
    c.text(0.65, 2.85, r"$\mathbf{p}_{\mathrm{init}}$", color=theme.geometry, size=13)
    c.flow("geometry", "initial p → warp", [(0.98, 2.85), (2.35, 2.85), (2.35, 2.02)])
    c.flow("appearance", "warped image → output", [(3.6, 1.38), (3.6, 0.68), (7.13, 0.68)])
    c.picture(7.52, 0.68, IMAGE_OUT)
    c.legend(1.6, 0.2)
    return c.figure


def wiring(figure: Figure) -> dict[str, set[str]]:
    """The arrows of a diagram: ``{"appearance": {"input → warp", …}, "geometry": {…}}``."""
    found: dict[str, set[str]] = {"appearance": set(), "geometry": set()}
    for patch in figure.axes[0].patches:
        if isinstance(patch, FancyArrowPatch):
            kind, name = str(patch.get_gid()).split(": ", 1)
            found[kind].add(name)
    return found


def _rounded(points: Sequence[Point], radius: Number = 0.13) -> Path:
    """A polyline whose inner corners are quarter turns."""
    vertices, codes = [points[0]], [Path.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        vertices += [_towards(corner, before, radius), corner, _towards(corner, after, radius)]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    return Path([*vertices, points[-1]], [*codes, Path.LINETO])


def _towards(start: Point, end: Point, length: Number) -> Point:
    dx, dy = end[0] - start[0], end[1] - start[1]
    share = min(length / (dx**2 + dy**2) ** 0.5, 0.5)
    return start[0] + share * dx, start[1] + share * dy


def _shade(color: str, factor: Number) -> tuple[float, float, float]:
    r, g, b = mcolors.to_rgb(color)
    return min(r * factor, 1.0), min(g * factor, 1.0), min(b * factor, 1.0)
