r"""Eq. (11) adds both brackets; the sum is the derivative with respect to neither argument.

.. math::

    \frac{\partial\mathbf{p}_{\mathrm{out}}}{\partial\mathbf{p}_{\mathrm{in}}} \ne \mathbf{I} +
    [\Delta\mathbf{p}\text{ bracket}] + [\mathbf{p}_{\mathrm{in}}\text{ bracket}]
    \quad\text{wherever } \mathbf{p}_{\mathrm{in}} \ne \mathbf{0}
"""

from __future__ import annotations

import numpy as np
from test_eq_11 import autograd, brackets


def printed(p: np.ndarray, dp: np.ndarray) -> np.ndarray:
    """The right-hand side of eq. (11), as printed."""
    left, right = brackets(p, dp)
    return np.eye(6) + left + right


def test_printed_form_is_false_away_from_the_identity(rng: np.random.Generator) -> None:
    """As printed, it is off by exactly the p_in bracket at any p_in ≠ 0 (even with Δp = 0)."""
    for p, dp in (*rng.normal(0, 0.5, (20, 2, 6)), (np.full(6, 0.1), np.zeros(6))):
        error = printed(p, dp) - autograd(p, dp)[0]
        np.testing.assert_allclose(error, brackets(p, dp)[1], atol=1e-12)
        assert np.abs(error).max() > 0.05


def test_printed_form_is_no_derivative_by_the_update_either(rng: np.random.Generator) -> None:
    """Read as ∂p_out/∂Δp it is off by the Δp bracket."""
    for p, dp in rng.normal(0, 0.5, (20, 2, 6)):
        assert np.abs(printed(p, dp) - autograd(p, dp)[1]).max() > 0.01


def test_it_is_true_at_the_identity(rng: np.random.Generator) -> None:
    """At p_in = 0 the superfluous bracket vanishes, which may be how it went unnoticed."""
    for dp in rng.normal(0, 0.5, (20, 6)):
        zero = np.zeros(6)
        np.testing.assert_allclose(printed(zero, dp), autograd(zero, dp)[0], atol=1e-12)


def test_the_argument_survives(rng: np.random.Generator) -> None:
    """For small Δp the right form stays within ‖Δp‖ of the identity, whatever p_in."""
    for p, dp in rng.normal(0, 1, (20, 2, 6)):
        singular_values = np.linalg.svd(autograd(p, 0.1 * dp)[0], compute_uv=False)
        assert np.abs(singular_values - 1).max() <= 0.1 * np.linalg.norm(dp) + 1e-12
