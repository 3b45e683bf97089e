"""Drawings of 43 traffic-sign-like plates: a shape, its colors and a pictogram for each class of GTSRB.

The plates are diagrams made of a few strokes. They share GTSRB's numbering and its families of shapes,
so that a stand-in has the structure of the task; they are no copies of the official signs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

Color = tuple[int, int, int]
WHITE, BLACK, RED, BLUE = (245, 245, 242), (22, 22, 24), (190, 22, 32), (18, 78, 160)
GRAY, YELLOW = (120, 120, 122), (246, 190, 20)
#: Radius of a round plate in a picture whose sides are at ±1.
RADIUS = 0.92


@dataclass(frozen=True)
class Mark:
    """One stroke of a pictogram in a square [-1, 1]², y down.

    Args:
        kind: ``"line"`` (an open path), ``"area"`` (a filled polygon), ``"disc"`` or ``"text"``.
        points: the path, or the one center of a disc or a text.
        size: a line's width, a disc's radius or a text's height.
        text: the text.
        color: instead of the pictogram's own color.
    """

    kind: str
    points: tuple[tuple[float, float], ...]
    size: float = 0.0
    text: str = ""
    color: Color | None = None


@dataclass(frozen=True)
class Sign:
    """A class: its name, the shape of its plate, and the marks on it."""

    name: str
    shape: str
    marks: tuple[Mark, ...] = field(default=())


def line(*xy: float, width: float = 0.2) -> Mark:
    """An open path through (x, y), (x, y), …"""
    return Mark("line", _pairs(xy), width)


def area(*xy: float, color: Color | None = None) -> Mark:
    """A filled polygon."""
    return Mark("area", _pairs(xy), color=color)


def disc(x: float, y: float, radius: float, color: Color | None = None) -> Mark:
    """A filled circle."""
    return Mark("disc", ((x, y),), radius, color=color)


def text(words: str, height: float) -> Mark:
    """Centered words."""
    return Mark("text", ((0.0, 0.0),), height, words)


def mirrored(marks: Iterable[Mark]) -> tuple[Mark, ...]:
    """Left and right swapped."""
    return tuple(replace(m, points=tuple((-x, y) for x, y in m.points)) for m in marks)


def _pairs(xy: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    return tuple(zip(xy[::2], xy[1::2], strict=True))


def _arc(start: float, stop: float, radius: float) -> tuple[float, ...]:
    """Points of an arc around the origin, angles in degrees clockwise from the right."""
    return tuple(v for i in range(11) for v in _turned(start + (stop - start) * i / 10, radius))


def _turned(degrees: float, radius: float) -> tuple[float, float]:
    return radius * math.cos(math.radians(degrees)), radius * math.sin(math.radians(degrees))


def _grown(marks: Iterable[Mark], factor: float) -> tuple[Mark, ...]:
    return tuple(
        replace(m, points=tuple((x * factor, y * factor) for x, y in m.points), size=m.size * factor)
        for m in marks
    )


def _car(x: float, color: Color | None = None) -> tuple[Mark, ...]:
    outline = (
        -0.3,
        0.16,
        -0.3,
        -0.04,
        -0.2,
        -0.08,
        -0.12,
        -0.28,
        0.12,
        -0.28,
        0.2,
        -0.08,
        0.3,
        -0.04,
        0.3,
        0.16,
    )
    moved = tuple(v + x * (i % 2 == 0) for i, v in enumerate(outline))
    return (area(*moved, color=color), disc(x - 0.19, 0.2, 0.1, color), disc(x + 0.19, 0.2, 0.1, color))


def _truck(x: float, scale: float, color: Color | None = None) -> tuple[Mark, ...]:
    box = (-0.6, 0.3, -0.6, -0.4, 0.2, -0.4, 0.2, 0.3)
    cab = (0.26, 0.3, 0.26, -0.2, 0.45, -0.2, 0.62, 0.05, 0.62, 0.3)
    wheels = tuple(disc(x + scale * w, scale * 0.34, scale * 0.14, color) for w in (-0.38, 0.42))
    moved = [[v * scale + x * (i % 2 == 0) for i, v in enumerate(part)] for part in (box, cab)]
    return (area(*moved[0], color=color), area(*moved[1], color=color), *wheels)


def _walker(x: float, scale: float) -> tuple[Mark, ...]:
    parts = (
        (0.0, -0.4, 0.0, 0.15),
        (0.0, 0.1, -0.3, 0.8),
        (0.0, 0.1, 0.3, 0.8),
        (-0.35, 0.05, 0.0, -0.35, 0.35, 0.0),
    )
    limbs = (line(*(v * scale + x * (i % 2 == 0) for i, v in enumerate(p)), width=0.2 * scale) for p in parts)
    return (disc(x, -0.68 * scale, 0.18 * scale), *limbs)


def _ring(x: float, y: float, radius: float) -> Mark:
    around = _arc(0, 360, radius)
    return line(*(v + (x if i % 2 == 0 else y) for i, v in enumerate(around)), width=0.12)


_STRIKE = tuple(line(-0.8 + d, 0.8 + d, 0.8 + d, -0.8 + d, width=0.09) for d in (-0.14, 0.0, 0.14))
_AHEAD = (line(0, 0.75, 0, -0.3), area(-0.38, -0.2, 0, -0.8, 0.38, -0.2))
_TURN = (line(-0.3, 0.7, -0.3, -0.1, 0.3, -0.1), area(0.2, -0.5, 0.75, -0.1, 0.2, 0.3))
_CURVE = (line(0.35, 0.8, 0.35, 0.1, -0.2, -0.3), area(-0.02, -0.72, -0.65, -0.6, -0.35, 0.02))
_FORK = (
    line(-0.25, 0.75, -0.25, -0.35, width=0.17),
    area(-0.55, -0.25, -0.25, -0.8, 0.05, -0.25),
    line(-0.25, 0.4, 0.25, 0.1, width=0.17),
    area(0.1, -0.25, 0.72, -0.02, 0.22, 0.42),
)
_KEEP = (line(-0.5, -0.5, 0.3, 0.3), area(0.6, -0.05, 0.62, 0.62, -0.05, 0.6))
_ROUND = tuple(
    mark
    for start in (0, 120, 240)
    for mark in (
        line(*_arc(start, start + 75, 0.55), width=0.17),
        disc(*_turned(start + 85, 0.55), 0.2),
    )
)
_SLIP = (
    *_grown(_car(0.0), 1.6),
    line(-0.5, 0.75, -0.2, 0.55, -0.5, 0.4, width=0.1),
    line(0.4, 0.75, 0.7, 0.55, 0.4, 0.4, width=0.1),
)
_DEER = (
    area(-0.6, 0.15, -0.5, -0.15, 0.25, -0.25, 0.4, 0.0, 0.2, 0.2),
    line(0.25, -0.15, 0.5, -0.6, 0.75, -0.5, width=0.16),
    line(0.5, -0.6, 0.4, -0.95, width=0.08),
    *(line(x, 0.1, x + d, 0.75, width=0.11) for x, d in ((-0.5, -0.2), (-0.35, 0.1), (0.1, 0.0), (0.2, 0.3))),
)
_BICYCLE = (
    _ring(-0.45, 0.3, 0.32),
    _ring(0.45, 0.3, 0.32),
    line(-0.45, 0.3, -0.15, -0.25, 0.35, -0.25, 0.0, 0.3, -0.15, -0.25, width=0.1),
    line(0.45, 0.3, 0.3, -0.5, width=0.1),
)
_WORK = (*_walker(-0.25, 0.85), line(-0.1, -0.1, 0.5, 0.6, width=0.1), area(0.2, 0.75, 0.5, 0.35, 0.8, 0.75))
_FLAKE = tuple(
    line(-x, -y, x, y, width=0.13)
    for x, y in ((0.7 * math.cos(a), 0.7 * math.sin(a)) for a in (0.52, 1.57, 2.62))
)
_LIGHTS = (
    area(-0.3, -0.8, 0.3, -0.8, 0.3, 0.85, -0.3, 0.85),
    disc(0, -0.5, 0.2, RED),
    disc(0, 0.02, 0.2, YELLOW),
    disc(0, 0.55, 0.2, (30, 150, 60)),
)
_JUNCTION = (
    line(0, 0.8, 0, -0.3, width=0.28),
    area(-0.3, -0.2, 0, -0.8, 0.3, -0.2),
    line(-0.6, 0.2, 0.6, 0.2, width=0.14),
)
_NARROW = (line(-0.4, 0.8, -0.4, -0.8), line(0.45, 0.8, 0.45, 0.2, 0.1, -0.2, 0.1, -0.8))
_BUMPS = (area(-0.9, 0.5, -0.65, 0.1, -0.3, -0.05, 0, 0.3, 0.3, -0.05, 0.65, 0.1, 0.9, 0.5),)
_DOUBLE = (
    line(0.3, 0.8, 0.3, 0.3, -0.3, 0.0, 0.15, -0.4, width=0.22),
    area(-0.15, -0.6, 0.3, -0.9, 0.4, -0.25),
)

SIGNS: tuple[Sign, ...] = (
    *(Sign(f"speed limit {v}", "ring", (text(v, 0.95),)) for v in ("20", "30", "50", "60", "70", "80")),
    Sign("end of speed limit 80", "pale", (text("80", 0.95), *_STRIKE)),
    *(Sign(f"speed limit {v}", "ring", (text(v, 0.8),)) for v in ("100", "120")),
    Sign("no passing", "ring", _grown((*_car(-0.36, RED), *_car(0.36)), 1.3)),
    Sign("no passing for trucks", "ring", _grown((*_truck(-0.36, 0.5, RED), *_car(0.4)), 1.3)),
    Sign("right of way at the next crossing", "warning", _JUNCTION),
    Sign("priority road", "diamond"),
    Sign("yield", "yield"),
    Sign("stop", "octagon", (text("STOP", 0.52),)),
    Sign("no vehicles", "ring"),
    Sign("no trucks", "ring", _truck(0.0, 1.15)),
    Sign("no entry", "stopdisc", (area(-0.72, -0.2, 0.72, -0.2, 0.72, 0.2, -0.72, 0.2),)),
    Sign("general caution", "warning", (line(0, -0.8, 0, 0.25, width=0.28), disc(0, 0.65, 0.18))),
    Sign("curve to the left", "warning", _CURVE),
    Sign("curve to the right", "warning", mirrored(_CURVE)),
    Sign("double curve", "warning", _DOUBLE),
    Sign("bumpy road", "warning", _BUMPS),
    Sign("slippery road", "warning", _SLIP),
    Sign("road narrows", "warning", _NARROW),
    Sign("road work", "warning", _WORK),
    Sign("traffic lights", "warning", _LIGHTS),
    Sign("pedestrians", "warning", (*_walker(0.0, 0.9), line(-0.9, 0.85, 0.9, 0.85, width=0.08))),
    Sign("children", "warning", (*_walker(-0.35, 0.75), *_walker(0.4, 0.6))),
    Sign("bicycles", "warning", _BICYCLE),
    Sign("ice or snow", "warning", _FLAKE),
    Sign("wild animals", "warning", _DEER),
    Sign("end of all limits", "pale", _STRIKE),
    Sign("turn right", "blue", _TURN),
    Sign("turn left", "blue", mirrored(_TURN)),
    Sign("straight on", "blue", _AHEAD),
    Sign("straight on or right", "blue", _FORK),
    Sign("straight on or left", "blue", mirrored(_FORK)),
    Sign("keep right", "blue", _KEEP),
    Sign("keep left", "blue", mirrored(_KEEP)),
    Sign("roundabout", "blue", _ROUND),
    Sign("end of no passing", "pale", (*_grown((*_car(-0.36), *_car(0.36)), 1.2), *_STRIKE)),
    Sign("end of no passing for trucks", "pale", (*_grown((*_truck(-0.36, 0.5), *_car(0.4)), 1.2), *_STRIKE)),
)


@dataclass(frozen=True)
class _Plate:
    """Nested outlines of a shape (polygon or disc, color) and where its pictogram goes (y, scale, color)."""

    layers: tuple[tuple[tuple[tuple[float, float], ...] | float, Color], ...]
    ink: Color
    scale: float
    shift: float = 0.0


def _polygon(corners: int, radius: float, turn: float, drop: float = 0.0) -> tuple[tuple[float, float], ...]:
    angles = (math.radians(turn + 360 * i / corners) for i in range(corners))
    return tuple((radius * math.cos(a), radius * math.sin(a) + drop) for a in angles)


def _triangle(radius: float, turn: float, drop: float) -> tuple[tuple[float, float], ...]:
    return _polygon(3, radius, turn, drop)


PLATES: dict[str, _Plate] = {
    "ring": _Plate(((1.0, WHITE), (0.96, RED), (0.74, WHITE)), BLACK, 0.62),
    "pale": _Plate(((1.0, GRAY), (0.95, WHITE)), GRAY, 0.68),
    "blue": _Plate(((1.0, WHITE), (0.95, BLUE)), WHITE, 0.8),
    "stopdisc": _Plate(((1.0, WHITE), (0.96, RED)), WHITE, 0.95),
    "octagon": _Plate(((_polygon(8, 1.04, 22.5), WHITE), (_polygon(8, 0.97, 22.5), RED)), WHITE, 0.85),
    "diamond": _Plate(
        ((_polygon(4, 1.0, 0), BLACK), (_polygon(4, 0.96, 0), WHITE), (_polygon(4, 0.66, 0), YELLOW)),
        BLACK,
        0.5,
    ),
    "warning": _Plate(
        ((_triangle(1.16, -90, 0.26), RED), (_triangle(0.74, -90, 0.26), WHITE)), BLACK, 0.44, shift=0.28
    ),
    "yield": _Plate(((_triangle(1.16, 90, -0.26), RED), (_triangle(0.7, 90, -0.26), WHITE)), BLACK, 0.4),
}


def draw_sign(sign: Sign, side: int) -> Image:
    """A plate as an RGBA picture, transparent around it.

    Args:
        sign: the class.
        side: width and height in pixels; the plate's circle takes up :data:`RADIUS` of it.
    """
    from PIL import Image, ImageDraw

    image = Image.new("RGBA", (side, side), (128, 128, 128, 0))
    pen, plate = ImageDraw.Draw(image), PLATES[sign.shape]
    unit = RADIUS * side / 2
    for outline, color in plate.layers:
        _draw_outline(pen, outline, color, side / 2, unit)
    for mark in sign.marks:
        _draw_mark(pen, mark, plate, side / 2, unit)
    return image


def _draw_outline(
    pen: ImageDraw, outline: tuple[tuple[float, float], ...] | float, color: Color, center: float, unit: float
) -> None:
    if isinstance(outline, float):
        low, high = center - outline * unit, center + outline * unit
        pen.ellipse((low, low, high, high), fill=color)
    else:
        pen.polygon([(center + x * unit, center + y * unit) for x, y in outline], fill=color)


def _draw_mark(pen: ImageDraw, mark: Mark, plate: _Plate, center: float, unit: float) -> None:
    from PIL import ImageFont

    k = unit * plate.scale
    points = [(center + x * k, center + plate.shift * unit + y * k) for x, y in mark.points]
    color, size, (x, y) = mark.color or plate.ink, mark.size * k, points[0]
    if mark.kind == "line":
        pen.line(points, fill=color, width=max(1, round(size)), joint="curve")
    elif mark.kind == "area":
        pen.polygon(points, fill=color)
    elif mark.kind == "disc":
        pen.ellipse((x - size, y - size, x + size, y + size), fill=color)
    else:
        font = ImageFont.load_default(size * 1.35)
        pen.text(
            (x, y),
            mark.text,
            color,
            font,
            anchor="mm",
            stroke_width=max(1, round(size / 22)),
            stroke_fill=color,
        )
