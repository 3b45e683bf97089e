"""A scene known in closed form, so that the equations can be checked without asking the library twice."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from icstn.sampling import Frame


def by_hand(p: np.ndarray) -> np.ndarray:
    """The affine matrix of eq. (9), written out."""
    return np.array([[1 + p[0], p[1], p[2]], [p[3], 1 + p[4], p[5]], [0, 0, 1.0]])


def parameters(m: np.ndarray) -> np.ndarray:
    """The inverse of :func:`by_hand`."""
    return (m - np.eye(3))[:2].ravel()


@dataclass(frozen=True)
class Scene:
    """An image that is a sum of waves: its value and its gradient are formulas.

    Points are in the template's normalized units; the image is ``size`` pixels wide, the template ``n``.
    """

    size: int = 121
    n: int = 41
    waves: tuple[tuple[float, float, float], ...] = ((2.1, 0.7, 0.3), (-0.9, 2.6, 1.1), (1.4, -1.7, 2.0))

    @property
    def frame(self) -> Frame:
        return Frame.crop(self.size, self.size, self.n, self.n)

    @property
    def points(self) -> np.ndarray:
        """The template's samples, ``(n², 2)``."""
        axis = np.linspace(-1, 1, self.n)
        return np.stack([a.ravel() for a in np.meshgrid(axis, axis)], -1)

    def value(self, x: np.ndarray) -> np.ndarray:
        return sum(np.sin(a * x[..., 0] + b * x[..., 1] + c) for a, b, c in self.waves)

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """∂value/∂(x, y), ``(…, 2)``."""
        return sum(
            np.cos(a * x[..., 0] + b * x[..., 1] + c)[..., None] * np.array([a, b]) for a, b, c in self.waves
        )

    def warped(self, p: np.ndarray) -> np.ndarray:
        """I(p) at the template's samples."""
        return self.value(self.moved(p))

    def moved(self, p: np.ndarray) -> np.ndarray:
        return (np.c_[self.points, np.ones(len(self.points))] @ by_hand(p).T)[:, :2]

    def steepest_descent(self, p: np.ndarray) -> np.ndarray:
        """∂I(p)/∂p by the chain rule: gradient at the warped points times ∂W/∂p, ``(n², 6)``."""
        gx, gy = self.gradient(self.moved(p)).T
        x, y = self.points.T
        return np.stack([gx * x, gx * y, gx, gy * x, gy * y, gy], -1)

    def image(self, p: np.ndarray | None = None) -> torch.Tensor:
        """Pixels ``(1, 1, size, size)``, float64, in which the scene has moved by the warp p."""
        half = (self.size - 1) / (self.n - 1)
        axis = np.linspace(-half, half, self.size)
        x = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
        if p is not None:
            x = (np.c_[x, np.ones(len(x))] @ np.linalg.inv(by_hand(p)).T)[:, :2]
        return torch.from_numpy(self.value(x).reshape(1, 1, self.size, self.size))

    def template(self) -> torch.Tensor:
        """T(0), ``(1, 1, n, n)``."""
        return torch.from_numpy(self.value(self.points).reshape(1, 1, self.n, self.n))


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def order():
    """Power with which an error shrinks when its argument is halved, from the errors at h, h/2, h/4."""

    def measured(errors: list[float]) -> float:
        return min(math.log2(a / b) for a, b in itertools.pairwise(errors))

    return measured
