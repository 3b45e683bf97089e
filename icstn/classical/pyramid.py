"""Image pyramids of box filters, box blur and central differences.

Each level averages 2×2 pixels, which costs a fraction of a convolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

#: Pixels to halve at once, so that they stay in the cache.
BLOCK = 2**19


def image_pyramid(x: Float[Tensor, "b c h w"], levels: int) -> list[Tensor]:
    """The image and its halves, each of averaged blocks of 2×2 pixels (an odd last line is dropped)."""
    scales = [x]
    for _ in range(levels - 1):
        images = max(1, BLOCK // max(1, x.shape[1] * x.shape[2] * x.shape[3]))
        halves = [_half(part) for part in x.split(images)]
        x = torch.cat(halves) if len(halves) > 1 else halves[0]
        scales.append(x)
    return scales


def _half(x: Tensor) -> Tensor:
    h, w = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
    x = x[..., 0:h:2, :w] + x[..., 1:h:2, :w]
    return (x[..., 0::2] + x[..., 1::2]) / 4


def box(x: Float[Tensor, "b c h w"], size: int) -> Float[Tensor, "b c h w"]:
    """Box blur of odd ``size`` pixels, the border pixel repeated outwards (as sums of shifted images)."""
    r = size // 2
    if r == 0:
        return x
    x = F.pad(x, (r, r, r, r), mode="replicate")
    return _running_sum(_running_sum(x, size, -1), size, -2).div_(size**2)


def _running_sum(x: Tensor, size: int, dim: int) -> Tensor:
    n = x.shape[dim] - size + 1
    total = x.narrow(dim, 0, n) + x.narrow(dim, 1, n)
    for i in range(2, size):
        total += x.narrow(dim, i, n)
    return total


def gradient(x: Float[Tensor, "b c h w"], sx: float = 1.0, sy: float = 1.0) -> tuple[Tensor, Tensor]:
    """Central differences along x and y, per pixel, times a factor (the border pixel repeated outwards)."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    dx = (x[..., 1:-1, 2:] - x[..., 1:-1, :-2]) * (sx / 2)
    return dx, (x[..., 2:, 1:-1] - x[..., :-2, 1:-1]) * (sy / 2)
