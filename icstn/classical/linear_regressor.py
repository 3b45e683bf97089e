"""Linear regressors of warp updates, Δp = R φ(I(p)) + b, eq. (6): from a template, a network, or samples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from icstn.classical.inputs import check_finite_images
from icstn.classical.pyramid import gradient
from icstn.sampling import Frame
from icstn.warps import Warp, family


class LinearRegressor(NamedTuple):
    """Eq. (6), Δp = R φ + b.

    Attributes:
        R: the regressor, ``(k, d)``.
        b: the bias, ``(k,)``.
    """

    R: Tensor
    b: Tensor

    def predict(self, features: Float[Tensor, "batch d"]) -> Float[Tensor, "batch k"]:
        """Δp for feature vectors."""
        return torch.addmm(self.b, features, self.R.mT)

    def images(self, channels: int, height: int, width: int) -> Float[Tensor, "k channels height width"]:
        """The rows of R as images: what each warp parameter reads off the patch.

        Raises:
            ValueError: R does not have one column for each pixel (it regresses from other features).
        """
        k, d = self.R.shape
        if d != channels * height * width:
            raise ValueError(
                f"R has {d} columns, not {channels}·{height}·{width}: "
                "only a regressor on pixels can be shown as images"
            )
        return self.R.reshape(k, channels, height, width)


def ic_lk(template: Float[Tensor, "1 channels height width"], warp: Warp | str) -> LinearRegressor:
    """(R, b) of the inverse compositional algorithm: R = (∂T(0)/∂p)†, b = −R T(0), eqs. (5) and (6).

    Raises:
        ValueError: the steepest descent images are linearly dependent (a constant template, for example).
    """
    check_finite_images(template)
    J = steepest_descent_images(template_gradients(template), warp)
    return pseudo_inverse_regressor(J, template)


def linear_predictor(
    weight: Float[Tensor, "k d"], bias: Float[Tensor, " k"], *, negate: bool = True
) -> LinearRegressor:
    """(R, b) of a linear geometric predictor, ``nn.Linear(d, k)`` on the flattened patch.

    An IC-STN composes on the image side and predicts the *inverse* step, M(Δp) M(p) (eq. 10 and Sec. 4.2),
    where Lucas-Kanade computes M(p) M(Δp)⁻¹. Around the identity the two agree to first order when one Δp is
    minus the other, so ``negate`` (the default) makes the four kinds of R comparable.
    """
    sign = -1.0 if negate else 1.0
    return LinearRegressor(sign * weight.detach(), sign * bias.detach())


def ridge_regression(
    features: Float[Tensor, "n d"], targets: Float[Tensor, "n k"], penalty: float
) -> LinearRegressor:
    """Minimizer of Σ ‖target − R φ − b‖² + penalty ‖R‖²; the bias is not penalized.

    Solved in float64 by the normal equations of the centered problem, in the smaller of their two forms
    (d × d, or n × n when there are fewer samples than features).

    Raises:
        ValueError: the penalty is negative, or the equations are singular without one.
    """
    if penalty < 0:
        raise ValueError(f"a ridge penalty is at least 0, got {penalty}")
    X, Y = features.double(), targets.double()
    x, y = X.mean(0), Y.mean(0)
    X, Y = X - x, Y - y
    wide = X.shape[1] > X.shape[0]
    gram, right = (X @ X.mT, Y) if wide else (X.mT @ X, X.mT @ Y)
    solved = _solve_spd(gram, right, penalty)
    R = (X.mT @ solved if wide else solved).mT
    return LinearRegressor(R.to(targets.dtype).contiguous(), (y - R @ x).to(targets.dtype))


def template_gradients(
    template: Float[Tensor, "1 channels height width"],
) -> Float[Tensor, "channels height width 2"]:
    """∇T by central differences, (∂/∂x, ∂/∂y) per normalized unit."""
    height, width = template.shape[-2:]
    gx, gy = gradient(template)
    return torch.stack((gx[0] * (width - 1) / 2, gy[0] * (height - 1) / 2), -1)


def steepest_descent_images(
    gradients: Float[Tensor, "channels height width 2"], warp: Warp | str
) -> Float[Tensor, "d k"]:
    """∇T ∂W/∂p at the identity: one column for each warp parameter, one row for each pixel."""
    channels, height, width, _ = gradients.shape
    x = Frame.full(height, width).grid(gradients.dtype).to(gradients.device)
    jacobian = family(warp).jacobian(x).view(height, width, 2, -1)
    return torch.einsum("chwi,hwik->chwk", gradients, jacobian).reshape(channels * height * width, -1)


def pseudo_inverse(J: Tensor) -> Tensor:
    """(JᵀJ)⁻¹ Jᵀ, the k × k solve in float64."""
    H = (J.mT @ J).double()
    return (torch.linalg.inv_ex(H).inverse.to(J.dtype)) @ J.mT


def pseudo_inverse_regressor(J: Tensor, template: Tensor) -> LinearRegressor:
    """(R, b) with R = J†, b = −J† T.

    Raises:
        ValueError: the steepest descent images J ``(d, k)`` are linearly dependent.
    """
    values = torch.linalg.eigvalsh((J.mT @ J).double())
    flat = template.std() <= 100 * torch.finfo(template.dtype).eps * template.abs().amax()
    if flat or not bool(values[0] > 1e-10 * values[-1]):
        raise ValueError(
            "the template's steepest descent images are linearly dependent (singular Hessian): "
            "its pixels are constant, or vary in too few directions for this warp"
        )
    R = pseudo_inverse(J)
    return LinearRegressor(R, -(R @ template.flatten()))


def _solve_spd(gram: Tensor, right: Tensor, penalty: float) -> Tensor:
    damped = gram + penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factor, info = torch.linalg.cholesky_ex(damped)
    smallest = float(factor.diagonal().amin()) ** 2
    if int(info) or not smallest > 1e-13 * float(damped.diagonal().amax()):
        raise ValueError(
            "the regression is singular: the features are constant or linearly dependent; "
            "use a positive ridge, and samples that differ"
        )
    return torch.cholesky_solve(right, factor)
