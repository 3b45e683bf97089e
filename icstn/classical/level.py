"""One level of an alignment problem: the template's samples, the image, and the geometry between them.

A warp means the same on every level: its parameters are normalized by the full-size frame, and only the
places that are sampled move (pixel j of level l lies at 2^l j + (2^l − 1)/2 of level 0).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from icstn.classical.pyramid import gradient
from icstn.sampling import Frame
from icstn.warps import Warp, corners, off_horizon

Gradient = tuple[Tensor, Tensor]  # along x and along y, (batch, C, N) each
Rows = slice | Tensor  # of a batch
ALL = slice(None)


@dataclass(frozen=True, eq=False)
class Scale:
    """The template's sampling positions on one level, and the warp family's Jacobians there.

    Args:
        frame: the full-size frame.
        warp: the family.
        level: 0 is full size, each further one half of it.
        like: a tensor whose dtype and device are taken.
    """

    frame: Frame
    warp: Warp
    level: int
    like: Tensor

    @cached_property
    def projective(self) -> bool:
        """Whether the grid needs a division."""
        return self.warp.projective

    @property
    def height(self) -> int:
        """Template samples along y on this level."""
        return self.frame.height >> self.level

    @property
    def width(self) -> int:
        """Template samples along x on this level."""
        return self.frame.width >> self.level

    @cached_property
    def axes(self) -> tuple[Tensor, Tensor]:
        """Normalized x of the columns and y of the rows."""
        return self._axis(self.width, self.frame.width), self._axis(self.height, self.frame.height)

    def _axis(self, n: int, full: int) -> Tensor:
        f = 2**self.level
        j = torch.arange(n, dtype=self.like.dtype, device=self.like.device)
        return (j * f + (f - 1) / 2) * (2 / (full - 1)) - 1

    @cached_property
    def x(self) -> Tensor:
        """Normalized template points, row by row, ``(N, 2)``."""
        return torch.stack(torch.meshgrid(*self.axes, indexing="xy"), -1).view(-1, 2)

    @cached_property
    def template_step(self) -> tuple[float, float]:
        """What a per-pixel template difference is multiplied by to be per normalized unit, (x, y)."""
        f = 2**self.level
        return (self.frame.width - 1) / (2 * f), (self.frame.height - 1) / (2 * f)

    @cached_property
    def image_step(self) -> tuple[float, float]:
        """The same for a difference between pixels of the image on this level."""
        ex, ey = self.frame.half_extent
        return ex / 2**self.level, ey / 2**self.level

    def dW_dp(self, p: Tensor | None = None) -> Tensor:
        """∂W(x; p)/∂p, at the identity unless ``p`` is given: ``(batch or 1, 2, k, N)``."""
        if p is None or not self.projective:  # of an affine family it does not depend on p
            return self._dW_dp_identity
        return self.warp.jacobian(self.x, p).permute(0, 2, 3, 1)

    @cached_property
    def _dW_dp_identity(self) -> Tensor:
        return self.warp.jacobian(self.x).permute(1, 2, 0).unsqueeze(0).contiguous()

    def dW_dx(self, p: Tensor) -> Tensor:
        """∂W(x; p)/∂x, rows W_x and W_y, columns x and y: ``(batch, 2, 2, N or 1)``."""
        m = self.warp.matrix(p)
        if not self.projective:
            return m[:, :2, :2, None]
        w = off_horizon(m[:, 2:, :2] @ self.x.mT + m[:, 2:, 2:])  # (batch, 1, N)
        W = self.warp.apply(p, self.x).mT
        return (m[:, :2, :2, None] - W[:, :, None] * m[:, 2, None, :2, None]) / w.unsqueeze(1)

    def basis(self, image_size: tuple[int, int], level_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Affine map from p to homogeneous positions in an image, ``(n,)`` and ``(k, n)``, in three parts.

        A term for each column of the grid and one for each row, in the level's own [-1, 1]²: the grid is
        their broadcast sum, so that no point is ever multiplied by a matrix. Then the four corners of the
        template, in the full-size image's [-1, 1]².
        """
        key = (image_size, level_size)
        if key not in self._bases:
            gx, gy = self.axes
            columns = torch.stack((gx, torch.zeros_like(gx), torch.zeros_like(gx)), -1)
            lines = torch.stack((torch.zeros_like(gy), gy, torch.ones_like(gy)), -1)
            square = torch.cat((corners(gx.dtype, gx.device), gx.new_ones(4, 1)), -1)
            here, full = self._to_unit(level_size, self.level), self._to_unit(image_size, 0)
            parts = [self._terms(a, x) for a, x in ((here, columns), (here, lines), (full, square))]
            self._bases[key] = torch.cat([o for o, _ in parts]), torch.cat([b for _, b in parts], -1)
        return self._bases[key]

    def per_unit(self, image_size: tuple[int, int]) -> Tensor:
        """Pixels in one unit of the full-size image's [-1, 1]², ``(2, 1)``."""
        if image_size not in self._units:
            height, width = image_size
            self._units[image_size] = self.like.new_tensor([[(width - 1) / 2], [(height - 1) / 2]])
        return self._units[image_size]

    @cached_property
    def _units(self) -> dict[tuple[int, int], Tensor]:
        return {}

    @cached_property
    def _bases(self) -> dict[tuple[tuple[int, int], tuple[int, int]], tuple[Tensor, Tensor]]:
        return {}

    def _to_unit(self, size: tuple[int, int], level: int) -> Tensor:
        """Matrix from the frame's normalized coordinates to [-1, 1]² of an image on that level."""
        (cx, cy), (ex, ey) = self.frame.center, self.frame.half_extent
        f, (height, width) = 2**level, size
        sx, sy, shift = 2 / (f * (width - 1)), 2 / (f * (height - 1)), (f - 1) / 2
        rows = [[ex * sx, 0, (cx - shift) * sx - 1], [0, ey * sy, (cy - shift) * sy - 1], [0, 0, 1]]
        return self.like.new_tensor(rows)

    def _terms(self, a: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """A M(p) x̃ = A x̃ + Σ p_k A G_k x̃, flattened over (coordinate, point)."""
        k = self.warp.dim
        unit = torch.eye(k, dtype=a.dtype, device=a.device)
        eye = torch.eye(3, dtype=a.dtype, device=a.device)
        d = 3 if self.projective else 2
        g = a @ (self.warp.matrix(unit) - eye)
        return (a @ points.mT)[:d].flatten(), (g @ points.mT)[:, :d].flatten(1)

    def compose(self, p: Tensor, dp: Tensor) -> Tensor:
        """p ∘ Δp = M(p) M(Δp): the update acts in template coordinates."""
        return self._params(self._matrix(p) @ self._matrix(dp))

    def compose_inverse(self, p: Tensor, dp: Tensor) -> Tensor:
        """p ∘ Δp⁻¹ = M(p) M(Δp)⁻¹, without forming the inverse."""
        return self._params(torch.linalg.solve_ex(self._matrix(dp), self._matrix(p), left=False)[0])

    @cached_property
    def _algebra(self) -> tuple[Tensor, Tensor, Tensor]:
        rows = (torch.eye(3).view(9).tolist(), self.warp.generators, self.warp.dual)
        return tuple(torch.tensor(r, dtype=torch.float64).to(self.like) for r in rows)  # type: ignore[return-value]

    def _matrix(self, p: Tensor) -> Tensor:
        eye, g, _ = self._algebra
        return torch.addmm(eye, p, g).view(-1, 3, 3)

    def _params(self, m: Tensor) -> Tensor:
        eye, _, dual = self._algebra
        if self.projective:
            m = m / m[:, 2:, 2:]
        return (m.reshape(-1, 9) - eye) @ dual


class Template:
    """The template on one level: T, its gradient, and its photometric option.

    Args:
        scale: positions.
        values: the level's pixels, ``(batch or 1, C, h, w)``.
        normalize: compare up to gain and offset (zero mean and unit variance).
        mask: which samples count, ``(h, w)``; None for all.
    """

    def __init__(
        self,
        scale: Scale,
        values: Tensor,
        normalize: bool = False,
        mask: Tensor | None = None,
    ) -> None:
        self.scale = scale
        self.mask = None if mask is None else mask.reshape(1, -1)
        self.share = 1.0 if mask is None else float(mask.float().mean())
        self.T = values.flatten(2)  # (batch or 1, C, N)
        self.dT = self.differentiate(self.T)
        self._contrast: Tensor | None = None
        self.std = moments(self.T, self.mask)[1].flatten()
        self.photometric = moments(self.T, None) if normalize else None
        self._basis = self._photometric_basis(None) if normalize else None

    def differentiate(self, values: Tensor, factor: float = 1.0) -> Gradient:
        """Gradient of values ``(b, C, N)`` on the template's samples, per normalized unit, times a factor."""
        s = self.scale
        sx, sy = s.template_step
        dx, dy = gradient(values.view(-1, values.shape[1], s.height, s.width), sx * factor, sy * factor)
        return dx.flatten(2), dy.flatten(2)

    def match(self, IWxp: Tensor, dI: tuple[Tensor, ...], inside: Tensor | None) -> tuple[Tensor, Any]:
        """Give the warped image and its gradient the template's mean and variance, if asked for."""
        if self.photometric is None:
            return IWxp, dI
        mean_T, std_T = self.photometric if inside is None else moments(self.T, inside)
        mean, std = moments(IWxp, inside)
        gain = std_T / std.clamp(min=torch.finfo(std.dtype).eps)
        return (IWxp - mean) * gain + mean_T, tuple(d * gain for d in dI)

    def counted(self, n: int, inside: Tensor | None) -> Tensor | None:
        """Which samples of n items, of those inside the image, count, ``(n, N)``; None for all."""
        if self.mask is None:
            return inside
        return self.mask.expand(n, -1) if inside is None else inside & self.mask

    def contrast(self, inside: Tensor | None) -> Tensor:
        """T with zero mean and unit variance over the samples inside, ``(batch or 1, C, N)``."""
        if inside is None and self._contrast is not None:
            return self._contrast
        mean, std = moments(self.T, inside)
        contrast = (self.T - mean) / std.clamp(min=torch.finfo(std.dtype).eps)
        if inside is None:
            self._contrast = contrast
        return contrast

    def photometric_basis(self, inside: Tensor | None) -> Tensor:
        """Orthonormal directions of an offset and of a gain, ``(batch or 1, 2, C·N)``."""
        return self._basis if inside is None and self._basis is not None else self._photometric_basis(inside)

    def _photometric_basis(self, inside: Tensor | None) -> Tensor:
        contrast = self.contrast(inside)
        n = torch.stack((torch.ones_like(contrast), contrast), 1)  # (b, 2, C, N)
        if inside is not None:
            n = n * inside.to(n.dtype)[:, None, None]
        n = n.flatten(2)
        return n / n.square().sum(-1, keepdim=True).sqrt().clamp(min=1e-12)

    def select(self, rows: Rows) -> Template:
        """Those items of the batch (a single template serves all)."""
        if self.T.shape[0] == 1 or rows is ALL:
            return self
        part = copy(self)
        part.std = self.std[rows]
        part._contrast = None if self._contrast is None else self._contrast[rows]
        part.T, part.dT = self.T[rows], (self.dT[0][rows], self.dT[1][rows])
        if self.photometric is not None:
            part.photometric = (self.photometric[0][rows], self.photometric[1][rows])
            part._basis = self._basis[rows] if self._basis is not None else None
        return part


class Image:
    """The image on one level, sampled at W(x; p).

    Args:
        scale: positions of the template's samples.
        pixels: ``(batch or 1, C, H, W)`` on this level.
        image_size: height and width of the full-size image.
        counted: which samples, of those inside, count (:meth:`Template.counted`).
    """

    def __init__(
        self,
        scale: Scale,
        pixels: Tensor,
        image_size: tuple[int, int],
        counted: Callable[[int, Tensor | None], Tensor | None] | None = None,
    ) -> None:
        self.scale = scale
        self._counted = counted or (lambda _, inside: inside)
        self.pixels = pixels
        self._offset, self._basis = scale.basis(image_size, (pixels.shape[-2], pixels.shape[-1]))
        self._per_unit = scale.per_unit(image_size)
        self._last: tuple[Tensor, Placement] | None = None

    def place(self, p: Tensor) -> Placement:
        """Where the template lies at p (remembered for the last p, which is asked for again)."""
        if self._last is None or self._last[0] is not p:
            self._last = (p, Placement(self.scale, torch.addmm(self._offset, p, self._basis)))
        return self._last[1]

    def distance(self, p: Tensor, q: Tensor) -> Tensor:
        """Largest distance between the corners of two warps, in pixels of the full-size image, squared."""
        start = self.place(p).corners  # asked for first: p is the one that is remembered
        return ((self.place(q).corners - start) * self._per_unit).square().sum(1).amax(-1)

    def warp(self, p: Tensor) -> tuple[Tensor, Tensor | None]:
        """I(W(x; p)) as ``(batch, C, N)``, and which samples lie inside (None: all of them)."""
        grid, inside = self.place(p).grid()
        IWxp = self._sample(self.pixels, grid).flatten(2)
        return IWxp, self._counted(len(grid), inside)

    def warp_with_gradient(self, p: Tensor) -> tuple[Tensor, Gradient, Tensor | None]:
        """The same, and ∇I at W(x; p) in the frame's normalized units."""
        grid, inside = self.place(p).grid()
        C = self.pixels.shape[1]
        I, dx, dy = self._sample(self._with_gradient, grid).flatten(2).split(C, 1)  # noqa: E741
        return I, (dx, dy), self._counted(len(grid), inside)

    @cached_property
    def _with_gradient(self) -> Tensor:
        return torch.cat((self.pixels, *gradient(self.pixels, *self.scale.image_step)), 1)

    def _sample(self, pixels: Tensor, grid: Tensor) -> Tensor:
        if pixels.shape[0] != grid.shape[0]:
            pixels = pixels.expand(grid.shape[0], -1, -1, -1)
        return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=True)


class Placement:
    """Where the template's samples and corners lie in an image, for a batch of warps.

    Args:
        scale: positions of the template's samples.
        terms: what :meth:`Scale.basis` makes of the warp parameters.
    """

    def __init__(self, scale: Scale, terms: Tensor) -> None:
        d, w = (3 if scale.projective else 2), scale.width
        self._columns = terms[:, : d * w].view(-1, d, 1, w)
        self._rows = terms[:, d * w : -4 * d].view(-1, d, scale.height, 1)
        h = terms[:, -4 * d :].view(-1, d, 4)
        self.depth = h[:, 2:] if d == 3 else None
        self.corners = h if self.depth is None else h[:, :2] / self.depth  # not finite on the horizon

    def contained(self) -> bool:
        """Whether every corner of every item lies inside the image, and none behind the horizon."""
        if self.depth is not None and not bool(self.depth.amin() > 1e-3):
            return False
        return bool(self.corners.abs().amax() <= 1)

    def grid(self) -> tuple[Tensor, Tensor | None]:
        """Grid in the level's [-1, 1]² and the mask of the samples inside it (None: all)."""
        grid, visible = self._columns + self._rows, None
        masked = not self.contained()
        if self.depth is not None:
            w = grid[:, 2:]
            if masked:
                visible, w = w[:, 0] > 1e-3, off_horizon(w)
            grid = grid[:, :2] / w
        grid = grid.permute(0, 2, 3, 1)
        if not masked:
            return grid, None
        inside = (grid.abs() <= 1).all(-1)
        inside = inside if visible is None else inside & visible
        return grid.nan_to_num(2.0, 2.0, -2.0).clamp(-2, 2), inside.flatten(1)


def moments(x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over channels and samples, ``(batch, 1, 1)`` each, of ``(batch, C, N)``."""
    if inside is None:
        mean = x.mean((1, 2), keepdim=True)  # two passes take a fraction of the time of std_mean
        norm = torch.linalg.vector_norm(x - mean, dim=(1, 2), keepdim=True)
        return mean, norm / (x.shape[1] * x.shape[2]) ** 0.5
    m = inside.to(x.dtype).unsqueeze(1)
    count = (m.sum((1, 2), keepdim=True) * x.shape[1]).clamp(min=1)
    mean = (x * m).sum((1, 2), keepdim=True) / count
    return mean, (((x - mean) * m).square().sum((1, 2), keepdim=True) / count).sqrt()
