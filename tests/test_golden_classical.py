"""Lucas-Kanade, conditional LK and SIFT held against a second, plain implementation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from golden import draws
from golden.methods import descent_images, slopes
from golden.sight import Place, corner_pixels, matrix, parameters, positions, seen
from torch import Tensor

from icstn.classical import Aligner, ConditionalLK
from icstn.classical.features import sift
from icstn.classical.level import Image, Scale, moments
from icstn.classical.lucas_kanade import solve
from icstn.experiments import baselines, cells
from icstn.experiments.tasks import planar_task
from icstn.sampling import Frame
from icstn.warps import affine

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


class TestConditionalLK:
    """Its regressors by NumPy: pseudo-inverses of one gradient for each pixel, scaled in closed form."""

    FRAME, PLACE = Frame(9, 11, (60.0, 55.0), (9.0, 7.0)), Place(9, 11, (60.0, 55.0), (9.0, 7.0))

    def learned(self, picture: Tensor, iterations: int, stages: int) -> ConditionalLK:
        settings: dict[str, Any] = {"samples": 60, "ridge": 0.5, "seed": 3, "iterations": iterations}
        model = ConditionalLK(self.FRAME, "affine", sigma=0.4, stages=stages, **settings)
        return model.fit(picture)

    def drawn(self, stage: int) -> Tensor:
        """The displacements of a stage."""
        generator = torch.Generator().manual_seed(3 * 10_007 + stage)
        return torch.from_numpy(draws.warps(generator, 60, 0.4, 11, 9, "affine"))

    def columns(self, gradients: np.ndarray) -> np.ndarray:
        """Steepest descent images ``(samples of all channels, 6)`` of gradients ``(c, h, w, 2)``."""
        x, y = np.meshgrid(np.linspace(-1, 1, 11), np.linspace(-1, 1, 9))
        one = np.ones_like(x)
        parts = [gradients[..., k] * t for k in (0, 1) for t in (x, y, one)]
        return np.stack(parts, -1).reshape(-1, 6)

    def start(self, template: Tensor) -> np.ndarray:
        """Finite differences of the template, per normalized unit."""
        return np.stack([g[0].numpy() for g in slopes(template, 5.0, 4.0)], -1)

    def scaled(self, gradients: np.ndarray, errors: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """The gradients times c, where R/c minimizes Σ‖δp − R e/c‖² + penalty ‖R/c‖²."""
        regressor = np.linalg.pinv(self.columns(gradients))
        penalty = 0.5 * len(errors) * errors.var(0).mean()
        guess = errors @ regressor.T
        return gradients * ((guess**2).sum() + penalty * (regressor**2).sum()) / (guess * wanted).sum()

    def test_two_stages_whose_scale_alone_is_learned(self, picture: Tensor) -> None:
        """The second regresses what the first has left, from the better of two starts."""
        template = seen(picture, torch.zeros(1, 6).double(), self.PLACE)
        flat = template.flatten().numpy()
        first = self.drawn(0)
        errors = seen(picture, first, self.PLACE).flatten(1).numpy() - flat
        gradients = self.scaled(self.start(template), errors, first.numpy())
        model = self.learned(picture, 0, 2)
        np.testing.assert_allclose(model.gradients_[0].numpy(), gradients, rtol=1e-6, atol=1e-9)
        regressor = np.linalg.pinv(self.columns(gradients))
        np.testing.assert_allclose(model.regressors_[0].R.numpy(), regressor, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(model.regressors_[0].b.numpy(), -regressor @ flat, rtol=1e-5, atol=1e-9)
        second = self.drawn(1)
        there = seen(picture, second, self.PLACE).flatten(1).numpy() - flat
        step = torch.from_numpy(there @ regressor.T)
        left = parameters(matrix(second) @ torch.linalg.inv(matrix(step)), 6)
        errors = seen(picture, left, self.PLACE).flatten(1).numpy() - flat
        options = [self.scaled(g, errors, left.numpy()) for g in (self.start(template), gradients)]
        costs = [self.cost(torch.from_numpy(g), errors, left.numpy()).item() for g in options]
        best = options[int(np.argmin(costs))]
        np.testing.assert_allclose(model.gradients_[1].numpy(), best, rtol=1e-5, atol=1e-8)

    def cost(self, gradients: Tensor, errors: np.ndarray, wanted: np.ndarray) -> Tensor:
        """Σ‖δp − R e‖² + penalty ‖R‖², R = J†, as a share of Σ‖δp‖²."""
        x, y = torch.meshgrid(
            torch.linspace(-1, 1, 11).double(), torch.linspace(-1, 1, 9).double(), indexing="xy"
        )
        parts = [gradients[..., k] * t for k in (0, 1) for t in (x, y, torch.ones_like(x))]
        regressor = torch.linalg.pinv(torch.stack(parts, -1).reshape(-1, 6))
        e, target = torch.from_numpy(errors), torch.from_numpy(wanted)
        penalty = 0.5 * len(e) * e.var(0, correction=0).mean()
        total = (target - e @ regressor.T).square().sum() + penalty * regressor.square().sum()
        return total / target.square().sum()

    def test_a_stage_begins_where_the_last_one_ended(
        self, picture: Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of the first stage the gradients are learned, of the second their scale alone."""
        original, calls = ConditionalLK._minimize, []

        def once(model: ConditionalLK, g: Tensor, *rest: Any) -> Tensor:
            calls.append(g)
            return original(model, g, *rest) if len(calls) == 1 else g

        monkeypatch.setattr(ConditionalLK, "_minimize", once)
        model = self.learned(picture, 20, 2)
        template = seen(picture, torch.zeros(1, 6).double(), self.PLACE)
        drawn = self.drawn(1)
        there = (seen(picture, drawn, self.PLACE) - template).flatten(1).numpy()
        step = torch.from_numpy(there @ model.regressors_[0].R.numpy().T)
        left = parameters(matrix(drawn) @ torch.linalg.inv(matrix(step)), 6)
        errors = (seen(picture, left, self.PLACE) - template).flatten(1).numpy()
        options = [
            self.scaled(g, errors, left.numpy()) for g in (self.start(template), model.gradients_[0].numpy())
        ]
        costs = [self.cost(torch.from_numpy(g), errors, left.numpy()).item() for g in options]
        assert costs[1] < costs[0], "this shows nothing of the choice"
        np.testing.assert_allclose(model.gradients_[1].numpy(), options[1], rtol=1e-4, atol=1e-7)

    def test_what_is_learned_beats_its_start_and_is_near_a_minimum(self, picture: Tensor) -> None:
        template = seen(picture, torch.zeros(1, 6).double(), self.PLACE)
        drawn = self.drawn(0)
        errors = (seen(picture, drawn, self.PLACE) - template).flatten(1).numpy()
        begun = torch.from_numpy(self.scaled(self.start(template), errors, drawn.numpy()))
        learned = self.learned(picture, 200, 1).gradients_[0].clone().requires_grad_()
        costs = [self.cost(g.requires_grad_(), errors, drawn.numpy()) for g in (begun, learned)]
        assert costs[1].item() < 0.9 * costs[0].item()
        slopes_there = [
            torch.autograd.grad(c, g)[0].norm() * g.detach().norm()
            for c, g in zip(costs, (begun, learned), strict=True)
        ]
        assert slopes_there[1] < 0.1 * slopes_there[0], "the cost would still fall"


def test_the_settings_of_coarse_to_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Second-order steps on the coarser levels and inverse compositional ones at full size, and no more."""
    given: list[dict[str, Any]] = []
    original = baselines.Aligner

    def noted(*arguments: Any, **settings: Any) -> Any:
        given.append(settings)
        return original(*arguments, **settings)

    monkeypatch.setattr(baselines, "Aligner", noted)
    [spec] = [s for s in cells("baselines", "smoke", models=["coarse-to-fine"]) if s.sigma == 5.0]
    task = planar_task(spec, "cpu")
    method = baselines.METHODS["coarse-to-fine"](spec, task)
    settings = {k: v for k, v in given[0].items() if k != "frame"}
    assert settings == {
        "algorithm": ("ESM", "IC"), "blur": 3, "normalize": False, "iterations": 15,
    }  # fmt: skip
    p = task.test_warps(6, 0)
    found = method.align(p)
    assert found.warps.shape == (2, 6, 6)
    assert found.warps[0].equal(p)
    plain = Aligner(
        baselines.template(task), "affine", frame=task.frame, algorithm=["IC", "ESM", "ESM"][::-1],
        blur=[3, 3, 3], normalize=False, iterations=[15, 15, 15], levels=3,
    )  # fmt: skip
    assert found.warps[1].equal(plain(task.photograph, p).p)


def reduced(x: Tensor) -> Tensor:
    """Half the size: means of 2 × 2 pixels."""
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def reduced_place(place: Place, k: int) -> Place:
    """Where the template lies once both are reduced k times; the center of the first pixel is 0."""
    center, half = ([(v + 0.5) / 2**k - 0.5 for v in pair] for pair in (place.center, place.half))
    return Place(place.height // 2**k, place.width // 2**k, tuple(center), tuple(half))


def standard(x: Tensor) -> np.ndarray:
    """Each of zero mean and unit variance, ``(n, pixels)``."""
    v = x.flatten(1).numpy()
    v = v - v.mean(1, keepdims=True)
    return v / np.sqrt((v**2).mean(1, keepdims=True))


def coarse_to_fine(image: Tensor, template: Tensor, p: Tensor, place: Place, levels: int) -> Tensor:
    """Gauss-Newton on the standardized difference, its slopes by differences, from the coarsest level on."""
    pyramid = [(image, template)]
    for _ in range(levels - 1):
        pyramid.append((reduced(pyramid[-1][0]), reduced(pyramid[-1][1])))
    for k in reversed(range(levels)):
        at, (picture, target) = reduced_place(place, k), pyramid[k]
        for _ in range(20):
            columns = []
            for change in 1e-3 * torch.eye(6).double():
                ahead, behind = (standard(seen(picture, p + s * change, at)) for s in (1, -1))
                columns.append((ahead - behind) / 2e-3)
            sd, error = np.stack(columns, 1), standard(target) - standard(seen(picture, p, at))
            hessian, b = sd @ sd.transpose(0, 2, 1), np.einsum("nkx,nx->nk", sd, error)
            dp = torch.from_numpy(np.linalg.solve(hessian, b[..., None])[..., 0])
            p = p + dp
            if dp.abs().max() < 1e-5:
                break
    return p


def test_the_recommended_settings_end_where_a_plain_coarse_to_fine_does(photograph: Tensor) -> None:
    """From 3 to 10 pixels away, in other light, with noise: at the same place, to a hundredth of one."""
    place, noise = Place(64, 64, (230.0, 140.0), (31.5, 31.5)), torch.Generator().manual_seed(3)
    p = torch.from_numpy(draws.warps(noise, 6, 4.0, 64, 64, "affine"))
    gray = photograph.mean(1, keepdim=True)[..., :300, :448]
    image = 0.7 * gray + 0.15 + 0.005 * torch.randn(gray.shape, generator=noise).double()
    template = seen(gray, torch.zeros(1, 6).double(), place)
    frame = Frame(64, 64, place.center, place.half)
    found = Aligner(template, "affine", frame=frame)(image, p)
    wanted = coarse_to_fine(image, template, p, place, levels=3)
    corners = torch.tensor([[-1.0, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]).double()
    apart = 32 * (corners @ (matrix(found.p) - matrix(wanted)).mT)[..., :2]
    assert found.converged.all()
    assert corner_pixels(p, 64).min() > 2.5
    assert apart.square().sum(-1).mean(-1).sqrt().max() < 0.01


def test_what_lies_behind_the_horizon_is_not_inside() -> None:
    """Samples whose denominator is negative are read nowhere, although their quotient lies in the image."""
    generator = torch.Generator().manual_seed(0)
    picture, template = (torch.rand(1, 1, *size, generator=generator) for size in ((60, 80), (24, 40)))
    place = Place(24, 40, (40.0, 30.0), (15.0, 9.0))
    frame, p = Frame(24, 40, place.center, place.half), torch.zeros(3, 8)
    p[0, 6], p[1, 7], p[2, 2], p[2, 6] = 1.3, 1.6, 0.3, -1.1
    x, y = (z.numpy() for z in positions(p.double(), place))
    row, column = np.mgrid[-1:1:24j, -1:1:40j]
    m = matrix(p.double()).numpy()[:, 2, :, None, None]
    within = (x >= 0) & (x <= 79) & (y >= 0) & (y <= 59)
    ahead = m[:, 0] * column + m[:, 1] * row + m[:, 2] > 0
    assert (within & ~ahead)[1].mean() > 0.1
    unmoved = Aligner(template, frame=frame, algorithm="FA", iterations=0, levels=1, blur=1, retry=False)
    assert unmoved(picture, p).overlap.numpy() == pytest.approx((within & ahead).mean((1, 2)), abs=0.003)


@pytest.mark.parametrize("moved", [2, 5], ids=["sideways", "up or down"])
def test_a_step_is_as_long_as_its_longest_way_of_a_corner(moved: int) -> None:
    """In pixels of an image whose sides differ, squared."""
    picture, p = torch.zeros(1, 1, 60, 90, dtype=torch.float64), torch.zeros(2, 6, dtype=torch.float64)
    p[:, moved], p[1, :2] = 0.2, 0.1
    image = Image(Scale(FRAME, affine, 0, picture), picture, (60, 90))
    x, y = (z[:, [0, 0, -1, -1], [0, -1, 0, -1]] for z in positions(p, PLACE))
    x0, y0 = (z[:, [0, 0, -1, -1], [0, -1, 0, -1]] for z in positions(torch.zeros_like(p), PLACE))
    longest = ((x - x0) ** 2 + (y - y0) ** 2).amax(-1)
    torch.testing.assert_close(image.distance(torch.zeros_like(p), p), longest)
