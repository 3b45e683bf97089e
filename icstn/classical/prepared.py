"""What the short way (:mod:`icstn.classical.lean`) needs of the template on one level, and what it finds."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from icstn.classical.samples import Samples

#: Floats that one chunk of a batch may hold for each thread, so that they stay in its cache.
CHUNK = 2**19
#: Steps on the finest level, after which an item is given up that does not look like the template.
PATIENCE = 5
#: From this many samples a side on, those beside masked ones have no gradient.
INNER_SIDE = 20
#: Parts of a template along each side whose steps are compared.
TILES = 4
#: Uncertainty of the corners in pixels, by these parts, above which a place is not trusted.
UNCERTAIN = 0.3
#: Correlation of the misfits of samples two or three apart above which the misfit has structure.
STRUCTURE = 0.1
#: The same of neighbors: noise in a warped image, whose neighbors share pixels, seldom has more.
NEIGHBORS = 0.36
#: The correlation may be so much lower than asked for where the misfit is noise.
NOISY = 0.15


def rests(moved: Any, before: Any, limit: float) -> Any:
    """Whether what is left to go is at most the limit: the last step, or all that follow as they shrink.

    Steps that shrink by the factor ρ = moved / before add up to ρ / (1 − ρ) of the last one from here on.

    Args:
        moved: length of the last step, a number or an array of them.
        before: that of the step before it; 0 where there was none.
        limit: in the same unit.
    """
    return (moved <= limit) | (moved**2 <= limit * (before - moved))


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
        self.mask = self.inner = None
        if mask is not None:
            inner = _surrounded(mask) if min(mask.shape) >= INNER_SIDE else mask
            self.mask, self.inner = (x.to(values).reshape(1, 1, -1) for x in (mask, inner))
        self.channels = values.shape[1]
        self.count = samples.height * samples.width * self.channels
        one = torch.ones_like(values[:1]).flatten(2)
        if self.mask is not None:
            self.count, one = float(self.mask.sum()) * self.channels, one * self.mask
        self.one = one.flatten(1) * self.count**-0.5
        self.T = self.unit(values.flatten(1))
        self.H: Tensor | None = None
        self.rows: Tensor | None = None
        if not second_order or not samples.number:
            self.H, self.rows = self._fixed()

    def chunk(self) -> int:
        """How many items of a batch to take at once."""
        if self.T.device.type != "cpu":
            return 2**30
        floats = self.T.shape[1] * (4 + 2 * self.samples.k * self.second_order)
        return max(1, CHUNK * torch.get_num_threads() // floats)

    def unit(self, x: Tensor) -> Tensor:
        """Values ``(b, C·N)`` with zero mean and unit length; 0 where the mask is."""
        if self.mask is None:
            return F.layer_norm(x, x.shape[1:], self._scale, None, 0.0)
        flat = torch.addmm(x * (self.one != 0), x @ self.one.mT, self.one, alpha=-1)
        return flat / torch.linalg.vector_norm(flat, dim=1, keepdim=True)

    @cached_property
    def _scale(self) -> Tensor:
        return self.one[0]

    def steepest_descent(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        """∇ of values ``(b, C·N)`` times ∂W/∂p, ``(b, k, C·N)``."""
        s = self.samples
        sd = s.steepest_descent(values.view(-1, self.channels, s.height, s.width), out)
        return (sd if self.inner is None else sd.mul_(self.inner)).flatten(2)

    def normal_rows(self, values: Tensor, T: Tensor) -> Tensor:
        """What the normal equations of a second-order step are products of, ``(b, k + 3, C·N)``.

        The steepest descent images of T + I, the offset, T + I, and T − I, where image and template have
        zero mean and unit length. T + I is twice the mean of both; the step is twice as long as theirs.
        """
        k = self.samples.k
        rows = values.new_empty(len(values), k + 3, values.shape[1])
        both = T + values
        self.steepest_descent(both, rows[:, :k].unflatten(2, (self.channels, -1)))
        rows[:, k], rows[:, k + 1] = self.one, both
        torch.sub(T, values, out=rows[:, k + 2])
        return rows

    def doubts(
        self, values: np.ndarray, T: np.ndarray, least: float, fixed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whether what does not fit says that the place may be wrong, and whether it is noise, ``(b,)`` each.

        Noise has no structure: its samples do not correlate with those two and three further, and little with
        their neighbors, with which they share pixels of the warped image. The place may be wrong where the
        template's parts want to go different ways: where the steps that :data:`TILES` × :data:`TILES` parts
        would take, which add up to none, differ so much that their corners are uncertain by more than
        :data:`UNCERTAIN` pixels (a jackknife, which sees misfits of any structure). A large misfit (a quarter
        of what the correlation allows) that is no noise may pull all parts to the same side: the image is
        blurred, covered, or something else. There a third of that is enough.

        Args:
            values: the image at the template's samples, zero mean and unit length, ``(b, C·N)``.
            T: the template's.
            least: correlation of an alignment.
            fixed: the rows (:attr:`rows`) of these items, where each has its own template.
        """
        s, e = self.samples, values - T
        energy = np.einsum("bn,bn->b", e, e)
        noise, large = np.zeros(len(e), bool), energy > (1 - least) / 2
        if large.any():  # the structure of a small misfit does not matter
            noise[large] = self._unstructured(e[large], energy[large])
        large &= ~noise
        if fixed is None:
            corners = self._tiles(e) @ self._corner_tiles  # (parts, b, 8)
        else:
            steps = self._tiles(fixed[:, : s.k].reshape(-1, e.shape[1]))
            steps = steps.reshape(TILES**2, len(e), s.k, -1)
            corners = np.einsum("tbn,tbkn->tbk", self._tiles(e), steps) @ s.corner_steps
        most = np.where(large, UNCERTAIN / 3, UNCERTAIN)
        return ~(np.square(corners).sum((0, 2)) <= 4 * most**2), noise

    def _unstructured(self, e: np.ndarray, energy: np.ndarray) -> np.ndarray:
        far = np.maximum(self._apart(e, 2), self._apart(e, 3)) > 2 * STRUCTURE * energy
        return ~far & ~(self._apart(e, 1) > 2 * NEIGHBORS * energy)

    def _apart(self, e: np.ndarray, n: int) -> np.ndarray:
        """Sum of the products of every sample with those n to its right and n below, ``(b,)``."""
        h, w = self.samples.height, self.samples.width
        x = e.reshape(len(e), -1, h * w)
        rows = x.reshape(len(e), -1, h, w)  # the far ends of lines, which meet the next line's in x
        ends = np.einsum("bchw,bchw->b", rows[..., 1:, :n], rows[..., :-1, w - n :])
        right = np.einsum("bcn,bcn->b", x[..., n:], x[..., :-n]) - ends
        return right + np.einsum("bcn,bcn->b", x[..., n * w :], x[..., : -n * w])

    @cached_property
    def _corner_tiles(self) -> np.ndarray:
        """How the corners would move by each sample's misfit, ``(parts, ·, 8)``."""
        assert self.rows is not None
        s = self.samples
        rows = s.corner_steps.T @ self.rows[0, : s.k].cpu().numpy()
        return np.ascontiguousarray(self._tiles(rows).swapaxes(1, 2))

    def _tiles(self, x: np.ndarray) -> np.ndarray:
        """Values ``(n, C·N)`` part by part, ``(parts, n, ·)``; what is left at the far edges is dropped."""
        h, w = self.samples.height, self.samples.width
        a, b = h // TILES, w // TILES
        x = x.reshape(len(x), -1, h, w)[..., : a * TILES, : b * TILES]
        x = x.reshape(len(x), -1, TILES, a, TILES, b).transpose(2, 4, 0, 1, 3, 5)
        return x.reshape(TILES**2, x.shape[2], -1)

    def _fixed(self) -> tuple[Tensor, Tensor | None]:
        """H of the template of unit length, and R, T̂ and the offset as rows, ``(b, k + 2, C·N)``."""
        sd = self.steepest_descent(self.T)
        light = torch.stack((self.one.expand_as(self.T), self.T), 1)
        sd = torch.baddbmm(sd, sd @ light.mT, light, alpha=-1)
        H = sd @ sd.mT
        if self.second_order:
            return H, None
        R = torch.linalg.inv_ex(H.double())[0].to(H) @ sd
        return H, torch.cat((R, self.T.unsqueeze(1), light[:, :1]), 1)


def _surrounded(mask: Tensor) -> Tensor:
    """Samples of ``(h, w)`` that count together with their four neighbors: their differences do."""
    m = F.pad(mask.to(torch.float32)[None, None], (1, 1, 1, 1), mode="replicate")[0, 0] > 0
    return m[1:-1, 1:-1] & m[1:-1, 2:] & m[1:-1, :-2] & m[2:, 1:-1] & m[:-2, 1:-1]


class Outcome:
    """How far the search has come, and what became of a batch.

    Args:
        M: the initial warps, ``(batch, 3, 3)``.
        only: items that are looked at, ``(batch,)``; the others count as not inside.

    Attributes:
        M: the warps; of items that did not stay inside they mean nothing.
        inside: items that stayed inside the image on every level.
        done: items whose last step on the finest level was short enough.
        iterations: steps over all levels.
        correlation: with the template, before the last step; 0 where nothing varies.
        doubtful: items whose place is not to be trusted (:meth:`~icstn.classical.prepared.Level.doubts`).
        noisy: items whose misfit is noise.
    """

    def __init__(self, M: np.ndarray, only: np.ndarray | None = None) -> None:
        n = len(M)
        self.M, self.inside = M, np.ones(n, bool) if only is None else only.copy()
        self.done, self.doubtful, self.noisy = (np.zeros(n, bool) for _ in range(3))
        self.iterations, self.correlation = np.zeros(n, int), np.zeros(n)

    def chunks(self, size: int) -> list[np.ndarray]:
        """The items that are still inside, in chunks."""
        items = self.inside.nonzero()[0]
        return [items[i : i + size] for i in range(0, len(items), size)]

    def take(self, x: Tensor, items: np.ndarray) -> Tensor:
        """Those items of something that has one for each of the batch, or one for all."""
        if len(x) == 1 or len(items) == len(self.inside):
            return x
        first, last = int(items[0]), int(items[-1])
        return x[first : last + 1] if last - first + 1 == len(items) else x[torch.from_numpy(items)]
