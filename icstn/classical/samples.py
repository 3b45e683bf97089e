"""The template's samples on one level, and where they lie in an image: nothing here depends on any pixel."""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from icstn.classical.pyramid import gradient
from icstn.sampling import Frame
from icstn.warps import Warp

#: Largest side of a level whose differences are taken by a product with a matrix.
MATRIX_SIDE = 64
#: Samples of the largest level that is kept for the next template of the same size.
KEPT_SAMPLES = 2**16
#: The template's corners, homogeneous.
SQUARE = np.array([[-1.0, 1, 1, -1], [-1, -1, 1, 1], [1, 1, 1, 1]])
EYE = np.eye(3)
#: A corner nearer to the horizon than this is behind it.
NEAREST = 1e-3


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
        self.axes = tuple(
            (np.arange(n) * f + (f - 1) / 2) * (2 / (full - 1)) - 1
            for n, full in ((self.width, size[1]), (self.height, size[0]))
        )
        self.x, self.y = (torch.from_numpy(axis).to(device, dtype) for axis in self.axes)
        self.generators = np.array(warp.generators)
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
    def corner_steps(self) -> np.ndarray:
        """From a small step Δp to how the corners move, in pixels of the full size, ``(k, 8)``."""
        moved = self.generators.reshape(-1, 3, 3) @ SQUARE
        moved = moved[:, :2] - SQUARE[:2] * moved[:, 2:]
        half = np.array(self.step)[:, None] * 2**self.number
        return (moved * half).reshape(self.k, 8).astype(self.jx.dtype)

    def differentiate(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """∇ of values ``(C, h, w)``."""
        if self._by_matrix:
            return values @ self.right, self.below @ values
        dx, dy = gradient(torch.from_numpy(values).unsqueeze(0), *self.step)
        return dx.numpy(), dy.numpy()

    @cached_property
    def right(self) -> np.ndarray:
        """Product with it is a derivative along x."""
        return self._right.numpy()

    @cached_property
    def below(self) -> np.ndarray:
        """Product of it is a derivative along y."""
        return self._below.numpy()

    @cached_property
    def jx(self) -> np.ndarray:
        """∂W_x/∂p."""
        return self._jx.cpu().numpy()

    @cached_property
    def jy(self) -> np.ndarray:
        """∂W_y/∂p."""
        return self._jy.cpu().numpy()

    def steepest_descent(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        """∇ of values ``(b, C, h, w)`` times ∂W/∂p, ``(b, k, C, N)``."""
        if self._by_matrix:
            dx, dy = values @ self._right, self._below @ values
        else:
            dx, dy = gradient(values, *self.step)
        shape = (values.shape[0], 1, values.shape[1], -1)
        out = torch.mul(dx.reshape(shape), self._jx, out=out)
        return out.addcmul_(dy.reshape(shape), self._jy)


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
    """Where the template's samples and corners lie in an image, as products with a warp's matrix.

    Args:
        samples: of the level.
        projective: whether warps need a division.
        frame: at full size.
        size: height and width of the image at full size.
    """

    def __init__(self, samples: Samples, projective: bool, frame: Frame, size: tuple[int, int]) -> None:
        self.d = 3 if projective else 2
        self.height, self.width = samples.height, samples.width
        self.dtype, f = samples.jx.dtype, 2**samples.number
        x, y = samples.axes
        columns = np.stack((x, np.zeros_like(x), np.zeros_like(x)))
        lines = np.stack((np.zeros_like(y), y, np.ones_like(y)))
        local = _to_unit(frame, (size[0] // f, size[1] // f), samples.number)
        self.size = (size[0] // f, size[1] // f)
        self.basis = np.concatenate([_terms(local, points, self.d) for points in (columns, lines)], 1)
        self.corners = _terms(_to_unit(frame, size, 0), SQUARE, self.d)
        self.per_unit = (max(size) - 1) / 2

    def corners_of(self, M: np.ndarray) -> np.ndarray:
        """The corners under matrices ``(batch, 3, 3)``, in the image's [-1, 1]², ``(batch, 2, 4)``."""
        corners = (M.reshape(-1, 9) @ self.corners).reshape(-1, self.d, 4)
        if self.d == 2:
            return corners
        return corners[:, :2] / np.maximum(corners[:, 2:], NEAREST)  # behind the horizon is far away

    def pixels_of(self, M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x and y of the samples under one matrix in the level's pixels, kept off the far edges, ``(N,)``."""
        places = (M.reshape(9) @ self._full).reshape(self.d, -1)
        if self.d == 3:
            places[:2] /= places[2]
        x, y = places[0], places[1]
        for v, n in ((x, self.size[1]), (y, self.size[0])):
            np.maximum(v, 0, out=v)
            np.minimum(v, (n - 1) * (1 - 1e-12), out=v)
        return x, y

    @cached_property
    def _full(self) -> np.ndarray:
        """Terms of every sample's homogeneous place in the level's pixels, ``(9, d·N)``."""
        n, (height, width) = self.d * self.width, self.size
        columns = self.basis[:, :n].reshape(9, self.d, 1, self.width)
        lines = self.basis[:, n:].reshape(9, self.d, self.height, 1)
        both = columns + lines
        w = both[:, 2] if self.d == 3 else np.zeros((9, 1, 1))
        if self.d == 2:
            w[8] = 1
        half = ((width - 1) / 2, (height - 1) / 2)
        both[:, 0], both[:, 1] = (both[:, 0] + w) * half[0], (both[:, 1] + w) * half[1]
        return both.reshape(9, -1)

    def sample_array(self, image: np.ndarray, M: np.ndarray) -> np.ndarray:
        """An image ``(C, H, W)`` at the template's samples, ``(C·N,)``."""
        return self.sample(torch.from_numpy(image).unsqueeze(0), M).numpy().reshape(-1)

    def sample(self, pixels: Tensor, M: np.ndarray) -> Tensor:
        """The image at the template's samples, ``(batch, C, h, w)``."""
        terms = (M.reshape(-1, 9) @ self.basis).astype(self.dtype)
        n = self.d * self.width
        columns, lines = terms[:, :n].reshape(-1, self.d, 1, self.width), terms[:, n:]
        lines = lines.reshape(-1, self.d, self.height, 1)
        if pixels.device.type == "cpu" and len(M) == 1:
            grid = torch.from_numpy(columns + lines)
        else:
            grid = torch.from_numpy(columns).to(pixels.device) + torch.from_numpy(lines).to(pixels.device)
        if self.d == 3:
            grid = grid[:, :2].div_(grid[:, 2:])
        if pixels.shape[0] != grid.shape[0]:
            pixels = pixels.expand(grid.shape[0], -1, -1, -1)
        return torch.grid_sampler(pixels, grid.permute(0, 2, 3, 1), 0, 1, True)


def _terms(a: np.ndarray, points: np.ndarray, d: int) -> np.ndarray:
    """(A M x̃)[r, n] is linear in the nine entries of M: ``(9, d·n)``."""
    return (a[:d].T.reshape(3, 1, d, 1) * points.reshape(1, 3, 1, -1)).reshape(9, -1)


@lru_cache(maxsize=64)
def _differences(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Central differences of n values as a matrix, ``(n, n)``, the border value repeated outwards."""
    i, d = torch.arange(n), torch.zeros(n, n)
    d[i, (i + 1).clamp(max=n - 1)] += 0.5
    d[i, (i - 1).clamp(min=0)] -= 0.5
    return d.to(device, dtype)


def _to_unit(frame: Frame, size: tuple[int, int], level: int) -> np.ndarray:
    """Matrix from the frame's normalized coordinates to [-1, 1]² of an image of that size on a level."""
    (cx, cy), (ex, ey) = frame.center, frame.half_extent
    f, (height, width) = 2**level, size
    sx, sy, shift = 2 / (f * (width - 1)), 2 / (f * (height - 1)), (f - 1) / 2
    rows = [[ex * sx, 0, (cx - shift) * sx - 1], [0, ey * sy, (cy - shift) * sy - 1], [0, 0, 1]]
    return np.array(rows, float)
