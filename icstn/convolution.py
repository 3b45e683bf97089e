"""2-D convolution whose backward pass is fast for few channels on a CPU.

The layers of the paper have 1 to 24 channels. The CPU library's input gradient of such a convolution is
several times slower than its forward pass, so :class:`FastConv2d` computes the same gradient in one of two
other ways (:func:`input_gradient`). On other devices, and for strided or padded layers, it is ``nn.Conv2d``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def input_gradient(
    grad: Float[Tensor, "batch out h w"], weight: Float[Tensor, "out channels kh kw"]
) -> Float[Tensor, "batch channels height width"]:
    """∂L/∂input of ``F.conv2d(input, weight)`` (stride 1, no padding).

    Plain definition: the full correlation of ``grad`` with the flipped, transposed weights. One input
    channel is a matrix product instead, because a convolution kernel with a single output wastes most
    of a vector register.
    """
    out, channels, kh, kw = weight.shape
    if channels == 1:
        return _input_gradient_one_channel(grad, weight)
    return F.conv2d(grad, weight.flip(2, 3).transpose(0, 1), padding=(kh - 1, kw - 1))


def _input_gradient_one_channel(grad: Tensor, weight: Tensor) -> Tensor:
    """Each row of ``grad`` times a banded (Toeplitz) matrix gives its share of kh input rows; add them up."""
    batch, out, h, w = grad.shape
    kh, kw = weight.shape[2:]
    width = w + kw - 1
    rows = grad.transpose(1, 2).reshape(batch * h, out * w)
    shares = (rows @ _toeplitz(weight[:, 0], w)).view(batch, h, kh, width)
    total = grad.new_zeros(batch, h + kh - 1, width)
    for i in range(kh):
        total[:, i : i + h] += shares[:, :, i]
    return total.unsqueeze(1)


def _toeplitz(kernels: Tensor, w: int) -> Tensor:
    """Matrix ``(out·w, kh·(w + kw − 1))`` with ``kernels[o, i, j]`` at row (o, x), column (i, x + j)."""
    out, kh, kw = kernels.shape
    band = kernels.new_zeros(out, w, kh, w + kw - 1)
    so, sx, si, sj = band.stride()
    band.as_strided((out, w, kh, kw), (so, sx + sj, si, sj)).copy_(kernels.unsqueeze(1).expand(-1, w, -1, -1))
    return band.view(out * w, kh * (w + kw - 1))


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return F.conv2d(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        wants_x, wants_w, wants_b = ctx.needs_input_grad
        dx = input_gradient(grad, weight) if wants_x else None
        if not (wants_w or wants_b):
            return dx, None, None
        mask = [False, wants_w, wants_b and ctx.has_bias]
        _, dw, db = torch.ops.aten.convolution_backward(
            grad, x, weight, [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, mask
        )
        return dx, dw, db


class FastConv2d(nn.Conv2d):
    """``nn.Conv2d`` with stride 1 and no padding, and the backward pass of this module on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """Same result as ``nn.Conv2d``; see there."""
        plain = self.stride == (1, 1) and self.padding == (0, 0) and self.dilation == (1, 1)
        if input.device.type == "cpu" and plain and self.groups == 1 and torch.is_grad_enabled():
            return _Conv2d.apply(input, self.weight, self.bias)
        return super().forward(input)
