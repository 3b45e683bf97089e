"""The experiment of Baker and Matthews (2004): how often and how fast alignment converges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from icstn.classical.aligner import Aligner
from icstn.classical.trials import Trials, make_trials
from icstn.warps import Warp, family


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
    plain = {
        "levels": 1,
        "blur": 1,
        "tol": 0.0,
        "retry": False,
        "normalize": False,
        "min_overlap": 0.1,
    } | settings
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
