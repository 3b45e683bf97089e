"""The Lucas-Kanade family: the siblings' equivalences, convergence, verdicts, gradients and bad input."""

import pytest
import torch

from icstn import warps
from icstn.classical import ALGORITHMS, Aligner, align
from icstn.classical.level import Image, Scale, Template
from icstn.classical.lucas_kanade import solve
from icstn.classical.pyramid import box, gradient, image_pyramid
from icstn.classical.trials import make_trials
from icstn.sampling import Frame, sample

FAMILIES = list(warps.FAMILIES)
ONE = {"levels": 1, "retry": False, "blur": 1, "normalize": False}


@pytest.fixture(scope="module")
def photo():
    """A smooth random texture, 120×140, in [0, 1]."""
    g = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, 120, 140, generator=g)
    for _ in range(3):
        x = box(x, 5)
    return (x - x.min()) / (x.max() - x.min())


def trials(photo, sigma, warp, n=8, seed=1):
    g = torch.Generator().manual_seed(seed)
    return make_trials(photo, n, sigma, warp, generator=g, size=48, margin=24)


def to_double(t):
    return t.images.double(), t.template.double()


@pytest.mark.parametrize(
    ("warp", "name"),
    [(w, n) for w in FAMILIES for n in ALGORITHMS if (w, n) != ("homography", "IA")],  # refused, see below
)
def test_every_algorithm_finds_every_family(photo, name, warp):
    t = trials(photo, 1.0, warp)
    found = Aligner(t.template, warp, algorithm=name, **ONE)(t.images)
    assert found.converged.all()
    assert t.error(found.p).max() < 0.08


def test_forwards_additive_and_compositional_take_the_same_steps_for_affine_warps(photo):
    t = trials(photo, 1.5, "affine")
    image, template = to_double(t)
    paths = [
        Aligner(template, "affine", algorithm=a, tol=0, iterations=8, **ONE)(
            image, trajectory=True
        ).trajectory
        for a in ("FA", "FC")
    ]
    assert len(paths[0]) == 9
    assert (paths[0] - paths[1]).abs().max() < 1e-10


def test_they_differ_for_homographies_in_second_order_only(photo):
    t = trials(photo, 1.0, "homography")
    image, template = to_double(t)
    ends = [Aligner(template, algorithm=a, tol=0, iterations=25, **ONE)(image).p for a in ("FA", "FC")]
    first = [Aligner(template, algorithm=a, tol=0, iterations=2, **ONE)(image).p for a in ("FA", "FC")]
    assert (first[0] - first[1]).abs().max() > 1e-6
    assert (ends[0] - ends[1]).abs().max() < 1e-8


@pytest.mark.parametrize("warp", ["translation", "similarity", "affine"])
def test_inverse_additive_and_compositional_have_the_same_fixed_point(photo, warp):
    t = trials(photo, 1.0, warp)
    image, template = to_double(t)
    ends = [Aligner(template, warp, algorithm=a, tol=0, iterations=60, **ONE)(image).p for a in ("IA", "IC")]
    assert (ends[0] - ends[1]).abs().max() < 1e-10


def test_inverse_additive_is_inverse_compositional_to_first_order(photo):
    """M(p)(I − D) against M(p)(I + D)⁻¹: halving the step quarters the difference; translations: none."""
    scale = Scale(Frame.full(48, 48), warps.affine, 0, torch.empty(0, dtype=torch.float64))
    g = torch.Generator().manual_seed(2)
    p, dp = 0.3 * torch.randn(2, 5, 6, generator=g, dtype=torch.float64)
    gaps = []
    for size in (1e-2, 5e-3):
        ia, ic = (ALGORITHMS[a].update(scale, p, size * dp) for a in ("IA", "IC"))
        gaps.append((ia - ic).abs().max())
        D = warps.affine.matrix(size * dp) - torch.eye(3, dtype=torch.float64)
        M = warps.affine.matrix(p)
        exact = M @ D @ D @ torch.linalg.inv(torch.eye(3, dtype=torch.float64) + D)
        assert torch.allclose(warps.affine.matrix(ic) - warps.affine.matrix(ia), exact, atol=1e-12)
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.05)


def test_inverse_additive_and_compositional_solve_the_same_equations(photo):
    t = trials(photo, 1.0, "affine")
    image, template = to_double(t)
    s = Scale(t.frame, warps.affine, 0, template)
    T, I = Template(s, template), Image(s, image, tuple(image.shape[-2:]))  # noqa: E741
    p = 0.05 * torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    (H1, b1, *_), (H2, b2, *_) = (
        ALGORITHMS[a].step(T, I, p, ALGORITHMS[a].precompute(T)) for a in ("IA", "IC")
    )
    assert torch.equal(H1, H2)
    assert torch.equal(b1, b2)


def test_inverse_additive_refuses_the_homography(photo):
    with pytest.raises(ValueError, match="does not separate"):
        Aligner(photo[..., :48, :48], "homography", algorithm="IA")


@pytest.mark.parametrize("warp", FAMILIES)
def test_steepest_descent_images_are_derivatives_of_the_warped_image(photo, warp):
    """Against finite differences on a smooth image, away from p = 0, for FA, FC and (at its minimum) IC."""
    warp = warps.family(warp)
    y, x = torch.meshgrid(torch.arange(200.0), torch.arange(200.0), indexing="ij")
    smooth = (torch.sin(x / 21) + torch.cos(y / 17 + x / 40)).view(1, 1, 200, 200).double()
    frame = Frame.crop(200, 200, 60, 60)
    s = Scale(frame, warp, 0, smooth)
    T = Template(s, smooth[..., 70:130, 70:130])
    I = Image(s, smooth, (200, 200))  # noqa: E741
    p = 0.1 * torch.randn(1, warp.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    unit = torch.eye(warp.dim, dtype=torch.float64)
    for name in ("FA", "FC"):
        a = ALGORITHMS[name]
        step = a.step(T, I, p, None)
        h = 1e-2
        plus, minus = (a.update(s, p.expand_as(unit), sign * h * unit) for sign in (1, -1))
        J = (sample(smooth, plus, frame, warp) - sample(smooth, minus, frame, warp)).flatten(1) / (2 * h)
        assert torch.allclose(step.H[0], J @ J.T, rtol=2e-2, atol=1e-2 * (J @ J.T).abs().max())


def test_coarse_to_fine_reaches_further_than_one_level(photo):
    g = torch.Generator().manual_seed(0)
    noise = torch.rand(3, 1, 120, 140, generator=g)
    natural = sum(size * box(x.unsqueeze(0), size) for size, x in zip((1, 5, 25), noise, strict=True))
    t = trials(natural, 10.0, "translation", n=24)
    rate = {}
    for levels in (1, 3):
        p = Aligner(t.template, "translation", algorithm="IC", levels=levels, retry=False)(t.images).p
        rate[levels] = (t.error(p) < 1).float().mean().item()
    assert rate[3] > rate[1] + 0.2, rate


def test_one_level_up_the_same_warp_means_the_same_place():
    """A linear ramp is reproduced exactly by averaging, so every level must see the same coordinates."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(90.0), indexing="ij")
    ramp = torch.stack((x, y)).unsqueeze(0).double()
    frame = Frame.box(20, 22, 59, 61, 40, 40)
    p = torch.tensor([[0.1, -0.05, 0.2, 0.04, 0.1, -0.1, 0.02, 0.03]], dtype=torch.float64)
    for level, pixels in enumerate(image_pyramid(ramp, 3)):
        s = Scale(frame, warps.homography, level, ramp)
        seen, inside = Image(s, pixels, (96, 90)).warp(p)
        assert inside is None
        assert torch.allclose(seen[0].T, frame.to_pixels(warps.homography.apply(p, s.x))[0], atol=1e-9)


def test_levenberg_marquardt_never_ends_worse_than_it_started(photo):
    t = trials(photo, 9.0, "homography", n=24)
    start = Aligner(t.template, iterations=0, **ONE)(t.images)
    end = Aligner(t.template, damping=1e-3, iterations=20, min_overlap=0.0, **ONE)(t.images)
    inside = (start.overlap == 1) & (end.overlap == 1)
    assert inside.sum() > 8
    assert (end.residual[inside] <= start.residual[inside] + 1e-6).all()


def test_levenberg_marquardt_and_gauss_newton_agree_where_both_converge(photo):
    t = trials(photo, 1.0, "affine")
    gn, lm = (
        Aligner(t.template, "affine", damping=d, tol=1e-3, iterations=40)(t.images) for d in (0.0, 1e-3)
    )
    assert gn.converged.all()
    assert lm.converged.all()
    assert (gn.p - lm.p).abs().max() < 1e-3


@pytest.mark.parametrize("name", ["FA", "FC", "ESM", "IC"])
def test_the_photometric_option_ignores_gain_and_offset(photo, name):
    t = trials(photo, 1.5, "affine")
    changed = 0.4 * t.images + 0.3
    plain = Aligner(t.template, "affine", algorithm=name, normalize=False)(t.images)
    normalized = Aligner(t.template, "affine", algorithm=name, normalize=True)(changed)
    assert normalized.converged.all()
    assert (t.error(normalized.p) - t.error(plain.p)).abs().max() < 0.05
    without = Aligner(t.template, "affine", algorithm=name, normalize=False)(changed)
    assert t.error(without.p).max() > t.error(normalized.p).max()


def test_a_batch_is_the_same_as_one_at_a_time(photo):
    t = trials(photo, 2.0, "affine")
    aligner = Aligner(t.template, "affine")
    together, alone = aligner(t.images), [aligner(x.unsqueeze(0)) for x in t.images]
    assert torch.allclose(together.p, torch.cat([a.p for a in alone]), atol=2e-4)
    assert together.status == [s for a in alone for s in a.status]


def test_a_batch_is_the_same_in_chunks_and_on_two_threads(photo, monkeypatch):
    t = trials(photo, 2.0, "affine", n=11)
    aligner = Aligner(t.template, "affine")
    whole = aligner(t.images)
    monkeypatch.setattr("icstn.classical.aligner.CHUNK", 48 * 48 * 40)
    threads = torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            chunked = aligner(t.images)
            assert torch.get_num_threads() == n
            assert torch.allclose(chunked.p, whole.p, atol=2e-4)
            assert chunked.status == whole.status
            assert not chunked.p.requires_grad
    finally:
        torch.set_num_threads(threads)


def test_a_failed_homography_may_start_from_an_affine_alignment(photo):
    t = trials(photo, 2.0, "affine", n=5)
    aligner, only = Aligner(t.template, "homography"), torch.tensor([False, True, False, True, False]).numpy()
    frame = Frame.crop(*t.images.shape[-2:], *t.template.shape[-2:])
    start = aligner._affine(t.images, torch.zeros(5, 8), frame, only)
    assert not start[:, 6:].any()
    assert (warps.corner_error(warps.affine, start[only, :6], t.truth[only]) < 0.02).all()
    assert not start[~only].any()


def test_what_the_affine_alignment_finds_is_taken_up(photo, monkeypatch):
    t = trials(photo, 12.0, "homography", n=12)
    lost = ~Aligner(t.template, "homography")(t.images).converged
    assert lost.any()
    asked = []

    def near(self, image, p, frame, only):
        asked.append(torch.from_numpy(only))
        return t.truth

    monkeypatch.setattr(Aligner, "_affine", near)
    found = Aligner(t.template, "homography")(t.images)
    saved = asked[0] & found.converged
    assert (lost & saved).any()
    assert (t.error(found.p)[saved] < 1).all()


def test_what_came_to_rest_and_is_doubted_is_not_tried_again(photo, monkeypatch):
    """Further attempts end there, too, and cost many times what the first did."""
    t = trials(photo, 1.0, "affine", n=3)
    images = t.images.clone()
    images[1] += 0.15 * torch.randn(images[1].shape, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(Aligner, "_align", lambda *_, **__: pytest.fail("the general way was taken"))
    aligner = Aligner(t.template, "affine", iterations=40)
    found = aligner(images)
    assert found.status == ["converged", "mismatch", "converged"]
    assert t.error(found.p)[1] < 1
    assert aligner(images[1:2]).iterations <= found.iterations.max()


def test_one_template_each_and_one_image_for_all(photo):
    t = trials(photo, 1.5, "affine")
    each = Aligner(t.template.expand(8, -1, -1, -1).contiguous(), "affine")(t.images)
    assert torch.allclose(each.p, Aligner(t.template, "affine")(t.images).p, atol=2e-4)
    starts = 0.02 * torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    same = Aligner(t.template, "affine", tol=1e-4, iterations=30)(t.images[:1], starts)
    assert (same.p - same.p[:1]).abs().max() < 1e-3


def test_several_channels(photo):
    t = trials(photo, 1.5, "affine")
    color = lambda x: torch.cat((x, 1 - x, x**2), 1)  # noqa: E731
    found = Aligner(color(t.template), "affine")(color(t.images))
    assert found.converged.all()
    assert t.error(found.p).max() < 0.1


def test_pixels_outside_the_image_do_not_count(photo):
    """The template's left third lies outside: what is seen is aligned all the same."""
    whole = trials(photo, 1.0, "affine", n=1)
    image = whole.images[..., 40:]  # columns 0…39 of 96 are gone, the template starts at 24
    left = whole.frame.center[0] - whole.frame.half_extent[0] - 40
    frame = Frame.box(left, 24, left + 47, 71, 48, 48)
    for name in ("FA", "FC", "ESM", "IC", "IA"):
        found = Aligner(whole.template, "affine", frame=frame, algorithm=name, levels=2)(image)
        assert found.status == ["converged"], name
        assert 0.5 < found.overlap.item() < 0.8
        assert whole.error(found.p).item() < 0.1


def test_a_warp_out_of_the_image_is_flagged_and_left_alone(photo):
    t = trials(photo, 1.0, "translation", n=2)
    start = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    found = Aligner(t.template, "translation", retry=False)(t.images, start)
    assert found.status == ["converged", "left the image"]
    assert found.p[1].tolist() == [4.0, 0.0]
    assert found.overlap[1] < 0.5


def test_an_unrelated_image_never_passes_for_aligned(photo):
    g = torch.Generator().manual_seed(5)
    other = box(box(torch.rand(16, 1, 96, 96, generator=g), 5), 5)
    found = align(photo[..., 20:68, 20:68], other, "affine")
    assert not found.converged.any()
    assert "converged" not in found.status


def test_the_image_that_is_constant_is_not_aligned(photo):
    found = align(photo[..., 20:68, 20:68], torch.full((1, 1, 96, 96), 0.5), "affine")
    assert not found.converged.any()
    assert found.p.isfinite().all()


def test_singular_normal_equations_are_flagged():
    H = torch.diag_embed(torch.tensor([[4.0, 1.0], [4.0, 0.0]]))
    H[1] = torch.tensor([[4.0, 4.0], [4.0, 4.0]])
    assert solve(H, torch.ones(2, 2))[1].tolist() == [True, False]


def test_trajectory_starts_at_the_start_and_ends_at_the_result(photo):
    t = trials(photo, 2.0, "affine", n=3)
    found = Aligner(t.template, "affine")(t.images, trajectory=True)
    assert torch.equal(found.trajectory[0], torch.zeros(3, 6))
    assert torch.equal(found.trajectory[-1], found.p)
    assert len(found.trajectory) == found.iterations.max() + 1 or len(found.trajectory) > 2


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_gradients_flow_through_the_unrolled_aligner(name):
    g = torch.Generator().manual_seed(0)
    photo = torch.rand(1, 1, 20, 20, generator=g, dtype=torch.float64)
    image = box(box(photo, 5), 5).requires_grad_()
    template = box(box(photo, 5), 5)[..., 5:15, 5:15].detach().clone().requires_grad_()
    start = torch.tensor([[0.02, 0.01, 0.013, -0.01, 0.03, 0.017]], dtype=torch.float64, requires_grad=True)

    def run(image, template, start):
        return Aligner(template, "affine", algorithm=name, tol=0, iterations=2, **ONE)(image, start).p

    assert torch.autograd.gradcheck(run, (image, template, start), atol=1e-5, fast_mode=True)


def test_without_a_gradient_nothing_is_recorded(photo):
    t = trials(photo, 1.0, "affine", n=2)
    assert not Aligner(t.template, "affine")(t.images).p.requires_grad


def test_two_backward_passes_through_one_aligner(photo):
    template = photo[..., 30:78, 30:78].clone().requires_grad_()
    aligner = Aligner(template, "translation", iterations=2)
    for _ in range(2):
        aligner(photo).p.sum().backward()
    assert template.grad.isfinite().all()


def test_box_and_pyramid_are_means():
    x = torch.arange(35.0).view(1, 1, 5, 7)
    assert torch.allclose(box(x, 3)[0, 0, 2, 3], x[0, 0, 1:4, 2:5].mean())
    assert torch.allclose(box(torch.ones(1, 1, 5, 5), 5), torch.ones(1, 1, 5, 5))
    half = image_pyramid(x, 2)[1]
    assert half.shape == (1, 1, 2, 3)
    assert half[0, 0, 1, 2] == x[0, 0, 2:4, 4:6].mean()
    dx, dy = gradient(x)
    assert (dx[0, 0, :, 1:-1] == 1).all()
    assert (dy[0, 0, 1:-1] == 7).all()


def bad(photo, **change):
    t = {"template": photo[..., :48, :48], "image": photo, "p": None} | change
    p, image, template = t.pop("p"), t.pop("image"), t.pop("template")
    return align(template, image, t.pop("warp", "affine"), p=p, **t)


def stripes(photo):
    return photo[..., :1, :48].expand(-1, -1, 48, -1)


def with_nan(photo):
    photo = photo.repeat(3, 1, 1, 1)
    photo[2, 0, 3, 3] = float("nan")
    return photo


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {"image": x[..., :40, :40]}, r"image \(40×40\) is smaller than the template \(48×48\)"),
        (lambda x: {"template": x[..., :48, :48] * 0 + 0.5}, "template 0 does not determine the affine warp"),
        (lambda x: {"template": stripes(x), "warp": "translation"}, "Hessian is singular"),
        (lambda x: {"image": with_nan(x)}, "image 2 has NaN"),
        (lambda x: {"template": with_nan(x)[..., :48, :48]}, "template 2 has NaN"),
        (lambda x: {"image": x.expand(3, -1, -1, -1), "p": torch.zeros(2, 6)}, "3 images, 1 templates"),
        (lambda x: {"image": x.expand(-1, 2, -1, -1)}, "2 channels and the template 1"),
        (lambda x: {"p": torch.zeros(1, 8)}, r"shape \(batch, 6\), got \(1, 8\)"),
        (lambda x: {"p": torch.full((1, 6), float("inf"))}, "finite"),
        (lambda x: {"algorithm": "GN"}, "unknown algorithm 'GN': they are FA, FC, ESM, IC, IA"),
        (lambda x: {"levels": 7}, "7 levels do not fit a template of 48×48"),
        (lambda x: {"frame": Frame.full(20, 20)}, "frame has 20×20 samples"),
        (lambda x: {"blur": 2}, "blur is odd"),
        (lambda x: {"warp": "spline"}, "unknown warp"),
    ],
)  # fmt: skip
def test_bad_input_is_named(photo, change, message):
    with pytest.raises(ValueError, match=message):
        bad(photo, **change(photo))
