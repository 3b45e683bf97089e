"""The short way through an alignment: the general one's results, whatever the light, and little kept."""

from __future__ import annotations

import gc

import pytest
import torch

from icstn.classical import Aligner
from icstn.classical.level import Template
from icstn.classical.pyramid import box
from icstn.classical.samples import Grid
from icstn.classical.trials import Trials, make_trials
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
