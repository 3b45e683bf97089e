"""Where the template lies in an image (:class:`Frame`), and differentiable sampling under a warp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from icstn.constants import constant
from icstn.tracing import plain
from icstn.warps import HORIZON, Warp, corners, family, full_precision, homography, off_horizon

Padding = Literal["zeros", "border", "reflection"]
PADDINGS: tuple[str, ...] = get_args(Padding)


@dataclass(frozen=True)
class Frame:
    """Where the template's square [-1, 1]² lies in an image, and how many samples it has.

    The normalized coordinates -1 and 1 are the *centers* of the first and the last sample
    (``align_corners=True``). The pixel center of the image's first pixel is (0, 0).

    Args:
        height, width: number of samples of the template, at least 2 each.
        center: pixel ``(x, y)`` of the template's origin in the image.
        half_extent: pixels ``(x, y)`` from the origin to the center of the last sample.

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
        """The template's corner samples lie at the pixel centers (left, top) … (right, bottom)."""
        center = ((left + right) / 2, (top + bottom) / 2)
        return cls(height, width, center, ((right - left) / 2, (bottom - top) / 2))

    def covers(self, height: int, width: int) -> bool:
        """Whether the template's square is the whole image of that size."""
        half = ((width - 1) / 2, (height - 1) / 2)
        return self.center == half and self.half_extent == half

    @property
    def pixel(self) -> float:
        """The unit in which noise and errors are given in pixels: 2 / width in normalized units.

        That is the paper's: its 3.5 px on a template of 28 px is 0.25 (Sec. 5.2). Neighboring samples lie
        2 / (width − 1) apart, a 27th part farther at that size; to place things, use :meth:`to_pixels`, which
        counts the pixels of the image.
        """
        return 2 / self.width

    @property
    def pixels(self) -> tuple[float, float]:
        """:attr:`pixel` along x and along y, which differ where the template is not square."""
        return self.pixel, 2 / self.height

    def to_pixels(self, x: Float[Tensor, "... 2"]) -> Float[Tensor, "... 2"]:
        """Normalized coordinates → pixel coordinates of the image."""
        (cx, cy), (ex, ey) = self.center, self.half_extent
        return torch.stack((x[..., 0] * ex + cx, x[..., 1] * ey + cy), -1)

    def to_normalized(self, x: Float[Tensor, "... 2"]) -> Float[Tensor, "... 2"]:
        """Pixel coordinates of the image → normalized coordinates."""
        (cx, cy), (ex, ey) = self.center, self.half_extent
        return torch.stack(((x[..., 0] - cx) / ex, (x[..., 1] - cy) / ey), -1)

    def matrix(self, warp: Warp | str, p: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch 3 3"]:
        """A warp in pixels, float64, with ``[2, 2] = 1``: the template's samples → pixels of the image.

        Sample (0, 0) is the template's first, pixel (0, 0) the center of the image's first; for an image and
        a template of one resolution at p = 0 it is a translation. OpenCV calls this matrix an inverse map.
        """
        here, image = self._affinities(p.device)
        m = image @ family(warp).matrix(p.double()) @ here
        return m / m[..., 2:, 2:]

    def params(self, warp: Warp | str, matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch k"]:
        """The inverse of :meth:`matrix`, float64; of a matrix that is not in the family, the nearest warp.

        Nearest is in the least-squares sense at the template's four corners.

        Raises:
            SingularWarpError: the matrix folds the template to a line.
        """
        here, image = self._affinities(matrix.device)
        m = torch.linalg.inv(image) @ matrix.double() @ torch.linalg.inv(here)
        square = corners(torch.float64, matrix.device)
        moved = torch.cat((square, torch.ones_like(square[:, :1])), 1) @ m.mT
        return family(warp).fit(square, moved[..., :2] / moved[..., 2:])

    def _affinities(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Samples → normalized coordinates, and normalized coordinates → pixels of the image, 3×3."""
        (cx, cy), (ex, ey) = self.center, self.half_extent
        sx, sy = 2 / (self.width - 1), 2 / (self.height - 1)
        here = [[sx, 0, -1], [0, sy, -1], [0, 0, 1]]
        image = [[ex, 0, cx], [0, ey, cy], [0, 0, 1]]
        return tuple(torch.tensor(m, dtype=torch.float64, device=device) for m in (here, image))  # type: ignore[return-value]

    def axes(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Normalized x of the columns ``(width,)`` and y of the rows ``(height,)``."""
        x, y = (
            torch.linspace(-1, 1, n, dtype=like.dtype, device=like.device) for n in (self.width, self.height)
        )
        return x, y

    def grid(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "n 2"]:
        """Normalized points of all samples, row by row, ``(height·width, 2)``."""
        x, y = self.axes(torch.empty(0, dtype=dtype))
        return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(-1, 2)


def warp_grid(
    p: Float[Tensor, "batch k"], frame: Frame, warp: Warp, image_size: tuple[int, int]
) -> Float[Tensor, "batch height width 2"]:
    """W(x; p) at every sample of the frame, in the image's own [-1, 1]² (as ``grid_sample`` wants it).

    The two coordinates are planes in memory, ``(2, batch, height, width)``.

    Args:
        p: warp parameters.
        frame: where the template lies.
        warp: the family of ``p``.
        image_size: ``(height, width)`` of the image in pixels.
    """
    with full_precision(p):
        m = _in_image(warp.matrix(p), frame, image_size)
        if not warp.projective:
            return _planes(m[:, :2], *frame.axes(m)).permute(1, 2, 3, 0)
        if not plain(m):
            return _project(m, *frame.axes(m))
        planes = _Projection.apply(m, _points(m, frame))
        return planes.unflatten(2, (frame.height, frame.width)).permute(1, 2, 3, 0)


def _in_image(m: Tensor, frame: Frame, image_size: tuple[int, int]) -> Tensor:
    """Matrices from normalized coordinates to normalized coordinates, now to the image's own [-1, 1]²."""
    if frame.covers(*image_size):
        return m
    if plain(m):
        return _to_image(m, frame, image_size) @ m
    (sx, tx), (sy, ty) = _scales(frame, image_size)
    x, y, w = m.unbind(-2)
    return torch.stack((sx * x + tx * w, sy * y + ty * w, w), -2)


def _planes(m: Tensor, gx: Tensor, gy: Tensor) -> Tensor:
    """Rows of matrices ``(batch, rows, 3)`` times the grid's (x, y, 1): ``(rows, batch, height, width)``.

    A broadcast sum of a row's and a column's term, which costs a fraction of a batched matmul.
    """
    x, y, one = m.transpose(0, 1).unsqueeze(-1).unbind(2)  # each (rows, batch, 1)
    return (x * gx).unsqueeze(2) + (y * gy + one).unsqueeze(3)


def _project(m: Tensor, gx: Tensor, gy: Tensor) -> Tensor:
    """The projected grid ``(batch, height, width, 2)``, in operations that every transform knows."""
    moved = _planes(m, gx, gy)
    return (moved[:2] / off_horizon(moved[2])).permute(1, 2, 3, 0)


class _Projection(torch.autograd.Function):
    """Matrices ``(batch, 3, 3)`` times points ``(3, N)``, projected: planes ``(2, batch, N)``.

    The same as :func:`_project` in a third of its time. A denominator kept off the horizon is a reciprocal
    kept within ±1/:data:`HORIZON`, and everything happens in place: on a CPU fresh memory costs more than
    the arithmetic.
    """

    LARGEST = 1 / HORIZON

    @staticmethod
    def forward(ctx: Any, m: Tensor, points: Tensor) -> Tensor:
        moved = (m.transpose(0, 1).reshape(-1, 3) @ points).view(3, len(m), points.shape[1])
        over_w = moved[2].reciprocal_().clamp_(-_Projection.LARGEST, _Projection.LARGEST)
        warped = moved[:2].mul_(over_w)
        ctx.save_for_backward(m, points, warped, over_w)
        return warped

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        m, points, warped, over_w = ctx.saved_tensors
        if torch.is_grad_enabled() or not plain(grad):  # someone differentiates again, or maps
            return _differentiable_gradient(m, points, grad), None
        d = grad.new_empty(3, *over_w.shape)
        torch.mul(grad, over_w, out=d[:2])  # ∂L/∂u and ∂L/∂v
        torch.mul(d[0], warped[0], out=d[2]).addcmul_(d[1], warped[1]).neg_()  # ∂L/∂w
        d[2] = torch.ops.aten.hardtanh_backward(d[2], over_w, -_Projection.LARGEST, _Projection.LARGEST)
        with full_precision(d):
            return (points @ d.flatten(0, 1).T).view(3, 3, len(m)).permute(2, 1, 0), None


def _differentiable_gradient(m: Tensor, points: Tensor, grad: Tensor) -> Tensor:
    """The gradient as a function that can be differentiated again."""
    with torch.enable_grad():
        moved = m.transpose(0, 1) @ points
        warped = moved[:2] / off_horizon(moved[2])
    return torch.autograd.grad(warped, m, grad, create_graph=True)[0]


@constant
def _points(frame: Frame, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Homogeneous points of all samples, row by row, ``(3, height·width)``."""
    grid = frame.grid(dtype).to(device)
    return torch.cat((grid, torch.ones_like(grid[:, :1])), 1).T.contiguous()


def sample(
    image: Float[Tensor, "images channels H W"],
    p: Float[Tensor, "batch k"],
    frame: Frame | None = None,
    warp: Warp | str = homography,
    *,
    padding: Padding = "zeros",
) -> Float[Tensor, "batch channels height width"]:
    """I(p): the image at W(x; p) for every template point x — backward, bilinear, zeros outside.

    Convention:
        * output pixel x is read *from* image position W(x; p);
        * the frame places the template, so a crop keeps its real surroundings;
        * coordinates are float32 or better whatever the image is, and the result is of the image's dtype;
        * differentiable in the image and in p (in p: piecewise, the bilinear interpolant's slope).

    Args:
        image: float images, one for each warp or a single one for all.
        p: warp parameters, on the image's device.
        frame: template placement; the whole image by default.
        warp: the family of ``p``, by name or itself.
        padding: what lies outside the image: ``"zeros"`` (the paper's), its ``"border"`` pixels continued, or
            its ``"reflection"``.

    Raises:
        ValueError: the shapes do not fit each other (the message names both), the image is no floating-point
            one or too small to interpolate in, or the padding has another name.

    Example:
        >>> image = torch.arange(9.0).view(1, 1, 3, 3)
        >>> shift = torch.tensor([[1.0, 0.0]])  # one pixel to the right is 1 of 2 normalized units
        >>> sample(image, shift, warp="translation")[0, 0]
        tensor([[1., 2., 0.],
                [4., 5., 0.],
                [7., 8., 0.]])
    """
    warp = family(warp)
    _check(image, p, padding)
    height, width = image.shape[-2:]
    frame = frame or Frame.full(height, width)
    grid = warp_grid(p, frame, warp, (height, width))
    if image.shape[0] == 1:  # all warps side by side in one tall grid: the image is not copied for each
        out = _grid_sample(image, grid.flatten(0, 1).unsqueeze(0), padding)
        return out[0].unflatten(1, (p.shape[0], frame.height)).transpose(0, 1)
    return _grid_sample(image, grid, padding)


def _check(image: Tensor, p: Tensor, padding: str) -> None:
    if image.dim() != 4 or p.dim() != 2 or (image.shape[0] != 1 and image.shape[0] != p.shape[0]):
        raise ValueError(
            "sample wants images (batch or 1, channels, height, width) and warps (batch, k), "
            f"got {tuple(image.shape)} and {tuple(p.shape)}"
        )
    if not image.is_floating_point():
        raise ValueError(f"images are floating-point tensors, got {image.dtype}: try image.float() / 255")
    if min(image.shape[-2:]) < 2:
        raise ValueError(f"images have at least 2×2 pixels, got shape {tuple(image.shape)}")
    check_padding(padding)


def check_padding(padding: str) -> None:
    """Raise a ValueError that lists the paddings, unless it is one of them."""
    if padding not in PADDINGS:
        raise ValueError(f"padding is one of {', '.join(PADDINGS)}, not {padding!r}")


def _grid_sample(image: Tensor, grid: Tensor, padding: str) -> Tensor:
    kept, dtype = image.dtype, torch.promote_types(image.dtype, grid.dtype)
    image, grid = image.to(dtype), grid.to(dtype)
    out = F.grid_sample(image, grid, mode="bilinear", padding_mode=padding, align_corners=True)
    return out.to(kept)


def _scales(frame: Frame, image_size: tuple[int, int]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Scale and shift from the frame's normalized coordinates to the image's own, for x and for y."""
    height, width = image_size
    (cx, cy), (ex, ey) = frame.center, frame.half_extent
    sx, sy = 2 / (width - 1), 2 / (height - 1)
    return (ex * sx, cx * sx - 1), (ey * sy, cy * sy - 1)


@constant
def _to_image(
    frame: Frame, image_size: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "3 3"]:
    (sx, tx), (sy, ty) = _scales(frame, image_size)
    return torch.tensor([[sx, 0, tx], [0, sy, ty], [0, 0, 1]], dtype=dtype, device=device)
