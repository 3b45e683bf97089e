"""Anderson's acceleration of steps that converge linearly (Anderson 1965; Walker and Ni 2011)."""

from __future__ import annotations

import numpy as np

#: Earlier steps that the next one takes into account.
MEMORY = 2
#: Steps longer than this are left alone: they do not shrink in proportion yet.
SHORT = 1.0
#: Most that a step may be lengthened.
LONGER = 8.0


class Anderson:
    """Makes steps longer where one after the other goes the same way, for each item of a batch.

    Steps f that shrink by a constant factor along each direction say where they lead: of the last few, that
    combination is taken whose next step would be shortest.

    Args:
        metric: from a step's parameters to what its length is measured in, ``(k, ·)``.
    """

    def __init__(self, metric: np.ndarray) -> None:
        self.metric = metric
        self._last: np.ndarray | None = None
        self._taken: np.ndarray | None = None
        self._dF: list[np.ndarray] = []
        self._dX: list[np.ndarray] = []

    def __call__(self, f: np.ndarray) -> np.ndarray:
        """The step to take instead of f, ``(b, k)``."""
        step = f
        if self._last is not None and self._taken is not None:
            self._dF = [*self._dF, f - self._last][-MEMORY:]
            self._dX = [*self._dX, self._taken][-MEMORY:]
            step = self._mixed(f)
        self._last, self._taken = f, step
        return step

    def keep(self, going: np.ndarray) -> None:
        """Forget the other items."""
        if self._last is not None and self._taken is not None:
            self._last, self._taken = self._last[going], self._taken[going]
            self._dF, self._dX = [x[going] for x in self._dF], [x[going] for x in self._dX]

    def _mixed(self, f: np.ndarray) -> np.ndarray:
        dF, dX = np.stack(self._dF, 1), np.stack(self._dX, 1)  # (b, m, k)
        A, b = dF @ self.metric, f @ self.metric
        AA = A @ A.swapaxes(1, 2)
        m = AA.shape[1]
        trace = np.einsum("bii->b", AA)[:, None, None] + np.finfo(float).tiny
        gamma = np.linalg.solve(AA + 1e-6 * trace * np.eye(m), (A @ b[:, :, None]))
        step = f - (gamma.swapaxes(1, 2) @ (dX + dF))[:, 0]
        length, plain = (np.square(x @ self.metric).sum(1) for x in (step, f))
        fine = (length <= LONGER**2 * plain) & (plain <= SHORT**2)  # false for what is not a number
        return np.where(fine[:, None], step, f)
