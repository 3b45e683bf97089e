r"""Derivative of the composition, in the form that holds: one bracket for each argument.

.. math::

    \begin{aligned}
    \frac{\partial\mathbf{p}_{\mathrm{out}}}{\partial\mathbf{p}_{\mathrm{in}}} &= \mathbf{I} +
    \begin{bmatrix} \Delta p_1 \mathbf{I}_3 & \Delta p_2 \mathbf{I}_3 \\ \Delta p_4 \mathbf{I}_3
    & \Delta p_5 \mathbf{I}_3 \end{bmatrix}, \\
    \frac{\partial\mathbf{p}_{\mathrm{out}}}{\partial\Delta\mathbf{p}} &= \mathbf{I} +
    \begin{bmatrix} \mathbf{B} & \mathbf{0} \\ \mathbf{0} & \mathbf{B} \end{bmatrix}, \quad
    \mathbf{B} = \begin{bmatrix} p_1 & p_4 & 0 \\ p_2 & p_5 & 0 \\ p_3 & p_6 & 0 \end{bmatrix}
    \end{aligned}
"""

from __future__ import annotations

import numpy as np
import torch

from icstn.warps import affine


def brackets(p: np.ndarray, dp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two 6×6 brackets as they are printed, the Δp bracket and the p_in bracket."""
    left = np.kron(np.array([[dp[0], dp[1]], [dp[3], dp[4]]]), np.eye(3))
    block = np.array([[p[0], p[3], 0], [p[1], p[4], 0], [p[2], p[5], 0]])
    return left, np.kron(np.eye(2), block)


def autograd(p: np.ndarray, dp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """∂p_out/∂p_in and ∂p_out/∂Δp by differentiating the composition."""
    compose = lambda a, b: affine.compose(a, b, side="image")  # noqa: E731
    pair = torch.autograd.functional.jacobian(compose, (torch.from_numpy(p), torch.from_numpy(dp)))
    return pair[0].numpy(), pair[1].numpy()


def test_with_respect_to_the_incoming_warp(rng: np.random.Generator) -> None:
    """∂p_out/∂p_in = I + the Δp bracket, against autograd."""
    for p, dp in rng.normal(0, 0.7, (20, 2, 6)):
        np.testing.assert_allclose(autograd(p, dp)[0], np.eye(6) + brackets(p, dp)[0], atol=1e-12)


def test_with_respect_to_the_update(rng: np.random.Generator) -> None:
    """∂p_out/∂Δp = I + the p_in bracket, against autograd."""
    for p, dp in rng.normal(0, 0.7, (20, 2, 6)):
        np.testing.assert_allclose(autograd(p, dp)[1], np.eye(6) + brackets(p, dp)[1], atol=1e-12)


def test_against_finite_differences(rng: np.random.Generator) -> None:
    """The same two derivatives without autograd: the map is affine in each: central differences are exact."""
    p, dp, h = *rng.normal(0, 0.7, (2, 6)), 0.1

    def out(p: np.ndarray, dp: np.ndarray) -> np.ndarray:
        return affine.compose(torch.from_numpy(p), torch.from_numpy(dp), side="image").numpy()

    e = h * np.eye(6)
    by_p = np.stack([(out(p + d, dp) - out(p - d, dp)) / (2 * h) for d in e], -1)
    by_dp = np.stack([(out(p, dp + d) - out(p, dp - d)) / (2 * h) for d in e], -1)
    left, right = brackets(p, dp)
    np.testing.assert_allclose(by_p, np.eye(6) + left, atol=1e-12)
    np.testing.assert_allclose(by_dp, np.eye(6) + right, atol=1e-12)
