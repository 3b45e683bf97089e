r"""Inverse compositional objective: the template moves, not the image.

.. math::

    \min_{\Delta\mathbf{p}} \|\mathcal{I}(\mathbf{p}) - \mathcal{T}(\Delta\mathbf{p})\|_2^2
"""

from __future__ import annotations

import numpy as np
from conftest import Scene, by_hand, parameters
from scipy.optimize import minimize

TRUTH = np.array([0.04, -0.03, 0.10, 0.02, -0.05, -0.08])
P = np.array([-0.02, 0.05, 0.03, 0.04, 0.01, -0.12])


def image_at(scene: Scene, p: np.ndarray) -> np.ndarray:
    """I(p), where I is the scene moved by TRUTH: the scene at the points M(TRUTH)⁻¹ M(p) x."""
    return scene.warped(parameters(np.linalg.inv(by_hand(TRUTH)) @ by_hand(p)))


def minimizer(scene: Scene) -> np.ndarray:
    """The Δp that a general-purpose minimizer finds from Δp = 0."""
    target = image_at(scene, P)
    cost = lambda dp: np.square(target - scene.warped(dp)).sum()  # noqa: E731
    slope = lambda dp: -2 * scene.steepest_descent(dp).T @ (target - scene.warped(dp))  # noqa: E731
    return minimize(cost, np.zeros(6), jac=slope, method="BFGS", options={"gtol": 1e-9}).x


def test_one_inverse_compositional_update_reaches_the_truth(scene: Scene) -> None:
    """Its exact minimizer, composed inversely, M(p) M(Δp)⁻¹, is the true warp in one step."""
    updated = by_hand(P) @ np.linalg.inv(by_hand(minimizer(scene)))
    np.testing.assert_allclose(parameters(updated), TRUTH, atol=1e-5)


def test_the_order_and_the_inverse_are_needed(scene: Scene) -> None:
    """Composed on the other side, or without the inverse, the same Δp misses the true warp."""
    m, dm = by_hand(P), by_hand(minimizer(scene))
    for wrong in (np.linalg.inv(dm) @ m, m @ dm, dm @ m):
        assert np.abs(parameters(wrong) - TRUTH).max() > 1e-3
