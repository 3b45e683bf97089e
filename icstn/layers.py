"""Convolution and max-pooling that are fast for few channels on a CPU.

The layers of the paper have 1 to 24 channels, for which the CPU library leaves most of a vector register
empty: its input gradient of conv(7×7, 1→4) takes some ten times as long as the forward pass. The
functions here compute the same numbers (up to rounding) in another arrangement. On other devices, and for
strided, padded or grouped layers, the modules are ``nn.Conv2d`` and ``nn.MaxPool2d``.

The arrangement is one idea used three times. Neighboring outputs of a row become channels
(:func:`widen`): s·O filters with stride s in place of O filters with stride 1. With s·O near 16, a vector's
lanes are all in use.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

LANES = 16


def widen(weight: Float[Tensor, "out channels kh kw"], s: int) -> Float[Tensor, "s_out channels kh kws"]:
    """Filters that compute s neighboring outputs at once: copy i of each, shifted right by i pixels."""
    out, channels, kh, kw = weight.shape
    wide = weight.new_zeros(s, out, channels, kh, kw + s - 1)
    copy, *strides = wide.stride()
    shifted = wide.as_strided((s, *weight.shape), (copy + 1, *strides))
    shifted.copy_(weight.expand_as(shifted))
    return wide.flatten(0, 1)


def wide_factor(out: int, kernel: int, width: int) -> int:
    """How many neighboring outputs to compute at once: 4, 2 or 1."""
    fits = (s for s in (4, 2) if s * out <= LANES and width % s == 0)
    return next(fits, 1) if kernel >= 5 else 1


def convolve(
    x: Float[Tensor, "batch channels h w"],
    weight: Float[Tensor, "out channels kh kw"],
    bias: Tensor | None = None,
    padding: int = 0,
) -> Float[Tensor, "batch out h2 w2"]:
    """``F.conv2d(x, weight, bias, padding=padding)``, several outputs at once where that is faster."""
    s = wide_factor(len(weight), weight.shape[3], x.shape[3] + 2 * padding - weight.shape[3] + 1)
    if s == 1:
        return F.conv2d(x, weight, bias, padding=padding)
    wide_bias = None if bias is None else bias.repeat(s)
    y = F.conv2d(x, widen(weight, s), wide_bias, stride=(1, s), padding=padding)
    batch, _, h, w = y.shape
    return y.view(batch, s, -1, h, w).permute(0, 2, 3, 4, 1).reshape(batch, -1, h, w * s)


def input_gradient(
    grad: Float[Tensor, "batch out h w"], weight: Float[Tensor, "out channels kh kw"]
) -> Float[Tensor, "batch channels h2 w2"]:
    """∂L/∂x of ``F.conv2d(x, weight)``: the full correlation of ``grad`` with the flipped weights."""
    out, channels, kh, kw = weight.shape
    if channels == 1 or channels * out <= LANES:
        return _input_gradient_by_rows(grad, weight)
    flipped = weight.flip(2, 3).transpose(0, 1)
    if kh == kw:
        return convolve(grad, flipped, padding=kh - 1)
    return F.conv2d(grad, flipped, padding=(kh - 1, kw - 1))


def _input_gradient_by_rows(grad: Tensor, weight: Tensor) -> Tensor:
    """Each row of ``grad`` times a banded (Toeplitz) matrix gives its share of kh input rows; add them up."""
    batch, out, h, w = grad.shape
    _, channels, kh, kw = weight.shape
    rows = grad.transpose(1, 2).reshape(batch * h, out * w)
    band = widen(weight, w).view(w, out, channels, kh, w + kw - 1).permute(1, 0, 3, 2, 4)
    shares = (rows @ band.reshape(out * w, -1)).view(batch, h, kh, channels, w + kw - 1)
    total = grad.new_zeros(batch, h + kh - 1, channels, w + kw - 1)
    for i in range(kh):
        total[:, i : i + h] += shares[:, :, i]
    return total.transpose(1, 2).contiguous()


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """∂L/∂weight of ``F.conv2d(x, weight)``."""
    batch, out, h, w = grad.shape
    channels, kw = weight.shape[1], weight.shape[3]
    s = wide_factor(out, kw, w) if channels <= 8 else 1
    if 3 < channels <= 8 and kw >= 5:  # channels innermost: a pixel's gradients already lie side by side
        stacked = grad.permute(0, 2, 3, 1).reshape(batch, h, w // s, s * out).permute(0, 3, 1, 2)
        x = x.contiguous(memory_format=torch.channels_last)
    elif s > 1:
        stacked = grad.view(batch, out, h, w // s, s).permute(0, 4, 1, 2, 3).flatten(1, 2)
    else:
        return _native_weight_gradient(grad, x, weight, 1)
    wide = _native_weight_gradient(stacked, x, widen(weight, s), s).unflatten(0, (s, out))
    return torch.stack([wide[i, ..., i : i + kw] for i in range(s)]).sum(0)


def _native_weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, s: int) -> Tensor:
    back = torch.ops.aten.convolution_backward
    return back(grad, x, weight, None, [1, s], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False])[1]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return convolve(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            input_gradient(grad, weight) if wants_x else None,
            weight_gradient(grad, x, weight) if wants_weight else None,
            grad.sum((0, 2, 3)) if wants_bias else None,
        )


class Conv2d(nn.Conv2d):
    """``nn.Conv2d``, fast on a CPU when the stride is 1 and there is no padding."""

    def forward(self, input: Tensor) -> Tensor:
        """Same result as ``nn.Conv2d`` up to rounding; differentiable once."""
        plain = self.stride == (1, 1) and self.padding == (0, 0) and self.dilation == (1, 1)
        if input.device.type != "cpu" or input.dim() != 4 or not plain or self.groups != 1:
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
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        a, b, c, d = _quarters(ctx.saved_tensors[0])
        dx = torch.zeros(ctx.shape, dtype=grad.dtype, device=grad.device)
        da, db, dc, dd = _quarters(dx)
        top = grad * (torch.maximum(a, b) >= torch.maximum(c, d))  # a tie goes to the first of the four,
        bottom = grad - top  # as in nn.MaxPool2d
        for share, first, second, d_first, d_second in ((top, a, b, da, db), (bottom, c, d, dc, dd)):
            torch.mul(share, first >= second, out=d_first)
            torch.sub(share, d_first, out=d_second)
        return dx


def _quarters(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    h, w = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
    a, b, c, d = (x[..., i:h:2, j:w:2] for i in (0, 1) for j in (0, 1))
    return a, b, c, d


class MaxPool2x2(nn.MaxPool2d):
    """2×2 max-pooling, ``nn.MaxPool2d(2)``; on a CPU as an elementwise maximum of four slices."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, input: Tensor) -> Tensor:
        """Same result as ``nn.MaxPool2d(2)``; differentiable once."""
        if input.device.type != "cpu":
            return super().forward(input)
        return _MaxPool.apply(input)
