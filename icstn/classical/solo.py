"""The short way for a single image on a processor: the steps of :mod:`icstn.classical.lean` in NumPy.

An operation on a small image takes a microsecond, and PyTorch several before it begins. So all of it is
NumPy's here, in buffers that are made once; only large grids are sampled by PyTorch. The formulas, and what
is precomputed, are those of the batch.
"""

# ruff: noqa: E741 -- I is the image, as in the equations

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from icstn.classical.anderson import Anderson
from icstn.classical.prepared import NOISY, PATIENCE, Level, Outcome, rests
from icstn.classical.samples import EYE, Grid

#: Samples of the largest grid that NumPy samples faster.
SMALL = 1024


class Solo:
    """Coarse to fine, for one template and one image at a time.

    Args:
        levels: of the template from full size to coarse; None where there is none.
        iterations, limits, blur: see :class:`~icstn.classical.lean.Lean`.
        min_correlation: of an alignment.
    """

    def __init__(
        self,
        levels: Sequence[Level | None],
        iterations: Sequence[int],
        limits: Sequence[float],
        blur: Sequence[int],
        min_correlation: float,
    ) -> None:
        self.levels = [None if level is None else _Plane(level) for level in levels]
        self.iterations, self.limits, self.blur = iterations, limits, blur
        self.finest = next(number for number, level in enumerate(levels) if level is not None)
        self.refines = any(level is not None for level in levels[self.finest + 1 :])
        self.least = min_correlation

    def __call__(self, image: np.ndarray, found: Outcome, grids: Sequence[Grid | None]) -> None:
        """Align an image ``(C, H, W)``, as far as it stays inside."""
        images, search = pyramid(image, len(self.levels)), _Search(found.M[0])
        I, plane = None, None
        for number in reversed(range(self.finest, len(self.levels))):
            plane, grid = self.levels[number], grids[number]
            assert plane is not None
            assert grid is not None
            image = blurred(images[number], self.blur[number])
            hopeless = self.least - NOISY if number == self.finest and self.refines else None
            I = plane.descend(search, image, grid, self.iterations[number], self.limits[number], hopeless)
            if not search.inside:
                break
        if search.inside and plane is not None and I is not None:
            found.doubtful[:], found.noisy[:] = plane.doubts(I, self.least)
        found.M[0], found.inside[0], found.done[0] = search.M, search.inside, search.done
        found.iterations[0], found.correlation[0] = search.iterations, search.correlation


@dataclass
class _Search:
    """An :class:`~icstn.classical.prepared.Outcome` of one image on the way."""

    M: np.ndarray
    inside: bool = True
    done: bool = False
    iterations: int = 0
    correlation: float = 0.0


class _Plane:
    """One level in arrays, and its buffers."""

    def __init__(self, level: Level) -> None:
        s = level.samples
        self.level, self.k, self.G = level, s.k, s.generators
        self.longer: Anderson | None = None
        self.T, self.one = level.T[0].numpy(), level.one[0].numpy()
        self.weights = None if level.mask is None else (self.one != 0).astype(self.one.dtype)
        self.shape = (level.channels, s.height, s.width)
        if level.second_order:
            self.rows = np.empty((s.k + 3, len(self.T)), self.T.dtype)
            self.rows[s.k] = self.one
            self._sd = self.rows[: s.k].reshape(s.k, level.channels, -1)
            self._term = np.empty_like(self._sd)
            inner = None if level.inner is None else level.inner.numpy().reshape(-1)
            self.inner = None if inner is None else np.tile(inner, level.channels)
        else:
            assert level.rows is not None
            self.rows = level.rows[0].numpy()

    def descend(
        self,
        search: _Search,
        image: np.ndarray,
        grid: Grid,
        iterations: int,
        limit: float,
        hopeless: float | None = None,
    ) -> np.ndarray | None:
        """Take steps until no corner moves; the image where the last of them began.

        Where it refines what a coarser level has found, a correlation below `hopeless` after some steps is
        given up, and inverse compositional steps are accelerated.
        """
        I, corners = None, grid.corners_of(search.M).ravel().tolist()
        search.inside, search.done = _inside(corners), False
        self.longer = None if hopeless is None else Anderson(self.level.samples.corner_steps)
        moved = 0.0
        for number in range(iterations):
            if search.done or not search.inside:
                break
            if hopeless is not None and number == PATIENCE and search.correlation < hopeless:
                break
            I = self._sample(image, grid, search.M)
            step, search.correlation = (self._second_order if self.level.second_order else self._inverse)(I)
            search.M = search.M @ step
            old, corners = corners, grid.corners_of(search.M).ravel().tolist()
            search.inside = _inside(corners)
            before = moved if hopeless is not None else 0.0
            moved = max([abs(new - was) for new, was in zip(corners, old, strict=True)]) * grid.per_unit
            search.done = rests(moved, before, limit)
            search.iterations += 1
        return I

    def doubts(self, I: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
        """See :meth:`~icstn.classical.prepared.Level.doubts`."""
        return self.level.doubts(self._unit(I)[None], self.T[None], least)

    def _sample(self, image: np.ndarray, grid: Grid, M: np.ndarray) -> np.ndarray:
        small = len(self.T) <= SMALL
        I = bilinear(image, *grid.pixels_of(M)) if small else grid.sample_array(image, M)
        return I if self.weights is None else I * self.weights

    def _unit(self, I: np.ndarray) -> np.ndarray:
        """Zero mean and unit length."""
        values = I - (self.one @ I) * self.one
        values /= np.sqrt(values @ values)
        return values

    def _inverse(self, I: np.ndarray) -> tuple[np.ndarray, float]:
        """(I + D)⁻¹, to the third order, of an inverse compositional step, and the correlation."""
        y = (self.rows @ I).astype(float)
        gain, offset = y[self.k], y[self.k + 1]
        dp = y[None, : self.k] / gain
        D = ((dp if self.longer is None else self.longer(dp)) @ self.G).reshape(3, 3)
        return EYE - D + D @ D, gain / np.sqrt(I @ I - offset * offset)

    def _second_order(self, I: np.ndarray) -> tuple[np.ndarray, float]:
        """I + D of a second-order step (:meth:`~icstn.classical.prepared.Level.normal_rows`)."""
        k, rows, s = self.k, self.rows, self.level.samples
        values = self._unit(I)
        np.add(self.T, values, out=rows[k + 1])
        np.subtract(self.T, values, out=rows[k + 2])
        both = rows[k + 1].reshape(self.shape)
        dx, dy = s.differentiate(both)
        np.multiply(dx.reshape(1, self.shape[0], -1), s.jx, out=self._sd)
        np.multiply(dy.reshape(1, self.shape[0], -1), s.jy, out=self._term)
        self._sd += self._term
        if self.inner is not None:
            rows[:k] *= self.inner
        gram = (rows @ rows.T).astype(float)
        try:
            dp = 2 * np.linalg.solve(gram[:-1, :-1], gram[:-1, -1])[:k]
        except np.linalg.LinAlgError:
            dp = np.full(k, np.nan)
        return EYE + (dp @ self.G).reshape(3, 3), gram[k + 1, k + 1] / 2 - 1


def pyramid(x: np.ndarray, levels: int) -> list[np.ndarray]:
    """An image ``(C, H, W)`` and its halves (:func:`~icstn.classical.pyramid.image_pyramid`)."""
    scales = [x]
    for _ in range(levels - 1):
        h, w = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
        x = x[:, 0:h:2, :w] + x[:, 1:h:2, :w]
        x = x[..., 0::2] + x[..., 1::2]
        x *= 0.25
        scales.append(x)
    return scales


def blurred(x: np.ndarray, size: int) -> np.ndarray:
    """Box blur of odd size (:func:`~icstn.classical.pyramid.box`)."""
    r = size // 2
    if r == 0:
        return x
    x = np.concatenate((*[x[..., :1]] * r, x, *[x[..., -1:]] * r), 2)
    x = _running_sum(x, size)
    x = np.concatenate((*[x[:, :1]] * r, x, *[x[:, -1:]] * r), 1)
    x = _running_sum(x.swapaxes(1, 2), size).swapaxes(1, 2)
    x *= 1 / size**2
    return x


def _running_sum(x: np.ndarray, size: int) -> np.ndarray:
    n = x.shape[2] - size + 1
    total = x[..., :n] + x[..., 1 : n + 1]
    for i in range(2, size):
        total += x[..., i : i + n]
    return total


def bilinear(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """An image ``(C, H, W)`` at pixels that lie inside its last ones, ``(C·N,)``."""
    width, flat = image.shape[2], image.reshape(len(image), -1)
    left, top = x.astype(np.intp), y.astype(np.intp)
    fx, fy = (x - left).astype(image.dtype), (y - top).astype(image.dtype)
    at = top * width + left
    a, b = flat[:, :].take(at, 1), flat[:, 1:].take(at, 1)
    c, d = flat[:, width:].take(at, 1), flat[:, width + 1 :].take(at, 1)
    above, below = a + fx * (b - a), c + fx * (d - c)
    return (above + fy * (below - above)).reshape(-1)


def _inside(corners: list[float]) -> bool:
    return all(-1 <= v <= 1 for v in corners)  # false for what is not a number
