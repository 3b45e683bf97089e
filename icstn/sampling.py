"""Where the template lies in an image (:class:`Frame`), and differentiable sampling under a warp."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from icstn.warps import HORIZON, Warp, family, homography, off_horizon


@dataclass(frozen=True)
class Frame:
    """Where the template's square [-1, 1]² lies in an image, and how many samples it has.

    The normalised coordinates -1 and 1 are the *centres* of the first and the last sample
    (``align_corners=True``). The pixel centre of the image's first pixel is (0, 0).

    Args:
        height, width: number of samples of the template, at least 2 each.
        center: pixel ``(x, y)`` of the template's origin in the image.
        half_extent: pixels ``(x, y)`` from the origin to the centre of the last sample.

    Example:
        >>> Frame.full(28, 28).to_pixels(torch.tensor([[-1.0, 1.0]]))
        tensor([[ 0., 27.]])
    """

    height: int
    width: int
    center: tuple[float, float]
    half_extent: tuple[float, float]

    def __post_init__(self) -> None:
        if self.height < 2 or self.width < 2:
            raise ValueError(f"a frame needs at least 2×2 samples, got {self.height}×{self.width}")
        if not (self.half_extent[0] > 0 and self.half_extent[1] > 0):
            raise ValueError(f"a frame's half extent must be positive, got {self.half_extent}")

    @classmethod
    def full(cls, height: int, width: int) -> Frame:
        """The template is the whole image of that size."""
        return cls.box(0, 0, width - 1, height - 1, height, width)

    @classmethod
    def crop(cls, image_height: int, image_width: int, height: int, width: int) -> Frame:
        """The template is the central ``height × width`` crop, at the image's own resolution."""
        x, y = (image_width - 1) / 2, (image_height - 1) / 2
        return cls(height, width, (x, y), ((width - 1) / 2, (height - 1) / 2))

    @classmethod
    def box(cls, left: float, top: float, right: float, bottom: float, height: int, width: int) -> Frame:
        """The template's corner samples lie at the pixel centres (left, top) … (right, bottom)."""
        center = ((left + right) / 2, (top + bottom) / 2)
        return cls(height, width, center, ((right - left) / 2, (bottom - top) / 2))

    @property
    def pixel(self) -> float:
        """One template pixel in normalised units, 2 / width (the paper's 3.5 px on 28 px is 0.25)."""
        return 2 / self.width

    def to_pixels(self, x: Float[Tensor, "... 2"]) -> Float[Tensor, "... 2"]:
        """Normalised coordinates → pixel coordinates of the image."""
        return x * x.new_tensor(self.half_extent) + x.new_tensor(self.center)

    def to_normalised(self, x: Float[Tensor, "... 2"]) -> Float[Tensor, "... 2"]:
        """Pixel coordinates of the image → normalised coordinates."""
        return (x - x.new_tensor(self.center)) / x.new_tensor(self.half_extent)

    def axes(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised x of the columns ``(width,)`` and y of the rows ``(height,)``."""
        x, y = (
            torch.linspace(-1, 1, n, dtype=like.dtype, device=like.device) for n in (self.width, self.height)
        )
        return x, y

    def grid(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "n 2"]:
        """Normalised points of all samples, row by row, ``(height·width, 2)``."""
        x, y = self.axes(torch.empty(0, dtype=dtype))
        return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(-1, 2)


def warp_grid(
    p: Float[Tensor, "batch k"], frame: Frame, warp: Warp, image_size: tuple[int, int]
) -> Float[Tensor, "batch height width 2"]:
    """W(x; p) at every sample of the frame, in the image's own [-1, 1]² (as ``grid_sample`` wants it).

    Affine grids are a broadcast sum of a row and a column term, which costs a fraction of a batched matmul.

    Args:
        p: warp parameters.
        frame: where the template lies.
        warp: the family of ``p``.
        image_size: ``(height, width)`` of the image in pixels.
    """
    m = _to_image(frame, image_size, p.dtype, p.device) @ warp.matrix(p)
    if warp.projective:
        return _Projection.apply(m, _points(frame, p.dtype, p.device)).view(-1, frame.height, frame.width, 2)
    gx, gy = frame.axes(p)
    # (batch, 2, height, width) without ever forming the homogeneous points
    h = m[:, :2, 0, None, None] * gx + (m[:, :2, 1, None] * gy + m[:, :2, 2, None]).unsqueeze(-1)
    return h.permute(0, 2, 3, 1)


class _Projection(torch.autograd.Function):
    """Matrices ``(batch, 3, 3)`` applied to homogeneous points ``(3, N)``: ``(batch, N, 2)``, projected.

    The same as autograd's way through the matmul and the division, in a third of its time.
    """

    @staticmethod
    def forward(m: Tensor, points: Tensor) -> Tensor:
        moved = (m.reshape(-1, 3) @ points).view(len(m), 3, -1)
        return (moved[:, :2] / off_horizon(moved[:, 2:])).mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        m, points, warped = ctx.saved_tensors
        x, y = warped.unbind(-1)  # each (batch, N)
        w = m[:, 2] @ points
        d_u, d_v = (grad.mT.contiguous() / off_horizon(w).unsqueeze(1)).unbind(1)
        d_w = torch.where(w.abs() < HORIZON, 0.0, -(d_u * x + d_v * y))
        d_moved = torch.stack((d_u, d_v, d_w), 1)
        return (d_moved.flatten(0, 1) @ points.mT).view_as(m), None


@lru_cache(maxsize=32)
def _points(frame: Frame, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Homogeneous points of all samples, row by row, ``(3, height·width)``."""
    with torch.inference_mode(False):  # cached: an inference tensor would poison later training
        grid = frame.grid(dtype).to(device)
        return torch.cat((grid, torch.ones_like(grid[:, :1])), 1).T.contiguous()


def sample(
    image: Float[Tensor, "images channels H W"],
    p: Float[Tensor, "batch k"],
    frame: Frame | None = None,
    warp: Warp | str = homography,
) -> Float[Tensor, "batch channels height width"]:
    """I(p): the image at W(x; p) for every template point x — backward, bilinear, zeros outside.

    Convention:
        * output pixel x is read *from* image position W(x; p);
        * the frame places the template, so a crop keeps its real surroundings;
        * differentiable in the image and in p (in p: piecewise, the bilinear interpolant's slope).

    Args:
        image: float images, one for each warp or a single one for all.
        p: warp parameters, on the image's device and of its dtype.
        frame: template placement; the whole image by default.
        warp: the family of ``p``, by name or itself.

    Raises:
        ValueError: the shapes do not fit each other; the message names both.

    Example:
        >>> image = torch.arange(9.0).view(1, 1, 3, 3)
        >>> shift = torch.tensor([[1.0, 0.0]])  # one pixel to the right is 1 of 2 normalised units
        >>> sample(image, shift, warp="translation")[0, 0]
        tensor([[1., 2., 0.],
                [4., 5., 0.],
                [7., 8., 0.]])
    """
    warp = family(warp)
    if image.dim() != 4 or p.dim() != 2 or len(image) not in (1, len(p)):
        raise ValueError(
            "sample wants images (batch or 1, channels, height, width) and warps (batch, k), "
            f"got {tuple(image.shape)} and {tuple(p.shape)}"
        )
    height, width = image.shape[-2:]
    frame = frame or Frame.full(height, width)
    grid = warp_grid(p, frame, warp, (height, width))
    if len(image) == 1:  # all warps side by side in one tall grid: the image is not copied for each
        out = _grid_sample(image, grid.flatten(0, 1).unsqueeze(0))
        return out[0].unflatten(1, (len(p), frame.height)).transpose(0, 1)
    return _grid_sample(image, grid)


def _grid_sample(image: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


@lru_cache(maxsize=32)
def _to_image(frame: Frame, image_size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Matrix from the frame's normalised coordinates to the image's own [-1, 1]²."""
    height, width = image_size
    (cx, cy), (ex, ey) = frame.center, frame.half_extent
    sx, sy = 2 / (width - 1), 2 / (height - 1)
    rows = [[ex * sx, 0, cx * sx - 1], [0, ey * sy, cy * sy - 1], [0, 0, 1]]
    with torch.inference_mode(False):
        return torch.tensor(rows, dtype=dtype, device=device)
