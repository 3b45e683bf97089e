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
from typing import NamedTuple

import torch
from torch import Tensor

from icstn.classical.pyramid import box, image_pyramid
from icstn.classical.samples import Grid, Samples, samples_of
from icstn.sampling import Frame
from icstn.warps import Warp, affine

#: Floats that one chunk of a batch may hold for each thread, so that they stay in its cache.
CHUNK = 2**19
#: Image sizes and frames whose grids are kept.
KEPT = 8
#: Parts of a template along each side whose steps are compared.
TILES = 4
#: Uncertainty of the corners in pixels, by these parts, above which a place is not trusted.
UNCERTAIN = 0.3
#: Correlation of neighboring misfits above which it has structure.
NEIGHBORS = 1 / 3
#: A template less wide than this takes affine steps.
AFFINE_SIDE = 20
#: A corner nearer to the horizon than this is behind it.
NEAREST = 1e-3


class Outcome(NamedTuple):
    """What became of a batch.

    Attributes:
        p: warps, ``(batch, k)``.
        inside: items that stayed inside the image on every level; the others' warps mean nothing.
        done: items whose last step on the finest level was short enough.
        iterations: steps over all levels.
        correlation: with the template, before the last step.
        doubtful: items whose place is not to be trusted (:meth:`Level.doubtful`).
    """

    p: Tensor
    inside: Tensor
    done: Tensor
    iterations: Tensor
    correlation: Tensor
    doubtful: Tensor


class Lean:
    """Coarse to fine, up to gain and offset.

    Args:
        values: the template on each level from full size to coarse, ``(b, C, h, w)``, blurred.
        size: height and width of the template at full size.
        warp: the family.
        algorithms: ``"ESM"`` or ``"IC"`` for each level.
        iterations: most steps on each level.
        limits: an item stops when no corner moves by this many pixels of the full size, for each level.
        blur: size of the box blur of the image, for each level.
        mask: weights of the template's samples on each level, ``(h, w)`` of 0 and 1.
        structured: share of the template's energy that a misfit with structure may have.
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
        structured: float = 0.025,
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
        self.structured = structured
        self.finest = next(number for number, v in enumerate(values) if v is not None)
        finest = values[self.finest]
        assert finest is not None
        self.std = finest.flatten(1).std(1, correction=0)
        self._grids: OrderedDict[tuple[Frame, tuple[int, int]], list[Grid | None]] = OrderedDict()

    def __call__(self, image: Tensor, p: Tensor, frame: Frame) -> Outcome:
        """Align a batch, ``(batch or 1, C, H, W)``, from initial warps."""
        size = (image.shape[-2], image.shape[-1])
        grids, images = self._placed(frame, size), image_pyramid(image, len(self.levels))
        state = _State(self.warp.matrix(p))
        for number in reversed(range(len(self.levels))):
            level, grid = self.levels[number], grids[number]
            if level is None or grid is None:
                continue
            for items in state.chunks(level.chunk()):
                pixels = box(state.take(images[number], items), self.blur[number])
                part = _Part(level, grid, state, items, pixels)
                part.structured = self.structured if number == self.finest else None
                part.descend(self.iterations[number], self.limits[number])
        return state.outcome(self.warp)

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


class Level:
    """What one level needs of the template.

    Args:
        values: ``(b, C, h, w)``.
        samples: their positions.
        second_order: ESM, otherwise IC.
        mask: ``(h, w)`` of 0 and 1, or None.
    """

    def __init__(
        self, values: Tensor, samples: Samples, second_order: bool, mask: Tensor | None = None
    ) -> None:
        self.samples, self.second_order = samples, second_order
        self.mask = None if mask is None else mask.to(values).reshape(1, 1, -1)
        n = samples.height * samples.width if mask is None else float(mask.sum())
        self.count = n * values.shape[1]
        self.T = self.unit(values.flatten(2))
        one = torch.full_like(values[:1], self.count**-0.5).flatten(2)
        self.one = (one if self.mask is None else one * self.mask).flatten(1).unsqueeze(1)
        self.H: Tensor | None = None
        self.rows: Tensor | None = None
        if not second_order or not samples.number:
            self.H, self.rows = self._fixed(values)

    def chunk(self) -> int:
        """How many items of a batch to take at once."""
        if self.T.device.type != "cpu":
            return 2**30
        floats = self.T.shape[1] * (4 + 2 * self.samples.k * self.second_order)
        return max(1, CHUNK * torch.get_num_threads() // floats)

    def unit(self, x: Tensor) -> Tensor:
        """Values ``(b, C, N)`` with zero mean and unit length, ``(b, C·N)``."""
        if self.mask is None:
            flat = x.flatten(1)
            flat = flat - flat.mean(1, keepdim=True)
        else:
            mean = (x * self.mask).sum((1, 2), keepdim=True) / self.count
            flat = ((x - mean) * self.mask).flatten(1)
        return flat / torch.linalg.vector_norm(flat, dim=1, keepdim=True)

    def steepest_descent(self, values: Tensor) -> Tensor:
        """∇ of values ``(b, C, h, w)`` times ∂W/∂p, ``(b, k, C·N)``."""
        sd = self.samples.steepest_descent(values)
        return (sd if self.mask is None else sd * self.mask).flatten(2)

    def doubtful(self, values: Tensor, T: Tensor, fixed: Tensor, structured: float) -> Tensor:
        """Whether what does not fit says that the place may be wrong, ``(b,)``.

        It may where the misfit is larger than a share of the template's energy and has structure, unlike
        noise (its neighbours correlate): the image is blurred, covered, or something else. And it may where
        the template's parts want to go different ways: where the steps that :data:`TILES` × :data:`TILES`
        parts would take, which add up to none, differ so much that their corners are uncertain by more than
        :data:`UNCERTAIN` pixels (a jackknife, which sees misfits of any structure).

        Args:
            values: the image at the template's samples, zero mean and unit length, ``(b, C·N)``.
            T: the template's.
            fixed: its rows (:attr:`rows`).
            structured: share of the energy that a misfit with structure may have.
        """
        s = self.samples
        flat = values - T
        e = flat.view(len(flat), -1, s.height, s.width)
        energy = flat.square().sum(1)
        bad = energy > 2 * structured
        if bool(bad.any()):
            right, below = (e[..., 1:] * e[..., :-1]).flatten(1), (e[..., 1:, :] * e[..., :-1, :]).flatten(1)
            bad = bad & (right.sum(1) + below.sum(1) > 2 * NEIGHBORS * energy)
        if len(fixed) == 1:
            steps = torch.bmm(self._tiles(flat), self._fixed_tiles)  # (parts, b, k)
        else:
            steps = self._tiles(fixed[:, : s.k].flatten(0, 1)).unflatten(1, (-1, s.k))
            steps = torch.einsum("tbn,tbkn->tbk", self._tiles(flat), steps)
        corners = steps @ s.corner_steps
        return bad | (corners.square().sum((0, 2)) / 4 > UNCERTAIN**2)

    @cached_property
    def _fixed_tiles(self) -> Tensor:
        assert self.rows is not None
        return self._tiles(self.rows[0, : self.samples.k]).mT

    def _tiles(self, x: Tensor) -> Tensor:
        """Values ``(n, C·N)`` part by part, ``(parts, n, ·)``; what is left at the far edges is dropped."""
        h, w = self.samples.height, self.samples.width
        a, b = h // TILES, w // TILES
        x = x.view(len(x), -1, h, w)[..., : a * TILES, : b * TILES]
        x = x.reshape(len(x), -1, TILES, a, TILES, b).permute(2, 4, 0, 1, 3, 5)
        return x.reshape(TILES**2, x.shape[2], -1)

    def _fixed(self, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """H of the template of unit length, and R, T̂ and the offset as rows, ``(b, k + 2, C·N)``."""
        sd = self.steepest_descent(self.T.view_as(values))
        light = torch.cat((self.one.expand(len(sd), -1, -1), self.T.unsqueeze(1)), 1)
        sd = torch.baddbmm(sd, sd @ light.mT, light, alpha=-1)
        H = sd @ sd.mT
        if self.second_order:
            return H, None
        R = torch.linalg.inv_ex(H.double())[0].to(H) @ sd
        return H, torch.cat((R, self.T.unsqueeze(1), light[:, :1]), 1)


class _State:
    """The whole batch."""

    def __init__(self, M: Tensor) -> None:
        n = len(M)
        self.M = M
        self.inside, self.done = [True] * n, [False] * n
        self.iterations, self.correlation = [0] * n, M.new_zeros(n, 1)
        self.doubtful = torch.zeros(n, dtype=torch.bool, device=M.device)

    def chunks(self, size: int) -> list[list[int]]:
        """The items that are still inside, in chunks."""
        items = [i for i, inside in enumerate(self.inside) if inside]
        return [items[i : i + size] for i in range(0, len(items), size)]

    def take(self, x: Tensor, items: list[int]) -> Tensor:
        """Those items of something that has one for each of the batch, or one for all."""
        return x if len(x) == 1 or len(items) == len(self.inside) else x[items]

    def outcome(self, warp: Warp) -> Outcome:
        """As tensors."""
        device = self.M.device
        inside, done = (torch.tensor(x, device=device) for x in (self.inside, self.done))
        p, iterations = warp.params(self.M, check=False), torch.tensor(self.iterations, device=device)
        correlation = self.correlation.flatten().nan_to_num(0.0).clamp(-1, 1)  # none where nothing varies
        return Outcome(p, inside, done, iterations, correlation, self.doubtful)


class _Part:
    """Items of a batch on one level; those that stop leave the others to go on.

    Args:
        level: of the template.
        grid: for this image size.
        state: the batch.
        items: which of it.
        pixels: theirs, or one image for all, blurred.
    """

    def __init__(self, level: Level, grid: Grid, state: _State, items: list[int], pixels: Tensor) -> None:
        self.level, self.grid, self.state, self.items, self.pixels = level, grid, state, items, pixels
        self.T = state.take(level.T, items)
        self.fixed = None if level.rows is None else state.take(level.rows, items)
        self.M, self.correlation = state.take(state.M, items), state.take(state.correlation, items)
        self.structured: float | None = None
        self._values: Callable[[], Tensor] | None = None
        self._place()
        self._keep([n for n, fine in enumerate(self._fine) if fine])

    def descend(self, iterations: int, limit: float) -> None:
        """Take steps until the last corner of the last item rests."""
        state = self.state
        for i in self.items:
            state.done[i] = False
        for _ in range(iterations):
            if not self.items:
                return
            I = self.grid.sample(self.pixels, self._columns, self._rows)
            self.M = self.M @ (self._second_order(I) if self.level.second_order else self._inverse(I))
            old = self._corners
            self._place()
            for i, moved in zip(self.items, _largest(self._corners - old), strict=True):
                state.iterations[i] += 1
                state.done[i] = moved * self.grid.per_unit <= limit
            self._stop()
        self._store(range(len(self.items)))

    def _place(self) -> None:
        """Where the items lie now, and whether each is inside the image and in front of the horizon."""
        self._columns, self._rows, corners = self.grid.place(self.M)
        if self.grid.d == 3:
            corners = corners[:, :2] / corners[:, 2:].clamp(min=NEAREST)  # behind the horizon is far away
        self._corners = corners
        self._fine = [reach <= 1 for reach in _largest(corners)]  # false for what is not a number
        for i, fine in zip(self.items, self._fine, strict=True):
            self.state.inside[i] = fine

    def _stop(self) -> None:
        """Let go of the items that left the image, and of those that rest once they are half of all."""
        resting = [self.state.done[i] for i in self.items]
        if all(self._fine) and 2 * sum(resting) < len(resting):
            return
        pairs = list(enumerate(zip(resting, self._fine, strict=True)))
        self._store([n for n, (rest, fine) in pairs if fine and rest])
        self._keep([n for n, (rest, fine) in pairs if fine and not rest])

    def _store(self, numbers: Sequence[int]) -> None:
        state = self.state
        if self.structured is not None and len(numbers):
            self._doubt(numbers)
        if len(numbers) == len(state.inside):
            state.M, state.correlation = self.M, self.correlation
        elif len(numbers):
            items = [self.items[n] for n in numbers]
            state.M[items], state.correlation[items] = self.M[list(numbers)], self.correlation[list(numbers)]

    def _doubt(self, numbers: Sequence[int]) -> None:
        """Look at what does not fit, where the last step of these items began."""
        if self._values is None or self.fixed is None or self.structured is None:
            return
        values, T, fixed = self._values(), self.T, self.fixed
        if len(numbers) < len(self.items):
            rows = list(numbers)
            values = values[rows]
            T, fixed = (x if len(x) == 1 else x[rows] for x in (T, fixed))
        items = [self.items[n] for n in numbers]
        self.state.doubtful[items] = self.level.doubtful(values, T, fixed, self.structured)

    def _keep(self, going: list[int]) -> None:
        if len(going) == len(self.items):
            return
        self.items = [self.items[n] for n in going]
        if not going:
            return
        if (values := self._values) is not None:
            self._values = lambda: values()[going]
        self.M, self.correlation, self._columns, self._rows, self._corners = (
            x[going] for x in (self.M, self.correlation, self._columns, self._rows, self._corners)
        )
        self.pixels, self.T = (x[going] if len(x) > 1 else x for x in (self.pixels, self.T))
        if self.fixed is not None and len(self.fixed) > 1:
            self.fixed = self.fixed[going]

    def _inverse(self, I: Tensor) -> Tensor:
        """(I + D)⁻¹, to the third order, of an inverse compositional step."""
        level, fixed = self.level, self.fixed
        assert fixed is not None
        flat = I.flatten(1)
        y = flat @ fixed[0].mT if len(fixed) == 1 else (flat.unsqueeze(1) @ fixed.mT).squeeze(1)
        step, gain, offset = torch.split_with_sizes(y, [level.samples.k, 1, 1], 1)
        seen = flat if level.mask is None else (I.flatten(2) * level.mask).flatten(1)
        length = torch.linalg.vector_norm(seen, dim=1, keepdim=True)
        contrast = (length.square() - offset.square()).sqrt()
        self.correlation = gain / contrast
        self._values = lambda: (seen - offset * level.one[:, 0]) / contrast
        D = ((step / gain) @ level.samples.G).view(-1, 3, 3)
        return torch.baddbmm(level.samples.eye - D, D, D)

    def _second_order(self, I: Tensor) -> Tensor:
        """I + D of a second-order step."""
        level = self.level
        values = level.unit(I.flatten(2))
        self.correlation = (values * self.T).sum(1, keepdim=True)
        self._values = lambda: values
        mean, e = (self.T + values) / 2, self.T - values
        sd = level.steepest_descent(mean.view_as(I))
        rows = torch.cat((sd, level.one.expand(len(sd), -1, -1), mean.unsqueeze(1)), 1)
        L, _ = torch.linalg.cholesky_ex(rows @ rows.mT)
        dp = torch.cholesky_solve(rows @ e.unsqueeze(2), L)[:, : level.samples.k, 0]
        return torch.addmm(level.samples.eye.view(9), dp, level.samples.G).view(-1, 3, 3)


def _family(warp: Warp, values: Tensor) -> Warp:
    """Few samples do not determine a homography well, and its steps swing to and fro: affine ones there."""
    return affine if warp.projective and min(values.shape[-2:]) < AFFINE_SIDE else warp


def _largest(x: Tensor) -> list[float]:
    """Largest size of a number of each item, ``(batch, 2, 4)``."""
    return torch.linalg.vector_norm(x, torch.inf, (1, 2)).tolist()
