r"""Both algorithms are linear regressors of appearance.

.. math::

    \Delta\mathbf{p} = \mathbf{R} \cdot \mathcal{I}(\mathbf{p}) + \mathbf{b}
"""

from __future__ import annotations

import numpy as np
import torch
from conftest import Scene, by_hand

from icstn.classical import Aligner


def step(scene: Scene, image: torch.Tensor, p: np.ndarray, algorithm: str = "IC") -> np.ndarray:
    """Δp of one iteration of the library from p, recovered from the two warps."""
    aligner = Aligner(
        scene.template(), "affine", frame=scene.frame, algorithm=algorithm, normalize=False, levels=1, blur=1,
        iterations=1, min_overlap=0, min_correlation=-1,
    )  # fmt: skip
    after = aligner(image, torch.from_numpy(p)[None]).p[0].numpy()
    return (np.linalg.inv(by_hand(after)) @ by_hand(p) - np.eye(3))[:2].ravel()


def crop_only(scene: Scene, rng: np.random.Generator) -> torch.Tensor:
    """An image of smooth noise around the template."""
    image = scene.image()
    coarse = torch.from_numpy(rng.normal(0, 0.02, (1, 1, 9, 9)))
    return image + torch.nn.functional.interpolate(coarse, image.shape[-2:], mode="bicubic")


def test_one_regressor_explains_every_image(scene: Scene, rng: np.random.Generator) -> None:
    """Δp of IC-LK is affine in the image: the step of a mean image is the mean of the steps."""
    a, b = crop_only(scene, rng), crop_only(scene, rng)
    zero = np.zeros(6)
    for t in (0.5, -0.5, 1.7):
        mixed = t * step(scene, a, zero) + (1 - t) * step(scene, b, zero)
        np.testing.assert_allclose(step(scene, t * a + (1 - t) * b, zero), mixed, atol=1e-9)


def test_r_and_b_do_not_depend_on_p(scene: Scene, rng: np.random.Generator) -> None:
    """Images that look the same through different warps get the same Δp from IC-LK."""
    other = np.array([0.0, 0.0, 0.1, 0.0, 0.0, -0.2])  # two and four pixels: no interpolation
    image = crop_only(scene, rng)
    moved = torch.roll(image, (-4, 2), (-2, -1))
    np.testing.assert_allclose(step(scene, image, np.zeros(6)), step(scene, moved, other), atol=1e-9)


def test_b_is_minus_r_times_the_template(scene: Scene) -> None:
    """For the template itself R · T(0) + b is no step at all."""
    np.testing.assert_allclose(step(scene, scene.image(), np.zeros(6)), np.zeros(6), atol=1e-9)


def test_the_additive_form_is_linear_only_where_it_stands(scene: Scene, rng: np.random.Generator) -> None:
    """The additive form builds R from the image itself, so its step is not affine in the image."""
    a, b = scene.image(), scene.image(np.array([0.1, 0, 0.1, 0, 0.1, 0.1]))
    zero = np.zeros(6)
    mixed = (step(scene, a, zero, "FA") + step(scene, b, zero, "FA")) / 2
    assert np.abs(step(scene, (a + b) / 2, zero, "FA") - mixed).max() > 1e-3
