r"""Composition of the current warp with an update.

.. math::

    \mathbf{M}(\mathbf{p}_{\mathrm{out}}) = \mathbf{M}(\Delta\mathbf{p}) \cdot
    \mathbf{M}(\mathbf{p}_{\mathrm{in}})
"""

from __future__ import annotations

import numpy as np
import torch
from conftest import by_hand, parameters
from torch import nn

from icstn.transformers import CompositionalSTN
from icstn.warps import affine, homography


def test_parameters_follow_the_matrices(rng: np.random.Generator) -> None:
    """Composition on the image side is the printed matrix product, multiplied out by numpy."""
    for p, dp in rng.normal(0, 0.5, (20, 2, 6)):
        out = affine.compose(torch.from_numpy(p), torch.from_numpy(dp), side="image")
        np.testing.assert_allclose(out.numpy(), parameters(by_hand(dp) @ by_hand(p)), atol=1e-12)


def test_is_one_warp_after_the_other(rng: np.random.Generator) -> None:
    """W(x; p_out) = W(W(x; p_in); Δp), also for homographies."""
    x = torch.from_numpy(rng.uniform(-1, 1, (30, 2)))
    for p, dp in torch.from_numpy(rng.normal(0, 0.1, (20, 2, 8))):
        out = homography.compose(p, dp, side="image")
        torch.testing.assert_close(homography.apply(out, x), homography.apply(dp, homography.apply(p, x)))


def test_a_c_stn_composes_so(rng: np.random.Generator) -> None:
    """The warps that a c-STN passes on multiply up in the printed order."""
    steps = torch.from_numpy(rng.normal(0, 0.1, (3, 6)))
    modules = [Constant(dp) for dp in steps]
    warps = CompositionalSTN(modules, warp="affine", side="image")(
        torch.zeros(1, 1, 5, 5).double(), return_warps=True
    ).warps
    product = by_hand(steps[2].numpy()) @ by_hand(steps[1].numpy()) @ by_hand(steps[0].numpy())
    np.testing.assert_allclose(warps[-1][0].numpy(), parameters(product), atol=1e-12)


class Constant(nn.Module):
    """A predictor that always says the same."""

    def __init__(self, dp: torch.Tensor) -> None:
        super().__init__()
        self.dp = dp

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.dp.expand(len(image), -1)
