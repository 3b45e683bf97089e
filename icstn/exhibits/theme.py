"""The book's one visual language: colors, type and how a figure appears in light and in dark mode.

Convention:
    * a *drawing function* takes a :class:`Theme` (and its data) and returns a matplotlib figure;
    * blue is appearance (images), purple is geometry (warp parameters), yellow is the geometric predictor;
    * backgrounds are opaque and equal to the page's, so that a figure looks the same wherever it is put;
    * what is plotted carries a ``gid``, by which :func:`plotted` hands the arrays back to a test.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.artist import Artist
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

from icstn.files import write_atomic

Mode = Literal["light", "dark"]


@dataclass(frozen=True)
class Theme:
    """Colors of one mode, as hex strings.

    Args:
        name: ``"light"`` or ``"dark"``.
        background: the page's background.
        ink, muted, grid: text and outlines, secondary text, grid lines.
        appearance: images and the flow of images (blue).
        geometry: warp parameters and their flow (purple).
        predictor: the geometric predictor (yellow fill).
        truth, crop, outline: ground-truth box (red), crop (green), outline of a warp.
        cycle: colors of curves, told apart by readers with any kind of color vision.
    """

    name: Mode
    background: str
    ink: str
    muted: str
    grid: str
    surface: str
    appearance: str
    geometry: str
    predictor: str
    truth: str
    crop: str
    outline: str
    cycle: tuple[str, ...]

    @property
    def dark(self) -> bool:
        """Whether this is the dark mode."""
        return self.name == "dark"

    @property
    def gap(self) -> str:
        """Between images that may be black themselves: seen against them in both modes."""
        return self.grid if self.dark else self.background

    @property
    def signed(self) -> Colormap:
        """Of values that may be negative: blue below zero, orange above, zero as the background."""
        return LinearSegmentedColormap.from_list("signed", (self.appearance, self.background, self.cycle[1]))


LIGHT = Theme(
    name="light",
    background="#ffffff",
    ink="#1b1f24",
    muted="#59636e",
    grid="#dde1e6",
    surface="#f3f5f7",
    appearance="#1666c5",
    geometry="#8430ce",
    predictor="#f5c518",
    truth="#d1242f",
    crop="#1a8f3c",
    outline="#ffffff",
    cycle=("#4d5560", "#d9541e", "#c28a00", "#12876f", "#1666c5", "#8430ce", "#b3125f"),
)
DARK = Theme(
    name="dark",
    background="#121212",
    ink="#e8eaed",
    muted="#a0a7b0",
    grid="#33373d",
    surface="#1e2125",
    appearance="#63aeff",
    geometry="#c792ff",
    predictor="#ffd447",
    truth="#ff6b70",
    crop="#4fd070",
    outline="#ffffff",
    cycle=("#a9b1bb", "#ff8a57", "#f0c040", "#46cfae", "#63aeff", "#c792ff", "#ff7ab8"),
)
THEMES: dict[Mode, Theme] = {"light": LIGHT, "dark": DARK}

Draw = Callable[[Theme], Figure]


def rc(theme: Theme) -> dict[str, Any]:
    """Matplotlib settings of a theme."""
    ink = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor"),
        theme.ink,
    )
    ground = dict.fromkeys(
        ("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor"), theme.background
    )
    quiet = dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), theme.muted)
    return {
        **ink,
        **ground,
        **quiet,
        "axes.grid": False,
        "axes.prop_cycle": cycler(color=theme.cycle),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 10.5,
        "axes.labelsize": 10,
        "figure.constrained_layout.use": True,
        "figure.dpi": 100,
        "figure.titlesize": 12,
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "image.cmap": "gray",
        "legend.edgecolor": theme.grid,
        "legend.fontsize": 9,
        "legend.framealpha": 1.0,
        "lines.linewidth": 1.8,
        "mathtext.fontset": "cm",
        "savefig.transparent": False,
        "svg.fonttype": "path",
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
    }


@contextmanager
def use(theme: Theme | Mode) -> Iterator[Theme]:
    """Draw in this theme inside a ``with`` block; the settings before it come back afterwards."""
    theme = THEMES[theme] if isinstance(theme, str) else theme
    settings: Any = {**mpl.rcParamsDefault, "backend": mpl.rcParams["backend"], **rc(theme)}
    with mpl.rc_context(settings):
        yield theme


@dataclass(frozen=True)
class FigurePair:
    """One drawing in both modes, with what a reader who can't see it needs.

    Args:
        name: stem of the files, for example ``"figure_7"``.
        alt: the text that stands for the picture.
        caption: shown below it; plain text or HTML.
        svg, png: bytes of the files of each mode.
        vector: whether :meth:`html` embeds the SVG (else the PNG, which is smaller for photographs).
        width: in CSS pixels, at which the figure's text has its size in points.
    """

    name: str
    alt: str
    caption: str | None
    svg: dict[Mode, bytes]
    png: dict[Mode, bytes]
    vector: bool = True
    width: int = 640

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``<name>_<mode>.svg`` and ``.png``; returns the four paths."""
        paths = []
        for kind, files in (("svg", self.svg), ("png", self.png)):
            for mode, data in files.items():
                paths.append(Path(folder) / f"{self.name}_{mode}.{kind}")
                write_atomic(paths[-1], data)
        return paths

    def html(self) -> str:
        """A ``<figure>`` that shows the mode of the page around it: the book, JupyterLab or VS Code.

        The pixels are in data URIs, which a comparison of notebook outputs has to ignore
        (``base64,[A-Za-z0-9+/=]+``).
        """
        images = "".join(self._image(mode) for mode in THEMES)
        caption = f"<figcaption>{self.caption}</figcaption>" if self.caption else ""
        return f'{_STYLE}<figure class="exhibit" data-exhibit="{self.name}">{images}{caption}</figure>'

    def _image(self, mode: Mode) -> str:
        kind, data = ("svg+xml", self.svg[mode]) if self.vector else ("png", self.png[mode])
        uri = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        kind_of_page = f'class="exhibit-{mode} only-{mode}" width="{self.width}"'
        return f'<img {kind_of_page} alt="{html.escape(self.alt)}" src="{uri}">'

    def _repr_html_(self) -> str:
        return self.html()


#: The book sets ``data-theme``, JupyterLab ``data-jp-theme-light``, VS Code a class on the body.
_DARK_PAGES = ('html[data-theme="dark"]', 'body[data-jp-theme-light="false"]', "body.vscode-dark")
_STYLE = (
    "<style>figure.exhibit{margin:0}figure.exhibit img{max-width:100%;height:auto;"
    "background:none!important;padding:0!important}"
    "figure.exhibit figcaption{font-size:.9em;margin-top:.4em}figure.exhibit .exhibit-dark{display:none}"
    + ",".join(f"{page} figure.exhibit .exhibit-dark" for page in _DARK_PAGES)
    + "{display:inline-block!important}"
    + ",".join(f"{page} figure.exhibit .exhibit-light" for page in _DARK_PAGES)
    + "{display:none!important}</style>"
)


def figure_pair(
    draw: Draw, name: str, alt: str, caption: str | None = None, *, vector: bool = True, dpi: int = 160
) -> FigurePair:
    """Call a drawing function once for each theme and keep the files it gives.

    Args:
        draw: takes a :class:`Theme`, returns a figure; called inside :func:`use`.
        name: stem of the files and salt of the SVG's ids, so that a rerun gives the same bytes.
        alt: alternative text; a sentence or two that say what is to be seen.
        caption: shown below the picture; a figure of the paper, ``figure_7``, is numbered in it.
        vector: embed SVG (line drawings) or PNG (photographs, montages) in a notebook.
        dpi: resolution of the PNG.

    Raises:
        ValueError: the alternative text is empty.
    """
    if not alt.strip():
        raise ValueError(f"{name}: a figure needs alt text, a sentence that says what is to be seen")
    svg: dict[Mode, bytes] = {}
    png: dict[Mode, bytes] = {}
    for mode in THEMES:
        with use(mode) as theme, mpl.rc_context({"svg.hashsalt": name}):
            figure = draw(theme)
            width = figure.get_figwidth()
            svg[mode] = _render(figure, "svg", metadata={"Date": None, "Creator": None})
            png[mode] = _render(figure, "png", dpi=dpi, metadata={"Software": None})
            plt.close(figure)
    return FigurePair(name, alt, _numbered(name, caption), svg, png, vector, round(96 * width))


def _numbered(name: str, caption: str | None) -> str | None:
    """A caption with the number of the paper's figure in front, where the name is that of one."""
    number = re.fullmatch(r"figure_(\d+)", name)
    return f"<b>Figure {number[1]}.</b> {caption}" if number and caption else caption


def show_both(
    draw: Draw,
    name: str,
    alt: str,
    caption: str | None = None,
    *,
    vector: bool = True,
    folder: str | Path | None = None,
    dpi: int = 160,
) -> None:
    """Draw in both modes and display the pair in a notebook; the page shows the one that fits it.

    Args:
        draw, name, alt, caption, vector, dpi: see :func:`figure_pair`.
        folder: also write the SVG and PNG files there.

    Example:
        >>> def draw(theme):
        ...     fig, ax = plt.subplots(figsize=(4, 3))
        ...     ax.plot([0, 1], [0, 1], color=theme.geometry)
        ...     return fig
        >>> figure_pair(draw, "line", "A rising line.").html().count("<img")
        2
    """
    from IPython.display import HTML, display

    pair = figure_pair(draw, name, alt, caption, vector=vector, dpi=dpi)
    if folder is not None:
        pair.save(folder)
    display(HTML(pair.html()))


def draw_once(draw: Draw, mode: Mode = "light") -> Figure:
    """The figure of one mode, not rendered: what a test looks at (with :func:`plotted`)."""
    with use(mode) as theme:
        figure = draw(theme)
        plt.close(figure)
    return figure


def tag(artist: Artist, gid: str) -> Artist:
    """Name what an artist plots, so that :func:`plotted` finds it."""
    artist.set_gid(gid)
    return artist


def plotted(figure: Figure) -> dict[str, np.ndarray]:
    """The arrays that the figure's tagged artists hold: lines and polygons as points, images as pixels."""
    found: dict[str, np.ndarray] = {}
    for ax in figure.axes:
        for artist in (*ax.lines, *ax.patches, *ax.images, *ax.collections, *ax.texts):
            if (gid := artist.get_gid()) is not None:
                found[gid] = _array(artist)
    return found


def _array(artist: Any) -> np.ndarray:
    if hasattr(artist, "get_xydata"):
        return np.asarray(artist.get_xydata())
    if hasattr(artist, "get_offsets"):
        return np.asarray(artist.get_offsets())
    if hasattr(artist, "get_xy") and hasattr(artist, "get_closed"):
        return np.asarray(artist.get_xy())
    if hasattr(artist, "get_array"):
        return np.asarray(artist.get_array())
    return np.asarray(artist.get_text() if hasattr(artist, "get_text") else artist.get_bbox().bounds)


def _render(figure: Figure, kind: str, **kwargs: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format=kind, **kwargs)
    return out.getvalue()
