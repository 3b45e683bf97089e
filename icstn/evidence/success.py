"""Two images in: how often and how closely pairs are aligned, at each σ, with intervals over the trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from icstn.evidence.estimates import Estimate, Z, over_seeds, paired
from icstn.experiments.records import Record


def errors(runs: Sequence[Record]) -> Tensor:
    """Corner error in pixels of each trial, ``(seeds, σ, items)``, float64.

    Args:
        runs: of one model, one for each seed.

    Raises:
        ValueError: there is none, or they have not met the same trials.
    """
    if not runs or len({r.outcomes.shape for r in runs}) != 1:
        raise ValueError("success is that of runs that finished on the same trials, one or more of them")
    return torch.stack([r.outcomes.double() for r in runs])


def mean_errors(runs: Sequence[Record]) -> list[Estimate]:
    """Mean corner error in pixels at each σ; bootstrapped over trials, and seeds where there are several."""
    return [_mean(e) for e in errors(runs).unbind(1)]


def rates(runs: Sequence[Record], threshold: float) -> list[Estimate]:
    """Percent of the trials whose error ends below a threshold in pixels, at each σ; likewise."""
    return [_mean(100.0 * (e < threshold)) for e in errors(runs).unbind(1)]


def gains(a: Sequence[Record], b: Sequence[Record], threshold: float) -> list[Estimate]:
    """Points of :func:`rates` that a is ahead of b, at each σ, trial by trial."""
    both = (100.0 * (errors(runs) < threshold) for runs in (a, b))
    return [paired(x, y) for x, y in zip(*(x.double().unbind(1) for x in both), strict=True)]


def rates_after(runs: Sequence[Record], operations: int, measure: str) -> list[Estimate]:
    """Percent of the trials after another number of warp operations than in training, at each σ.

    Args:
        runs: of one network, one for each seed.
        operations: how many.
        measure: ``aligned`` or ``found``, see :func:`icstn.experiments.two_images.summary`.

    Returns:
        means over seeds. A share p of n trials spreads by √(p(1 − p)/n) with the trials, each of whose
        outcomes is not kept, and with the seeds where there are several: then the interval is Student's.
    """
    shares = torch.tensor([r.metrics["by_operations"][operations][measure] for r in runs]).double()
    half = Z * (shares * (1 - shares) / runs[0].metrics["test_items"]).sqrt()
    ends = torch.stack((shares - half, shares + half), -1)
    of_each = ((100 * x).unbind(1) for x in (shares, ends))
    return [over_seeds(values.tolist(), own.tolist()) for values, own in zip(*of_each, strict=True)]


def untouched(run: Record) -> Mapping[str, list[float]]:
    """What :func:`icstn.experiments.two_images.summary` says of the trials before anything is aligned."""
    return run.metrics["by_operations"][0]


def _mean(values: Tensor) -> Estimate:
    values = values.double()
    return paired(values, torch.zeros_like(values[:1]))
