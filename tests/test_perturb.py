"""The paper's noise: its size in pixels, its correlations, its fit to each family, its seeds."""

from __future__ import annotations

import pytest
import torch

from icstn.perturb import corner_noise, perturbations
from icstn.sampling import Frame
from icstn.warps import FAMILIES, affine, corners, homography

N = 40_000
FRAME = Frame.full(28, 28)


def draws(sigma: float = 3.5, **kwargs) -> torch.Tensor:
    return corner_noise(N, sigma, generator=torch.Generator().manual_seed(0), **kwargs)


class TestCornerNoise:
    def test_has_no_preferred_direction(self) -> None:
        standard_error = 3.5 * 2**0.5 / N**0.5
        assert draws().mean(0).abs().max() < 4.5 * standard_error

    def test_variance_is_own_plus_shared(self) -> None:
        wanted = torch.full((4, 2), 3.5**2 + 2.0**2)
        torch.testing.assert_close(draws(translation_sigma=2.0).var(0), wanted, rtol=0.04, atol=0)

    def test_corners_share_the_translation_and_nothing_else(self) -> None:
        noise = draws(translation_sigma=2.0)
        wanted = torch.full((8, 8), 0.0)
        for i in range(8):
            for j in range(8):
                wanted[i, j] = (i % 2 == j % 2) * 2.0**2 + (i == j) * 3.5**2
        torch.testing.assert_close(noise.flatten(1).T.cov(), wanted, rtol=0.05, atol=0.4)

    def test_translation_has_the_same_sigma_unless_told(self) -> None:
        torch.testing.assert_close(draws(), draws(translation_sigma=3.5))

    def test_without_translation_corners_are_independent(self) -> None:
        noise = draws(translation_sigma=0.0).flatten(1)
        off_diagonal = noise.T.corrcoef() - torch.eye(8)
        assert off_diagonal.abs().max() < 5 / N**0.5

    def test_is_gaussian(self) -> None:
        stats = pytest.importorskip("scipy.stats")
        sample = draws()[:, 0, 0].numpy() / (3.5 * 2**0.5)
        assert stats.kstest(sample, "norm").pvalue > 1e-3

    def test_a_negative_sigma_is_refused(self, generator: torch.Generator) -> None:
        with pytest.raises(ValueError, match="standard deviation in pixels, at least 0; got -1"):
            corner_noise(2, -1.0, generator=generator)


class TestPerturb:
    def test_homography_moves_the_corners_by_exactly_the_noise(self) -> None:
        p = perturbations(500, 3.5, FRAME, "homography", generator=torch.Generator().manual_seed(3))
        noise = corner_noise(500, 3.5, generator=torch.Generator().manual_seed(3))
        moved = (homography.apply(p.double(), corners(torch.float64)) - corners(torch.float64)) / FRAME.pixel
        error = (moved - noise).abs().amax((1, 2))
        assert error.quantile(0.99) < 1e-3  # float32; the few nearly degenerate quadrilaterals lose more

    def test_affine_is_the_least_squares_fit(self) -> None:
        p = perturbations(500, 3.5, FRAME, "affine", generator=torch.Generator().manual_seed(3))
        noise = corner_noise(500, 3.5, generator=torch.Generator().manual_seed(3)) * FRAME.pixel
        x = torch.cat((corners(), torch.ones(4, 1)), 1)
        wanted = torch.linalg.lstsq(x.expand(500, 4, 3), corners() + noise).solution.mT
        torch.testing.assert_close(affine.matrix(p)[:, :2], wanted, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("name", FAMILIES)
    def test_zero_noise_is_the_identity(self, name: str, generator: torch.Generator) -> None:
        p = perturbations(3, 0.0, FRAME, name, generator=generator)
        torch.testing.assert_close(p, torch.zeros(3, FAMILIES[name].dim), atol=1e-6, rtol=0)

    @pytest.mark.parametrize("name", FAMILIES)
    def test_same_seed_same_warps(self, name: str) -> None:
        a, b = (perturbations(5, 3.5, FRAME, name, generator=torch.Generator().manual_seed(1)) for _ in "ab")
        c = perturbations(5, 3.5, FRAME, name, generator=torch.Generator().manual_seed(2))
        assert torch.equal(a, b)
        assert not torch.equal(a, c)

    def test_noise_scales_with_the_frame(self) -> None:
        """σ is in template pixels: on twice the samples the same σ is half the normalized noise."""
        small, large = (
            perturbations(9, 2.0, Frame.full(n, n), "affine", generator=torch.Generator().manual_seed(5))
            for n in (20, 40)
        )
        torch.testing.assert_close(small, 2 * large)

    def test_no_draw_from_the_global_state(self) -> None:
        before = torch.random.get_rng_state()
        perturbations(4, 3.5, FRAME, "homography", generator=torch.Generator().manual_seed(1))
        assert torch.equal(before, torch.random.get_rng_state())
