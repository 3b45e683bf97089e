"""Lucas-Kanade and SIFT held against a second, plain implementation: damping, masks, moments, clipping."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from golden.methods import descent_images, slopes
from golden.sight import Place, matrix, parameters, positions, seen
from torch import Tensor

from icstn.classical import Aligner
from icstn.classical.features import sift
from icstn.classical.level import moments
from icstn.classical.lucas_kanade import solve
from icstn.sampling import Frame

#: A template that is not square, near the photograph's left border.
PLACE = Place(24, 40, (30.5, 60.0), (26.0, 15.0))
FRAME = Frame(24, 40, PLACE.center, PLACE.half)

#: Warps that keep the template inside, and that move some or most of it across the border.
WARPS = {
    "inside": [[0.05, -0.02, 0.06, 0.03, -0.04, -0.05]],
    "some outside": [[0.05, -0.02, -0.35, 0.03, -0.04, -0.05]],
    "much outside": [[-0.1, 0.1, -0.9, 0.03, 0.1, 0.1]],
}


class Equations(NamedTuple):
    """The normal equations at a warp, the mean squared residual, and the share of the samples inside."""

    hessian: np.ndarray
    right: np.ndarray
    cost: float
    overlap: float


@pytest.fixture(scope="module")
def picture(photograph: Tensor) -> Tensor:
    """A part of the photograph in three channels that differ in brightness and contrast."""
    part = photograph[..., 40:160, 100:240]
    return part * torch.tensor([1.0, 0.4, 0.7]).view(1, 3, 1, 1) + torch.tensor([0, 0.3, 0.1]).view(
        1, 3, 1, 1
    )


@pytest.fixture(scope="module")
def template(picture: Tensor) -> Tensor:
    """What lies under the frame, a little darker."""
    return seen(picture, torch.zeros(1, 6).double(), PLACE) * 0.9


def aligner(template: Tensor, algorithm: str, **settings: Any) -> Aligner:
    """The textbook's algorithm, every step taken."""
    plain = {"levels": 1, "blur": 1, "normalize": False, "retry": False, "tol": 0.0, "min_overlap": 0.01}
    return Aligner(template, "affine", frame=FRAME, algorithm=algorithm, **(plain | settings))


def equations(picture: Tensor, template: Tensor, p: Tensor, algorithm: str, normalize: bool) -> Equations:
    """Over the samples that lie inside the image and nowhere else."""
    x, y = (t[0] for t in positions(p, PLACE))
    height, width = picture.shape[-2:]
    inside = ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).numpy().ravel()
    target, found = template[0].flatten(1).numpy(), seen(picture, p, PLACE)[0].flatten(1).numpy()
    if algorithm == "FA":
        gradient = [seen(g, p, PLACE)[0] for g in slopes(picture, *PLACE.half)]
    else:
        gradient = [g[0] for g in slopes(template, (PLACE.width - 1) / 2, (PLACE.height - 1) / 2)]
    sd = descent_images(*gradient).numpy()  # (channels, 6, samples)
    target, found, sd = target[:, inside], found[:, inside], sd[:, :, inside]
    raw = sd.transpose(1, 0, 2).reshape(6, -1), target.ravel(), found.ravel()
    columns, error = (matched if normalize else unmatched)(*raw, algorithm)
    share = inside.mean()
    cost = float((error**2).sum() / inside.size / template.shape[1] / share)
    return Equations(columns @ columns.T, columns @ error, cost, float(share))


def unmatched(sd: np.ndarray, target: np.ndarray, found: np.ndarray, algorithm: str) -> tuple:
    """Steepest descent images and residual as they are."""
    return sd, (target - found if algorithm == "FA" else found - target)


def matched(sd: np.ndarray, target: np.ndarray, found: np.ndarray, algorithm: str) -> tuple:
    """With the image's mean and contrast, over all channels, made the template's; without what a change of
    either explains."""
    gain = target.std() / found.std()
    found = (found - found.mean()) * gain + target.mean()
    sd, error = unmatched(sd * gain if algorithm == "FA" else sd, target, found, algorithm)
    light = np.stack([np.ones_like(target), target - target.mean()])
    light /= np.linalg.norm(light, axis=1, keepdims=True)
    return sd - (sd @ light.T) @ light, error - (error @ light.T) @ light


def stepped(p: Tensor, dp: np.ndarray, algorithm: str) -> Tensor:
    """p + Δp, or p ∘ Δp⁻¹."""
    step = torch.from_numpy(dp)[None]
    return p + step if algorithm == "FA" else parameters(matrix(p) @ torch.linalg.inv(matrix(step)), 6)


@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "normalized"])
@pytest.mark.parametrize("where", sorted(WARPS))
@pytest.mark.parametrize("algorithm", ["FA", "IC"])
def test_a_gauss_newton_step(
    algorithm: str, where: str, normalize: bool, picture: Tensor, template: Tensor
) -> None:
    """Three channels, a template that is not square, the samples outside the image left out of H and b."""
    p = torch.tensor(WARPS[where]).double()
    wanted = equations(picture, template, p, algorithm, normalize)
    assert {"inside": 1, "some outside": 0.9, "much outside": 0.7}[where] >= wanted.overlap > 0.2
    found = aligner(template, algorithm, normalize=normalize, iterations=1)(picture, p, trajectory=True)
    assert found.trajectory is not None
    step = np.linalg.solve(wanted.hessian, wanted.right)
    torch.testing.assert_close(found.trajectory[1], stepped(p, step, algorithm), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("where", ["inside", "some outside"])
def test_levenberg_marquardt(where: str, picture: Tensor, template: Tensor) -> None:
    """λ falls tenfold after a step that lowered the residual; another is taken back, and λ rises tenfold."""
    p = torch.tensor(WARPS[where]).double() * 2.5
    found = aligner(template, "FA", iterations=9, damping=1e-4)(picture, p, trajectory=True)
    path, last, rejected = marquardt(picture, template, p, 1e-4, 9)
    assert rejected, "no step was taken back: this shows nothing of the rule"
    assert found.trajectory is not None
    torch.testing.assert_close(found.trajectory, torch.stack(path), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.p, last, rtol=1e-5, atol=1e-7)


def marquardt(picture: Tensor, template: Tensor, p: Tensor, damping: float, steps: int) -> tuple:
    """The warps tried, the best of them, and how many were taken back."""
    path, rejected = [p], 0
    best, here = p, equations(picture, template, p, "FA", False)
    for _ in range(steps):
        hessian = here.hessian + damping * np.diag(np.diag(here.hessian))
        tried = best + torch.from_numpy(np.linalg.solve(hessian, here.right))[None]
        path.append(tried)
        there = equations(picture, template, tried, "FA", False)
        if there.cost > here.cost or there.overlap < here.overlap / 2:
            damping, rejected = damping * 10, rejected + 1
        else:
            damping, best, here = damping / 10, tried, there
    return path, best, rejected


@pytest.mark.parametrize("damping", [None, 0.0, 0.3, 20.0])
def test_the_damped_equations(damping: float | None, generator: torch.Generator) -> None:
    """(H + λ diag H) Δp = b, item by item, with parameters of very different size."""
    scale = torch.tensor([1.0, 30.0, 0.05]).double()
    a = torch.randn(4, 3, 9, generator=generator).double() * scale[:, None]
    h, b = a @ a.mT, torch.randn(4, 3, generator=generator).double()
    lam = None if damping is None else damping * torch.tensor([1.0, 2, 3, 4]).double()
    found, regular = solve(h, b, lam)
    assert regular.all()
    for i in range(4):
        own = h[i].numpy() + (0 if lam is None else float(lam[i])) * np.diag(np.diag(h[i].numpy()))
        assert found[i].numpy() == pytest.approx(np.linalg.solve(own, b[i].numpy()))


@pytest.mark.parametrize("masked", [False, True])
def test_moments_are_over_channels_and_samples_alike(masked: bool, generator: torch.Generator) -> None:
    x = torch.randn(2, 3, 11, generator=generator).double() + torch.tensor([0.0, 5, -2])[:, None]
    inside = torch.rand(2, 11, generator=generator) < 0.6 if masked else None
    mean, std = moments(x, inside)
    for i in range(2):
        values = x[i].numpy() if inside is None else x[i].numpy()[:, inside[i].numpy()]
        assert mean[i].item() == pytest.approx(values.mean())
        assert std[i].item() == pytest.approx(values.std())
    assert mean.shape == std.shape == (2, 1, 1)


def test_sift_clips_what_is_no_intensity(picture: Tensor) -> None:
    """Below 0 is black and above 1 is white; channels are averaged, keypoints lie on a regular grid."""
    cv2 = pytest.importorskip("cv2")
    part = picture[..., :48, :72]
    dark, bright = np.quantile(part[0].mean(0).numpy(), [0.15, 0.85])
    patch = (part - dark) / (bright - dark)
    gray = patch[0].mean(0).numpy()
    assert (gray < 0).mean() > 0.05
    assert (gray > 1).mean() > 0.05
    points = [cv2.KeyPoint(x, y, 32.0, 0) for y in (7.5, 23.5, 39.5) for x in (11.5, 35.5, 59.5)]
    image = np.rint(255 * np.minimum(1, np.maximum(0, gray))).astype(np.uint8)
    wanted = cv2.SIFT_create().compute(image, points)[1].ravel() / 255
    assert sift(patch, grid=3)[0].numpy() == pytest.approx(wanted)
    wrapped = np.rint(255 * gray).astype(np.int64).astype(np.uint8)
    assert cv2.SIFT_create().compute(wrapped, points)[1].ravel() / 255 != pytest.approx(wanted)
