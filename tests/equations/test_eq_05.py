r"""Least-squares solution of the inverse compositional step, by the Moore-Penrose pseudo-inverse.

.. math::

    \Delta\mathbf{p} =
    \left(\tfrac{\partial\mathcal{T}(\mathbf{0})}{\partial\mathbf{p}}\right)^{\dagger}
    (\mathcal{I}(\mathbf{p}) - \mathcal{T}(\mathbf{0}))
"""

from __future__ import annotations

import numpy as np
import torch
from conftest import Scene, by_hand, parameters

from icstn.classical import Aligner, ic_lk, steepest_descent_images, template_gradients

P = np.array([0.03, -0.02, 0.05, 0.01, 0.04, -0.06])


def test_gradient_of_eq_4_vanishes_there(scene: Scene) -> None:
    """At the regressor's Δp, autograd finds no slope of the objective (4), and a minimum around it."""
    J = steepest_descent_images(template_gradients(scene.template()), "affine")
    e = torch.from_numpy(scene.warped(P)) - scene.template().flatten()
    dp = ic_lk(scene.template(), "affine").predict(torch.from_numpy(scene.warped(P))[None])[0]
    dp = dp.detach().requires_grad_()
    cost = (e - J @ dp).square().sum()
    cost.backward()
    assert dp.grad.abs().max() < 1e-8 * float(e.norm() * J.norm())
    for other in dp.detach() + 0.01 * torch.eye(6, dtype=torch.float64):
        assert (e - J @ other).square().sum() > cost.detach()


def test_is_the_pseudo_inverse_of_the_exact_derivative() -> None:
    """The library's step is numpy's pseudo-inverse of the closed-form derivative times I(p) − T(0)."""
    scene = Scene(size=161, n=161)
    exact = np.linalg.pinv(scene.steepest_descent(np.zeros(6))) @ (
        scene.warped(P) - scene.warped(np.zeros(6))
    )
    dp = ic_lk(scene.template(), "affine").predict(torch.from_numpy(scene.warped(P))[None])[0]
    np.testing.assert_allclose(dp.numpy(), exact, atol=2e-3)


def test_the_aligner_takes_that_step_inversely() -> None:
    """One iteration from p is M(p) M(Δp)⁻¹ with this Δp, multiplied out by hand."""
    scene = Scene(size=241, n=121)
    aligner = Aligner(
        scene.template(),
        "affine",
        frame=scene.frame,
        algorithm="IC",
        normalize=False,
        levels=1,
        blur=1,
        iterations=1,
    )
    start = np.array([0.02, 0.0, -0.03, 0.0, 0.02, 0.03])
    image_at_start = torch.from_numpy(scene.warped(start))[None]
    dp = ic_lk(scene.template(), "affine").predict(image_at_start)[0].numpy()
    found = aligner(scene.image(), torch.from_numpy(start)[None]).p[0].numpy()
    inverse, forward = np.linalg.inv(by_hand(dp)), by_hand(dp)
    taken = np.linalg.norm(found - start)
    assert np.linalg.norm(parameters(by_hand(start) @ inverse) - found) < 0.1 * taken
    assert np.linalg.norm(parameters(by_hand(start) @ forward) - found) > 1.5 * taken
