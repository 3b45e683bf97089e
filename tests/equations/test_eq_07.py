r"""Supervised descent: a regressor learned from displaced samples.

.. math::

    \min_{\mathbf{R}, \mathbf{b}} \sum_{n=1}^{N} \sum_{j=1}^{M} \|\delta\mathbf{p}_{n,j} -
    \mathbf{R} \cdot \mathcal{I}_n(\mathbf{p}_n \circ \delta\mathbf{p}_{n,j}) - \mathbf{b}\|_2^2
"""

from __future__ import annotations

import numpy as np
import torch
from conftest import Scene, by_hand, parameters

from icstn.classical import SupervisedDescent
from icstn.sampling import sample

N, M = 2, 40
RIDGE = 1e-3


def learned(scene: Scene) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """R, b of the library's first stage, and the samples and displacements that it learned from."""
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.05, (N, 6))
    delta = rng.normal(0, 0.05, (N, M, 6))
    images = torch.cat([scene.image(p) for p in truth])
    model = SupervisedDescent(
        scene.frame, "affine", features="pixels", sigma=1.0, stages=1, samples=M, ridge=RIDGE
    )
    model.fit(images, torch.from_numpy(truth), displacements=torch.from_numpy(delta))
    R, b = model.regressor()
    looks = []
    for image, p, ds in zip(images, truth, delta, strict=True):
        warps = torch.from_numpy(np.stack([parameters(by_hand(p) @ by_hand(d)) for d in ds]))
        looks.append(sample(image[None], warps, scene.frame, "affine").flatten(1))
    return R, b, torch.cat(looks), torch.from_numpy(delta.reshape(N * M, 6))


def penalty(looks: torch.Tensor) -> float:
    """The library's ridge is stated for each sample and unit of the features' variance."""
    return float(RIDGE * looks.numel() / looks.shape[1] * looks.var(0, correction=0).mean())


def test_no_slope_is_left(scene: Scene) -> None:
    """Autograd's gradient of the objective (and its ridge) is zero at the library's R and b."""
    R, b, looks, delta = learned(scene)
    R, b = R.double().requires_grad_(), b.double().requires_grad_()
    cost = (delta - looks @ R.mT - b).square().sum() + penalty(looks) * R.square().sum()
    cost.backward()
    at_zero = 2 * (delta - delta.mean(0)).mT @ looks  # the slope at R = 0
    assert R.grad.norm() < 1e-6 * at_zero.norm()
    assert b.grad.norm() < 1e-6 * delta.norm()


def test_any_other_regressor_is_worse(scene: Scene, rng: np.random.Generator) -> None:
    """Random changes of R and b raise the objective."""
    R, b, looks, delta = learned(scene)

    def cost(R: torch.Tensor, b: torch.Tensor) -> float:
        return float((delta - looks @ R.mT - b).square().sum() + penalty(looks) * R.square().sum())

    best = cost(R, b)
    for _ in range(10):
        change = torch.from_numpy(rng.normal(0, 0.05, R.shape)) * R.std()
        assert cost(R + change, b) > best
        assert cost(R, b + torch.from_numpy(rng.normal(0, 0.02, 6))) > best


def test_the_displacement_composes_on_the_template_side(scene: Scene) -> None:
    """The samples it saw are I(p ∘ δp): from just these the regressor predicts δp."""
    R, b, looks, delta = learned(scene)
    assert (delta - looks @ R.mT - b).square().sum() < 0.1 * (delta - delta.mean(0)).square().sum()
