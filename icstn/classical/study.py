"""The experiment of Baker and Matthews (2004): how often and how fast alignment converges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from icstn.classical.aligner import Aligner
from icstn.sampling import Frame, warp_grid
from icstn.warps import Warp, corners, family

#: The three points whose noise makes an affine warp: two corners and the middle of the opposite side.
AFFINE_POINTS = ((-1.0, 1.0), (1.0, 1.0), (0.0, -1.0))


@dataclass(frozen=True)
class Trials:
    """Images in which a template has moved by a known warp.

    Attributes:
        images: ``(n, 1, H, W)``, the photograph's surroundings of the template, moved.
        template: ``(1, 1, height, width)``, cut from the photograph.
        truth: ``(n, k)``: the template point x lies at W(x; truth) in the image.
        frame: where the template would lie at p = 0.
        warp: the family.
        sigma: noise of the canonical points in pixels.
    """

    images: Float[Tensor, "n 1 H W"]
    template: Float[Tensor, "1 1 height width"]
    truth: Float[Tensor, "n k"]
    frame: Frame
    warp: Warp
    sigma: float

    def error(self, p: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """RMS distance in pixels of the canonical points from where they should be."""
        points = canonical_points(self.warp, p.dtype).to(p.device)
        d = self.warp.apply(p, points) - self.warp.apply(self.truth.to(p), points)
        return (d * d.new_tensor(self.frame.half_extent)).square().sum(-1).mean(-1).sqrt()


def canonical_points(warp: Warp, dtype: torch.dtype = torch.float32) -> Float[Tensor, "points 2"]:
    """The points that are moved, and measured: four corners of a projective family, else three points."""
    return corners(dtype) if warp.projective else torch.tensor(AFFINE_POINTS, dtype=dtype)


def make_trials(
    photo: Float[Tensor, "1 1 H W"],
    n: int,
    sigma: float,
    warp: Warp | str = "affine",
    *,
    generator: torch.Generator,
    size: int = 100,
    margin: int = 50,
    center: tuple[int, int] | None = None,
) -> Trials:
    """Cut a template from a photograph and move its surroundings by random warps.

    The canonical points move by i.i.d. Gaussian noise of σ pixels, and the warp is fitted to them. The
    image is the photograph resampled (cubic splines), so that the template, which is not, lies at the warp.

    Args:
        photo: gray, floats in [0, 1].
        n: number of trials.
        sigma: standard deviation in pixels of each coordinate's noise.
        warp: family, by name or itself.
        generator: source of randomness.
        size: height and width of the template in pixels.
        margin: pixels of surroundings on each side of the image.
        center: pixel ``(x, y)`` of the template's top-left corner; by default in the photograph's middle.

    Raises:
        ValueError: the photograph is too small.
    """
    warp = family(warp)
    H, W = photo.shape[-2:]
    left, top = center or ((W - size) // 2, (H - size) // 2)
    if min(left, top, H - size - top, W - size - left) < 0:
        raise ValueError(f"a {size}×{size} template does not fit a {H}×{W} photograph at ({left}, {top})")
    template = photo[..., top : top + size, left : left + size].contiguous()
    points = canonical_points(warp)
    noise = torch.randn(n, len(points), 2, generator=generator) * (sigma * 2 / (size - 1))
    truth = warp.fit(points, points + noise)
    there = Frame.box(left, top, left + size - 1, top + size - 1, size, size)
    images = _move(photo, truth, there, warp, size + 2 * margin)
    frame = Frame.crop(size + 2 * margin, size + 2 * margin, size, size)
    return Trials(images, template, truth, frame, warp, sigma)


def _move(photo: Tensor, truth: Tensor, there: Frame, warp: Warp, out: int) -> Tensor:
    """The image whose value at W(x; truth) is the photograph's at x."""
    ratio = (out - 1) / (there.width - 1)
    m = warp.matrix(truth.double())
    scale = torch.diag(m.new_tensor([ratio, ratio, 1.0]))  # the image's square in the template's units
    wide = Frame(out, out, there.center, there.half_extent)
    inverse = torch.linalg.inv(m) @ scale
    projective = family("homography")
    p = projective.params(inverse).float()
    grid = warp_grid(p, wide, projective, (photo.shape[-2], photo.shape[-1]))
    return torch.cat([_spline(photo, g) for g in grid.split(1)])


def _spline(photo: Tensor, grid: Tensor) -> Tensor:
    """Cubic B-spline interpolation of ``(1, 1, H, W)`` at ``(n, h, w, 2)`` (mirrored borders).

    It is far more accurate than the bilinear sampling of the aligners, so that it can stand in for the truth.
    """
    H, W = photo.shape[-2:]
    c = (_knots(H) @ photo[0, 0].double() @ _knots(W).mT).to(photo.dtype).flatten()
    size = grid.new_tensor([W - 1.0, H - 1.0])
    at = ((grid + 1) / 2 * size).minimum(size).clamp(min=0)
    base = at.floor()
    wx, wy = (_taps(t) for t in (at - base).unbind(-1))
    ix, iy = (
        [_mirror(b.long() + i, n) for i in range(-1, 3)] for b, n in zip(base.unbind(-1), (W, H), strict=True)
    )
    out = torch.zeros_like(wx[0])
    for i in range(4):
        for j in range(4):
            out = torch.addcmul(out, wy[i] * wx[j], c[iy[i] * W + ix[j]])
    return out.unsqueeze(1)


@lru_cache(maxsize=8)
def _knots(n: int) -> Tensor:
    """Values at the pixels → coefficients of the cubic B-spline through them."""
    a = torch.eye(n, dtype=torch.float64) * 4 / 6
    i = torch.arange(n - 1)
    a[i, i + 1] = a[i + 1, i] = 1 / 6
    a[0, 1] = a[-1, -2] = 2 / 6
    return torch.linalg.inv(a)


def _taps(t: Tensor) -> list[Tensor]:
    """The four B-spline weights at fraction t of a pixel."""
    s = 1 - t
    inner = (4 - 6 * t**2 + 3 * t**3) / 6
    outer = (4 - 6 * s**2 + 3 * s**3) / 6
    return [s**3 / 6, inner, outer, t**3 / 6]


def _mirror(i: Tensor, n: int) -> Tensor:
    i = i.abs()
    return torch.where(i > n - 1, 2 * (n - 1) - i, i)


@dataclass(frozen=True)
class Convergence:
    """What became of one set of trials under one algorithm.

    Attributes:
        algorithm: its short name.
        warp: name of the family.
        sigma: noise in pixels.
        n: number of trials.
        converged: how many ended within the threshold of the truth.
        rate: median error in pixels before the first step and after each, over the trials in which every
            algorithm of the study converged (empty where there is none).
    """

    algorithm: str
    warp: str
    sigma: float
    n: int
    converged: int
    rate: tuple[float, ...]

    @property
    def frequency(self) -> float:
        """Fraction of the trials that converged."""
        return self.converged / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % confidence interval."""
        return wilson(self.converged, self.n)


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion, which stays sensible at 0 and at 1.

    Raises:
        ValueError: no trials, or more successes than trials.

    Example:
        >>> [round(v, 3) for v in wilson(98, 100)]
        [0.93, 0.994]
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes in {n} trials make no proportion")
    f = successes / n
    middle, spread = f + z * z / (2 * n), z * math.sqrt(f * (1 - f) / n + z * z / (4 * n * n))
    return max(0.0, (middle - spread) / (1 + z * z / n)), min(1.0, (middle + spread) / (1 + z * z / n))


def convergence(
    photos: Sequence[Tensor],
    *,
    warp: Warp | str,
    sigmas: Sequence[float],
    n: int,
    generator: torch.Generator,
    algorithms: Sequence[str] = ("FA", "FC", "ESM", "IC"),
    iterations: int = 15,
    threshold: float = 1.0,
    size: int = 100,
    centers: Sequence[tuple[int, int] | None] | None = None,
    **settings: Any,
) -> list[Convergence]:
    """Frequency and rate of convergence against σ, as Baker and Matthews (2004) measured them.

    Every algorithm gets the same trials, and, unless ``settings`` says otherwise, plain Gauss-Newton on one
    level for a fixed number of steps.

    Args:
        photos: one or more gray photographs ``(1, 1, H, W)``; the trials are shared out among them.
        warp: family, by name or itself.
        sigmas: noise of the canonical points in pixels.
        n: trials for each σ and each photograph.
        generator: source of randomness.
        algorithms: short names.
        iterations: steps.
        threshold: RMS error in pixels under which a trial has converged.
        size: of the template in pixels.
        centers: top-left pixel ``(x, y)`` of each photograph's template; by default in the middle.
        settings: further settings of the :class:`~icstn.classical.Aligner`.
    """
    plain = {"levels": 1, "blur": 1, "tol": 0.0, "retry": False, "min_overlap": 0.1} | settings
    rows = []
    for sigma in sigmas:
        trials = [
            make_trials(x, n, sigma, warp, generator=generator, size=size, center=c)
            for x, c in zip(photos, centers or [None] * len(photos), strict=True)
        ]
        errors = {}
        for name in algorithms:
            errors[name] = torch.cat([_errors(t, name, iterations, plain) for t in trials], 1)
        everywhere = torch.stack([e[-1] < threshold for e in errors.values()]).all(0)
        for name, e in errors.items():
            rate = tuple(e[:, everywhere].median(1).values.tolist()) if everywhere.any() else ()
            hits = int((e[-1] < threshold).sum())
            rows.append(Convergence(name, family(warp).name, float(sigma), e.shape[1], hits, rate))
    return rows


def _errors(trials: Trials, algorithm: str, iterations: int, settings: dict[str, Any]) -> Tensor:
    """Errors before the first step and after each, ``(iterations + 1, n)``; a lost item keeps its last."""
    aligner = Aligner(
        trials.template,
        trials.warp,
        frame=trials.frame,
        algorithm=algorithm,
        iterations=iterations,
        **settings,
    )
    path = aligner(trials.images, trajectory=True).trajectory
    assert path is not None
    if not settings["tol"]:  # an item that failed early has repeated its last warp
        path = torch.cat((path, path[-1:].expand(max(0, iterations + 1 - len(path)), -1, -1)))
    return torch.stack([trials.error(p).nan_to_num(float("inf")) for p in path])
