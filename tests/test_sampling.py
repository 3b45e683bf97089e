"""Frames, and sampling under a warp: against definitions, OpenCV, scipy and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden.sight import Place, positions
from hypothesis import given
from hypothesis import strategies as st

from icstn import sampling
from icstn.sampling import Frame, sample, warp_grid
from icstn.warps import FAMILIES, affine, homography, translation

EVERY = pytest.mark.parametrize("warp", FAMILIES.values(), ids=FAMILIES)
sizes = st.integers(2, 40)
lengths = st.floats(0.5, 100)


def some(warp, *batch: int, seed: int = 0, size: float = 0.1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * (2 * torch.rand(*batch, warp.dim, generator=generator, dtype=torch.float64) - 1)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pixel_matrix(p: torch.Tensor, frame: Frame) -> np.ndarray:
    """The same homography between pixel coordinates, as OpenCV wants it (template → image)."""
    (cx, cy), (ex, ey) = frame.center, frame.half_extent
    n = np.array([[ex, 0, cx], [0, ey, cy], [0, 0, 1]])
    return n @ homography.matrix(p)[0].numpy() @ np.linalg.inv(n)


class TestFrame:
    def test_full_runs_from_first_to_last_pixel_centre(self) -> None:
        frame = Frame.full(28, 20)
        x = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
        assert frame.to_pixels(x).tolist() == [[0, 0], [19, 27], [9.5, 13.5]]

    def test_crop_is_central_and_keeps_the_resolution(self) -> None:
        frame = Frame.crop(50, 60, 36, 36)
        left, right = frame.to_pixels(torch.tensor([[-1.0, -1.0], [1.0, 1.0]])).tolist()
        assert (left, right) == ([12, 7], [47, 42])

    def test_box_places_its_corner_samples(self) -> None:
        frame = Frame.box(10, 20, 40, 80, 7, 5)
        ends = frame.to_pixels(frame.grid())[[0, -1]]
        assert ends.tolist() == [[10, 20], [40, 80]]

    def test_covers_the_image_that_it_is(self) -> None:
        full, crop = Frame.full(28, 20), Frame.crop(50, 50, 36, 36)
        assert [full.covers(*size) for size in ((28, 20), (20, 28), (28, 28))] == [True, False, False]
        assert not any(crop.covers(n, n) for n in (36, 50))

    @given(sizes, sizes, lengths, lengths)
    def test_pixels_and_normalized_coordinates_are_inverse(self, h: int, w: int, x: float, y: float) -> None:
        frame = Frame(h, w, (x, y), (y, x))
        points = torch.tensor([[0.3, -0.7], [1.5, 2.5]], dtype=torch.float64)
        torch.testing.assert_close(frame.to_normalized(frame.to_pixels(points)), points)

    @pytest.mark.parametrize("warp", [affine, homography], ids=lambda warp: warp.name)
    def test_a_warps_matrix_in_pixels(self, warp) -> None:
        """It takes the number (column, row) of a sample to the pixel that is read there, and back."""
        frame, place = (kind(11, 17, (20.5, 9.0), (12.0, 4.5)) for kind in (Frame, Place))
        p = some(warp, 3)
        m = frame.matrix(warp, p).numpy()
        x, y = (z.numpy() for z in positions(p, place))
        row, column = np.mgrid[:11, :17]
        u, v, w = np.einsum("bij,jhw->ibhw", m, np.stack((column, row, np.ones_like(row))))
        assert m[:, 2, 2] == pytest.approx(1)
        assert (u / w, v / w) == (pytest.approx(x), pytest.approx(y))
        torch.testing.assert_close(frame.params(warp, torch.from_numpy(m)), p)

    @given(sizes, sizes)
    def test_grid_runs_row_by_row(self, height: int, width: int) -> None:
        grid = Frame.full(height, width).grid(torch.float64).view(height, width, 2)
        x, y = Frame.full(height, width).axes(grid)
        assert torch.equal(grid[0, :, 0], x)
        assert torch.equal(grid[:, 0, 1], y)

    def test_the_papers_pixel(self) -> None:
        assert 3.5 * Frame.full(28, 28).pixel == 0.25

    def test_a_pixel_along_each_axis(self) -> None:
        assert Frame.full(20, 40).pixels == (0.05, 0.1)
        assert Frame.full(20, 40).pixel == 0.05

    @pytest.mark.parametrize(("height", "width"), [(1, 5), (5, 1)])
    def test_needs_two_samples_a_side(self, height: int, width: int) -> None:
        with pytest.raises(ValueError, match="at least 2×2 samples"):
            Frame(height, width, (0.0, 0.0), (1.0, 1.0))

    def test_needs_a_positive_extent(self) -> None:
        with pytest.raises(ValueError, match="must be positive"):
            Frame.box(5, 0, 5, 9, 4, 4)


class TestGrid:
    @EVERY
    def test_is_the_warp_of_every_sample(self, warp) -> None:
        frame, p = Frame.crop(50, 60, 12, 9), some(warp, 3)
        grid = warp_grid(p, frame, warp, (50, 60)).flatten(1, 2)
        pixels = frame.to_pixels(warp.apply(p, frame.grid(torch.float64)))
        wanted = Frame.full(50, 60).to_normalized(pixels)
        torch.testing.assert_close(grid, wanted)

    @pytest.mark.parametrize("frame", [Frame.full(12, 9), Frame.crop(30, 40, 12, 9)], ids=["full", "crop"])
    def test_fast_projection_is_the_plain_one(self, frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
        """In values and gradients, also where samples cross the horizon (p7 = −1 has one on it)."""
        p = torch.cat((some(homography, 4), torch.zeros(1, 8, dtype=torch.float64), some(homography, 1)))
        p[4, 6], p[5, 6:] = -1.0, torch.tensor([1.7, -0.9])
        weights = noise(6, 12, 9, 2) / (1 + frame.height * self.steep(p, frame))

        def results() -> list[torch.Tensor]:
            q = p.clone().requires_grad_()
            grid = warp_grid(q, frame, homography, (30, 40))
            return [grid.detach(), torch.autograd.grad(grid, q, weights)[0]]

        fast = results()
        monkeypatch.setattr(sampling, "plain", lambda _: False)
        for ours, plain in zip(fast, results(), strict=True):
            assert plain.isfinite().all()
            torch.testing.assert_close(ours, plain, atol=1e-10, rtol=1e-10)

    @staticmethod
    def steep(p: torch.Tensor, frame: Frame) -> torch.Tensor:
        """How large a sample's coordinates are, which near the horizon is very."""
        return homography.apply(p, frame.grid(p.dtype)).abs().view(len(p), frame.height, frame.width, 2) ** 2

    def test_a_sample_on_the_horizon_has_no_say_in_the_denominator(self) -> None:
        frame, p = Frame.full(3, 3), torch.zeros(1, 8, dtype=torch.float64)
        p[0, 6] = -1.0  # the right column
        p.requires_grad_()
        right = warp_grid(p, frame, homography, (3, 3))[0, :, 2].sum()
        (gradient,) = torch.autograd.grad(right, p)
        assert gradient.abs().amax() > 1e5  # the coordinates are divided by 1e-6 there,
        assert gradient[0, 6:].tolist() == [0, 0]  # whatever the denominator

    def test_can_be_differentiated_twice(self) -> None:
        p = some(homography, 2).requires_grad_()
        frame = Frame.crop(9, 9, 4, 3)
        assert torch.autograd.gradgradcheck(lambda q: warp_grid(q, frame, homography, (9, 9)), p)

    def test_the_same_bits_every_time(self) -> None:
        """Resumed runs are bit-identical: the fast path has no freedom."""
        p, frame = some(homography, 50).float(), Frame.full(28, 28)
        weights = noise(50, 28, 28, 2).float()
        runs = []
        for _ in range(3):
            q = p.clone().requires_grad_()
            grid = warp_grid(q, frame, homography, (28, 28))
            runs.append((grid.detach().clone(), torch.autograd.grad(grid, q, weights)[0]))
        for grid, gradient in runs[1:]:
            assert torch.equal(grid, runs[0][0])
            assert torch.equal(gradient, runs[0][1])


class TestSample:
    @EVERY
    def test_identity_returns_the_image(self, warp) -> None:
        image = noise(3, 2, 7, 9)
        torch.testing.assert_close(sample(image, warp.identity(3, dtype=image.dtype), warp=warp), image)

    def test_crop_reads_the_real_surroundings(self) -> None:
        image = torch.arange(100.0).view(1, 1, 10, 10)
        frame = Frame.crop(10, 10, 4, 4)
        right = torch.tensor([[2 / 3, 0.0]])  # one of three intervals
        torch.testing.assert_close(sample(image, torch.zeros(1, 2), frame, translation), image[..., 3:7, 3:7])
        torch.testing.assert_close(sample(image, right, frame, translation), image[..., 3:7, 4:8])

    def test_half_a_pixel_is_the_mean_of_two(self) -> None:
        image = noise(1, 1, 5, 5)
        half = torch.tensor([[0.25, 0.0]], dtype=torch.float64)
        wanted = (image[..., :-1] + image[..., 1:]) / 2
        torch.testing.assert_close(sample(image, half, warp=translation)[..., :-1], wanted)

    def test_is_zero_outside(self) -> None:
        far = torch.tensor([[5.0, 0.0]])
        assert sample(torch.ones(1, 1, 4, 4), far, warp=translation).abs().max() == 0

    def test_one_image_serves_many_warps(self) -> None:
        image, p = noise(1, 3, 8, 8), some(affine, 5)
        together = sample(image, p, warp=affine)
        assert together.shape == (5, 3, 8, 8)
        torch.testing.assert_close(together[2:3], sample(image, p[2:3], warp=affine))

    def test_names_the_family_by_word(self) -> None:
        image, p = noise(2, 1, 6, 6), some(affine, 2)
        assert torch.equal(sample(image, p, warp="affine"), sample(image, p, warp=affine))

    def test_shapes_that_do_not_fit_are_named(self, unchecked: None) -> None:
        with pytest.raises(ValueError, match=r"got \(2, 1, 6, 6\) and \(3, 8\)"):
            sample(noise(2, 1, 6, 6), some(homography, 3))

    @pytest.mark.parametrize(
        ("image", "options", "message"),
        [
            (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), {}, r"got torch.uint8: try image.float\(\) / 255"),
            (torch.zeros(1, 1, 1, 4), {}, r"at least 2×2 pixels, got shape \(1, 1, 1, 4\)"),
            (torch.zeros(1, 1, 4, 4), {"padding": "wrap"}, "one of zeros, border, reflection, not 'wrap'"),
        ],
        ids=["uint8", "one row", "padding"],
    )
    def test_other_mistakes_are_named(
        self, unchecked: None, image: torch.Tensor, options: dict, message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            sample(image, torch.zeros(1, 8), **options)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize("of_p", [torch.bfloat16, torch.float32, torch.float64], ids=str)
    def test_keeps_the_images_dtype_and_samples_in_the_finer(
        self, dtype: torch.dtype, of_p: torch.dtype
    ) -> None:
        image, p = noise(2, 1, 9, 9).to(dtype), some(affine, 2).to(of_p)
        ours = sample(image, p, warp=affine)
        assert ours.dtype == dtype
        exact = sample(image.double(), p.double(), warp=affine)
        coordinate = torch.finfo(torch.promote_types(of_p, torch.float32)).eps
        assert (ours - exact).abs().max() < torch.finfo(dtype).eps + 40 * coordinate

    def test_padding_continues_the_border_or_mirrors(self) -> None:
        image, shift = torch.arange(4.0).expand(1, 1, 4, 4), torch.tensor([[2 / 3 * 2, 0.0]])
        rows = {p: sample(image, shift, warp=translation, padding=p)[0, 0, 0] for p in sampling.PADDINGS}
        wanted = {"zeros": [2, 3, 0, 0], "border": [2, 3, 3, 3], "reflection": [2, 3, 2, 1]}
        for padding, row in rows.items():
            torch.testing.assert_close(row, torch.tensor(wanted[padding]).float(), atol=1e-5, rtol=0)

    @EVERY
    def test_an_empty_batch_has_a_shape(self, warp) -> None:
        p = torch.zeros(0, warp.dim, requires_grad=True)
        for image in (torch.zeros(0, 2, 6, 7), torch.zeros(1, 2, 6, 7)):
            out = sample(image, p, Frame.crop(6, 7, 3, 4), warp)
            assert out.shape == (0, 2, 3, 4)
            out.sum().backward()

    def test_composes_like_the_warps_on_a_smooth_image(self) -> None:
        """Resampling twice is sampling once under the template-side product, up to interpolation."""
        y, x = torch.meshgrid(*[torch.linspace(0, 3, 101, dtype=torch.float64)] * 2, indexing="ij")
        image = (torch.sin(x) * torch.cos(y))[None, None]
        p, q = some(affine, 1), some(affine, 1, seed=1)
        twice = sample(sample(image, p, warp=affine), q, warp=affine)
        once = sample(image, affine.compose(p, q, side="template"), warp=affine)
        torch.testing.assert_close(twice[..., 20:-20, 20:-20], once[..., 20:-20, 20:-20], atol=1e-3, rtol=0)

    @EVERY
    def test_gradients_in_image_and_warp(self, warp) -> None:
        """gradcheck away from the kinks of the bilinear interpolant, which lie on the pixel lines."""
        image = noise(2, 1, 4, 5).requires_grad_()
        p = (some(warp, 2, size=0.04) + 0.013).requires_grad_()
        frame = Frame(3, 3, (1.9, 1.6), (1.13, 0.87))
        assert torch.autograd.gradcheck(lambda i, q: sample(i, q, frame, warp), (image, p), eps=1e-7)


class TestAgainstOthers:
    """On a photograph, in its interior, to 1e-4."""

    @pytest.mark.parametrize("seed", range(5))
    def test_opencv(self, photograph: torch.Tensor, seed: int) -> None:
        cv2 = pytest.importorskip("cv2", minversion="5")  # earlier versions round positions to 1/32 pixel
        height, width = photograph.shape[-2:]
        frame, p = Frame.full(height, width), some(homography, 1, seed=seed)
        ours = sample(photograph, p, frame)[0].permute(1, 2, 0).numpy()
        theirs = cv2.warpPerspective(
            photograph[0].permute(1, 2, 0).numpy().astype(np.float32),
            pixel_matrix(p, frame),
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        inside = self.interior(p, frame, height, width)
        assert inside.mean() > 0.5
        assert np.abs(ours - theirs)[inside].max() < 1e-4

    def test_opencv_on_a_crop(self, photograph: torch.Tensor) -> None:
        cv2 = pytest.importorskip("cv2", minversion="5")
        frame = Frame.box(120, 60, 300, 240, 91, 91)
        p = some(homography, 1, seed=7)
        step = np.array([[2 / 90, 0, -1], [0, 2 / 90, -1], [0, 0, 1]])  # sample index → normalized
        (cx, cy), (ex, ey) = frame.center, frame.half_extent
        to_image = np.array([[ex, 0, cx], [0, ey, cy], [0, 0, 1]]) @ homography.matrix(p)[0].numpy() @ step
        theirs = cv2.warpPerspective(
            photograph[0].permute(1, 2, 0).numpy().astype(np.float32),
            to_image,
            (91, 91),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        ours = sample(photograph, p, frame)[0].permute(1, 2, 0).numpy()
        assert np.abs(ours - theirs).max() < 1e-4

    def test_scipy(self, photograph: torch.Tensor) -> None:
        ndimage = pytest.importorskip("scipy.ndimage")
        height, width = photograph.shape[-2:]
        frame, p = Frame.full(height, width), some(homography, 1, seed=9)
        x, y = frame.to_pixels(homography.apply(p, frame.grid(torch.float64)))[0].T.numpy()
        theirs = ndimage.map_coordinates(photograph[0, 0].numpy(), [y, x], order=1).reshape(height, width)
        inside = self.interior(p, frame, height, width)
        ours = sample(photograph, p, frame)[0, 0].numpy()
        assert np.abs(ours - theirs)[inside].max() < 1e-10

    @staticmethod
    def interior(p: torch.Tensor, frame: Frame, height: int, width: int) -> np.ndarray:
        x = frame.to_pixels(homography.apply(p, frame.grid(torch.float64)))[0]
        size = torch.tensor([width - 2.0, height - 2.0], dtype=torch.float64)
        return ((x > 1) & (x < size)).all(-1).view(height, width).numpy()
