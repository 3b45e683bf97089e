r"""Eq. (10) composes on the image side, the Lucas-Kanade update of Sec. 2.1 on the template side.

.. math::

    \begin{aligned}
    \text{eq. (10):}\quad & \mathbf{M}(\Delta\mathbf{p})\,\mathbf{M}(\mathbf{p}) \\
    \text{Sec. 2.1:}\quad & \mathbf{p} \circ \Delta\mathbf{p}^{-1}, \text{ that is }
    \mathbf{M}(\mathbf{p})\,\mathbf{M}(\Delta\mathbf{p})^{-1}
    \end{aligned}
"""

from __future__ import annotations

import numpy as np
import torch
from conftest import Scene, by_hand, parameters

from icstn.classical import ic_lk

TRUTH = np.array([0.25, -0.2, 0.1, 0.3, -0.2, -0.1])


def after_one_step(scene: Scene, p: np.ndarray, side: str) -> float:
    """Distance from the truth after one exact-gradient step composed on that side."""
    look = scene.warped(parameters(np.linalg.inv(by_hand(TRUTH)) @ by_hand(p)))
    dp = ic_lk(scene.template(), "affine").predict(torch.from_numpy(look)[None])[0].numpy()
    m, undo = by_hand(p), np.linalg.inv(by_hand(dp))
    new = undo @ m if side == "image" else m @ undo
    return float(np.abs(new - by_hand(TRUTH)).max())


def test_products_differ(rng: np.random.Generator) -> None:
    """Two affine warps do not commute: the two orders give different parameters."""
    for p, dp in rng.normal(0, 0.2, (20, 2, 6)):
        assert np.abs(by_hand(dp) @ by_hand(p) - by_hand(p) @ by_hand(dp)).max() > 1e-3


def test_lucas_kanade_needs_the_template_side(rng: np.random.Generator) -> None:
    """Near a true warp far from the identity, Lucas-Kanade's Δp corrects on the right and not on the left."""
    scene = Scene(n=101)
    starts = [parameters(by_hand(TRUTH) @ by_hand(step)) for step in rng.normal(0, 0.02, (20, 6))]
    before = np.mean([np.abs(by_hand(p) - by_hand(TRUTH)).max() for p in starts])
    right = np.mean([after_one_step(scene, p, "template") for p in starts])
    left = np.mean([after_one_step(scene, p, "image") for p in starts])
    assert right < 0.1 * before
    assert left > 4 * right


def test_they_agree_to_first_order_at_the_identity(rng: np.random.Generator, order) -> None:
    """For small p and Δp the two products differ by a term of second order."""
    p, dp = rng.normal(0, 0.2, (2, 6))
    errors = [
        np.abs(by_hand(h * dp) @ by_hand(h * p) - by_hand(h * p) @ by_hand(h * dp)).max()
        for h in (1, 0.5, 0.25)
    ]
    assert 1.9 < order(errors) < 2.1


def test_for_a_fixed_target_both_need_the_same(rng: np.random.Generator) -> None:
    """Where the right warp is the identity, either side needs M(p)⁻¹: a learned predictor loses nothing."""
    for p in rng.normal(0, 0.2, (20, 6)):
        needed = np.linalg.inv(by_hand(p))
        np.testing.assert_allclose(needed @ by_hand(p), np.eye(3), atol=1e-12)
        np.testing.assert_allclose(by_hand(p) @ needed, np.eye(3), atol=1e-12)


def test_what_is_left_is_how_an_imperfect_step_acts(rng: np.random.Generator) -> None:
    """At M(p) = (A | t), a step off by (E | e) ends E t + e away on the image side, A e on the other."""
    for p, e in rng.normal(0, 0.2, (20, 2, 6)):
        m, off = by_hand(p), by_hand(e) - np.eye(3)
        (A, t), (E, shift) = ((x[:2, :2], x[:2, 2]) for x in (m, off))
        step = np.linalg.inv(m) + off
        np.testing.assert_allclose((step @ m)[:2, 2], E @ t + shift, atol=1e-12)
        np.testing.assert_allclose((m @ step)[:2, 2], A @ shift, atol=1e-12)


def test_conjugation_turns_one_into_the_other(rng: np.random.Generator) -> None:
    """The two updates are conjugate, Δ' = M(p) M(Δp) M(p)⁻¹: which p it is decides how far they differ."""
    p, dp = rng.normal(0, 0.2, (2, 6))
    conjugate = by_hand(p) @ by_hand(dp) @ np.linalg.inv(by_hand(p))
    np.testing.assert_allclose(conjugate @ by_hand(p), by_hand(p) @ by_hand(dp), atol=1e-12)
    assert np.abs(conjugate - by_hand(dp)).max() > 1e-3
