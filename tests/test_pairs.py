"""Two images in: what a predictor of pairs sees and says, and the pairs that are cut from photographs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor, nn

from icstn.datasets import images, pairs
from icstn.datasets.pairs import SPLITS, Windows
from icstn.pairs import Correlation, FourPoint, PairCSTN, PairICSTN, Reach, Standardized
from icstn.sampling import Frame, sample
from icstn.warps import corners, homography


def seed(n: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(n)


class Crude(nn.Module):
    """A predictor whose answer depends on both channels and on no symmetry of theirs."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        image, template = x.flatten(2).unbind(1)
        weights = torch.linspace(-1, 1, 8 * image.shape[1]).view(8, -1)
        return self.scale * (image - 2 * template) @ weights.T / image.shape[1]


class TestTransformers:
    frame = Frame.crop(24, 20, 8, 10)

    def pair(self) -> tuple[Tensor, Tensor, Tensor]:
        image, reference = torch.rand(2, 3, 1, 24, 20, generator=seed())
        return image, reference, 0.1 * torch.randn(3, 8, generator=seed(1))

    def test_each_step_compares_the_warped_image_with_the_template(self) -> None:
        image, reference, p = self.pair()
        aligner = PairICSTN(Crude(0.3), n=3, frame=self.frame)
        found = aligner(torch.cat((image, reference), 1), p, return_warps=True)
        template = reference[..., 8:16, 5:15]
        for k in range(3):
            seen = torch.cat((sample(image, p, self.frame), template), 1)
            p = homography.compose(p, Crude(0.3)(seen), side="template")
            torch.testing.assert_close(found.warps[k + 1], p)
        torch.testing.assert_close(found.image[:, 1:], template)
        torch.testing.assert_close(found.image[:, :1], sample(image, p, self.frame))

    def test_a_cascade_has_a_predictor_for_each_step(self) -> None:
        image, reference, p = self.pair()
        pair = torch.cat((image, reference), 1)
        warps = PairCSTN([Crude(0.3), Crude(-0.2)], frame=self.frame)(pair, p, return_warps=True).warps
        torch.testing.assert_close(
            warps[1], PairICSTN(Crude(0.3), 1, frame=self.frame).warps(pair, p, self.frame, 1)[1]
        )
        again = PairICSTN(Crude(-0.2), 1, frame=self.frame).warps(pair, warps[1], self.frame, 1)
        torch.testing.assert_close(warps[2], again[1])

    def test_a_pair_has_an_even_number_of_channels(self) -> None:
        with pytest.raises(
            ValueError, match="as many channels of the reference as of the image, got 3 in all"
        ):
            PairICSTN(Crude(1.0), frame=self.frame)(torch.rand(1, 3, 24, 20))


def test_four_points_end_where_they_are_told() -> None:
    moves = 0.3 * torch.randn(50, 8, generator=seed(), dtype=torch.double)
    p = FourPoint()(moves)
    square = corners(torch.double)
    torch.testing.assert_close(homography.apply(p, square), square + moves.view(50, 4, 2))
    torch.testing.assert_close(p, homography.fit(square, square + moves.view(50, 4, 2)))


def test_four_points_at_rest_have_a_gradient() -> None:
    moves = torch.zeros(1, 8, dtype=torch.double, requires_grad=True)
    assert torch.equal(FourPoint()(moves), torch.zeros(1, 8, dtype=torch.double))
    assert torch.autograd.gradcheck(FourPoint(), moves)


def test_light_is_gone_once_standardized() -> None:
    x = torch.rand(2, 3, 5, 7, generator=seed())
    torch.testing.assert_close(Standardized()(3 * x + 2), Standardized()(x), rtol=1e-4, atol=1e-4)
    assert torch.equal(Standardized()(torch.full((1, 1, 4, 4), 0.5)), torch.zeros(1, 1, 4, 4))


def test_other_light() -> None:
    """Gain 0.6 to 1.3, gamma 0.7 to 1.4, offset ±0.1, slopes ±0.3 to the borders, drawn in turn."""
    x = torch.rand(20, 1, 6, 6, generator=seed(1))
    gain, gamma, offset, a, b = torch.rand(5, 20, generator=seed(2)).double().numpy()
    u = np.linspace(-1, 1, 6)
    for k, found in enumerate(pairs.relit(x, generator=seed(2))[:, 0].numpy()):
        slope = 1 + 0.6 * (a[k] - 0.5) * u[None, :] + 0.6 * (b[k] - 0.5) * u[:, None]
        light = x[k, 0].double().numpy() ** (0.7 + 0.7 * gamma[k]) * slope
        wanted = np.clip((0.6 + 0.7 * gain[k]) * light + 0.2 * (offset[k] - 0.5), 0, 1)
        np.testing.assert_allclose(found, wanted, atol=2e-4)


def test_each_picture_has_its_own_noise() -> None:
    """Gaussian, of a standard deviation that is uniform up to 0.04."""
    x = torch.full((2000, 1, 12, 12), 0.5)
    noise = pairs.noisy(x, seed()) - x
    assert noise.shape == x.shape
    spread = noise.std((1, 2, 3))
    assert spread.mean().item() == pytest.approx(0.02, abs=0.001)
    assert spread.quantile(0.9).item() == pytest.approx(0.036, abs=0.002)
    assert noise.mean().item() == pytest.approx(0, abs=2e-4)


class TestCorrelation:
    def test_is_that_of_plain_loops(self) -> None:
        crop, template = torch.rand(2, 16, 16, generator=seed()).double().numpy()
        reach = 2
        crop, template = (self.flattened(a.reshape(8, 2, 8, 2).mean((1, 3))) for a in (crop, template))
        wide = np.pad(crop, reach)
        expected = np.empty((25, 3, 3))
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                product = wide[reach + dy : reach + dy + 8, reach + dx : reach + dx + 8] * template
                for i in range(3):
                    for j in range(3):
                        part = product[2 * i : 2 * i + 4, 2 * j : 2 * j + 4].mean()
                        expected[(dy + reach) * 5 + dx + reach, i, j] = part
        chances = np.exp(15 * expected) / np.exp(15 * expected).sum(0)
        x = torch.rand(2, 16, 16, generator=seed()).double()[None]
        compare = Correlation(16, (Reach(2, reach),))
        assert compare.shape == (25, 3, 3)
        found = compare.double()(x)[0].detach().numpy()
        np.testing.assert_allclose(found, chances, rtol=1e-4)

    @staticmethod
    def flattened(a: np.ndarray) -> np.ndarray:
        """Without the mean of the pixels at most two away, then standardized."""
        size = len(a)
        near = [
            (slice(max(0, i - 2), i + 3), slice(max(0, j - 2), j + 3))
            for i in range(size)
            for j in range(size)
        ]
        a = a - np.array([a[where].mean() for where in near]).reshape(size, size)
        a = a - a.mean()
        return a / np.sqrt((a**2).mean() + 1e-6)

    def test_is_greatest_where_the_template_lies(self) -> None:
        scene = torch.rand(1, 1, 40, 40, generator=seed())
        x = torch.cat((scene[..., 4:36, 4:36], scene[..., 5:37, 3:35]), 1)  # T(x, y) = I(x - 1, y + 1)
        last = Correlation(32)(x)[0, -9:, 1, 1]
        assert last.argmax() == 2 * 3 + 0
        assert last[6] > 0.9

    def test_names_what_does_not_fit(self) -> None:
        with pytest.raises(ValueError, match="a template of 30 pixels can't be cut into quarters"):
            Correlation(30)
        with pytest.raises(ValueError, match=r"crops are 32×32 pixels, got shape \(1, 2, 16, 16\)"):
            Correlation(32)(torch.rand(1, 2, 16, 16))


class TestCutting:
    def test_a_photograph_is_in_one_split_only(self) -> None:
        names = [name for split in SPLITS.values() for name in split]
        assert len(names) == len(set(names))
        assert set(names) <= set(images.PHOTOGRAPHS)

    @pytest.mark.parametrize("split", SPLITS)
    def test_a_split_shows_its_own_photographs_alone(
        self, split: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each photograph is replaced by stripes in grays of its own."""
        order = [name for names in SPLITS.values() for name in names]

        def stripes(name: str, gray: bool) -> Tensor:
            assert gray
            low = order.index(name) / len(order)
            return low + 0.5 / len(order) * (torch.arange(200) % 8 < 4).float().expand(1, 1, 160, -1)

        monkeypatch.setattr(pairs, "photograph", stripes)
        monkeypatch.setattr(pairs, "TEXTURE", 0.0)
        windows = Windows(split, 60, 12)  # sizes that nothing else asks for
        for level in windows.levels:
            value = level.pixels * len(order)
            assert (value > order.index(windows.names[level.photograph]) - 0.01).all()
            assert (value < order.index(windows.names[level.photograph]) + 0.51).all()
        assert {level.photograph for level in windows.levels} == set(range(len(SPLITS[split])))

    def test_a_shift_is_bilinear_interpolation(self) -> None:
        windows = torch.rand(4, 1, 12, 12, generator=seed())
        shift = torch.rand(4, 2, generator=seed(1)) - 0.5
        found = pairs.shifted(windows, shift)
        y, x = np.mgrid[1:11, 1:11].astype(float)
        for w, (dx, dy), out in zip(windows, shift.tolist(), found, strict=True):
            expected = map_coordinates(w[0].double().numpy(), (y + dy, x + dx), order=1)
            np.testing.assert_allclose(out[0].numpy(), expected, atol=1e-6)

    def test_the_two_pictures_show_one_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without light, noise and cover: reference(x) = image(x + shift), away from the border."""
        monkeypatch.setattr(pairs, "relit", lambda x, generator: x)
        monkeypatch.setattr(pairs, "noisy", lambda x, generator: x)
        monkeypatch.setattr(pairs, "covered_partly", lambda x, template, generator: (x, torch.zeros(len(x))))
        cut = Windows("validation", 40, 16).pairs(6, generator=seed())
        y, x = np.mgrid[2:38, 2:38].astype(float)
        for image, reference, (dx, dy) in zip(cut.image, cut.reference, cut.shift.tolist(), strict=True):
            moved = map_coordinates(image[0].double().numpy(), (y + dy, x + dx), order=1)
            np.testing.assert_allclose(reference[0, 2:38, 2:38].numpy(), moved, atol=1e-5)

    def test_a_cover_is_a_rectangle_of_another_picture(self) -> None:
        x = torch.arange(200.0).view(200, 1, 1, 1).expand(-1, 1, 30, 30) / 200
        out, covered = pairs.covered_partly(x, 12, generator=seed())
        other = out != x
        assert torch.equal(out[other], x.roll(1, 0)[other])
        some = other.flatten(1).any(1)
        assert 0.35 < some.float().mean() < 0.65
        expected = other[..., 9:21, 9:21].float().mean((1, 2, 3))
        torch.testing.assert_close(covered, expected)
        assert covered.max() < 0.75**2 + 0.1
        for rectangle in other[some, 0]:
            rows, columns = rectangle.any(1), rectangle.any(0)
            assert torch.equal(rectangle, rows[:, None] & columns)

    def test_covers_are_where_they_are_drawn(self) -> None:
        """Half a chance; a quarter to three quarters of the template wide, their middle anywhere in it."""
        x = torch.arange(60.0).view(60, 1, 1, 1).expand(-1, 1, 30, 30)
        chance, *drawn = torch.rand(5, 60, generator=seed(3)).double().numpy()
        for k, found in enumerate(pairs.covered_partly(x, 12, generator=seed(3))[0][:, 0]):
            (left, right), (top, bottom) = (
                [(place[k] - 0.5) * 12 + s * (0.125 + 0.25 * extent[k]) * 12 + 14.5 for s in (-1, 1)]
                for extent, place in (drawn[:2], drawn[2:])
            )
            row, column = np.mgrid[:30, :30]
            inside = (left <= column) & (column <= right) & (top <= row) & (row <= bottom)
            assert np.array_equal(found.numpy() != k, inside & (chance[k] < 0.5))

    @pytest.mark.parametrize(("size", "wanted"), [((60, 40), (30, 20)), ((40, 60), (20, 30))])
    def test_the_shorter_side_is_asked_for(self, size: tuple[int, int], wanted: tuple[int, int]) -> None:
        assert pairs.shrunk(torch.rand(1, 1, *size), 20).shape[-2:] == wanted

    def test_light_and_noise_differ_between_the_two(self) -> None:
        cut = Windows("validation", 40, 16).pairs(40, generator=seed())
        for x in (cut.image, cut.reference):
            assert x.min() > -0.3
            assert x.max() < 1.3
        clear = cut.covered == 0
        difference = (cut.image - cut.reference)[clear].mean((1, 2, 3))
        assert difference.abs().mean() > 0.05
        assert 0.5 < len(difference) / 40 * 2 < 1.7

    def test_equal_seeds_give_equal_pairs(self) -> None:
        windows = Windows("validation", 40, 16)
        first, again, other = (windows.pairs(5, generator=seed(k)) for k in (3, 3, 4))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert not torch.equal(first.image, other.image)

    def test_templates_have_texture(self) -> None:
        pixels = torch.rand(60, 80, generator=seed())
        pixels[:, :40] = 0.5
        found = {tuple(place) for place in pairs.textured(pixels, 30, 10).tolist()}
        expected = {
            (top, left)
            for top in range(31)
            for left in range(51)
            if pixels[top + 10 : top + 20, left + 10 : left + 20].std(correction=0) >= pairs.TEXTURE
        }
        assert found == expected
        assert 0 < len(found) < 31 * 51

    def test_bad_wishes_get_a_sentence(self) -> None:
        with pytest.raises(ValueError, match="a split is one of train, validation, test, not 'all'"):
            Windows("all")
        with pytest.raises(ValueError, match="a template of 40 pixels does not fit a window of 30"):
            Windows("test", 30, 40)
        with pytest.raises(ValueError, match="two or more at a time, not 1"):
            Windows("validation", 40, 16).pairs(1, generator=seed())
