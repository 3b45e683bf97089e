"""The Lucas-Kanade family: five algorithms that are meant to be read against each other.

All minimize the squared difference between a template T and an image I sampled at W(x; p). Each is
written as the same three functions, and each ``step`` takes the same steps in the same order under the
same names, so that the difference between two classes is the difference between two algorithms::

    IWxp    the image at W(x; p)
    dI, dT  a gradient, of the image or of the template
    dW_dp   the Jacobian of the warp
    sd      the steepest descent images, gradient times Jacobian
    e       the residual
    H, b    the normal equations H Δp = b, with H = sd sdᵀ and b = sd e
    dp      their solution, applied to the warp by ``update``

=====  ======================  ==============  =============================  ==========
class  algorithm               gradient of     update                         cost of H
=====  ======================  ==============  =============================  ==========
FA     forwards additive       image           p + Δp                         each step
FC     forwards compositional  warped image    p ∘ Δp                         each step
ESM    efficient second-order  mean of both    p ∘ Δp                         each step
IC     inverse compositional   template        p ∘ Δp⁻¹                       once
IA     inverse additive        template        p − Γ(p)⁻¹Δp                   once
=====  ======================  ==============  =============================  ==========

These are single steps; :class:`icstn.classical.Aligner` iterates them from coarse to fine.
"""

# ruff: noqa: D102, E741 -- the methods are documented once, in Algorithm; I is the image, as in the equations

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from icstn.classical.level import Gradient, Image, Scale, Template
from icstn.warps import Warp


class Fixed(NamedTuple):
    """What an algorithm computes once from the template: steepest descent images and their Hessian."""

    sd: Tensor
    H: Tensor


class NormalEquations(NamedTuple):
    """The normal equations of one step, for a batch.

    Attributes:
        H: ``(batch or 1, k, k)``.
        b: ``(batch, k)``.
        e: residual, zero for the samples outside the image, ``(batch, C·N)``.
        overlap: fraction of the samples inside the image, ``(batch,)``, or None where all are.
    """

    H: Tensor
    b: Tensor
    e: Tensor
    overlap: Tensor | None

    def cost(self) -> Tensor:
        """Mean squared residual over the samples inside the image, ``(batch,)``."""
        cost = self.e.square().mean(-1)
        return cost if self.overlap is None else cost / self.overlap.clamp(min=1e-6)


class Algorithm:
    """What the siblings share: the order of the steps, not the steps."""

    name: ClassVar[str]
    title: ClassVar[str]

    def check(self, warp: Warp) -> None:
        """Raise where the algorithm is not valid for the family."""

    def precompute(self, T: Template) -> Fixed | None:
        """What does not change from step to step."""
        raise NotImplementedError

    def step(self, T: Template, I: Image, p: Tensor, fixed: Fixed | None) -> NormalEquations:
        """Linearize at p."""
        raise NotImplementedError

    def update(self, s: Scale, p: Tensor, dp: Tensor) -> Tensor:
        """Apply Δp to the warp."""
        raise NotImplementedError


class ForwardsAdditive(Algorithm):
    """Linearize I(p + Δp) around p and add the update: Lucas and Kanade's own algorithm, eqs. (1)-(2)."""

    name, title = "FA", "forwards additive"

    def precompute(self, T: Template) -> Fixed | None:
        return None

    def step(self, T: Template, I: Image, p: Tensor, fixed: Fixed | None) -> NormalEquations:
        IWxp, dI, inside = I.warp_with_gradient(p)
        dW_dp = T.scale.dW_dp(p)
        IWxp, dI = T.match(IWxp, dI, inside)
        sd = steepest_descent(dI, dW_dp)
        e = T.T - IWxp
        return normal_equations(sd, e, inside, T)

    def update(self, s: Scale, p: Tensor, dp: Tensor) -> Tensor:
        return p + dp


class ForwardsCompositional(Algorithm):
    """Linearize I(p ∘ Δp) around Δp = 0: the Jacobian is constant, the gradient is of the warped image."""

    name, title = "FC", "forwards compositional"

    def precompute(self, T: Template) -> Fixed | None:
        return None

    def step(self, T: Template, I: Image, p: Tensor, fixed: Fixed | None) -> NormalEquations:
        IWxp, dI, inside = I.warp_with_gradient(p)
        dI = chain(dI, T.scale.dW_dx(p))
        dW_dp = T.scale.dW_dp()
        IWxp, dI = T.match(IWxp, dI, inside)
        sd = steepest_descent(dI, dW_dp)
        e = T.T - IWxp
        return normal_equations(sd, e, inside, T)

    def update(self, s: Scale, p: Tensor, dp: Tensor) -> Tensor:
        return s.compose(p, dp)


class SecondOrder(Algorithm):
    """Efficient second-order minimization (Malis, 2004): the mean of the template's and the image's gradient.

    Its step has the third-order error of Newton's method for the price of first derivatives. Both
    gradients are differences on the template's samples, hence one difference of the mean image.
    """

    name, title = "ESM", "efficient second-order"

    def precompute(self, T: Template) -> Fixed | None:
        return None

    def step(self, T: Template, I: Image, p: Tensor, fixed: Fixed | None) -> NormalEquations:
        IWxp, inside = I.warp(p)
        dW_dp = T.scale.dW_dp()
        IWxp, _ = T.match(IWxp, (), inside)
        dI = T.differentiate(T.T + IWxp, 1 / 2)
        sd = steepest_descent(dI, dW_dp)
        e = T.T - IWxp
        return normal_equations(sd, e, inside, T)

    def update(self, s: Scale, p: Tensor, dp: Tensor) -> Tensor:
        return s.compose(p, dp)


class InverseCompositional(Algorithm):
    """Linearize T(Δp) around Δp = 0, eqs. (3)-(5): everything but the residual is computed once."""

    name, title = "IC", "inverse compositional"

    def precompute(self, T: Template) -> Fixed:
        dW_dp = T.scale.dW_dp()
        sd = steepest_descent(T.dT, dW_dp)
        return Fixed(sd, hessian(sd, T))

    def step(self, T: Template, I: Image, p: Tensor, fixed: Fixed) -> NormalEquations:  # type: ignore[override]
        IWxp, inside = I.warp(p)
        IWxp, _ = T.match(IWxp, (), inside)
        sd, H = fixed
        e = IWxp - T.T
        return normal_equations(sd, e, inside, T, H)

    def update(self, s: Scale, p: Tensor, dp: Tensor) -> Tensor:
        return s.compose_inverse(p, dp)


class InverseAdditive(Algorithm):
    """Hager and Belhumeur's form: the image's gradient is replaced by the template's, the update is additive.

    With ∇I = ∇T (∂W/∂x)⁻¹ the steepest descent images are ∇T (∂W/∂x)⁻¹ ∂W/∂p. Only where that product
    of Jacobians factors into a part that depends on x and a part that depends on p, (∂W/∂p at 0) Γ(p),
    can the first be computed once. It does for the linear families, whose M(p) D are again of the form D.
    """

    name, title = "IA", "inverse additive"

    def check(self, warp: Warp) -> None:
        """Refuse the families without a Γ(p).

        Raises:
            ValueError: the family is projective.
        """
        if warp.projective:
            raise ValueError(
                f"the inverse additive algorithm is not valid for a {warp.name}: "
                "(∂W/∂x)⁻¹ ∂W/∂p does not separate into a factor of x and a factor of p, "
                "so nothing can be precomputed; use the inverse compositional algorithm"
            )

    def precompute(self, T: Template) -> Fixed:
        dW_dp = T.scale.dW_dp()
        sd = steepest_descent(T.dT, dW_dp)
        return Fixed(sd, hessian(sd, T))

    def step(self, T: Template, I: Image, p: Tensor, fixed: Fixed) -> NormalEquations:  # type: ignore[override]
        IWxp, inside = I.warp(p)
        IWxp, _ = T.match(IWxp, (), inside)
        sd, H = fixed
        e = IWxp - T.T
        return normal_equations(sd, e, inside, T, H)

    def update(self, s: Scale, p: Tensor, dp: Tensor) -> Tensor:
        return p - (s.compose(p, dp) - p)  # the bracket is Γ(p)⁻¹Δp, since M(p) is linear in p


#: The siblings by their short names.
ALGORITHMS: dict[str, Algorithm] = {
    a.name: a
    for a in (
        ForwardsAdditive(),
        ForwardsCompositional(),
        SecondOrder(),
        InverseCompositional(),
        InverseAdditive(),
    )
}


def steepest_descent(dI: Gradient, dW_dp: Tensor) -> Tensor:
    """Gradient, ``(b, C, N)`` each way, times Jacobian ``(b or 1, 2, k, N)`` → ``(b, k, C·N)``."""
    dx, dy = (d.unsqueeze(1) for d in dI)  # (b, 1, C, N)
    jx, jy = dW_dp[:, 0, :, None], dW_dp[:, 1, :, None]  # (b, k, 1, N)
    return torch.addcmul(dx * jx, dy, jy).flatten(2)


def chain(dI: Gradient, dW_dx: Tensor) -> Gradient:
    """Gradient of the image at W(x; p) → of the warped image at x, through ``(b, 2, 2, N or 1)``."""
    dx, dy = dI
    return tuple(dx * dW_dx[:, 0, None, j] + dy * dW_dx[:, 1, None, j] for j in (0, 1))  # type: ignore[return-value]


def hessian(sd: Tensor, T: Template, inside: Tensor | None = None) -> Tensor:
    """H = sd sdᵀ, without what a change of gain and offset explains if the template asks for that."""
    H = sd @ sd.mT
    if T.photometric is None:
        return H
    s = sd @ T.photometric_basis(inside).mT
    return H - s @ s.mT


def normal_equations(
    sd: Tensor, e: Tensor, inside: Tensor | None, T: Template, H: Tensor | None = None
) -> NormalEquations:
    """H and b = sd e over the samples that lie inside the image.

    Args:
        sd: ``(batch or 1, k, C·N)``.
        e: residual ``(batch, C, N)``.
        inside: ``(batch, N)``, or None where every sample is.
        T: the template.
        H: the Hessian over all samples where it is known.
    """
    overlap = None
    if inside is not None:
        mask = inside.to(e.dtype)
        overlap = mask.mean(-1)
        e = e * mask.unsqueeze(1)
        sd, H = sd * mask.repeat(1, e.shape[1]).unsqueeze(1), None
    e = e.flatten(1)
    H = hessian(sd, T, inside) if H is None else H
    if T.photometric is not None:
        n = T.photometric_basis(inside)
        e = e - ((e.unsqueeze(1) @ n.mT) @ n).squeeze(1)
    b = e @ sd[0].mT if sd.shape[0] == 1 else (e.unsqueeze(1) @ sd.mT).squeeze(1)
    return NormalEquations(H, b, e, overlap)


def solve(H: Tensor, b: Tensor, damping: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Δp = H⁻¹ b by Cholesky, and which items have a regular H.

    An item is singular when a parameter's steepest descent image is, to rounding, a combination of the
    others (the ratio of squared pivots to the diagonal does not depend on the parameters' units).

    Args:
        H: ``(batch or 1, k, k)``.
        b: ``(batch, k)``.
        damping: Levenberg-Marquardt's λ, ``(batch,)``; None for Gauss-Newton.
    """
    diagonal = H.diagonal(dim1=-2, dim2=-1)
    L, info = torch.linalg.cholesky_ex(H)
    pivots = L.diagonal(dim1=-2, dim2=-1)
    ok = (pivots * pivots > 50 * torch.finfo(H.dtype).eps * diagonal).all(-1) & (info == 0)
    if damping is not None:
        L, _ = torch.linalg.cholesky_ex(H + torch.diag_embed(diagonal * damping.unsqueeze(-1)))
    if b.shape[0] != H.shape[0]:
        L, ok = L.expand(b.shape[0], -1, -1), ok.expand(b.shape[0])
    return torch.cholesky_solve(b.unsqueeze(-1), L).squeeze(-1), ok
