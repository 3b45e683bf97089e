r"""Parameters of an affine warp and its matrix.

.. math::

    \mathbf{M}(\mathbf{p}) = \begin{bmatrix} 1 + p_1 & p_2 & p_3 \\ p_4 & 1 + p_5 & p_6 \\ 0 & 0
    & 1 \end{bmatrix}
"""

from __future__ import annotations

import numpy as np
import torch
from conftest import by_hand

from icstn.warps import affine


def test_each_parameter_stands_in_its_place(rng: np.random.Generator) -> None:
    """The library's matrix is the printed one, entry by entry."""
    for p in rng.normal(0, 1, (20, 6)):
        np.testing.assert_allclose(affine.matrix(torch.from_numpy(p)).numpy(), by_hand(p), atol=1e-15)


def test_zero_is_the_identity() -> None:
    """M(0) = I, so p = 0 leaves every point where it is."""
    x = torch.rand(7, 2)
    torch.testing.assert_close(affine.apply(torch.zeros(6), x), x)


def test_points_move_as_the_matrix_says(rng: np.random.Generator) -> None:
    """W(x; p) is the product of M(p) with the homogeneous point."""
    p, x = rng.normal(0, 1, 6), rng.normal(0, 1, (50, 2))
    moved = affine.apply(torch.from_numpy(p), torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(moved, (np.c_[x, np.ones(50)] @ by_hand(p).T)[:, :2], atol=1e-12)
