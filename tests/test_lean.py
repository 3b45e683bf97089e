"""The short way through an alignment: the general one's results, whatever the light, and little kept."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from icstn.classical import Aligner, lean, solo
from icstn.classical.anderson import Anderson
from icstn.classical.level import Template
from icstn.classical.prepared import rests
from icstn.classical.pyramid import box, gradient, image_pyramid
from icstn.classical.samples import Grid, Samples
from icstn.classical.study import convergence
from icstn.classical.trials import Trials, make_trials
from icstn.sampling import Frame
from icstn.warps import FAMILIES, corner_error, family


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """A smooth random texture, 150×170, in [0, 1]."""
    x = torch.rand(1, 1, 150, 170, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        x = box(x, 5)
    return (x - x.min()) / (x.max() - x.min())


def trials(photo: torch.Tensor, sigma: float, warp: str, n: int = 8, seed: int = 1) -> Trials:
    generator = torch.Generator().manual_seed(seed)
    return make_trials(photo, n, sigma, warp, generator=generator, size=60, margin=40)


def apart(warp: str, p: torch.Tensor, q: torch.Tensor) -> float:
    """Largest RMS distance of the corners, in pixels of a 60×60 template."""
    return float(corner_error(family(warp), p, q).max()) * 30


@pytest.mark.parametrize("warp", list(FAMILIES))
def test_it_ends_where_the_general_algorithm_ends(photo: torch.Tensor, warp: str) -> None:
    t = trials(photo, 2.0, warp)
    aligner = Aligner(t.template, warp, tol=1e-3)
    short, general = aligner(t.images), aligner(t.images, trajectory=True)
    assert short.converged.all()
    assert general.converged.all()
    assert apart(warp, short.p, general.p) < 0.01
    assert torch.allclose(short.correlation, general.correlation, atol=1e-3)
    assert torch.allclose(short.residual, general.residual, atol=3e-3)


@pytest.mark.parametrize("warp", ["affine", "homography"])
def test_light_does_not_matter(photo: torch.Tensor, warp: str) -> None:
    t = trials(photo, 3.0, warp)
    aligner = Aligner(t.template, warp)
    plain = aligner(t.images)
    for gain, offset in ((0.7, 0.12), (1.8, -0.4), (255.0, 0.0)):
        other = aligner(gain * t.images + offset)
        assert other.converged.all()
        assert apart(warp, plain.p, other.p) < 0.02


@pytest.mark.parametrize("channels", [1, 3])
def test_a_template_for_each_image(photo: torch.Tensor, channels: int) -> None:
    t = trials(photo, 2.0, "affine", n=5)
    gain = torch.linspace(0.5, 1, channels).view(1, -1, 1, 1)
    images, template = t.images * gain, t.template * gain
    one = Aligner(template, "affine")(images)
    each = Aligner(template.expand(5, -1, -1, -1).contiguous(), "affine")(images)
    assert one.converged.all()
    assert apart("affine", one.p, each.p) < 0.01


def test_an_item_that_leaves_the_image_is_left_to_the_general_algorithm(photo: torch.Tensor) -> None:
    t = trials(photo, 1.0, "affine", n=3)
    start = torch.zeros(3, 6)
    start[1, 2] = 1.6  # starts 48 of 60 pixels to the right: a corner lies outside
    found = Aligner(t.template, "affine")(t.images, start)
    assert found.converged[[0, 2]].all()
    alone = Aligner(t.template, "affine")(t.images[1:2], start[1:2])
    assert torch.allclose(found.p[1:2], alone.p, atol=1e-3)


def test_what_left_the_image_does_not_keep_a_coarse_levels_correlation(photo: torch.Tensor) -> None:
    """Else it would pass for better than what the general algorithm finds."""
    t = trials(photo, 1.0, "affine", n=3)
    aligner = Aligner(t.template, "affine")
    assert aligner.lean is not None
    out = aligner.lean(t.images, t.truth, t.frame)
    out.inside[1] = False
    found = aligner._verdict(out)
    assert out.correlation[1] > 0.9
    assert found.correlation[1] == 0
    assert found.status == ["converged", "left the image", "converged"]


def alive(kind: type) -> int:
    gc.collect()
    return sum(type(o) is kind for o in gc.get_objects())


def test_what_is_prepared_does_not_grow_with_the_sizes_of_images(photo: torch.Tensor) -> None:
    template = photo[..., 40:90, 40:90].contiguous()
    aligner = Aligner(template, "affine")
    plain = Aligner(template, "affine", algorithm="FA")
    before = {kind: alive(kind) for kind in (Grid, Template)}
    for n in range(100, 130):
        aligner(photo[..., :n, :n])
        plain(photo[..., :n, :n])
    assert alive(Grid) - before[Grid] <= 8 * aligner.levels
    assert alive(Template) - before[Template] <= 2 * 4 * aligner.levels


def test_the_graph_of_a_learnable_template_is_let_go(photo: torch.Tensor) -> None:
    template = photo[..., 40:90, 40:90].clone().requires_grad_()
    aligner = Aligner(template, "affine", iterations=2)

    def graphs() -> int:
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) and o.grad_fn is not None for o in gc.get_objects())

    before = graphs()
    aligner(photo).p.sum().backward()
    assert graphs() == before
    assert template.grad is not None


def test_a_learnable_template_may_change(photo: torch.Tensor) -> None:
    t = trials(photo, 1.0, "affine", n=2)
    template = torch.rand_like(t.template).requires_grad_()
    aligner = Aligner(template, "affine")
    with torch.no_grad():
        template.copy_(t.template)
        assert aligner(t.images).converged.all()


def test_first_used_under_inference_mode_it_learns_later(photo: torch.Tensor) -> None:
    for settings in ({}, {"algorithm": "FA"}):
        with torch.inference_mode():
            aligner = Aligner(photo[..., 40:90, 40:90], "affine", iterations=3, **settings)
            aligner(photo)
        image = photo.clone().requires_grad_()
        aligner(image).p.sum().backward()
        assert image.grad is not None
        assert image.grad.isfinite().all()


def test_acceleration_finds_where_linear_steps_lead() -> None:
    """Steps f = (A − 1) (x − x*), of three items with rates up to 0.8: two suffice for two directions."""
    rates, target = np.array([[0.8, 0.2], [0.5, 0.5], [0.0, 0.8]]), np.array([0.3, -0.2])
    plain, quick, faster = np.zeros((3, 2)), np.zeros((3, 2)), Anderson(np.eye(2))
    for _ in range(4):
        plain, quick = plain + (rates - 1) * (plain - target), quick + faster((rates - 1) * (quick - target))
    assert np.abs(plain - target).max() > 0.1
    assert np.abs(quick - target).max() < 1e-3


def test_acceleration_forgets_items_and_leaves_long_steps_alone() -> None:
    faster = Anderson(np.eye(2))
    faster(np.array([[0.1, 0.0], [0.2, 0.0]]))
    faster.keep(np.array([False, True]))
    assert np.allclose(faster(np.array([[0.1, 0.0]])), [[0.2, 0.0]], atol=1e-4)  # half of it each time
    long = Anderson(np.eye(2))
    long(np.array([[20.0, 0.0]]))
    assert np.array_equal(long(np.array([[10.0, 0.0]])), [[10.0, 0.0]])


def test_an_item_rests_when_what_is_left_is_less_than_the_limit() -> None:
    """What is left of steps that shrink by a factor is summed one by one."""
    for ratio in (0.02, 0.1, 0.3, 0.45, 0.8):
        for moved in np.geomspace(0.002, 0.5, 40):
            left = sum(moved * ratio**n for n in range(1, 60))
            assert rests(moved, moved / ratio, 0.01) == (moved <= 0.01 or left <= 0.01), (ratio, moved)
    assert not rests(0.0101, 0.0101 / 0.6, 0.01)
    assert not rests(0.2, 0.0, 0.01), "nothing is known before the second step"
    assert rests(np.array([0.2, 0.02, 0.02]), np.array([0.0, 0.2, 0.03]), 0.01).tolist() == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("batch", [1, 6])
def test_the_step_that_is_saved_would_have_been_short(
    photo: torch.Tensor, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    t = trials(photo, 3.0, "homography", 6)
    aligner = Aligner(t.template, "homography")
    ours = [aligner(images) for images in t.images.split(batch)]
    for module in (lean, solo):
        monkeypatch.setattr(module, "rests", lambda moved, before, limit: moved <= limit)
    plain = [aligner(images) for images in t.images.split(batch)]
    assert all(bool(a.converged.all() and b.converged.all()) for a, b in zip(ours, plain, strict=True))
    assert max(apart("homography", a.p, b.p) for a, b in zip(ours, plain, strict=True)) < 0.01
    saved = [int((b.iterations - a.iterations).sum()) for a, b in zip(ours, plain, strict=True)]
    assert min(saved) >= 0
    assert sum(saved) >= 2


def test_noise_is_told_from_a_misfit_that_has_structure(photo: torch.Tensor) -> None:
    """Noise lowers the correlation below what is asked for, and the place is still right; cover does not."""
    t = trials(photo, 2.0, "affine", n=12)
    aligner = Aligner(t.template, "affine")
    noise = torch.randn(t.images.shape, generator=torch.Generator().manual_seed(3))
    noisy = aligner(t.images + 0.09 * noise)
    assert bool((noisy.correlation < aligner.min_correlation).all())
    assert bool((t.error(noisy.p) < 0.5).all())
    assert int(noisy.converged.sum()) >= 10
    covered = t.images.clone()
    covered[..., 40:58, 40:100] = 0.5
    found = aligner(covered)
    assert not bool((found.converged & (t.error(found.p) > 0.5)).any())
    assert bool(found.mismatch.any())
    single = Aligner(t.template, "affine")
    words = [single(image[None]).status[0] for image in torch.cat((t.images + 0.09 * noise, covered))]
    assert words[:12].count("converged") >= 10
    assert words[12:] == found.status


def test_what_does_not_look_like_the_template_is_given_up_early(photo: torch.Tensor) -> None:
    t = trials(photo, 2.0, "homography")
    elsewhere = torch.rand(t.images.shape, generator=torch.Generator().manual_seed(5))
    aligner = Aligner(t.template, "homography", levels=2, iterations=(3, 20), retry=False)
    assert not bool(aligner(elsewhere).converged.any())
    assert aligner.lean is not None
    frame = Frame.crop(*t.images.shape[-2:], *t.template.shape[-2:])
    for images in (elsewhere, elsewhere[:1]):
        out = aligner.lean(images, torch.zeros(len(images), 8), frame)
        assert out.iterations.max() <= 3 + 5
        assert not out.done.any()


@pytest.mark.parametrize("alone", [False, True])
def test_a_level_alone_reaches_as_far_as_the_general_algorithm(photo: torch.Tensor, alone: bool) -> None:
    """Far from home longer steps would lead astray, and a low correlation after five steps means nothing."""
    t = trials(photo, 7.0, "affine", n=60, seed=3)
    aligner = Aligner(t.template, "affine", algorithm="IC", levels=1, iterations=40, retry=False)
    runs = t.images.split(1) if alone else [t.images]
    short, general = torch.cat([aligner(run).p for run in runs]), aligner(t.images, trajectory=True).p
    home, far = (t.error(p) < 1 for p in (short, general))
    assert 0.6 < far.double().mean() < 1
    assert (home == far).double().mean() > 0.9


def test_samples_beside_masked_ones_have_no_gradient(photo: torch.Tensor) -> None:
    """Whatever lies under the mask, a prepared template is the same, and few steps are needed."""
    t = trials(photo, 2.0, "homography")
    mask = torch.ones(60, 60)
    mask[:30, :30] = 0
    found = []
    for under in (0.0, 1.0):
        template = t.template.clone()
        template[..., :30, :30] = under
        aligner = Aligner(template, "homography", mask=mask)
        found.append(aligner(t.images))
        assert bool(found[-1].converged.all())
        assert float(found[-1].iterations.float().mean()) < 12
        level = aligner.lean.levels[0]
        rows = level.rows[0, :8].view(8, 60, 60)
        assert bool((rows[:, :31, :31] != 0).any())
    assert apart("homography", found[0].p, found[1].p) < 0.01


@pytest.mark.parametrize("channels", [1, 3])
def test_a_mask_serves_one_image_as_it_serves_many(photo: torch.Tensor, channels: int) -> None:
    """Gray and color, one at a time and together; the edge of the mask counts for no gradient."""
    t = trials(photo, 2.0, "affine", 4)
    colors = torch.linspace(1.0, 0.6, channels).view(1, -1, 1, 1)
    mask = torch.ones(60, 60)
    mask[:30, :30] = 0
    template, images = t.template * colors, t.images * colors
    template[..., :30, :30] = 0.0
    aligner = Aligner(template, "affine", mask=mask)
    together = aligner(images)
    assert together.converged.all()
    alone = torch.cat([aligner(image).p for image in images.split(1)])
    assert apart("affine", alone, together.p) < 0.02
    assert float(t.error(alone).max()) < 0.3
    level = aligner.lean.levels[0]
    assert level.inner.view(60, 60)[30, :30].max() == 0, "beside the mask"
    assert level.inner.view(60, 60)[31, :30].min() == 1
    rows = level.rows[0, :6].view(6, channels, 60, 60)
    assert bool((rows[..., 5:25, 5:25] == 0).all()), "below it"


@pytest.mark.parametrize(
    ("side", "levels"),
    [(12, 1), (24, 2), (60, 3), (100, 4), (200, 4), (384, 4), (400, 5), (800, 6), (1000, 6)],
)
def test_the_coarsest_level_has_12_to_48_samples_a_side(side: int, levels: int) -> None:
    template = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(0))
    aligner = Aligner(template, "translation")
    assert aligner.levels == levels
    assert side >> (levels - 1) >= 12
    assert levels <= 4 or (side >> (levels - 2)) > 48


@pytest.mark.parametrize("size", [(9, 12), (64, 50)])
def test_differences_by_a_matrix_are_those_of_neighbors(size: tuple[int, int]) -> None:
    """At the borders, too, where the border value is repeated outwards."""
    values = torch.rand(1, 2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    samples = Samples(0, size, family("affine"), torch.float64, torch.device("cpu"))
    wanted = gradient(values, (size[1] - 1) / 2, (size[0] - 1) / 2)
    found = samples.differentiate(values[0].numpy())
    for ours, plain in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, plain[0].numpy(), atol=1e-12)


@pytest.mark.parametrize("size", [(7, 10), (33, 24)])
def test_arrays_are_blurred_and_halved_as_tensors_are(size: tuple[int, int]) -> None:
    x = torch.rand(1, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for blur in (1, 3, 5):
        np.testing.assert_allclose(solo.blurred(x[0].numpy(), blur), box(x, blur)[0].numpy(), atol=1e-12)
    for ours, wanted in zip(solo.pyramid(x[0].numpy(), 3), image_pyramid(x, 3), strict=True):
        np.testing.assert_allclose(ours, wanted[0].numpy(), atol=1e-12)


def test_a_rate_is_that_of_trials_that_all_algorithms_bring_home(photo: torch.Tensor) -> None:
    """And a hit is counted by the last error, not by the first."""
    generator = torch.Generator().manual_seed(4)
    options = {"warp": "affine", "sigmas": [6.0], "n": 24, "size": 60, "iterations": 12}
    found = convergence([photo], generator=generator, algorithms=("FA", "IC"), **options)
    t = make_trials(photo, 24, 6.0, "affine", generator=torch.Generator().manual_seed(4), size=60)
    plain = {"levels": 1, "blur": 1, "tol": 0.0, "retry": False, "normalize": False, "min_overlap": 0.1}
    errors = {}
    for name in ("FA", "IC"):
        aligner = Aligner(t.template, t.warp, frame=t.frame, algorithm=name, iterations=12, **plain)
        path = aligner(t.images, trajectory=True).trajectory
        errors[name] = torch.stack([t.error(p).nan_to_num(float("inf")) for p in path])
    home = (errors["FA"][-1] < 1) & (errors["IC"][-1] < 1)
    assert 2 < int(home.sum()) < 24, "some, not all"
    for row in found:
        mine = errors[row.algorithm]
        assert row.converged == int((mine[-1] < 1).sum())
        np.testing.assert_allclose(row.rate, mine[:, home].median(1).values, rtol=1e-4)


def test_samples_are_kept_off_the_far_edges() -> None:
    """Reading four pixels at a place needs one to the right and one below."""
    frame = Frame.full(9, 12)
    samples = Samples(0, (9, 12), family("translation"), torch.float32, torch.device("cpu"))
    grid = Grid(samples, False, frame, (9, 12))
    for shift in (0.0, 0.1, 0.4):
        M = np.array([[1, 0, shift], [0, 1, shift], [0, 0, 1.0]])
        x, y = grid.pixels_of(M)
        assert x.max() < 11
        assert y.max() < 8
        assert x.astype(int).max() == 10
        assert y.astype(int).max() == 7
    x, y = grid.pixels_of(np.array([[1, 0, -0.1], [0, 1, -0.1], [0, 0, 1.0]]))
    assert x.min() == y.min() == 0
    np.testing.assert_allclose(np.unique(x.round(6))[1:], np.arange(1, 12) - 0.1 * 11 / 2, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("shift", "inside"), [(54.0, True), (56.0, False), (-54.0, True), (-56.0, False)])
def test_a_corner_outside_the_image_is_outside(
    photo: torch.Tensor, batch: int, shift: float, inside: bool
) -> None:
    """There are 55 pixels to the right and to the left of a template in the middle."""
    frame = Frame.crop(150, 170, 60, 60)
    template = photo[..., 45:105, 55:115]
    aligner = Aligner(template, "translation", levels=1, iterations=0, frame=frame)
    p = torch.tensor([[shift / 29.5, 0.0]]).expand(batch, -1)
    out = aligner.lean(photo.expand(batch, -1, -1, -1), p, frame)
    assert out.inside.tolist() == [inside] * batch
