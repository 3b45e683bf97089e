"""The template's samples on one level, and where they lie in an image: nothing here depends on any pixel."""

from __future__ import annotations

from functools import cached_property, lru_cache

import torch
from torch import Tensor

from icstn.classical.pyramid import gradient
from icstn.sampling import Frame
from icstn.warps import Warp, corners

#: Largest side of a level whose differences are taken by a product with a matrix.
MATRIX_SIDE = 64
#: Samples of the largest level that is kept for the next template of the same size.
KEPT_SAMPLES = 2**16


class Samples:
    """Positions of a template's samples, the warp's Jacobian there, and differences.

    Args:
        number: of the level; 0 is full size, each further one half of it.
        size: height and width of the template at full size.
        warp: the family.
        dtype, device: of everything.
    """

    def __init__(
        self, number: int, size: tuple[int, int], warp: Warp, dtype: torch.dtype, device: torch.device
    ) -> None:
        f = 2**number
        self.number, self.k = number, warp.dim
        self.height, self.width = size[0] // f, size[1] // f
        self.step = (size[1] - 1) / (2 * f), (size[0] - 1) / (2 * f)
        self.eye = torch.eye(3, dtype=dtype, device=device)
        self.G = warp.matrix(torch.eye(self.k, dtype=dtype, device=device)).view(-1, 9) - self.eye.view(9)
        self.x, self.y = (
            (torch.arange(n, dtype=dtype, device=device) * f + (f - 1) / 2) * (2 / (full - 1)) - 1
            for n, full in ((self.width, size[1]), (self.height, size[0]))
        )
        self._jx, self._jy = self._jacobian(warp.projective)
        self._by_matrix = max(self.height, self.width) <= MATRIX_SIDE
        if self._by_matrix:
            self._right, self._below = (
                _differences(n, dtype, device) * step
                for n, step in ((self.width, self.step[0]), (self.height, self.step[1]))
            )
            self._right = self._right.mT.contiguous()

    def _jacobian(self, projective: bool) -> tuple[Tensor, Tensor]:
        """∂W/∂p at the identity, of each coordinate, ``(k, 1, N)``."""
        n = (self.height, self.width)
        x, y = self.x.expand(n).reshape(-1), self.y.unsqueeze(1).expand(n).reshape(-1)
        points = torch.stack((x, y, torch.ones_like(x)))
        moved = (self.G.view(-1, 3) @ points).view(self.k, 3, -1)
        jacobian = moved[:, :2] - points[:2] * moved[:, 2:] if projective else moved[:, :2]
        return jacobian[:, :1].contiguous(), jacobian[:, 1:].contiguous()

    @cached_property
    def corner_steps(self) -> Tensor:
        """From a small step Δp to how the corners move, in pixels of the full size, ``(k, 8)``."""
        x = corners(self.x.dtype, self.x.device)
        lifted = torch.cat((x, torch.ones_like(x[:, :1])), 1)
        moved = torch.einsum("kij,nj->kni", self.G.view(-1, 3, 3), lifted)
        moved = moved[..., :2] - x * moved[..., 2:]
        half = [step * 2**self.number for step in self.step]
        return (moved * moved.new_tensor(half)).flatten(1)

    def steepest_descent(self, values: Tensor) -> Tensor:
        """∇ of values ``(b, C, h, w)`` times ∂W/∂p, ``(b, k, C, N)``."""
        if self._by_matrix:
            dx, dy = values @ self._right, self._below @ values
        else:
            dx, dy = gradient(values, *self.step)
        shape = (values.shape[0], 1, values.shape[1], -1)
        return torch.addcmul(dx.reshape(shape) * self._jx, dy.reshape(shape), self._jy)


def samples_of(
    number: int, size: tuple[int, int], warp: Warp, dtype: torch.dtype, device: torch.device
) -> Samples:
    """The samples of a level; those of small templates are kept (a few megabytes each, at most sixteen)."""
    small = (size[0] >> number) * (size[1] >> number) <= KEPT_SAMPLES
    return (_kept if small else Samples)(number, size, warp, dtype, device)


@lru_cache(maxsize=16)
def _kept(*arguments: object) -> Samples:
    with torch.inference_mode(False):  # kept: an inference tensor would poison later training
        return Samples(*arguments)  # type: ignore[arg-type]


class Grid:
    """The template's samples and corners as a product with a warp's matrix, for one image size and frame.

    Args:
        samples: of the level.
        projective: whether warps need a division.
        frame: at full size.
        size: height and width of the image at full size.
    """

    def __init__(self, samples: Samples, projective: bool, frame: Frame, size: tuple[int, int]) -> None:
        self.d = 3 if projective else 2
        self.height, self.width = samples.height, samples.width
        x, y, number = samples.x, samples.y, samples.number
        columns = torch.stack((x, torch.zeros_like(x), torch.zeros_like(x)))
        lines = torch.stack((torch.zeros_like(y), y, torch.ones_like(y)))
        square = x.new_tensor([[-1.0, 1, 1, -1], [-1, -1, 1, 1], [1, 1, 1, 1]])
        local = _to_unit(frame, (size[0] >> number, size[1] >> number), number)
        pairs = ((local, columns), (local, lines), (_to_unit(frame, size, 0), square))
        self.basis = torch.cat([self._terms(x.new_tensor(a), points) for a, points in pairs], 1)
        self.sizes = [self.d * self.width, self.d * self.height, 4 * self.d]
        self.per_unit = (max(size) - 1) / 2

    def _terms(self, a: Tensor, points: Tensor) -> Tensor:
        """(A M x̃)[r, n] is linear in the nine entries of M: ``(9, d·n)``."""
        terms = a[: self.d].mT.view(3, 1, self.d, 1) * points.view(1, 3, 1, -1)
        return terms.reshape(9, -1)

    def place(self, M: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Terms of the grid's columns and rows, and the corners, homogeneous where d is 3."""
        columns, rows, square = torch.split_with_sizes(M.view(-1, 9) @ self.basis, self.sizes, 1)
        return columns, rows, square.view(-1, self.d, 4)

    def sample(self, pixels: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
        """The image at the template's samples, ``(batch, C, h, w)``."""
        grid = columns.view(-1, self.d, 1, self.width) + rows.view(-1, self.d, self.height, 1)
        if self.d == 3:
            grid = grid[:, :2] / grid[:, 2:]
        if pixels.shape[0] != grid.shape[0]:
            pixels = pixels.expand(grid.shape[0], -1, -1, -1)
        return torch.grid_sampler(pixels, grid.permute(0, 2, 3, 1), 0, 1, True)


@lru_cache(maxsize=64)
def _differences(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Central differences of n values as a matrix, ``(n, n)``, the border value repeated outwards."""
    i, d = torch.arange(n), torch.zeros(n, n)
    d[i, (i + 1).clamp(max=n - 1)] += 0.5
    d[i, (i - 1).clamp(min=0)] -= 0.5
    return d.to(device, dtype)


def _to_unit(frame: Frame, size: tuple[int, int], level: int) -> list[list[float]]:
    """Matrix from the frame's normalised coordinates to [-1, 1]² of an image of that size on a level."""
    (cx, cy), (ex, ey) = frame.center, frame.half_extent
    f, (height, width) = 2**level, size
    sx, sy, shift = 2 / (f * (width - 1)), 2 / (f * (height - 1)), (f - 1) / 2
    return [[ex * sx, 0, (cx - shift) * sx - 1], [0, ey * sy, (cy - shift) * sy - 1], [0, 0, 1]]
