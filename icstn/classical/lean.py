"""The recommended alignment in few operations: up to gain and offset, for items inside the image.

The same second-order and inverse compositional steps as in :mod:`icstn.classical.lucas_kanade`, rewritten for
speed. Three things make them short:

    * A template T̂ of zero mean and unit length makes light cheap. Steepest descent images without their part
      along an offset (1) and a gain (T̂) see neither, so R = H⁻¹ sd gives R·I = gain · Δp for the raw image,
      and T̂·I is that gain: an inverse compositional step is one product with a matrix of k + 2 rows, of
      which the last, 1·I, leads to the correlation.
    * For a second-order step, image and template both have unit length, so that their difference is at right
      angles to their mean; gain and offset enter as two more rows of the normal equations.
    * Warps are 3×3 matrices throughout, the grid is their product with a constant, and nothing is masked: an
      item that is not wholly inside the image is handed back, for the general algorithm to try.
"""

# ruff: noqa: E741 -- I is the image, as in the equations

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from icstn.classical.anderson import Anderson
from icstn.classical.prepared import NOISY, PATIENCE, Level, Outcome, rests
from icstn.classical.pyramid import box, image_pyramid
from icstn.classical.samples import EYE, Grid, samples_of
from icstn.classical.solo import Solo
from icstn.sampling import Frame
from icstn.warps import Warp, affine

#: A damped step is short before its place is right: on a coarse level its limit is this fraction.
DAMPED = 0.5
#: Image sizes and frames whose grids are kept.
KEPT = 8
#: A template less wide than this takes affine steps.
AFFINE_SIDE = 20


class Lean:
    """Coarse to fine, up to gain and offset.

    Args:
        values: the template on each level from full size to coarse, ``(b, C, h, w)``, blurred.
        size: height and width of the template at full size.
        warp: the family.
        algorithms: ``"ESM"`` or ``"IC"`` for each level.
        iterations: most steps on each level.
        limits: an item stops when no corner moves by this many pixels of the full size, for each level; on
            the finest also when its steps shrink so fast that what is left is less.
        blur: size of the box blur of the image, for each level.
        mask: weights of the template's samples on each level, ``(h, w)`` of 0 and 1.
        min_correlation: of an alignment.
    """

    def __init__(
        self,
        values: Sequence[Tensor | None],
        size: tuple[int, int],
        warp: Warp,
        algorithms: Sequence[str],
        iterations: Sequence[int],
        limits: Sequence[float],
        blur: Sequence[int],
        mask: Sequence[Tensor] | None = None,
        min_correlation: float = 0.9,
    ) -> None:
        self.warp, self.blur, self.iterations, self.limits = warp, blur, iterations, limits
        self.levels = [
            None
            if v is None
            else Level(
                v,
                samples_of(number, size, _family(warp, v), v.dtype, v.device),
                algorithms[number] == "ESM",
                mask[number] if mask else None,
            )
            for number, v in enumerate(values)
        ]
        self.min_correlation = min_correlation
        self.finest = next(number for number, v in enumerate(values) if v is not None)
        self.refines = any(v is not None for v in values[self.finest + 1 :])
        finest = values[self.finest]
        assert finest is not None
        self.std = finest.flatten(1).std(1, correction=0)
        self._solo: Solo | None = None
        self._grids: OrderedDict[tuple[Frame, tuple[int, int]], list[Grid | None]] = OrderedDict()

    def __call__(
        self,
        image: Tensor | Scales,
        p: Tensor,
        frame: Frame,
        damping: float = 0.0,
        only: np.ndarray | None = None,
    ) -> Outcome:
        """Align a batch.

        Args:
            image: ``(batch or 1, C, H, W)``, or with its halves.
            p: initial warps.
            frame: where the template lies at p = 0.
            damping: initial λ of Levenberg-Marquardt, which also takes back steps out of the image; 0 is
                Gauss-Newton.
            only: which items are to be aligned, ``(batch,)``; the others count as not inside.
        """
        scales = image if isinstance(image, Scales) else Scales(image, len(self.levels))
        image = scales.image
        grids = self._placed(frame, (image.shape[-2], image.shape[-1]))
        state = Outcome(self._matrices(p), only)
        if len(p) == 1 and image.device.type == "cpu" and len(self.std) == 1 and not damping:
            self._one(image, state, grids)
            return state
        for number in reversed(range(len(self.levels))):
            level, grid = self.levels[number], grids[number]
            if level is None or grid is None:
                continue
            for items in state.chunks(level.chunk()):
                pixels = box(state.take(scales.all[number], items), self.blur[number])
                with np.errstate(all="ignore"):  # a warp that is not finite is not inside the image
                    last = number == self.finest
                    part = _Part(level, grid, state, items, pixels, damping)
                    part.least = self.min_correlation if last else None
                    part.refine(last and self.refines)
                    limit = self.limits[number] * (DAMPED if damping and not last else 1)
                    part.descend(self.iterations[number], limit)
        return state

    def _one(self, image: Tensor, found: Outcome, grids: list[Grid | None]) -> None:
        if self._solo is None:
            self._solo = Solo(self.levels, self.iterations, self.limits, self.blur, self.min_correlation)
        with np.errstate(all="ignore"):
            self._solo(image[0].detach().numpy(), found, grids)

    def params(self, M: np.ndarray) -> np.ndarray:
        """Warp parameters of matrices ``(batch, 3, 3)``, up to scale, ``(batch, k)``."""
        return ((M / M[:, 2:, 2:]).reshape(-1, 9) - EYE.reshape(9)) @ np.array(self.warp.dual)

    def _matrices(self, p: Tensor) -> np.ndarray:
        flat = p.detach().cpu().numpy().astype(float) @ np.array(self.warp.generators)
        return EYE + flat.reshape(-1, 3, 3)

    def _placed(self, frame: Frame, size: tuple[int, int]) -> list[Grid | None]:
        key = (frame, size)
        if key not in self._grids:
            with torch.inference_mode(False):
                self._grids[key] = [
                    None if v is None else Grid(v.samples, self.warp.projective, frame, size)
                    for v in self.levels
                ]
        self._grids.move_to_end(key)
        while len(self._grids) > KEPT:
            self._grids.popitem(last=False)
        return self._grids[key]


class Scales:
    """Images with their halves, which are made when they are first asked for.

    Args:
        image: ``(batch or 1, C, H, W)``.
        levels: number of sizes.
    """

    def __init__(self, image: Tensor, levels: int) -> None:
        self.image, self.levels = image, levels

    @cached_property
    def all(self) -> list[Tensor]:
        """From full size to coarse."""
        return image_pyramid(self.image, self.levels)


class _Part:
    """Items of a batch on one level; those that stop leave the others to go on.

    Args:
        level: of the template.
        grid: for this image size.
        state: the batch.
        items: which of it.
        pixels: theirs, or one image for all, blurred.
        damping: initial λ of Levenberg-Marquardt; 0 is Gauss-Newton.
    """

    def __init__(
        self,
        level: Level,
        grid: Grid,
        state: Outcome,
        items: np.ndarray,
        pixels: Tensor,
        damping: float = 0.0,
    ) -> None:
        self.level, self.grid, self.state, self.items, self.pixels = level, grid, state, items, pixels
        self.T = state.take(level.T, items)
        self.fixed = None if level.rows is None else state.take(level.rows, items)
        self.H = None if level.H is None else state.take(level.H, items).double().cpu().numpy()
        self.M, self.correlation = state.M[items], state.correlation[items]
        self.moved = np.zeros(len(items))
        self.least: float | None = None
        self.longer: Anderson | None = None
        self._values: Callable[[], Tensor] | None = None
        self.best: _Best | None = None
        self.refines = False
        self._place()
        self._keep(self._fine)
        if damping:
            self.best = _Best(self.M, self.level.samples.k, damping)

    def refine(self, refines: bool) -> None:
        """Whether the items come from a coarser level: near enough for longer steps, and little patience."""
        self.refines = refines
        if refines and not self.level.second_order:
            self.longer = Anderson(self.level.samples.corner_steps)

    def descend(self, iterations: int, limit: float) -> None:
        """Take steps until the last corner of the last item rests."""
        state = self.state
        state.done[self.items] = False
        for number in range(iterations):
            if number == PATIENCE and self.refines and self.least is not None and len(self.items):
                self._give_up(self.correlation < self.least - NOISY)
            if not len(self.items):
                return
            I = self.grid.sample(self.pixels, self.M)
            dp, H = self._second_order(I) if self.level.second_order else self._inverse(I)
            if self.best is not None:
                self.M, self.correlation, dp = self.best.choose(self.M, self.correlation, dp, H)
            elif self.longer is not None:
                dp = self.longer(dp)
            D = (dp @ self.level.samples.generators).reshape(-1, 3, 3)
            self.M, old = self.M @ (EYE + D if self.level.second_order else EYE - D + D @ D), self._corners
            if self.best is not None:
                old = self.grid.corners_of(self.best.M)
            self._place()
            resting = self._kept & self._rests(np.abs(self._corners - old).max((1, 2)), limit)
            state.iterations[self.items] += 1
            state.done[self.items] = resting
            self._stop(resting)
        self._store(np.ones(len(self.items), bool))

    def _rests(self, moved: np.ndarray, limit: float) -> np.ndarray:
        moved, before = moved * self.grid.per_unit, self.moved
        self.moved = np.where(self._kept, moved, 0.0)
        return rests(moved, before if self.refines and self.least is not None else 0.0, limit)

    def _place(self) -> None:
        """Where the items lie now, and whether each is inside the image and in front of the horizon."""
        self._corners = self.grid.corners_of(self.M)
        self._fine = np.abs(self._corners).max((1, 2)) <= 1  # false for what is not a number
        self._kept = self._fine  # steps that are not taken back
        if self.best is not None and not self._fine.all():
            self.M = self.best.retreat(self.M, ~self._fine)
            self._corners, self._fine = self.grid.corners_of(self.M), np.ones(len(self.M), bool)
        self.state.inside[self.items] = self._fine

    def _stop(self, resting: np.ndarray) -> None:
        """Let go of the items that left the image, and of those that rest once they are half of all."""
        fine = self._fine
        if 2 * np.count_nonzero(resting) < len(resting) and fine.all():
            return
        self._store(fine & resting)
        self._keep(fine & ~resting)

    def _give_up(self, hopeless: np.ndarray) -> None:
        self._store(hopeless)
        self._keep(~hopeless)

    def _store(self, which: np.ndarray) -> None:
        state, items = self.state, self.items[which]
        if len(items):
            if self.least is not None:
                self._doubt(which)
            state.M[items], state.correlation[items] = self.M[which], self.correlation[which]

    def _doubt(self, which: np.ndarray) -> None:
        """Look at what does not fit, where the last step of these items began."""
        if self._values is None or self.fixed is None or self.least is None:
            return
        values, T, fixed = (x.cpu().numpy() for x in (self._values(), self.T, self.fixed))
        T, own = (T, None) if len(T) == 1 else (T[which], fixed[which])
        state, items = self.state, self.items[which]
        state.doubtful[items], state.noisy[items] = self.level.doubts(values[which], T, self.least, own)

    def _keep(self, going: np.ndarray) -> None:
        if going.all():
            return
        self.items, rows = self.items[going], torch.from_numpy(going)
        if not len(self.items):
            return
        if (values := self._values) is not None:
            self._values = lambda: values()[rows]
        self.M, self.correlation, self._corners, self.moved = (
            x[going] for x in (self.M, self.correlation, self._corners, self.moved)
        )
        self.pixels, self.T = (x[rows] if len(x) > 1 else x for x in (self.pixels, self.T))
        if self.best is not None:
            self.best.keep(going)
        if self.longer is not None:
            self.longer.keep(going)
        if self.fixed is not None and len(self.fixed) > 1:
            self.fixed = self.fixed[rows]
        if self.H is not None and len(self.H) > 1:
            self.H = self.H[going]

    def _inverse(self, I: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Δp of an inverse compositional step, and H."""
        level, fixed = self.level, self.fixed
        assert fixed is not None
        assert self.H is not None
        flat = I.flatten(1) if level.mask is None else (I.flatten(2) * level.mask).flatten(1)
        y = flat @ fixed[0].mT if len(fixed) == 1 else (flat.unsqueeze(1) @ fixed.mT).squeeze(1)
        k, length = level.samples.k, torch.linalg.vector_norm(flat, dim=1)
        numbers = y.double().cpu().numpy()
        gain, offset = numbers[:, k], numbers[:, k + 1]
        self.correlation = gain / np.sqrt(length.double().cpu().numpy() ** 2 - offset**2)
        self._values = lambda: level.unit(flat)
        return numbers[:, :k] / gain[:, None], self.H

    def _second_order(self, I: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Δp of a second-order step, and H, in which gain and offset are eliminated."""
        level, k = self.level, self.level.samples.k
        values = level.unit(I.flatten(1))
        self._values = lambda: values
        rows = level.normal_rows(values, self.T)
        gram = (rows @ rows.mT).double().cpu().numpy()
        size = gram[:, k + 1, k + 1]
        self.correlation = size / 2 - 1
        offset, both = gram[:, :k, k], gram[:, :k, k + 1]
        H = gram[:, :k, :k] - offset[:, :, None] * offset[:, None]
        H -= both[:, :, None] * both[:, None] / size[:, None, None]
        return 2 * solved(H, gram[:, :k, k + 2]), H


class _Best:
    """Levenberg-Marquardt: the best warp so far, its step and H, and λ, for each item.

    A step that lowered the correlation, or led out of the image, costs one iteration: λ grows tenfold and the
    next step starts again from the best warp.
    """

    def __init__(self, M: np.ndarray, k: int, damping: float) -> None:
        n = len(M)
        self.M, self.damping = M, np.full(n, damping)
        self._correlation, self._dp, self._H = np.full(n, -np.inf), np.zeros((n, k)), np.zeros((n, k, k))

    def choose(
        self, M: np.ndarray, correlation: np.ndarray, dp: np.ndarray, H: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The better of the new warps and the best so far, with its correlation and a damped step."""
        more = correlation > self._correlation
        first = np.isneginf(self._correlation)
        factor = np.where(first, 1.0, np.where(more, 0.1, 10.0))
        self.damping = np.clip(self.damping * factor, 1e-8, 1e8)
        wide = more[:, None, None]
        self.M, self._H = np.where(wide, M, self.M), np.where(wide, H, self._H)
        self._dp = np.where(more[:, None], dp, self._dp)
        self._correlation = np.where(more, correlation, self._correlation)
        b = (self._H @ self._dp[:, :, None])[:, :, 0]
        diagonal = np.eye(self._H.shape[1]) * self._H
        return self.M, self._correlation, solved(self._H + self.damping[:, None, None] * diagonal, b)

    def retreat(self, M: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Take the step of these items back."""
        self.damping = np.where(which, np.minimum(self.damping * 10, 1e8), self.damping)
        return np.where(which[:, None, None], self.M, M)

    def keep(self, going: np.ndarray) -> None:
        """Forget the others."""
        self.M, self.damping, self._correlation, self._dp, self._H = (
            x[going] for x in (self.M, self.damping, self._correlation, self._dp, self._H)
        )


def solved(H: np.ndarray, b: np.ndarray) -> np.ndarray:
    """H⁻¹ b for each item, not finite where H is singular."""
    x: Tensor = torch.linalg.solve_ex(torch.from_numpy(H), torch.from_numpy(b))[0]
    return x.numpy()


def _family(warp: Warp, values: Tensor) -> Warp:
    """Few samples do not determine a homography well, and its steps swing to and fro: affine ones there."""
    return affine if warp.projective and min(values.shape[-2:]) < AFFINE_SIDE else warp
