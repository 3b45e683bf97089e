"""Conditional Lucas-Kanade: the regressors of eq. (7) that are pseudo-inverses of steepest descent images."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from icstn.classical.cascade import Cascade
from icstn.classical.linear_regressor import (
    LinearRegressor,
    pseudo_inverse,
    pseudo_inverse_regressor,
    steepest_descent_images,
    template_gradients,
)
from icstn.sampling import Frame, sample
from icstn.warps import Warp


class ConditionalLK(Cascade):
    """The conditional Lucas-Kanade algorithm (Lin, Zhu and Lucey, 2016), on pixels.

    Eq. (7) is minimized, but over the regressors that Lucas-Kanade could have: R = (G ∂W/∂p)† and
    b = −R T, where the appearance gradient G is block-diagonal, one 1×2 gradient for each pixel and
    channel. So each pixel moves on its own gradient, there are two numbers a pixel to learn instead of k,
    and what is learned does not know the warp family: :meth:`for_warp` swaps it.

    What is minimized over G, stage by stage, is the non-linear least-squares objective

        Σ_j ‖δp_j − R (I(p ∘ δp_j) − T)‖² + penalty ‖R‖²,    R = (G ∂W/∂p)†,

    by a limited number of L-BFGS iterations with a strong Wolfe line search (the penalty, on the regressor
    as in :class:`SupervisedDescent`, is an addition here). A stage starts at the finite differences of T or
    at the gradients of the stage before, whichever is better once scaled by the factor that minimizes the
    objective, which has a closed form.

    Args:
        frame: where the template lies in the images.
        warp: warp family.
        sigma: standard deviation of the noise on each corner coordinate, template pixels.
        stages: length of the cascade.
        translation_sigma: that of the shared translation (``sigma`` by default).
        samples: displacements drawn for each image and stage.
        ridge: penalty on ‖R‖², in the units of :class:`SupervisedDescent`.
        iterations: L-BFGS iterations for each stage; with 0 only the scale is learned.
        seed: seed of the displacements.

    Attributes:
        template_: T, the mean of the images at their ground truth, ``(1, channels, height, width)``.
        gradients_: G of each stage per normalized unit, ``(stages, channels, height, width, 2)``.
        regressors_: (R, b) for each stage.
    """

    features = "pixels"

    def __init__(
        self,
        frame: Frame,
        warp: Warp | str = "homography",
        *,
        sigma: float,
        stages: int = 6,
        translation_sigma: float | None = None,
        samples: int = 500,
        ridge: float = 1.0,
        iterations: int = 30,
        seed: int = 0,
    ) -> None:
        self.frame, self.warp, self.sigma, self.stages = frame, warp, sigma, stages
        self.translation_sigma, self.samples = translation_sigma, samples
        self.ridge, self.iterations, self.seed = ridge, iterations, seed

    def for_warp(self, warp: Warp | str) -> ConditionalLK:
        """The same learned gradients with another family's Jacobian, without learning again."""
        self._check_fitted()
        other = copy.copy(self).set_params(warp=warp)
        other._restore({"template": self.template_, "gradients": self.gradients_})
        return other

    def _start(self, images: Tensor, truth: Tensor) -> None:
        super()._start(images, truth)
        pairs = zip(images, truth, strict=True)
        own = [sample(image[None], p[None], self.frame, self.warp) for image, p in pairs]
        self.template_ = torch.cat(own).mean(0, keepdim=True)
        self.gradients_ = images.new_empty(0, *self.template_.shape[1:], 2)

    def _learn(self, patches: Tensor, displacements: Tensor) -> LinearRegressor:
        errors = (patches - self.template_).flatten(1)
        penalty = self.ridge * len(errors) * float(errors.var(0, correction=0).mean())
        starts = [template_gradients(self.template_), *self.gradients_[-1:]]
        scaled = [self._scaled(g, errors, displacements, penalty) for g in starts]
        g = self._minimize(min(scaled, key=lambda pair: pair[0])[1], errors, displacements, penalty)
        self.gradients_ = torch.cat((self.gradients_, g[None]))
        return self._regressor_of(g)

    def _scaled(
        self, g: Tensor, errors: Tensor, displacements: Tensor, penalty: float
    ) -> tuple[float, Tensor]:
        """``g`` times the factor that minimizes the objective, and the objective there (relative)."""
        R = self._regressor_of(g).R
        guess = errors @ R.mT
        square = guess.square().sum() + penalty * R.square().sum()
        along = (guess * displacements).sum()
        if not bool(along > 0):  # no step along these gradients helps: keep them, as the last choice
            return 1.0, g
        return float(1 - along.square() / square / displacements.square().sum()), g * (square / along)

    def _minimize(self, g: Tensor, errors: Tensor, displacements: Tensor, penalty: float) -> Tensor:
        unit, total = g.square().mean().sqrt(), displacements.square().sum()
        theta = torch.zeros_like(g).requires_grad_()
        optimizer = torch.optim.LBFGS(
            [theta],
            max_iter=self.iterations,
            tolerance_grad=1e-9,
            tolerance_change=1e-7,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            R = pseudo_inverse(steepest_descent_images(g + unit * theta, self.warp))
            loss = (displacements - errors @ R.mT).square().sum() + penalty * R.square().sum()
            loss = loss / total
            loss.backward()
            return loss

        if self.iterations and bool(total > 0):
            with torch.enable_grad():
                optimizer.step(closure)
        return g + unit * theta.detach()

    def _regressor_of(self, g: Tensor) -> LinearRegressor:
        return pseudo_inverse_regressor(steepest_descent_images(g, self.warp), self.template_)

    def _check_params(self) -> None:
        super()._check_params()
        if self.iterations < 0:
            raise ValueError(f"iterations must be at least 0, got {self.iterations}")

    def _arrays(self) -> dict[str, Tensor]:
        return {"template": self.template_, "gradients": self.gradients_}

    def _restore(self, arrays: dict[str, Tensor]) -> None:
        self.template_, self.gradients_ = arrays["template"], arrays["gradients"]
        self.regressors_ = [self._regressor_of(g) for g in self.gradients_]
