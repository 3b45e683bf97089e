"""Films: an alignment step by step, which the book's pages play (``book/assets/live/film.js``).

A film is HTML: the warps and the picture, from which the page draws every step itself, and a still picture
for readers without scripts. So it weighs kilobytes, plays without a network, and follows the page's theme.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from icstn.sampling import Frame, sample
from icstn.warps import Warp, corner_error

#: Pixels between the pictures of a still, and by how much they are enlarged.
GAP, ENLARGED = 4, 2


@dataclass(frozen=True)
class Track:
    """One method's way through a film.

    Args:
        name: shown over it.
        warps: from the initial to the last, ``(steps + 1, k)``.
        updates: Δp of each step, ``(steps, k)``.
        errors: one for each warp, in template pixels.
        notes: words for each warp, such as what a classifier takes it for; none by default.
        resampled: the method samples its own output again and again, as an STN does.
        residual: show the difference from the template, too (the row then has a ``truth``).
    """

    name: str
    warps: Float[Tensor, "steps k"]
    updates: Float[Tensor, "updates k"]
    errors: Sequence[float]
    notes: Sequence[str] = ()
    resampled: bool = False
    residual: bool = False


@dataclass(frozen=True)
class Row:
    """One picture, and the methods that align it.

    Args:
        name: shown under the picture.
        image: ``(channels, H, W)`` in [0, 1], with 1 or 3 channels.
        frame: where the template lies.
        warp: family of all tracks.
        tracks: the methods, side by side.
        truth: the true warp ``(k,)``, where there is one: its box is drawn, too.
    """

    name: str
    image: Float[Tensor, "channels H W"]
    frame: Frame
    warp: Warp
    tracks: Sequence[Track]
    truth: Float[Tensor, " k"] | None = None


def track(
    name: str, warps: Float[Tensor, "steps k"], row: tuple[Frame, Warp, Float[Tensor, " k"]], **options: Any
) -> Track:
    """A track whose error is the corners' distance from a true warp, and whose updates are the differences.

    Args:
        name: of the method.
        warps: from the initial to the last.
        row: frame, warp family and true warp.
        **options: further fields of :class:`Track`; ``updates`` replaces the differences of the warps.
    """
    frame, warp, truth = row
    errors = (corner_error(warp, warps, truth.expand_as(warps)) / frame.pixel).tolist()
    return Track(name, warps, options.pop("updates", warps.diff(dim=0)), errors, **options)


def film(rows: Sequence[Row], *, alt: str, caption: str = "", autoplay: bool = True) -> str:
    """The film as HTML.

    Args:
        rows: pictures, one below the other; their tracks run in step.
        alt: what the film shows, in words, for those who do not see it.
        caption: shown under it, as HTML.
        autoplay: start when it comes into view (never for readers who ask for less motion).
    """
    content = {"rows": [_row(row) for row in rows], "autoplay": autoplay}
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    words = html.escape(alt, quote=True)
    address = "data:image/png;base64," + base64.b64encode(still(rows)).decode()
    under = f'<p class="il-caption">{caption}</p>' if caption else ""
    return (
        f'<icstn-film label="{words}"><img class="il-still" alt="{words}" src="{address}">'
        f'<script type="application/json">{data}</script>{under}</icstn-film>'
    )


def still(rows: Sequence[Row]) -> bytes:
    """The first view, then every track's last, row by row, as a PNG."""
    strips = [_strip(row) for row in rows]
    height, width = sum(s.shape[0] for s in strips) + GAP * (len(strips) - 1), max(s.shape[1] for s in strips)
    sheet, y = np.zeros((height, width, 4), np.uint8), 0
    for s in strips:
        sheet[y : y + s.shape[0], : s.shape[1]] = s
        y += s.shape[0] + GAP
    picture = Image.fromarray(sheet)
    picture = picture.resize((ENLARGED * width, ENLARGED * height), Image.Resampling.NEAREST)
    out = io.BytesIO()
    picture.quantize(64).save(out, "png", optimize=True)
    return out.getvalue()


def views(row: Row, one: Track) -> Float[Tensor, "steps channels height width"]:
    """What a track sees at each of its steps."""
    image = row.image[None].float()
    if not one.resampled:
        return sample(image, one.warps.float(), row.frame, row.warp)
    found, whole = [sample(image, one.warps[:1].float(), row.frame, row.warp)], _whole(row.frame)
    for dp in one.updates.float():
        found.append(sample(found[-1], dp[None], whole, row.warp))
    return torch.cat(found)


def _whole(frame: Frame) -> Frame:
    return Frame.full(frame.height, frame.width)


def _strip(row: Row) -> np.ndarray:
    """The first view, then every track's last, ``(height, width, 4)`` with transparent gaps."""
    ends = [views(row, row.tracks[0])[:1]] + [views(row, one)[-1:] for one in row.tracks]
    tiles = (torch.cat(ends).clamp(0, 1) * 255).round().byte()
    n, _, height, width = tiles.shape
    strip = np.zeros((height, n * width + (n - 1) * GAP, 4), np.uint8)
    for i, tile in enumerate(tiles.expand(n, 3, height, width).permute(0, 2, 3, 1).numpy()):
        left = i * (width + GAP)
        strip[:, left : left + width, :3], strip[:, left : left + width, 3] = tile, 255
    return strip


def _row(row: Row) -> dict[str, Any]:
    c, h, w = row.image.shape
    pixels = (row.image.clamp(0, 1) * 255).round().byte().numpy().tobytes()
    frame = {"height": row.frame.height, "width": row.frame.width}
    return {
        "name": row.name,
        "picture": {"channels": c, "height": h, "width": w, "bytes": base64.b64encode(pixels).decode()},
        "frame": {**frame, "center": row.frame.center, "halfExtent": row.frame.half_extent},
        "family": row.warp.name,
        "truth": None if row.truth is None else _numbers(row.truth),
        "tracks": [_track(one) for one in row.tracks],
    }


def _track(one: Track) -> dict[str, Any]:
    return {
        "name": one.name,
        "resampled": one.resampled,
        "residual": one.residual,
        "p": [_numbers(p) for p in one.warps],
        "dp": [_numbers(dp) for dp in one.updates],
        "errors": [float(f"{e:.4g}") for e in one.errors],
        "notes": list(one.notes),
    }


def _numbers(values: Tensor) -> list[float]:
    return [round(v, 6) for v in values.double().tolist()]
