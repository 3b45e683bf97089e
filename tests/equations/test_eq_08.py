r"""Spatial Transformer.

.. math::

    \mathcal{I}_{\mathrm{out}}(\mathbf{0}) = \mathcal{I}_{\mathrm{in}}(\mathbf{p}), \quad
    \mathbf{p} = f(\mathcal{I}_{\mathrm{in}}(\mathbf{0}))
"""

from __future__ import annotations

import numpy as np
import torch
from conftest import by_hand
from torch import nn

from icstn.transformers import STN


def resampled(image: np.ndarray, p: np.ndarray) -> np.ndarray:
    """I_in(p) of a square image, pixel by pixel: bilinear, zero outside, ±1 at the border's centers."""
    n = len(image)
    padded = np.pad(image, 1)
    out = np.zeros_like(image)
    for row in range(n):
        for column in range(n):
            x, y, _ = by_hand(p) @ [2 * column / (n - 1) - 1, 2 * row / (n - 1) - 1, 1]
            u, v = ((np.array([x, y]) + 1) * (n - 1) / 2) + 1
            if not (0 <= u < n + 1 and 0 <= v < n + 1):
                continue
            i, j = int(v), int(u)
            a, b = v - i, u - j
            out[row, column] = (
                (1 - a) * (1 - b) * padded[i, j] + (1 - a) * b * padded[i, j + 1]
                + a * (1 - b) * padded[i + 1, j] + a * b * padded[i + 1, j + 1]
            )  # fmt: skip
    return out


def linear(rng: np.random.Generator, n: int) -> nn.Linear:
    predictor = nn.Linear(n * n, 6).double()
    with torch.no_grad():
        predictor.weight.copy_(torch.from_numpy(rng.normal(0, 0.3 / n, (6, n * n))))
        predictor.bias.copy_(torch.from_numpy(rng.normal(0, 0.1, 6)))
    return predictor


def test_output_is_the_input_at_the_predicted_warp(rng: np.random.Generator) -> None:
    """An STN's output is its input resampled at f of that input, by a sampler written as two loops."""
    image, predictor = rng.normal(0, 1, (9, 9)), linear(rng, 9)
    stn = STN(nn.Sequential(nn.Flatten(), predictor), warp="affine")
    p = predictor.weight.detach().numpy() @ image.ravel() + predictor.bias.detach().numpy()
    out = stn(torch.from_numpy(image)[None, None])[0, 0].detach().numpy()
    np.testing.assert_allclose(out, resampled(image, p), atol=1e-12)


def test_linear_predictor_is_eq_6(rng: np.random.Generator) -> None:
    """With one linear layer, p = R · I_in(0) + b: twice the image has twice the slope."""
    image, predictor = torch.from_numpy(rng.normal(0, 1, (1, 1, 9, 9))), linear(rng, 9)
    stn = STN(nn.Sequential(nn.Flatten(), predictor), warp="affine")
    p0, p1, p2 = (stn(t * image, return_warps=True).warps[-1] for t in (0.0, 1.0, 2.0))
    torch.testing.assert_close(p2 - p1, p1 - p0)
    torch.testing.assert_close(p0[0], predictor.bias)


def test_what_lies_outside_the_input_is_gone(rng: np.random.Generator) -> None:
    """A zoom-out by 1.5 leaves zeros outside two thirds of the output: nothing of p is left to fetch them."""
    zoom = nn.Linear(81, 6).double()
    with torch.no_grad():
        zoom.weight.zero_()
        zoom.bias.copy_(torch.tensor([0.5, 0, 0, 0, 0.5, 0], dtype=torch.float64))
    out = STN(nn.Sequential(nn.Flatten(), zoom), warp="affine")(torch.ones(1, 1, 9, 9, dtype=torch.float64))[
        0, 0
    ]
    grid = torch.linspace(-1.5, 1.5, 9, dtype=torch.float64)
    outside = (grid.abs() > 1.25 + 1e-9)[:, None] | (grid.abs() > 1.25 + 1e-9)
    assert (out[outside] == 0).all()
    assert outside.any()
