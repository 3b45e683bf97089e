"""Sight: what is seen of an image under a warp, and the composition of warps, in plain float64."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Place(NamedTuple):
    """Where a template of that size lies in an image: center and half extent in pixels, (x, y)."""

    height: int
    width: int
    center: tuple[float, float]
    half: tuple[float, float]

    @property
    def whole(self) -> Place:
        """The template as an image of its own."""
        middle = ((self.width - 1) / 2, (self.height - 1) / 2)
        return Place(self.height, self.width, middle, middle)


#: A digit is its own template; a sign's is the middle 36 × 36 pixels of 50 × 50.
DIGIT = Place(28, 28, (13.5, 13.5), (13.5, 13.5))
SIGN = Place(36, 36, (24.5, 24.5), (17.5, 17.5))


def matrix(p: Tensor) -> Tensor:
    """Eq. (9): [[1+p1, p2, p3], [p4, 1+p5, p6], [p7, p8, 1]], or without p7 and p8."""
    zero, one = torch.zeros_like(p[:, 0]), torch.ones_like(p[:, 0])
    a = list(p.unbind(1)) + [zero] * (8 - p.shape[1])
    rows = [[1 + a[0], a[1], a[2]], [a[3], 1 + a[4], a[5]], [a[6], a[7], one]]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def parameters(m: Tensor, k: int) -> Tensor:
    """The inverse of :func:`matrix`."""
    m = m / m[:, 2:, 2:]
    return torch.stack([m[:, i, j] - (1.0 if i == j else 0.0) for i in range(3) for j in range(3)][:k], 1)


def composed(p: Tensor, dp: Tensor, side: str) -> Tensor:
    """M(Δp) M(p) for the image's side, M(p) M(Δp) for the template's."""
    m, d = matrix(p), matrix(dp)
    return parameters(d @ m if side == "image" else m @ d, p.shape[1])


def positions(p: Tensor, place: Place) -> tuple[Tensor, Tensor]:
    """Pixel (x, y) of the image that each of the template's samples is read at, ``(batch, h, w)`` each."""
    x = -1 + 2 * torch.arange(place.width, dtype=p.dtype) / (place.width - 1)
    y = -1 + 2 * torch.arange(place.height, dtype=p.dtype) / (place.height - 1)
    y, x = torch.meshgrid(y, x, indexing="ij")
    m = matrix(p)[:, :, :, None, None]
    u, v, w = (m[:, i, 0] * x + m[:, i, 1] * y + m[:, i, 2] for i in range(3))
    return place.center[0] + place.half[0] * u / w, place.center[1] + place.half[1] * v / w


def seen(image: Tensor, p: Tensor, place: Place) -> Tensor:
    """I(p): bilinear, zero outside, ``(batch, channels, h, w)``; one image for each warp or one for all."""
    x, y = positions(p, place)
    image = image.expand(len(p), -1, -1, -1)
    out = torch.zeros(len(p), image.shape[1], place.height, place.width, dtype=p.dtype)
    for row, wy in _neighbors(y):
        for column, wx in _neighbors(x):
            out = out + (wx * wy)[:, None] * _pixel(image, row, column)
    return out


def _neighbors(at: Tensor) -> list[tuple[Tensor, Tensor]]:
    low = at.detach().floor()
    return [(low.long(), 1 - (at - low)), (low.long() + 1, at - low)]


def _pixel(image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    there = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    which = torch.arange(len(image))[:, None, None].expand_as(row)
    values = image[which, :, row.clamp(0, height - 1), column.clamp(0, width - 1)]  # (batch, h, w, channels)
    return (values * there[..., None]).permute(0, 3, 1, 2)


def corner_pixels(p: Tensor, width: int) -> Tensor:
    """Root of the mean squared distance of the four corners from where they belong, in pixels of 2/width."""
    corners = torch.tensor([[-1.0, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]], dtype=p.dtype)
    moved = corners @ matrix(p).transpose(1, 2)
    distance = (moved[..., :2] / moved[..., 2:] - corners[:, :2]) * width / 2
    return (distance.pow(2).sum(-1).sum(-1) / 4).sqrt()
