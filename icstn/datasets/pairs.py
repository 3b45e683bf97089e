"""Pairs of images cut from photographs: one place seen twice, in other light, with noise, partly covered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from icstn.datasets.images import photograph

#: Photographs of each split; a photograph is in one split only, and the three tested ones are in no other.
SPLITS: dict[str, tuple[str, ...]] = {
    "train": (
        "astronaut",
        "coffee",
        "rocket",
        "brick",
        "gravel",
        "moon",
        "retina",
        "hubble",
        "ihc",
    ),
    "validation": ("coins", "grass"),
    "test": ("chelsea", "camera", "motorcycle"),
}
#: Shorter sides in pixels that a photograph is shrunk to; one that is smaller stays out of that size.
SIDES = (420, 280, 190, 128)
#: Least standard deviation of a template's gray values, in [0, 1]: on flat ground there is nothing to align.
TEXTURE = 0.06


class Pairs(NamedTuple):
    """Two pictures of each place.

    Attributes:
        image: ``(n, 1, size, size)``, in light of its own, noisy, every second one partly covered.
        reference: ``(n, 1, size, size)``, in other light, noisy.
        shift: ``(n, 2)`` in pixels: the reference's point x is the image's x + shift, below half a pixel.
        covered: ``(n,)``: fraction of the template's place in the middle that is covered in the image.
        photograph: ``(n,)``: which photograph of the split they are cut from.
    """

    image: Float[Tensor, "n 1 size size"]
    reference: Float[Tensor, "n 1 size size"]
    shift: Float[Tensor, "n 2"]
    covered: Float[Tensor, " n"]
    photograph: Int64[Tensor, " n"]


@dataclass(frozen=True)
class Reduced:
    """A photograph at one size, and where a window may be cut.

    Attributes:
        pixels: ``(H, W)`` in [0, 1].
        places: ``(m, 2)``: top and left of the windows whose template has enough texture.
        photograph: its number in its split.
    """

    pixels: Tensor
    places: Tensor
    photograph: int


class Windows:
    """Square windows of the photographs of a split, at several sizes of theirs.

    Args:
        split: ``train``, ``validation`` or ``test``.
        size: side of a window in pixels.
        template: side of the part in its middle that is to be aligned.

    Raises:
        ValueError: no such split, or the template is larger than the window.
        UnavailableError: the photographs can't be had.
    """

    def __init__(self, split: str, size: int = 88, template: int = 32) -> None:
        if split not in SPLITS:
            raise ValueError(f"a split is one of {', '.join(SPLITS)}, not {split!r}")
        if not 2 <= template <= size:
            raise ValueError(f"a template of {template} pixels does not fit a window of {size}")
        self.split, self.size, self.template = split, size, template
        self.names = SPLITS[split]
        self.levels = _levels(split, size, template)

    def pairs(self, n: int, *, generator: torch.Generator) -> Pairs:
        """Draw n pairs.

        Args:
            n: how many, at least two: a cover is a piece of another pair's image.
            generator: source of all randomness.
        """
        if n < 2:
            raise ValueError(f"pairs are drawn two or more at a time, not {n}")
        windows, numbers = self._cut(n, generator)
        shift = torch.rand(n, 2, generator=generator) - 0.5
        seen = relit(windows[..., 1:-1, 1:-1], generator=generator)
        reference = relit(shifted(windows, shift), generator=generator)
        image, covered = covered_partly(seen, self.template, generator=generator)
        return Pairs(noisy(image, generator), noisy(reference, generator), shift, covered, numbers)

    def _cut(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Windows ``(n, 1, size + 2, size + 2)``, turned and mirrored at random, and their photographs."""
        side = self.size + 2
        drawn = torch.rand(n, 4, generator=generator).tolist()
        cut, numbers = torch.empty(n, 1, side, side), []
        for out, (level, place, turn, mirror) in zip(cut, drawn, strict=True):
            source = self.levels[int(level * len(self.levels))]
            top, left = source.places[int(place * len(source.places))].tolist()
            window = source.pixels[top : top + side, left : left + side].rot90(int(turn * 4))
            out[0] = window.T if mirror < 0.5 else window
            numbers.append(source.photograph)
        return cut, torch.tensor(numbers)


@lru_cache(maxsize=8)
def _levels(split: str, size: int, template: int) -> tuple[Reduced, ...]:
    found = []
    for number, name in enumerate(SPLITS[split]):
        whole = photograph(name, gray=True)
        for side in SIDES:
            if size + 2 <= side <= min(whole.shape[-2:]):
                pixels = shrunk(whole, side)[0, 0]
                places = textured(pixels, size + 2, template)
                found += [Reduced(pixels, places, number)] if len(places) else []
    return tuple(found)


def shrunk(image: Tensor, side: int) -> Tensor:
    """``(1, 1, H, W)`` with that shorter side, antialiased."""
    scale = side / min(image.shape[-2:])
    size = [round(length * scale) for length in image.shape[-2:]]
    return F.interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False)


def textured(pixels: Tensor, side: int, template: int) -> Tensor:
    """Top and left ``(m, 2)`` of the windows of that side whose middle varies by :data:`TEXTURE` or more."""
    margin = (side - template) // 2
    inner = pixels[None, None, margin : len(pixels) - margin, margin : pixels.shape[1] - margin].double()
    mean, square = (F.avg_pool2d(x, template, 1)[0, 0] for x in (inner, inner * inner))
    fits = mean[: len(pixels) - side + 1, : pixels.shape[1] - side + 1]
    deviation = (square[: len(fits), : fits.shape[1]] - fits * fits).clamp(min=0).sqrt()
    return (deviation >= TEXTURE).nonzero()


def shifted(windows: Tensor, shift: Tensor) -> Tensor:
    """The windows, one pixel smaller on each side, read at x + shift by bilinear interpolation.

    Args:
        windows: ``(n, 1, side, side)``.
        shift: ``(n, 2)``, x and y in pixels, at most one in size.
    """
    weights = torch.stack((-shift, 1 - shift.abs(), shift), -1).clamp(min=0)  # (n, 2, 3)
    for axis, w in ((-1, weights[:, 0]), (-2, weights[:, 1])):
        side = windows.shape[axis] - 2
        parts = (windows.narrow(axis, k, side) * w[:, k].view(-1, 1, 1, 1) for k in range(3))
        windows = sum(parts, torch.zeros(()))
    return windows


def relit(x: Tensor, *, generator: torch.Generator) -> Tensor:
    """In other light: gain, gamma, offset, and a slope of brightness across the picture; cut to [0, 1].

    Args:
        x: ``(n, 1, size, size)`` in [0, 1].
        generator: source of randomness.
    """
    gain, gamma, offset, a, b = torch.rand(5, len(x), 1, 1, 1, generator=generator)
    u = torch.linspace(-1, 1, x.shape[-1])
    slope = 1 + 0.6 * (a - 0.5) * u + 0.6 * (b - 0.5) * u[:, None]
    bright = x.clamp(min=1e-4).pow(0.7 + 0.7 * gamma) * slope
    return (bright * (0.6 + 0.7 * gain) + 0.2 * (offset - 0.5)).clamp(0, 1)


def covered_partly(x: Tensor, template: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A rectangle of the next picture over every second one, on average; and how much of a template it hides.

    Args:
        x: ``(n, 1, size, size)``.
        template: side of the place in the middle that the covers aim at, a quarter to three quarters wide.
        generator: source of randomness.

    Returns:
        the pictures, and the covered fraction of that place ``(n,)``.
    """
    chance, *drawn = torch.rand(5, len(x), generator=generator)
    pixel = torch.arange(x.shape[-1]) - (x.shape[-1] - 1) / 2
    across, along = (
        (pixel - (place[:, None] - 0.5) * template).abs() <= (0.125 + 0.25 * extent[:, None]) * template
        for extent, place in (drawn[:2], drawn[2:])
    )
    hidden = across[:, None, None, :] & along[:, None, :, None] & (chance < 0.5).view(-1, 1, 1, 1)
    inside = pixel.abs() < template / 2
    part = hidden[..., inside, :][..., inside].double().mean((1, 2, 3)).float()
    return torch.where(hidden, x.roll(1, 0), x), part


def noisy(x: Tensor, generator: torch.Generator) -> Tensor:
    """With Gaussian noise of a standard deviation up to 0.04, each picture's own."""
    strength = 0.04 * torch.rand(len(x), 1, 1, 1, generator=generator)
    return x + strength * torch.randn(x.shape, generator=generator)
