r"""Lucas-Kanade, linearized: additive update from the steepest descent images of the *warped* image.

.. math::

    \min_{\Delta\mathbf{p}} \left\| \mathcal{I}(\mathbf{p}) +
    \tfrac{\partial\mathcal{I}(\mathbf{p})}{\partial\mathbf{p}} \Delta\mathbf{p} -
    \mathcal{T}(\mathbf{0}) \right\|_2^2
"""

from __future__ import annotations

import numpy as np
import torch
from conftest import Scene

from icstn.classical import Aligner

P = np.array([0.05, 0.02, -0.07, -0.04, 0.03, 0.06])


def test_error_is_of_second_order(scene: Scene, rng: np.random.Generator, order) -> None:
    """I(p) + ∂I(p)/∂p Δp differs from I(p + Δp) by O(‖Δp‖²): halving Δp quarters the difference."""
    dp = rng.normal(0, 0.05, 6)
    errors = [
        np.linalg.norm(scene.warped(P) + scene.steepest_descent(P) @ (dp * h) - scene.warped(P + dp * h))
        for h in (1, 0.5, 0.25)
    ]
    assert 1.9 < order(errors) < 2.2


def test_one_step_is_its_least_squares_solution(scene: Scene) -> None:
    """The library's first additive step is the solution with the exact gradient, up to finite differences."""
    J, e = scene.steepest_descent(np.zeros(6)), scene.warped(np.zeros(6))
    template = scene.warped(P)  # T(0) is the scene seen through P, so that P is where the image must go
    exact = np.linalg.lstsq(J, template - e, rcond=None)[0]
    T = torch.from_numpy(template.reshape(1, 1, scene.n, scene.n))
    step = Aligner(
        T, "affine", frame=scene.frame, algorithm="FA", normalize=False, levels=1, blur=1, iterations=1
    )(scene.image())
    np.testing.assert_allclose(step.p[0].numpy(), exact, atol=1.5e-3)


def test_its_regressor_changes_with_p(scene: Scene) -> None:
    """∂I(p)/∂p is another matrix at another p: the additive form has to recompute it in every iteration."""
    here, there = scene.steepest_descent(np.zeros(6)), scene.steepest_descent(P)
    assert np.linalg.norm(here - there) > 0.05 * np.linalg.norm(here)
