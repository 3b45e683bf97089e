"""Cascades of linear regressors: how they run, and what those that are learned have in common.

Convention:
    * the displacement δp puts a sample at p ∘ δp, so a predicted Δp is taken back by p ← p ∘ (Δp)⁻¹, that is
      M(p) M(Δp)⁻¹ (side "template"), for every regressor here;
    * pixels of a patch are flattened as (channels, height, width).
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from icstn.classical.features import Features, extract, feature, feature_name
from icstn.classical.inputs import check_finite_images
from icstn.classical.linear_regressor import LinearRegressor
from icstn.classical.model_file import read_model, write_model
from icstn.perturb import perturbations
from icstn.sampling import Frame, sample, warp_grid
from icstn.warps import Warp, corners, family


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
    check_finite_images(images)
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


Model = TypeVar("Model", bound="Cascade")


class Cascade:
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
        check_finite_images(images)
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
        try:
            model = cls(**params)
            model._restore(arrays)
        except (KeyError, RuntimeError, TypeError) as error:
            raise ValueError(
                f"{path} lacks arrays of a {cls.__name__}, or has other settings: fit and save it again"
            ) from error
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
            perturbations(n, self.sigma, self.frame, self.warp, **options)
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
    return ((warp.apply(dp, x) - x) / dp.new_tensor(frame.pixels)).square().sum(-1).mean(-1).sqrt()


def _left_image(p: Tensor, frame: Frame, warp: Warp, images: Tensor) -> Tensor:
    grid = warp_grid(p, frame, warp, (images.shape[-2], images.shape[-1]))
    inside = (grid.abs() <= 1).all(-1).flatten(1)
    return inside.to(p.dtype).mean(1) < 0.5


def _identity(warp: Warp, images: Tensor) -> Tensor:
    return warp.identity(len(images), dtype=images.dtype, device=images.device)


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
