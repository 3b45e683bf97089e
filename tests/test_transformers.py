"""STN, c-STN and IC-STN as a stranger meets them: any images, any predictor, any number of operations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from icstn.sampling import Frame, sample
from icstn.transformers import ICSTN, STN, Alignment, CompositionalSTN, Transformer
from icstn.warps import FAMILIES, affine, homography, translation

KINDS = pytest.mark.parametrize("kind", ["stn", "c-stn", "ic-stn"])
SIDES = pytest.mark.parametrize("side", ["image", "template"])


class Constant(nn.Module):
    """A geometric predictor that always says the same."""

    def __init__(self, *dp: float) -> None:
        super().__init__()
        self.dp = nn.Parameter(torch.tensor(dp, dtype=torch.float64))
        self.seen: list[torch.Tensor] = []

    def forward(self, crop: torch.Tensor) -> torch.Tensor:
        self.seen.append(crop.detach())
        return self.dp.expand(len(crop), -1)


def linear(channels: int, height: int, width: int, k: int) -> nn.Sequential:
    generator = torch.Generator().manual_seed(k)
    layer = nn.Linear(channels * height * width, k)
    for p in layer.parameters():
        p.data.copy_(0.002 * torch.randn(p.shape, generator=generator))
    return nn.Sequential(nn.Flatten(), layer).double()


def make(kind: str, predictor: nn.Module, n: int = 1, **options) -> Transformer:
    if kind == "stn":
        options.pop("side", None)
        return STN(predictor, n=n, **options)
    if kind == "c-stn":
        return CompositionalSTN([predictor] * n, **options)
    return ICSTN(predictor, n, **options)


def images(batch: int, channels: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, channels, height, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("warp", FAMILIES)
@KINDS
@pytest.mark.parametrize("shape", [(3, 2, 17, 31), (1, 1, 8, 8), (2, 5, 40, 12)], ids=str)
def test_a_strangers_images_and_predictor(warp: str, kind: str, shape: tuple[int, ...]) -> None:
    """Any family, channels and sizes; the crop may differ in size from the image; gradients reach all."""
    frame = Frame.crop(*shape[-2:], 6, 5)
    k = FAMILIES[warp].dim
    module = make(kind, linear(shape[1], 6, 5, k), n=2, warp=warp, frame=frame)
    x = images(*shape).requires_grad_()
    p = torch.zeros(shape[0], k, dtype=x.dtype, requires_grad=True)
    result = module(x, p, return_warps=True)
    assert result.image.shape == (*shape[:2], 6, 5)
    assert [w.shape for w in result.warps] == [(shape[0], k)] * 3
    result.image.square().sum().backward()
    for tensor in (x, p, *module.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().sum() > 0


@KINDS
def test_without_options_the_frame_is_the_image_and_the_warp_the_identity(kind: str) -> None:
    x = images(2, 1, 9, 7)
    module = make(kind, Constant(*[0.0] * 8))
    torch.testing.assert_close(module(x), x)


@KINDS
def test_the_predictor_sees_the_crop_at_the_initial_warp(kind: str) -> None:
    x, frame = images(2, 1, 20, 20), Frame.crop(20, 20, 8, 8)
    predictor = Constant(0.0, 0.0)
    p = torch.tensor([[0.25, -0.5], [1.0, 0.125]], dtype=torch.float64)
    make(kind, predictor, warp=translation, frame=frame)(x, p)
    torch.testing.assert_close(predictor.seen[0], sample(x, p, frame, translation))


@KINDS
def test_one_image_serves_many_warps(kind: str) -> None:
    x, p = images(1, 3, 12, 12), 0.1 * torch.randn(5, 6, dtype=torch.float64)
    module = make(kind, linear(3, 12, 12, 6), warp=affine)
    torch.testing.assert_close(module(x, p), module(x.expand(5, -1, -1, -1), p))


@pytest.mark.parametrize("kind", ["c-stn", "ic-stn"])
class TestComposition:
    """Equation (10), and the side of Lucas and Kanade."""

    DP = (0.1, 0.05, 0.2, -0.05, -0.1, 0.1, 0.02, -0.03)

    def matrices(self, kind: str, side: str, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        p = torch.tensor([[0.2, -0.1, 0.3, 0.1, 0.1, -0.2, 0.05, 0.02]], dtype=torch.float64)
        module = make(kind, Constant(*self.DP), n=n, side=side)
        last = module(images(1, 1, 9, 9), p, return_warps=True).warps[-1]
        dp = torch.tensor([self.DP], dtype=torch.float64)
        return homography.matrix(last)[0], homography.matrix(dp)[0], homography.matrix(p)[0]

    @SIDES
    @pytest.mark.parametrize("n", [1, 3])
    def test_update_acts_on_the_named_side(self, kind: str, side: str, n: int) -> None:
        last, update, first = self.matrices(kind, side, n)
        power = torch.linalg.matrix_power(update, n)
        product = power @ first if side == "image" else first @ power
        torch.testing.assert_close(last, product / product[2, 2])

    def test_the_sides_differ(self, kind: str) -> None:
        image, template = (self.matrices(kind, side, 1)[0] for side in ("image", "template"))
        assert (image - template).abs().max() > 0.01

    @pytest.mark.usefixtures("unchecked")
    def test_unknown_side(self, kind: str) -> None:
        with pytest.raises(ValueError, match="side is 'image'"):
            make(kind, Constant(0.0, 0.0), warp=translation, side="left")


class TestBoundaryEffect:
    """An STN passes on its output image, and what left that image is lost; the others pass on the warp."""

    def test_there_and_back(self) -> None:
        """Half the image out and back in: black for an STN, the image itself for a c-STN."""
        x = images(1, 1, 9, 9)
        away, back = Constant(1.0, 0.0), Constant(-1.0, 0.0)
        kept = CompositionalSTN([away, back], warp=translation)(x)
        torch.testing.assert_close(kept, x)
        stn = STN(_InTurn(away, back), 2, warp=translation)
        lost = stn(x)
        assert not lost[..., :4].any()
        torch.testing.assert_close(lost[..., 4:], x[..., 4:])

    def test_the_crop_has_real_surroundings_only_without_it(self) -> None:
        """One operation on a crop: the STN shows zeros where the others show the image around the crop."""
        x, frame = images(1, 1, 21, 21), Frame.crop(21, 21, 11, 11)
        stn = STN(Constant(0.4, 0.0), warp=translation, frame=frame)(x)
        composed = ICSTN(Constant(0.4, 0.0), 1, warp=translation, frame=frame)(x)
        assert not stn[..., -2:].any()
        assert (composed[..., -2:] > 0).all()
        torch.testing.assert_close(stn[..., :9], composed[..., :9])

    def test_listed_warps_are_those_of_the_original_image(self) -> None:
        """Away from the border, the STN's image is the image under the warp it lists."""
        x = _smooth(41)
        frame = Frame.crop(41, 41, 21, 21)
        module = STN(Constant(0.1, 0.05, 0.1, -0.05, -0.1, 0.1, 0.02, -0.03), frame=frame, n=2)
        p = torch.tensor([[0.1, 0.05, 0.1, 0.0, -0.1, 0.1, 0.01, 0.02]], dtype=torch.float64)
        result = module(x, p, return_warps=True)
        direct = sample(x, result.warps[-1], frame)
        assert (result.image - direct)[..., 6:-6, 6:-6].abs().max() < 0.01

    def test_one_stn_operation_on_a_whole_image_is_a_c_stn(self) -> None:
        x, predictor = images(2, 1, 12, 12), linear(1, 12, 12, 8)
        torch.testing.assert_close(STN(predictor)(x), CompositionalSTN([predictor])(x))


class _InTurn(nn.Module):
    def __init__(self, *predictors: nn.Module) -> None:
        super().__init__()
        self.predictors, self.at = nn.ModuleList(predictors), 0

    def forward(self, crop: torch.Tensor) -> torch.Tensor:
        self.at += 1
        return self.predictors[self.at - 1](crop)


def _smooth(size: int) -> torch.Tensor:
    t = torch.linspace(-1, 1, size, dtype=torch.float64)
    return (torch.cos(2 * t)[:, None] * torch.sin(3 * t + 1)[None]).view(1, 1, size, size)


class TestOperations:
    """n at test time."""

    def test_ic_stn_runs_longer_than_it_was_trained(self) -> None:
        module = ICSTN(linear(1, 10, 10, 8), n=2)
        x, p = images(3, 1, 10, 10), 0.1 * torch.randn(3, 8, dtype=torch.float64)
        warps = module(x, p, n=6, return_warps=True).warps
        assert len(warps) == 7
        for n in range(7):
            result = module(x, p, n=n, return_warps=True)
            torch.testing.assert_close(result.warps[-1], warps[n])
            torch.testing.assert_close(result.image, sample(x, warps[n]))

    def test_ic_stn_is_a_c_stn_with_one_predictor_shared(self) -> None:
        predictor, x = linear(1, 10, 10, 8), images(2, 1, 10, 10)
        torch.testing.assert_close(ICSTN(predictor, 3)(x), CompositionalSTN([predictor] * 3)(x))

    def test_c_stn_stops_early_but_not_late(self) -> None:
        module = CompositionalSTN([linear(1, 8, 8, 8) for _ in range(2)])
        assert len(module(images(1, 1, 8, 8), n=1, return_warps=True).warps) == 2
        with pytest.raises(ValueError, match="2 predictors cannot apply 3 warp operations"):
            module(images(1, 1, 8, 8), n=3)

    @KINDS
    def test_zero_operations_crop_and_fewer_are_refused(self, kind: str) -> None:
        x, module = images(1, 1, 8, 8), make(kind, linear(1, 8, 8, 8))
        result = module(x, n=0, return_warps=True)
        assert isinstance(result, Alignment)
        assert len(result.warps) == 1
        torch.testing.assert_close(result.image, x)
        with pytest.raises(ValueError, match="at least 0, got -1"):
            module(x, n=-1)

    def test_explicit_inverse_composes_with_the_inverse(self) -> None:
        dp, x = (0.1, 0.0, 0.2, 0.05, 0.1, 0.0, 0.02, 0.0), images(1, 1, 9, 9)
        forward = ICSTN(Constant(*dp), 1)(x, return_warps=True).warps[-1]
        inverse = ICSTN(Constant(*dp), 1, invert=True)(x, return_warps=True).warps[-1]
        torch.testing.assert_close(inverse, homography.inverse(forward))


class TestBadInput:
    """One clear sentence each."""

    @KINDS
    def test_prediction_of_the_wrong_shape(self, kind: str) -> None:
        module = make(kind, linear(1, 8, 8, 6))
        with pytest.raises(ValueError, match=r"returned shape \(2, 6\); a homography .* wants \(2, 8\)"):
            module(images(2, 1, 8, 8))

    @KINDS
    @pytest.mark.usefixtures("unchecked")
    def test_images_without_a_batch(self, kind: str) -> None:
        with pytest.raises(ValueError, match=r"images are \(batch, channels, height, width\), got .*8, 8"):
            make(kind, linear(1, 8, 8, 8))(torch.zeros(8, 8))

    @KINDS
    def test_warps_that_do_not_match_the_images(self, kind: str) -> None:
        with pytest.raises(ValueError, match=r"\(3, 1, 8, 8\) and \(2, 8\)"):
            make(kind, linear(1, 8, 8, 8))(images(3, 1, 8, 8), torch.zeros(2, 8, dtype=torch.float64))

    @KINDS
    def test_warps_of_another_family(self, kind: str) -> None:
        with pytest.raises(ValueError, match="a homography has 8 warp parameters"):
            make(kind, linear(1, 8, 8, 8))(images(2, 1, 8, 8), torch.zeros(2, 6, dtype=torch.float64))

    @pytest.mark.usefixtures("unchecked")
    @pytest.mark.parametrize("kind", ["stn", "ic-stn"])
    @pytest.mark.parametrize("n", ["affine", 4.5, -1, True])
    def test_operations_are_a_whole_number(self, kind: str, n: object) -> None:
        with pytest.raises(ValueError, match="is a whole number, at least 0, got"):
            make(kind, linear(1, 8, 8, 8), n=n)

    @pytest.mark.usefixtures("unchecked")
    @KINDS
    def test_images_of_whole_numbers(self, kind: str) -> None:
        with pytest.raises(ValueError, match=r"images are floating-point tensors, got torch\.uint8"):
            make(kind, linear(1, 8, 8, 8))(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))

    def test_unknown_family(self) -> None:
        with pytest.raises(ValueError, match=r"unknown warp 'spline': the families are translation, .*"):
            ICSTN(nn.Identity(), 1, warp="spline")


@KINDS
def test_prints_what_it_does(kind: str) -> None:
    text = repr(make(kind, linear(1, 8, 8, 6), n=2, warp="affine"))
    assert "n=2, warp=affine, frame=None, padding=zeros" in text
    assert ("side=template" in text) == (kind != "stn")


def test_survives_a_state_dict_round_trip_and_a_change_of_dtype() -> None:
    module, x = ICSTN(linear(1, 8, 8, 8), 2), images(1, 1, 8, 8)
    other = ICSTN(linear(1, 8, 8, 8), 2)
    other.load_state_dict(module.state_dict())
    torch.testing.assert_close(other(x), module(x))
    assert module.float()(x.float()).dtype == torch.float32


def test_trains_a_strangers_model_to_align() -> None:
    """A few steps of gradient descent bring shifted squares nearer to the template."""
    generator = torch.Generator().manual_seed(0)
    template = torch.zeros(1, 1, 16, 16)
    template[..., 5:11, 5:11] = 1
    predictor = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
    for parameter in predictor.parameters():
        parameter.data.zero_()
    module = ICSTN(predictor, 2, warp="translation")
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    first = last = 0.0
    for step in range(60):
        p = 0.15 * torch.randn(32, 2, generator=generator)
        final = module(template, p, return_warps=True).warps[-1]
        loss = final.square().sum(1).mean()
        first, last = (loss.item(), loss.item()) if step == 0 else (first, loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert last < first / 4
