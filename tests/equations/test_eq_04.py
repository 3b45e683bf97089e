r"""Inverse compositional objective, linearized around the identity.

.. math::

    \min_{\Delta\mathbf{p}} \left\| \mathcal{I}(\mathbf{p}) - \mathcal{T}(\mathbf{0}) -
    \tfrac{\partial\mathcal{T}(\mathbf{0})}{\partial\mathbf{p}} \Delta\mathbf{p} \right\|_2^2
"""

from __future__ import annotations

import numpy as np
import torch
from conftest import Scene

from icstn.classical import steepest_descent_images, template_gradients


def test_error_is_of_second_order(scene: Scene, rng: np.random.Generator, order) -> None:
    """T(0) + ∂T(0)/∂p Δp differs from T(Δp) by O(‖Δp‖²)."""
    dp, J = rng.normal(0, 0.05, 6), scene.steepest_descent(np.zeros(6))
    start = scene.warped(np.zeros(6))
    errors = [np.linalg.norm(start + J @ (dp * h) - scene.warped(dp * h)) for h in (1, 0.5, 0.25)]
    assert 1.9 < order(errors) < 2.2


def test_steepest_descent_images_are_the_derivative(scene: Scene) -> None:
    """∂T(0)/∂p from the template's pixels is the derivative in closed form (central differences inside)."""
    J = steepest_descent_images(template_gradients(scene.template()), "affine").numpy()
    inner = np.abs(scene.points).max(1) < 1 - 1e-9
    exact = scene.steepest_descent(np.zeros(6))
    assert np.abs(J - exact)[inner].max() < 5e-3 * np.abs(exact).max()


def test_they_are_the_same_for_every_image_and_warp(scene: Scene) -> None:
    """Neither I nor p enters: the images are a function of the template's pixels alone."""
    template = scene.template().requires_grad_()
    J = steepest_descent_images(template_gradients(template), "affine")
    assert {id(t) for t in _leaves(J.grad_fn)} == {id(template)}
    doubled = steepest_descent_images(template_gradients(2 * template), "affine")
    torch.testing.assert_close(doubled, 2 * J)


def _leaves(node) -> list[torch.Tensor]:
    """Every tensor with a gradient that a result was made from."""
    if node is None:
        return []
    own = [node.variable] if hasattr(node, "variable") else []
    return own + [leaf for child, _ in node.next_functions for leaf in _leaves(child)]
