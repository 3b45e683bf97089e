"""Alignment problems with a known answer: a photograph whose template has moved by a known warp."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from icstn.extras import package
from icstn.sampling import Frame, warp_grid
from icstn.warps import Warp, corners, family

#: The three points whose noise makes an affine warp: two corners and the middle of the opposite side.
AFFINE_POINTS = ((-1.0, 1.0), (1.0, 1.0), (0.0, -1.0))


@dataclass(frozen=True)
class Trials:
    """Images in which a template has moved by a known warp.

    Attributes:
        images: ``(n, 1, H, W)``, the photograph's surroundings of the template, moved.
        template: ``(1, 1, height, width)``, cut from the photograph.
        truth: ``(n, k)``: the template point x lies at W(x; truth) in the image.
        frame: where the template would lie at p = 0.
        warp: the family.
        sigma: noise of the canonical points in pixels.
    """

    images: Float[Tensor, "n 1 H W"]
    template: Float[Tensor, "1 1 height width"]
    truth: Float[Tensor, "n k"]
    frame: Frame
    warp: Warp
    sigma: float

    def error(self, p: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """RMS distance in pixels of the canonical points from where they should be."""
        points = canonical_points(self.warp, p.dtype).to(p.device)
        d = self.warp.apply(p, points) - self.warp.apply(self.truth.to(p), points)
        return (d * d.new_tensor(self.frame.half_extent)).square().sum(-1).mean(-1).sqrt()


def canonical_points(warp: Warp, dtype: torch.dtype = torch.float32) -> Float[Tensor, "points 2"]:
    """The points that are moved, and measured: four corners of a projective family, else three points."""
    return corners(dtype) if warp.projective else torch.tensor(AFFINE_POINTS, dtype=dtype)


def make_trials(
    photo: Float[Tensor, "1 1 H W"],
    n: int,
    sigma: float,
    warp: Warp | str = "affine",
    *,
    generator: torch.Generator,
    size: int = 100,
    margin: int = 50,
    center: tuple[int, int] | None = None,
) -> Trials:
    """Cut a template from a photograph and move its surroundings by random warps.

    The canonical points move by i.i.d. Gaussian noise of σ pixels, and the warp is fitted to them. The
    image is the photograph resampled (cubic splines), so that the template, which is not, lies at the warp.

    Args:
        photo: gray, floats in [0, 1].
        n: number of trials.
        sigma: standard deviation in pixels of each coordinate's noise.
        warp: family, by name or itself.
        generator: source of randomness.
        size: height and width of the template in pixels.
        margin: pixels of surroundings on each side of the image.
        center: pixel ``(x, y)`` of the template's top-left corner; by default in the photograph's middle.

    Raises:
        ValueError: the photograph is too small.
    """
    warp = family(warp)
    H, W = photo.shape[-2:]
    left, top = center or ((W - size) // 2, (H - size) // 2)
    if min(left, top, H - size - top, W - size - left) < 0:
        raise ValueError(f"a {size}×{size} template does not fit a {H}×{W} photograph at ({left}, {top})")
    template = photo[..., top : top + size, left : left + size].contiguous()
    points = canonical_points(warp)
    noise = torch.randn(n, len(points), 2, generator=generator) * (sigma * 2 / (size - 1))
    truth = warp.fit(points, points + noise)
    there = Frame.box(left, top, left + size - 1, top + size - 1, size, size)
    images = _move(photo, truth, there, warp, size + 2 * margin)
    frame = Frame.crop(size + 2 * margin, size + 2 * margin, size, size)
    return Trials(images, template, truth, frame, warp, sigma)


def _move(photo: Tensor, truth: Tensor, there: Frame, warp: Warp, out: int) -> Tensor:
    """The image whose value at W(x; truth) is the photograph's at x."""
    ratio = (out - 1) / (there.width - 1)
    m = warp.matrix(truth.double())
    scale = torch.diag(m.new_tensor([ratio, ratio, 1.0]))  # the image's square in the template's units
    wide = Frame(out, out, there.center, there.half_extent)
    inverse = torch.linalg.inv(m) @ scale
    projective = family("homography")
    p = projective.params(inverse).float()
    grid = warp_grid(p, wide, projective, (photo.shape[-2], photo.shape[-1]))
    return torch.cat([_spline(photo, g) for g in grid.split(1)])


def _spline(photo: Tensor, grid: Tensor) -> Tensor:
    """Cubic B-spline interpolation of ``(1, 1, H, W)`` at ``(1, h, w, 2)`` (mirrored borders), by scipy.

    It is far more accurate than the bilinear sampling of the aligners, so that it can stand in for the truth.
    """
    size = grid.new_tensor([photo.shape[-1] - 1.0, photo.shape[-2] - 1.0])
    x, y = ((grid[0] + 1) / 2 * size).minimum(size).clamp(min=0).unbind(-1)
    ndimage = package("classical", "scipy.ndimage")
    values = ndimage.map_coordinates(
        photo[0, 0].double().cpu().numpy(), torch.stack((y, x)).cpu().numpy(), order=3, mode="mirror"
    )
    return torch.from_numpy(values).to(photo).view(1, 1, *x.shape)
