"""Convolution and max-pooling that are fast for few channels on a CPU.

The layers of the paper have 1 to 24 channels, for which the CPU library leaves most of a vector register
empty: its input gradient of conv(7×7, 1→4) takes some ten times as long as the forward pass. The
functions here compute the same numbers (up to rounding) in another arrangement. Wherever that is not known to
be faster, or a transform of PyTorch's looks on, the modules are ``nn.Conv2d`` and ``nn.MaxPool2d``:
see :func:`serves`; :func:`stock_layers` asks for those in any case.

The arrangement is one idea used three times. A tile of neighboring outputs becomes channels
(:func:`widen`): sy·sx·O filters with stride (sy, sx) in place of O filters with stride 1. With sy·sx·O near
a multiple of 16, a vector's lanes are all in use; the price is a larger kernel, most of it zeros.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.grad import conv2d_input, conv2d_weight

from icstn.tracing import plain

#: float32 numbers in a vector register of AVX-512; with AVX2's 8, or fewer, the plain layers are faster.
LANES = 16
#: Multiplications that take as long as putting one output of a tile in its place, by rows and by columns.
ROW_ORDER, COLUMN_ORDER = 14, 36

Tile = tuple[int, int]

_stock = ContextVar("_stock", default=bool(os.environ.get("ICSTN_STOCK_LAYERS")))
_wide = torch.backends.cpu.get_cpu_capability() == "AVX512"


@contextmanager
def stock_layers(on: bool = True) -> Iterator[None]:
    """Compute with PyTorch's own layers inside.

    ``ICSTN_STOCK_LAYERS=1`` in the environment does so throughout.
    """
    token = _stock.set(on)
    try:
        yield
    finally:
        _stock.reset(token)


def serves(x: Tensor) -> bool:
    """Whether this module's arrangement is used for ``x``.

    That needs a processor with AVX-512, images ``(batch, channels, h, w)`` with something in them, single or
    double precision without autocast, and eager mode outside the transforms of ``torch.func``.
    """
    return (
        plain(x)
        and _wide
        and not _stock.get()
        and x.device.type == "cpu"
        and x.dim() == 4
        and x.numel() > 0
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
    )


def widen(weight: Float[Tensor, "out channels kh kw"], tile: Tile) -> Float[Tensor, "wide channels khs kws"]:
    """Filters that compute a tile of outputs at once: one copy for each, shifted to its place."""
    sy, sx = tile
    out, channels, kh, kw = weight.shape
    wide = weight.new_zeros(sy, sx, out, channels, kh + sy - 1, kw + sx - 1)
    down, right, *strides = wide.stride()
    shifted = wide.as_strided((sy, sx, *weight.shape), (down + strides[-2], right + 1, *strides))
    shifted.copy_(weight.expand_as(shifted))
    return wide.flatten(0, 2)


@lru_cache(maxsize=256)
def best_tile(weight: tuple[int, int, int, int], size: Tile) -> Tile:
    """The tile of outputs that costs least, for weights of that shape and outputs of that size."""
    height, width = size
    tiles = [(sy, sx) for sx in (1, 2) if width % sx == 0 for sy in range(1, 9) if height % sy == 0]
    best = min(tiles, key=lambda tile: tile_cost(weight, tile))
    return best if 1.1 * tile_cost(weight, best) < tile_cost(weight, (1, 1)) else (1, 1)


def tile_cost(weight: tuple[int, int, int, int], tile: Tile) -> float:
    """Time for an output, in multiplications: idle lanes, the larger kernel, and putting tiles in order."""
    (out, channels, kh, kw), (sy, sx) = weight, tile
    n = out * sy * sx
    idle = -(-n // LANES) * LANES / n
    order = 0 if n == out else ROW_ORDER if sx == 1 else COLUMN_ORDER
    work = idle * channels * (kh + sy - 1) * (kw + sx - 1)
    return work * (1.06 if sy > 1 else 1) + order  # a stride down the rows is a little slower


def convolve(
    x: Float[Tensor, "batch channels h w"],
    weight: Float[Tensor, "out channels kh kw"],
    bias: Tensor | None = None,
    padding: Tile = (0, 0),
) -> Float[Tensor, "batch out h2 w2"]:
    """``F.conv2d(x, weight, bias, padding=padding)``, a tile of outputs at once where that is faster."""
    tile = _tile(weight, x, padding)
    if tile == (1, 1):
        return F.conv2d(x, weight, bias, padding=padding)
    wide_bias = None if bias is None else bias.repeat(tile[0] * tile[1])
    return _untile(F.conv2d(x, widen(weight, tile), wide_bias, stride=tile, padding=padding), tile)


def _tile(weight: Tensor, x: Tensor, padding: Tile = (0, 0)) -> Tile:
    out, channels, kh, kw = weight.shape
    size = (x.shape[2] + 2 * padding[0] - kh + 1, x.shape[3] + 2 * padding[1] - kw + 1)
    return best_tile((out, channels, kh, kw), size)


def _untile(y: Tensor, tile: Tile) -> Tensor:
    """Channels that are tiles, ``(batch, sy·sx·out, h, w)`` → ``(batch, out, h·sy, w·sx)``."""
    (sy, sx), (batch, _, h, w) = tile, y.shape
    tiles = y.view(batch, sy, sx, -1, h, w)
    if sy != 2:
        return tiles.permute(0, 3, 4, 1, 5, 2).reshape(batch, -1, h * sy, w * sx)
    # a few copies in four dimensions take half the time of one in six
    flat = y.new_empty(batch, tiles.shape[3], h, sy, w, sx)
    for i in range(sy):
        for j in range(sx):
            flat[:, :, :, i, :, j].copy_(tiles[:, i, j])
    return flat.view(batch, -1, h * sy, w * sx)


def _retile(grad: Tensor, tile: Tile) -> Tensor:
    """The inverse of :func:`_untile`."""
    (sy, sx), (batch, out, h, w) = tile, grad.shape
    tiles = grad.view(batch, out, h // sy, sy, w // sx, sx).permute(0, 3, 5, 1, 2, 4)
    return tiles.reshape(batch, sy * sx * out, h // sy, w // sx)


def input_gradient(
    grad: Float[Tensor, "batch out h w"], weight: Float[Tensor, "out channels kh kw"]
) -> Float[Tensor, "batch channels h2 w2"]:
    """∂L/∂x of ``F.conv2d(x, weight)``: the full correlation of ``grad`` with the flipped weights."""
    _, _, kh, kw = weight.shape
    return convolve(grad, weight.flip(2, 3).transpose(0, 1), padding=(kh - 1, kw - 1))


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """∂L/∂weight of ``F.conv2d(x, weight)``: the tiled filters' gradient, its copies put back and added."""
    if weight.shape[1] > 3:
        return _weight_gradient_channels_last(grad, x, weight)
    tile = _tile(weight, x)
    grad = grad if tile == (1, 1) else _retile(grad, tile)
    return _gather(_native_weight_gradient(grad, x, widen(weight, tile), tile), tile, weight)


def _weight_gradient_channels_last(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The same where a pixel's channels lie side by side, and so the filters of a row's tile already do."""
    batch, _, h, w = grad.shape
    tile = (1, 2 if w % 2 == 0 and _tile(weight, x) != (1, 1) else 1)
    rows = grad.permute(0, 2, 3, 1).reshape(batch, h, w // tile[1], -1)
    x = x.contiguous(memory_format=torch.channels_last)
    wide = _native_weight_gradient(rows.permute(0, 3, 1, 2), x, widen(weight, tile), tile)
    return _gather(wide, tile, weight)


def _gather(wide: Tensor, tile: Tile, weight: Tensor) -> Tensor:
    """The transpose of :func:`widen`: the sum of all copies."""
    (sy, sx), (kh, kw) = tile, weight.shape[2:]
    copies = wide.unflatten(0, (sy, sx, -1))
    cut = [copies[i, j, ..., i : i + kh, j : j + kw] for i in range(sy) for j in range(sx)]
    return torch.stack(cut).sum(0)


def _native_weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: Tile) -> Tensor:
    back = torch.ops.aten.convolution_backward
    return back(grad, x, weight, None, stride, [0, 0], [1, 1], False, [0, 0], 1, [False, True, False])[1]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return convolve(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        own = not torch.is_grad_enabled() and plain(grad)  # or someone differentiates again, or maps
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        grad, d_x, d_weight = grad.contiguous(), None, None
        if wants_x:
            d_x = input_gradient(grad, weight) if own else conv2d_input(x.shape, weight, grad)
        if wants_weight:
            stock = conv2d_weight
            d_weight = weight_gradient(grad, x, weight) if own else stock(x, weight.shape, grad)
        return d_x, d_weight, grad.sum((0, 2, 3)) if wants_bias else None


class Conv2d(nn.Conv2d):
    """``nn.Conv2d``, fast on a CPU when the stride is 1 and there is no padding."""

    def forward(self, input: Tensor) -> Tensor:
        """Same result as ``nn.Conv2d`` up to rounding."""
        simple = self.stride == (1, 1) and self.padding == (0, 0) and self.dilation == (1, 1)
        if not simple or self.groups != 1 or self.weight.dtype != input.dtype or not serves(input):
            return super().forward(input)
        return _Convolution.apply(input, self.weight, self.bias)


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        a, b, c, d = _quarters(x)
        y = torch.maximum(torch.maximum(a, b), torch.maximum(c, d))
        ctx.save_for_backward(x)
        ctx.shape = x.shape
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled() or not plain(grad):  # someone differentiates again, or maps
            return _stock_pool_gradient(x, grad)
        a, b, c, d = _quarters(x)
        dx = torch.zeros(ctx.shape, dtype=grad.dtype, device=grad.device)
        da, db, dc, dd = _quarters(dx)
        top = grad * (torch.maximum(a, b) >= torch.maximum(c, d))  # a tie goes to the first of the four,
        bottom = grad - top  # as in nn.MaxPool2d
        for share, first, second, d_first, d_second in ((top, a, b, da, db), (bottom, c, d, dc, dd)):
            torch.mul(share, first >= second, out=d_first)
            torch.sub(share, d_first, out=d_second)
        return dx


def _stock_pool_gradient(x: Tensor, grad: Tensor) -> Tensor:
    with torch.enable_grad():
        y = F.max_pool2d(x, 2)
    return torch.autograd.grad(y, x, grad, create_graph=True)[0]


def _quarters(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    h, w = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
    a, b, c, d = (x[..., i:h:2, j:w:2] for i in (0, 1) for j in (0, 1))
    return a, b, c, d


class MaxPool2x2(nn.MaxPool2d):
    """2×2 max-pooling, ``nn.MaxPool2d(2)``; on a CPU as an elementwise maximum of four slices."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, input: Tensor) -> Tensor:
        """Same result as ``nn.MaxPool2d(2)``."""
        if min(input.shape[-2:]) < 2 or not serves(input):
            return super().forward(input)
        return _MaxPool.apply(input)
