"""Warp families: group laws on both sides, inverse, fit, Jacobian, gradients, singular warps."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from icstn.warps import (
    FAMILIES,
    SingularWarpError,
    Warp,
    affine,
    corner_error,
    corners,
    family,
    homography,
    off_horizon,
    similarity,
    translation,
)

EVERY = pytest.mark.parametrize("warp", FAMILIES.values(), ids=FAMILIES)
SIDES = pytest.mark.parametrize("side", ["image", "template"])
LINE = [[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0], [0.5, 0.5]]
RANK_ONE = [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0]  # diag(0, 0, 1)


def params(warp: Warp, batch: int = 3, size: float = 0.25) -> st.SearchStrategy[torch.Tensor]:
    """Moderate warps: the square stays in front of the horizon, and inverses are well conditioned."""
    entries = st.floats(-size, size, width=32)
    return hnp.arrays("float64", (batch, warp.dim), elements=entries).map(torch.from_numpy)


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def some(warp: Warp, *batch: int, seed: int = 0, size: float = 0.2, dtype=torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * (2 * torch.rand(*batch, warp.dim, generator=generator, dtype=dtype) - 1)


class TestGroup:
    """Composition makes each family a group, whatever the side."""

    @EVERY
    @SIDES
    @given(data=st.data())
    def test_identity_is_neutral(self, warp: Warp, side: str, data: st.DataObject) -> None:
        p = data.draw(params(warp))
        zero = warp.identity(3, dtype=p.dtype)
        close(warp.compose(p, zero, side=side), p)
        close(warp.compose(zero, p, side=side), p)

    @EVERY
    @SIDES
    @given(data=st.data())
    def test_inverse_undoes_on_both_sides(self, warp: Warp, side: str, data: st.DataObject) -> None:
        p = data.draw(params(warp))
        q = warp.inverse(p)
        close(warp.compose(p, q, side=side), torch.zeros_like(p))
        close(warp.compose(q, p, side=side), torch.zeros_like(p))
        close(warp.inverse(q), p)

    @EVERY
    @SIDES
    @given(data=st.data())
    def test_is_associative(self, warp: Warp, side: str, data: st.DataObject) -> None:
        a, b, c = (data.draw(params(warp, size=0.125)) for _ in range(3))
        left = warp.compose(warp.compose(a, b, side=side), c, side=side)
        close(left, warp.compose(a, warp.compose(b, c, side=side), side=side))

    @EVERY
    @given(data=st.data())
    def test_sides_mirror_each_other(self, warp: Warp, data: st.DataObject) -> None:
        p, q = data.draw(params(warp)), data.draw(params(warp))
        close(warp.compose(p, q, side="image"), warp.compose(q, p, side="template"))

    @EVERY
    @given(data=st.data())
    def test_composition_is_composition_of_maps(self, warp: Warp, data: st.DataObject) -> None:
        p, dp = data.draw(params(warp, size=0.125)), data.draw(params(warp, size=0.125))
        x = corners(torch.float64)
        close(warp.apply(warp.compose(p, dp, side="image"), x), warp.apply(dp, warp.apply(p, x)))
        close(warp.apply(warp.compose(p, dp, side="template"), x), warp.apply(p, warp.apply(dp, x)))

    @EVERY
    @given(data=st.data())
    def test_inverse_of_a_product_turns_the_order_round(self, warp: Warp, data: st.DataObject) -> None:
        p, q = data.draw(params(warp, size=0.125)), data.draw(params(warp, size=0.125))
        product = warp.inverse(warp.compose(p, q, side="image"))
        close(product, warp.compose(warp.inverse(q), warp.inverse(p), side="image"))

    def test_sides_differ_for_all_but_translations(self) -> None:
        for warp in FAMILIES.values():
            p, q = some(warp, 1), some(warp, 1, seed=1)
            same = torch.allclose(warp.compose(p, q, side="image"), warp.compose(p, q, side="template"))
            assert same == (warp is translation)


class TestMatrix:
    def test_is_equation_9(self) -> None:
        p = torch.arange(1.0, 9.0) / 10
        wanted = torch.tensor([[1.1, 0.2, 0.3], [0.4, 1.5, 0.6], [0.7, 0.8, 1.0]])
        close(homography.matrix(p), wanted, 1e-6)
        close(affine.matrix(p[:6]), torch.cat((wanted[:2], torch.tensor([[0.0, 0.0, 1.0]]))), 1e-6)

    @EVERY
    @given(data=st.data(), scale=st.floats(0.1, 10))
    def test_params_read_a_matrix_back(self, warp: Warp, data: st.DataObject, scale: float) -> None:
        p = data.draw(params(warp))
        close(warp.params(warp.matrix(p) * (scale if warp.projective else 1)), p)

    @EVERY
    def test_keeps_dtype_and_batch_shape(self, warp: Warp) -> None:
        for dtype in (torch.float32, torch.float64):
            m = warp.matrix(warp.identity(2, 5, dtype=dtype))
            assert m.shape == (2, 5, 3, 3)
            assert m.dtype == dtype
            assert warp.inverse(some(warp, 2, 5, dtype=dtype)).shape == (2, 5, warp.dim)

    @EVERY
    def test_a_batch_is_its_items(self, warp: Warp) -> None:
        p, q = some(warp, 4), some(warp, 4, seed=1)
        together = warp.compose(p, warp.inverse(q), side="image")
        apart = [warp.compose(a, warp.inverse(b), side="image") for a, b in zip(p, q, strict=True)]
        close(together, torch.stack(apart), 1e-12)

    def test_similarity_is_a_scaled_rotation(self) -> None:
        angle, scale = 0.3, 1.2
        a, b = scale * math.cos(angle) - 1, scale * math.sin(angle)
        m = similarity.matrix(torch.tensor([a, b, 0.0, 0.0], dtype=torch.float64))[:2, :2]
        close(m.T @ m, scale**2 * torch.eye(2, dtype=torch.float64))
        assert m[1, 0] > 0  # x turns towards y, clockwise on a screen

    def test_embeds_the_smaller_families_in_the_larger(self) -> None:
        for small, large in ((translation, similarity), (similarity, affine), (affine, homography)):
            p = some(small, 3)
            close(large.matrix(large.params(small.matrix(p))), small.matrix(p), 1e-12)


class TestFit:
    @EVERY
    @given(data=st.data())
    def test_recovers_the_warp_from_exact_points(self, warp: Warp, data: st.DataObject) -> None:
        p = data.draw(params(warp))
        close(warp.fit(corners(torch.float64), warp.apply(p, corners(torch.float64))), p)

    @EVERY
    def test_recovers_it_from_many_points(self, warp: Warp, generator: torch.Generator) -> None:
        x = 2 * torch.rand(5, 30, 2, generator=generator, dtype=torch.float64) - 1
        p = some(warp, 5)
        close(warp.fit(x, warp.apply(p, x)), p)

    @pytest.mark.parametrize("warp", [translation, similarity, affine], ids=repr)
    def test_residual_is_orthogonal_to_the_family(self, warp: Warp, generator: torch.Generator) -> None:
        x = corners(torch.float64)
        y = x + 0.3 * torch.randn(7, 4, 2, generator=generator, dtype=torch.float64)
        residual = (y - warp.apply(warp.fit(x, y), x)).flatten(-2)
        normal = residual.unsqueeze(-2) @ warp.jacobian(x).flatten(0, 1)  # (7, 1, k)
        close(normal, torch.zeros_like(normal))

    def test_homography_passes_through_any_four_corners(self, generator: torch.Generator) -> None:
        x = corners(torch.float64)
        y = x + 0.2 * torch.randn(50, 4, 2, generator=generator, dtype=torch.float64)
        close(homography.apply(homography.fit(x, y), x), y)

    def test_too_few_points_are_refused(self, unchecked: None) -> None:
        with pytest.raises(ValueError, match="a homography needs at least 4 points, got 3"):
            homography.fit(corners()[:3], corners()[:3])

    @pytest.mark.parametrize("warp", [affine, homography], ids=repr)
    def test_points_on_a_line_are_refused(self, warp: Warp) -> None:
        line = torch.tensor([LINE], dtype=torch.float64)
        with pytest.raises(SingularWarpError, match="not determined by its points: item 0 of 1"):
            warp.fit(line, line)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize("warp", [affine, homography], ids=repr)
    @pytest.mark.parametrize("size", [1.0, 4000.0], ids=["normalized", "pixels"])
    def test_so_are_points_on_any_line(self, warp: Warp, dtype: torch.dtype, size: float) -> None:
        """Whose products are no exact zeros: what tells them is the conditioning."""
        x = torch.tensor([-1.0, -0.3, 0.7, 0.9], dtype=dtype) * size
        if warp is affine:
            x = x[:3]
        line = torch.stack((x, 0.37 * x + 0.11 * size), -1)
        good = corners(dtype)[: len(x)] * size
        with pytest.raises(SingularWarpError, match="not determined by its points: item 1 of 2"):
            warp.fit(torch.stack((good, line)), torch.stack((good, line + 1)))

    @pytest.mark.parametrize("warp", [affine, homography], ids=repr)
    def test_a_small_patch_far_away_is_determined(self, warp: Warp) -> None:
        patch = 25 * corners(torch.float32) + 4000
        moved = patch + 0.5 * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        p = warp.fit(patch.double(), moved.double())
        assert p.isfinite().all()
        if warp is homography:
            close(warp.apply(p, patch.double()), moved.double(), 1e-5)
        warp.fit(patch, moved)  # raises nothing in float32 either

    @EVERY
    def test_points_that_are_not_finite_are_refused(self, warp: Warp) -> None:
        bad = corners().clone()
        bad[1, 0] = math.nan
        with pytest.raises(SingularWarpError, match="item 1 of 2"):
            warp.fit(corners(), torch.stack((corners(), bad)))

    @EVERY
    def test_without_the_check_the_others_are_right(self, warp: Warp) -> None:
        target = torch.stack((corners() + 0.1, torch.full((4, 2), math.nan)))
        close(warp.fit(corners(), target, check=False)[0], warp.fit(corners(), corners() + 0.1), 1e-6)

    @EVERY
    def test_the_same_bits_every_time(self, warp: Warp, generator: torch.Generator) -> None:
        """Test perturbations are fitted warps, and a resumed run draws them again."""
        y = corners() + torch.randn(200, 4, 2, generator=generator)
        first, kept = warp.fit(corners(), y), []
        for i in range(30):
            kept.append(torch.empty(17 * i + 3))  # memory is never the same twice
            assert torch.equal(warp.fit(corners(), y), first)

    def test_least_squares_is_well_conditioned(self) -> None:
        """The normal equations would square a condition number of 1e4, and lose all of float32."""
        x = torch.tensor([[0.0, 0.0], [1.0, 1e-4], [2.0, 0.0], [3.0, 1e-4], [4.0, -1e-4]])
        p = torch.tensor([[0.3, 0.2, 0.1, -0.2, 0.4, 0.5]])
        found = affine.fit(x, affine.apply(p.double(), x.double()).float())
        assert (affine.apply(found, x) - affine.apply(p, x)).abs().max() < 1e-5
        assert (found - p).abs().max() < 0.02


class TestJacobian:
    @EVERY
    def test_is_what_autograd_finds_at_the_identity(self, warp: Warp) -> None:
        x = some(translation, 6)
        p = warp.identity(dtype=torch.float64)
        wanted = torch.autograd.functional.jacobian(lambda q: warp.apply(q, x), p)
        close(warp.jacobian(x), wanted, 1e-12)

    @EVERY
    def test_is_what_autograd_finds_elsewhere(self, warp: Warp) -> None:
        x, p = some(translation, 6), some(warp, 4)
        wanted = torch.stack(
            [torch.autograd.functional.jacobian(lambda q: warp.apply(q, x), item) for item in p]
        )
        close(warp.jacobian(x, p), wanted, 1e-12)

    def test_of_a_translation_is_the_unit_matrix(self) -> None:
        close(translation.jacobian(corners()), torch.eye(2).expand(4, 2, 2))


class TestGradients:
    """gradcheck in double precision: what training differentiates through."""

    @EVERY
    @SIDES
    def test_compose(self, warp: Warp, side: str) -> None:
        p, q = some(warp, 2).requires_grad_(), some(warp, 2, seed=1).requires_grad_()
        assert torch.autograd.gradcheck(lambda a, b: warp.compose(a, b, side=side), (p, q))

    @EVERY
    def test_inverse(self, warp: Warp) -> None:
        assert torch.autograd.gradcheck(warp.inverse, some(warp, 2).requires_grad_())

    @EVERY
    def test_apply(self, warp: Warp) -> None:
        p, x = some(warp, 2).requires_grad_(), some(translation, 2, 3).requires_grad_()
        assert torch.autograd.gradcheck(warp.apply, (p, x))

    @EVERY
    def test_fit(self, warp: Warp) -> None:
        y = (corners(torch.float64) + some(translation, 2, 4)).requires_grad_()
        assert torch.autograd.gradcheck(lambda t: warp.fit(corners(torch.float64), t), y)


class TestSingular:
    """No inverse, no representation, no finite value: an error that names the item, or a flag."""

    def test_flags_the_item(self) -> None:
        p = torch.stack((torch.zeros(8), torch.tensor(RANK_ONE), torch.full((8,), math.nan)))
        assert homography.singular(p).tolist() == [False, True, True]

    def test_inverse_names_the_item(self) -> None:
        p = torch.stack((torch.zeros(8), torch.tensor(RANK_ONE)))
        with pytest.raises(SingularWarpError, match=r"no inverse in its family: item 1 of 2"):
            homography.inverse(p)

    def test_inverse_without_the_check_leaves_the_others_right(self) -> None:
        p = torch.stack((torch.full((8,), 0.1), torch.tensor(RANK_ONE)))
        close(homography.inverse(p, check=False)[0], homography.inverse(p[0]), 1e-6)

    @pytest.mark.parametrize("warp", [similarity, affine], ids=repr)
    def test_a_collapsed_plane_has_no_inverse(self, warp: Warp) -> None:
        p = warp.params(torch.diag(torch.tensor([0.0, 0.0, 1.0])))
        with pytest.raises(SingularWarpError):
            warp.inverse(p)

    def test_an_inverse_that_p_cannot_express_is_an_error(self) -> None:
        # M is regular, but its inverse has a zero where M[2, 2] = 1 should be: (0, 0) comes from infinity
        p = homography.params(torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]))
        m = homography.matrix(p)
        assert m.det().abs() > 0.5
        assert homography.singular(p)
        with pytest.raises(SingularWarpError, match="no inverse in its family"):
            homography.inverse(p)

    def test_a_product_that_p_cannot_express_is_an_error(self) -> None:
        p = torch.zeros(1, 8)
        p[0, 6] = 1.0  # sends x = -1 to infinity
        shift = torch.zeros(1, 8)
        shift[0, 2] = -1.0
        with pytest.raises(SingularWarpError, match=r"M\[2, 2\] = 0"):
            homography.compose(shift, p, side="image")

    @given(entries=hnp.arrays("float64", (4, 8), elements=st.floats(-3, 3)))
    def test_what_is_not_flagged_is_inverted(self, entries) -> None:
        p = torch.from_numpy(entries)
        fine = ~homography.singular(p)
        assume(bool(fine.any()))
        q = homography.inverse(p[fine])
        assert q.isfinite().all()

    def test_apply_is_finite_on_the_horizon(self) -> None:
        p = torch.zeros(8)
        p[6] = -1.0  # the denominator 1 - x is zero on the right border
        assert homography.apply(p, corners()).isfinite().all()
        assert off_horizon(torch.tensor([0.0, -1e-9, 2.0])).tolist() == pytest.approx([1e-6, -1e-6, 2.0])


class TestMessages:
    def test_unknown_family(self) -> None:
        with pytest.raises(
            ValueError, match=r"unknown warp 'shear': the families are translation, similarity, affine"
        ):
            family("shear")

    def test_unknown_side(self, unchecked: None) -> None:
        with pytest.raises(ValueError, match=r"'image' \(M\(Δp\) M\(p\)\) or 'template'.*not 'left'"):
            affine.compose(torch.zeros(6), torch.zeros(6), side="left")

    def test_wrong_number_of_parameters(self) -> None:
        with pytest.raises(ValueError, match=r"has 6 warp parameters on its last axis, got shape \(2, 8\)"):
            affine.matrix(torch.zeros(2, 8))

    def test_family_passes_a_family_through(self) -> None:
        assert family(affine) is affine
        assert family("affine") is affine


def test_corner_error_of_a_shift_is_its_length() -> None:
    p = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    close(corner_error(translation, p), torch.tensor([5.0, 0.0]))
    close(corner_error(translation, p, p), torch.zeros(2))


class TestCornerError:
    def test_has_a_gradient_at_the_identity(self) -> None:
        """The root's slope is infinite there; the distance's subgradient is 0."""
        p = torch.zeros(2, 8)
        p[1, 2] = 0.3
        p.requires_grad_()
        corner_error(homography, p).sum().backward()
        assert p.grad[0].abs().max() == 0
        close(p.grad[1, 2], torch.tensor(1.0))

    def test_is_the_root_of_the_mean_square(self) -> None:
        p, q = some(homography, 5), some(homography, 5, seed=1)
        c = corners(torch.float64)
        wanted = (homography.apply(p, c) - homography.apply(q, c)).square().sum(-1).mean(-1).sqrt()
        close(corner_error(homography, p, q), wanted, 1e-14)


class TestEmptyBatch:
    """Batches of no items have shapes, and gradients."""

    @EVERY
    def test_keeps_its_shape(self, warp: Warp) -> None:
        p = torch.zeros(0, warp.dim, requires_grad=True)
        q = warp.compose(p, warp.inverse(p), side="image")
        assert q.shape == (0, warp.dim)
        assert warp.matrix(p).shape == (0, 3, 3)
        assert warp.apply(p, corners()).shape == (0, 4, 2)
        assert warp.fit(corners(), torch.zeros(0, 4, 2)).shape == (0, warp.dim)
        assert corner_error(warp, p).shape == (0,)
        q.sum().backward()
        assert p.grad.shape == p.shape


class TestPrecision:
    """Coordinates are float32 or better."""

    @EVERY
    @pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
    def test_half_precision_is_widened(self, warp: Warp, half: torch.dtype) -> None:
        p, q = some(warp, 3, dtype=torch.float32).to(half), some(warp, 3, seed=1, dtype=torch.float32)
        c = corners()
        for ours, wanted in (
            (warp.matrix(p), warp.matrix(p.float())),
            (warp.compose(q, p, side="image"), warp.compose(q, p.float(), side="image")),
            (warp.inverse(p), warp.inverse(p.float())),
            (warp.apply(p, c), warp.apply(p.float(), c)),
            (warp.jacobian(c, p), warp.jacobian(c, p.float())),
            (warp.fit(c, c.to(half)), warp.fit(c, c)),
            (corner_error(warp, p), corner_error(warp, p.float())),
        ):
            assert ours.dtype == torch.float32
            assert torch.equal(ours, wanted)

    @EVERY
    def test_autocast_has_no_say(self, warp: Warp) -> None:
        p, q, c = (some(w, 3, dtype=torch.float32) for w in (warp, warp, translation))

        def all_of_it(autocast: bool) -> list[torch.Tensor]:
            a = p.clone().requires_grad_()
            with torch.autocast("cpu", enabled=autocast):
                b = warp.compose(a, warp.inverse(q), side="template")
                fitted = warp.fit(corners(), corners() + c[:, None])
                out = [b, warp.jacobian(c, b), fitted, corner_error(warp, b)]
            return [*out, *torch.autograd.grad(sum(o.sum() for o in out), a)]

        for ours, wanted in zip(all_of_it(True), all_of_it(False), strict=True):
            assert torch.equal(ours, wanted)


class TestFamiliesOfOnesOwn:
    SHEAR = Warp("shear", (((0, 1, 1.0),), ((0, 1, 0.5), (1, 0, 1.0))))  # generators that are not orthogonal

    @given(data=st.data())
    def test_params_read_a_matrix_back(self, data: st.DataObject) -> None:
        p = data.draw(params(self.SHEAR))
        close(self.SHEAR.params(self.SHEAR.matrix(p)), p)

    @pytest.mark.parametrize(
        "entries", [(((0, 1, 1.0),), ((0, 1, 2.0),)), (((2, 2, 1.0),),)], ids=["dependent", "M[2, 2]"]
    )
    def test_generators_are_checked(self, entries: tuple) -> None:
        with pytest.raises(ValueError, match=r"'mine' must be independent and leave M\[2, 2\] alone"):
            Warp("mine", entries)


@pytest.mark.parametrize(("singular", "shown"), [(8, "7 of"), (9, "7, … of")])
def test_eight_items_are_named_and_more_are_hinted_at(singular: int, shown: str) -> None:
    p = torch.zeros(12, 6)
    p[:singular, 0] = p[:singular, 4] = -1.0
    with pytest.raises(SingularWarpError, match=f"item 0, 1, 2, 3, 4, 5, 6, {shown} 12"):
        affine.inverse(p)


def test_a_strong_perspective_is_no_singular_one() -> None:
    """Numbers of different sizes: how small the last minor may be goes with the square of the largest."""
    p = torch.tensor([[3e-3 - 1, 0, -10, 0, 0, 0, 1, 0]])
    assert homography.singular(p).tolist() == [False]
    both = homography.matrix(p.double()) @ homography.matrix(homography.inverse(p.double()))
    torch.testing.assert_close(both / both[..., 2:, 2:], torch.eye(3, dtype=torch.float64)[None])
    worse = torch.tensor([[3e-4 - 1, 0, -10, 0, 0, 0, 1, 0]])
    assert homography.singular(worse).tolist() == [True]
