r"""Lucas-Kanade objective.

.. math::

    \min_{\Delta\mathbf{p}} \|\mathcal{I}(\mathbf{p} + \Delta\mathbf{p}) -
    \mathcal{T}(\mathbf{0})\|_2^2
"""

from __future__ import annotations

import numpy as np
import torch
from conftest import Scene
from scipy.optimize import minimize

from icstn.classical import Aligner
from icstn.sampling import sample

TRUTH = np.array([0.04, -0.03, 0.10, 0.02, -0.05, -0.08])


def objective(scene: Scene, p: np.ndarray) -> float:
    """Squared distance of I(p) from T(0), I being the scene moved by TRUTH, with the library's sampling."""
    image = scene.image(TRUTH)
    difference = sample(image, torch.from_numpy(p)[None], scene.frame, "affine") - scene.template()
    return float(difference.square().sum())


def test_vanishes_at_the_true_warp_and_nowhere_near(scene: Scene, rng: np.random.Generator) -> None:
    """The objective is zero, up to interpolation, exactly where p + Δp is the true warp."""
    floor = objective(scene, TRUTH)
    assert floor < 1e-3 * objective(scene, np.zeros(6))
    for step in rng.normal(0, 0.05, (20, 6)):
        assert objective(scene, TRUTH + step) > 20 * floor


def test_the_additive_iteration_finds_its_minimizer(scene: Scene) -> None:
    """Forwards additive Lucas-Kanade ends where a general-purpose minimizer of the objective ends."""
    best = minimize(lambda p: objective(scene, p), np.zeros(6), method="BFGS").x
    found = Aligner(
        scene.template(),
        "affine",
        frame=scene.frame,
        algorithm="FA",
        normalize=False,
        levels=1,
        blur=1,
        iterations=30,
        tol=1e-6,
    )(scene.image(TRUTH))
    np.testing.assert_allclose(found.p[0].numpy(), best, atol=2e-3)
    np.testing.assert_allclose(best, TRUTH, atol=2e-3)
