"""Alignment as regression: Δp = R φ(I(p)) + b, eq. (6), solved for, learned, and learned with a structure.

Three ways to the same two arrays, of which the first is a special case of what the others may find:

    * :func:`ic_lk`: the pseudo-inverse of the template's steepest descent images, eq. (5);
    * :class:`SupervisedDescent`: R and b learned from displaced samples by ridge regression, eq. (7);
    * :class:`ConditionalLK`: the objective of eq. (7) over regressors that *are* the pseudo-inverse of
      some steepest descent images.

Convention:
    * the displacement δp puts a sample at p ∘ δp, so a predicted Δp is taken back by p ← p ∘ (Δp)⁻¹, that is
      M(p) M(Δp)⁻¹ (side "template"), for every regressor here;
    * pixels of a patch are flattened as (channels, height, width).
"""

from __future__ import annotations

import copy
import inspect
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from icstn.classical.features import Features, extract, feature, feature_name
from icstn.classical.model_file import read_model, write_model
from icstn.classical.pyramid import gradient
from icstn.perturb import perturb
from icstn.sampling import Frame, sample, warp_grid
from icstn.warps import Warp, corners, family


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


@dataclass(frozen=True)
class Regressed:
    """Result of :func:`descend` and of ``align``.

    Attributes:
        p: final warps, ``(batch, k)``; an item flagged singular keeps its last invertible warp.
        left_image: items of whose template less than half lies inside the image under ``p``.
        singular: items for which a stage predicted a step without an inverse, or a number that is not finite.
        last_step: size of the last step that was taken, RMS over the corners in template pixels.
        trajectory: the warps from the initial to the last, ``(stages + 1, batch, k)``, on request.
    """

    p: Tensor
    left_image: Tensor
    singular: Tensor
    last_step: Tensor
    trajectory: Tensor | None = None

    @property
    def failed(self) -> Tensor:
        """Items that nobody should use, ``(batch,)``: left the image or singular."""
        return self.left_image | self.singular


def descend(
    regressors: Sequence[LinearRegressor],
    images: Float[Tensor, "images channels H W"],
    p0: Float[Tensor, "batch k"],
    frame: Frame,
    warp: Warp | str,
    *,
    features: str | Features = "pixels",
    trajectory: bool = False,
) -> Regressed:
    """Cascade of linear regressors: p ← p ∘ (R_i φ(I(p)) + b_i)⁻¹ for each of them in turn.

    ``descend([ic_lk(template, warp)] * 20, …)`` is the inverse compositional algorithm. Gradients flow to
    ``images`` and ``p0`` through features that are differentiable.

    Args:
        regressors: one for each step.
        images: one for each warp, or a single one for all.
        p0: initial warps.
        frame: where the template lies.
        warp: family of ``p0``.
        features: φ, a name or a callable.
        trajectory: keep every warp on the way.

    Raises:
        ValueError: the batch sizes, or a regressor and the features, do not fit each other.
    """
    warp, features = family(warp), feature(features)
    _check_images(images)
    _check_batch(images, p0, warp)
    p, path = p0, [p0]
    singular = torch.zeros(len(p0), dtype=torch.bool, device=p0.device)
    step = p0.new_zeros(len(p0))
    for regressor in regressors:
        phi = extract(features, sample(images, p, frame, warp))
        dp = _predict(regressor, phi, features)
        moved, bad = _take_back(warp, p, dp)
        singular = singular | bad
        step = torch.where(singular, step, _corner_step(warp, frame, dp))
        p = torch.where(singular[:, None], p, moved)
        path.append(p)
    left = _left_image(p, frame, warp, images)
    return Regressed(p, left, singular, step, torch.stack(path) if trajectory else None)


def ic_lk(template: Float[Tensor, "1 channels height width"], warp: Warp | str) -> LinearRegressor:
    """(R, b) of the inverse compositional algorithm: R = (∂T(0)/∂p)†, b = −R T(0), eqs. (5) and (6).

    Raises:
        ValueError: the steepest descent images are linearly dependent (a constant template, for example).
    """
    _check_images(template)
    J = steepest_descent_images(template_gradients(template), warp)
    return _pseudo_inverse_regressor(J, template)


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
    """∇T by central differences, (∂/∂x, ∂/∂y) per normalised unit."""
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


Model = TypeVar("Model", bound="_Cascade")


class _Cascade:
    """What the learned cascades share: hyperparameters, displaced samples, alignment, files."""

    frame: Frame
    warp: str | Warp
    features: str | Features
    stages: int
    sigma: float
    translation_sigma: float | None
    samples: int
    ridge: float
    seed: int

    def fit(
        self: Model,
        images: Float[Tensor, "n channels H W"],
        warps: Float[Tensor, "n k"] | None = None,
        *,
        displacements: Float[Tensor, "n m k"] | None = None,
    ) -> Model:
        """Learn the cascade.

        Args:
            images: training images, with the surroundings of the template that displaced samples reach.
            warps: ground truth, where the object is in each image (the identity by default).
            displacements: draws of δp to use instead of the paper's noise, for every stage the same.

        Returns:
            the estimator itself, with its learned attributes.

        Raises:
            ValueError: a hyperparameter is out of range, the batch sizes differ, pixels are not finite, or
                there are too few samples to learn from.
        """
        self._check_params()
        _check_images(images)
        warp = family(self.warp)
        truth = _identity(warp, images) if warps is None else warps
        self._check_truth(images, truth, displacements)
        with torch.no_grad():
            self._start(images, truth)
            for stage in range(self.stages):
                self.regressors_.append(self._learn(*self._examples(images, truth, displacements, stage)))
        return self

    def align(
        self,
        images: Float[Tensor, "images channels H W"],
        p0: Float[Tensor, "batch k"] | None = None,
        *,
        stages: int | None = None,
        trajectory: bool = False,
    ) -> Regressed:
        """Run the cascade from initial warps.

        Args:
            images: one for each initial warp, or a single one for all.
            p0: initial warps; the identity for each image by default.
            stages: run only the first so many.
            trajectory: keep every warp on the way.

        Raises:
            ValueError: not fitted, or shapes that do not fit (see :func:`descend`).
        """
        self._check_fitted()
        if p0 is None:
            p0 = _identity(family(self.warp), images)
        regressors = [LinearRegressor(*(t.to(p0) for t in r)) for r in self.regressors_[:stages]]
        options: dict[str, Any] = {"features": self.features, "trajectory": trajectory}
        return descend(regressors, images, p0, self.frame, self.warp, **options)

    def regressor(self, stage: int = 0) -> LinearRegressor:
        """(R, b) of a stage, eq. (6)."""
        self._check_fitted()
        return self.regressors_[stage]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments, as scikit-learn reads them."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self: Model, **params: Any) -> Model:
        """Change some of the constructor's arguments; takes effect with the next ``fit``."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"{type(self).__name__} has no {name!r}, only {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={_shown(v)}" for k, v in self.get_params().items())
        return f"{type(self).__name__}({shown})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file: the learned arrays, and the hyperparameters as JSON in its header.

        A feature that is a callable is kept by name only and must be given again to :meth:`load`.
        """
        self._check_fitted()
        write_model(Path(path), type(self).__name__, self.get_params(), self._arrays())

    @classmethod
    def load(cls: type[Model], path: str | os.PathLike[str], *, features: Features | None = None) -> Model:
        """Read what :meth:`save` wrote.

        Args:
            path: the file.
            features: the callable, when the model was learned with one of your own.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is truncated, is no model of this class, or was learned with other features.
        """
        params, arrays = read_model(Path(path), cls.__name__, features)
        model = cls(**params)
        try:
            model._restore(arrays)
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"{path} lacks arrays of a {cls.__name__}: fit and save it again") from error
        return model

    # The four things in which the cascades differ.

    regressors_: list[LinearRegressor]

    def _start(self, images: Tensor, truth: Tensor) -> None:
        self.regressors_ = []

    def _learn(self, patches: Tensor, displacements: Tensor) -> LinearRegressor:
        raise NotImplementedError

    def _arrays(self) -> dict[str, Tensor]:
        raise NotImplementedError

    def _restore(self, arrays: dict[str, Tensor]) -> None:
        raise NotImplementedError

    # Displaced samples, eq. (7)'s sums over n and j.

    def _examples(
        self, images: Tensor, truth: Tensor, displacements: Tensor | None, stage: int
    ) -> tuple[Tensor, Tensor]:
        """Patches at p ∘ δp, and δp, after the stages learned so far; without the items that failed there."""
        delta = self._draw(images, stage) if displacements is None else displacements
        patches, targets = [], []
        for image, p, d in zip(images, truth, delta, strict=True):
            kept = self._displaced(image[None], p.expand(len(d), -1), d)
            patches.append(kept[0])
            targets.append(kept[1])
        found, wanted = torch.cat(patches), torch.cat(targets)
        self._check_enough(len(wanted), delta.shape[0] * delta.shape[1], stage)
        return found, wanted

    def _displaced(self, image: Tensor, p: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        warp = family(self.warp)
        start = warp.compose(p, delta, side="template", check=False)
        run = descend(self.regressors_, image, start, self.frame, warp, features=self.features)
        rest = warp.compose(warp.inverse(p, check=False), run.p, side="template", check=False)
        keep = ~run.failed & rest.isfinite().all(-1)
        return sample(image, run.p[keep], self.frame, warp), rest[keep]

    def _draw(self, images: Tensor, stage: int) -> Tensor:
        """Fresh draws for each stage from the same generating distribution, ``(n, m, k)``."""
        generator = torch.Generator().manual_seed(self.seed * 10_007 + stage)
        n = len(images) * self.samples
        options: dict[str, Any] = {"generator": generator, "translation_sigma": self.translation_sigma}
        return (
            perturb(n, self.sigma, self.frame, self.warp, **options)
            .to(images)
            .unflatten(0, (len(images), -1))
        )

    # Checks.

    def _check_params(self) -> None:
        if self.ridge < 0:
            raise ValueError(f"ridge must be at least 0, got {self.ridge}")
        for name in ("stages", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"sigma is a positive standard deviation in template pixels, got {self.sigma}")
        feature(self.features)

    def _check_truth(self, images: Tensor, truth: Tensor, displacements: Tensor | None) -> None:
        n, k = len(images), family(self.warp).dim
        if tuple(truth.shape) != (n, k):
            raise ValueError(
                f"fit wants one ground-truth warp for each image, ({n}, {k}) for these images; "
                f"got {tuple(truth.shape)}"
            )
        if displacements is not None and (displacements.dim() != 3 or displacements.shape[::2] != (n, k)):
            raise ValueError(
                f"displacements are ({n}, m, {k}) for these images, got {tuple(displacements.shape)}"
            )

    def _check_enough(self, kept: int, drawn: int, stage: int) -> None:
        warp = family(self.warp)
        if kept <= warp.dim:
            raise ValueError(
                f"too few samples for stage {stage + 1}: {kept} of {drawn} displaced samples are usable (the "
                f"others left the image), and the {warp.name} warp needs more than {warp.dim}; "
                "raise `samples` or lower `sigma`"
            )

    def _check_fitted(self) -> None:
        if not getattr(self, "regressors_", None):
            raise ValueError(f"this {type(self).__name__} has learned nothing yet: call fit first")


class SupervisedDescent(_Cascade):
    """The supervised descent method (Xiong and De la Torre, 2013), eq. (7): a cascade of ridge regressions.

    Each stage draws ``samples`` displacements δp for each image, sends them through the stages learned before
    it, and regresses what is left of them on the features of the image there.

    Args:
        frame: where the template lies in the images.
        warp: warp family.
        features: ``"pixels"``, ``"hog"``, ``"sift"`` or a callable from patches to vectors.
        stages: length of the cascade.
        sigma: standard deviation of the noise on each corner coordinate, template pixels (see
            :mod:`icstn.perturb`).
        translation_sigma: that of the shared translation (``sigma`` by default).
        samples: M, displacements drawn for each image and stage.
        ridge: penalty on ‖R‖² in units of the number of samples times the mean variance of a feature, so that
            it means the same for any scale of the features.
        seed: seed of the displacements.

    Attributes:
        regressors_: (R, b) for each stage.

    Example:
        >>> sdm = SupervisedDescent(Frame.crop(60, 60, 20, 20), "translation", sigma=1.5, samples=200)
        >>> image = torch.rand(1, 1, 60, 60, generator=torch.Generator().manual_seed(0))
        >>> image = torch.nn.functional.avg_pool2d(image, 9, stride=1, padding=4)
        >>> p0 = torch.tensor([[0.1, -0.1]])
        >>> bool(sdm.fit(image).align(image, p0).p.abs().max() < 0.02)
        True
    """

    def __init__(
        self,
        frame: Frame,
        warp: Warp | str = "homography",
        *,
        sigma: float,
        features: str | Features = "pixels",
        stages: int = 6,
        translation_sigma: float | None = None,
        samples: int = 500,
        ridge: float = 10.0,
        seed: int = 0,
    ) -> None:
        self.frame, self.warp, self.sigma, self.features = frame, warp, sigma, features
        self.stages, self.translation_sigma, self.samples = stages, translation_sigma, samples
        self.ridge, self.seed = ridge, seed

    def _learn(self, patches: Tensor, displacements: Tensor) -> LinearRegressor:
        phi = extract(self.features, patches)
        variance = float(phi.double().var(0, correction=0).mean())
        if not math.isfinite(variance):
            raise ValueError(f"features {feature_name(self.features)!r} are not finite")
        if variance <= (100 * torch.finfo(phi.dtype).eps * float(phi.abs().amax())) ** 2:
            return self._constant(phi, displacements)
        return ridge_regression(phi, displacements, self.ridge * len(phi) * variance)

    def _constant(self, phi: Tensor, displacements: Tensor) -> LinearRegressor:
        """What is left to learn from features that do not vary: nothing, if the stages before aligned all."""
        if float(displacements.abs().amax()) > 1e-3:
            name = feature_name(self.features)
            raise ValueError(f"features {name!r} are constant: there is nothing to regress on")
        return LinearRegressor(phi.new_zeros(displacements.shape[1], phi.shape[1]), displacements.mean(0))

    def _arrays(self) -> dict[str, Tensor]:
        pairs = enumerate(self.regressors_)
        return {f"{name}.{i}": getattr(r, name) for i, r in pairs for name in LinearRegressor._fields}

    def _restore(self, arrays: dict[str, Tensor]) -> None:
        self.regressors_ = [LinearRegressor(arrays[f"R.{i}"], arrays[f"b.{i}"]) for i in range(self.stages)]


class ConditionalLK(_Cascade):
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
        gradients_: G of each stage per normalised unit, ``(stages, channels, height, width, 2)``.
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
            R = _pseudo_inverse(steepest_descent_images(g + unit * theta, self.warp))
            loss = (displacements - errors @ R.mT).square().sum() + penalty * R.square().sum()
            loss = loss / total
            loss.backward()
            return loss

        if self.iterations and bool(total > 0):
            with torch.enable_grad():
                optimizer.step(closure)
        return g + unit * theta.detach()

    def _regressor_of(self, g: Tensor) -> LinearRegressor:
        return _pseudo_inverse_regressor(steepest_descent_images(g, self.warp), self.template_)

    def _check_params(self) -> None:
        super()._check_params()
        if self.iterations < 0:
            raise ValueError(f"iterations must be at least 0, got {self.iterations}")

    def _arrays(self) -> dict[str, Tensor]:
        return {"template": self.template_, "gradients": self.gradients_}

    def _restore(self, arrays: dict[str, Tensor]) -> None:
        self.template_, self.gradients_ = arrays["template"], arrays["gradients"]
        self.regressors_ = [self._regressor_of(g) for g in self.gradients_]


def _pseudo_inverse(J: Tensor) -> Tensor:
    """(JᵀJ)⁻¹ Jᵀ, the k × k solve in float64."""
    H = (J.mT @ J).double()
    return (torch.linalg.inv_ex(H).inverse.to(J.dtype)) @ J.mT


def _pseudo_inverse_regressor(J: Tensor, template: Tensor) -> LinearRegressor:
    values = torch.linalg.eigvalsh((J.mT @ J).double())
    flat = template.std() <= 100 * torch.finfo(template.dtype).eps * template.abs().amax()
    if flat or not bool(values[0] > 1e-10 * values[-1]):
        raise ValueError(
            "the template's steepest descent images are linearly dependent (singular Hessian): "
            "its pixels are constant, or vary in too few directions for this warp"
        )
    R = _pseudo_inverse(J)
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


def _predict(regressor: LinearRegressor, phi: Tensor, features: Features) -> Tensor:
    d = regressor.R.shape[1]
    if phi.shape[1] != d:
        raise ValueError(
            f"the regressor was made for {d} features and these images have {phi.shape[1]} "
            f"({feature_name(features)}): use the frame, channels and features that it was made for"
        )
    return regressor.predict(phi)


def _take_back(warp: Warp, p: Tensor, dp: Tensor) -> tuple[Tensor, Bool[Tensor, " batch"]]:
    """p ∘ (Δp)⁻¹, and the items where there is none."""
    bad = warp.singular(dp)
    safe = torch.where(bad[:, None], torch.zeros_like(dp), dp)
    moved = warp.compose(p, warp.inverse(safe, check=False), side="template", check=False)
    return moved, bad | warp.singular(moved)


def _corner_step(warp: Warp, frame: Frame, dp: Tensor) -> Tensor:
    x = corners(dp.dtype, dp.device)
    half = dp.new_tensor([frame.width / 2, frame.height / 2])
    return ((warp.apply(dp, x) - x) * half).square().sum(-1).mean(-1).sqrt()


def _left_image(p: Tensor, frame: Frame, warp: Warp, images: Tensor) -> Tensor:
    grid = warp_grid(p, frame, warp, (images.shape[-2], images.shape[-1]))
    inside = (grid.abs() <= 1).all(-1).flatten(1)
    return inside.to(p.dtype).mean(1) < 0.5


def _identity(warp: Warp, images: Tensor) -> Tensor:
    return warp.identity(len(images), dtype=images.dtype, device=images.device)


def _check_images(images: Tensor) -> None:
    if images.dim() != 4 or not images.is_floating_point():
        raise ValueError(
            f"images are float tensors (batch, channels, height, width), got {images.dtype} "
            f"{tuple(images.shape)}"
        )
    bad = (~images.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"image {', '.join(map(str, bad[:8]))} has pixels that are not finite")


def _check_batch(images: Tensor, p0: Tensor, warp: Warp) -> None:
    if p0.dim() != 2 or p0.shape[1] != warp.dim or len(images) not in (1, len(p0)):
        raise ValueError(
            f"align wants initial warps (batch, {warp.dim}) and one image for each, or one for all; "
            f"got warps {tuple(p0.shape)} and {len(images)} images"
        )


def _shown(value: Any) -> str:
    if isinstance(value, Warp):
        return repr(value.name)
    return feature_name(value) if callable(value) else repr(value)
