"""The supervised descent method: a cascade of ridge regressions, eq. (7)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from icstn.classical.cascade import Cascade
from icstn.classical.features import Features, extract, feature_name
from icstn.classical.linear_regressor import LinearRegressor, ridge_regression
from icstn.sampling import Frame
from icstn.warps import Warp


class SupervisedDescent(Cascade):
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
