"""Curves: test error against the number of warp operations applied (Fig. 7)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from icstn.experiments.records import Record


@dataclass(frozen=True)
class ErrorCurve:
    """Test error of one model after 0, 1, 2, … warp operations.

    Args:
        error: mean error for each number of operations, ``(operations + 1,)``; NaN leaves a gap.
        trained: how many operations the model was trained with.
        spread: standard deviation over seeds, of the same shape, if there are several.
    """

    error: np.ndarray
    trained: int
    spread: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.trained < len(self.error):
            most = len(self.error) - 1
            raise ValueError(f"the curve ends at {most} warp operations, before the trained {self.trained}")

    @property
    def best(self) -> int:
        """The number of operations with the least error."""
        return int(np.nanargmin(self.error))


def error_curves(records: Iterable[Record], key: str = "corner_px") -> dict[str, dict[str, ErrorCurve]]:
    """Curves of Figure 7: title of the panel (σ) → model → test error after each number of operations.

    Args:
        records: of ``table_1``; several seeds are averaged.
        key: ``corner_px``, ``median_px`` or ``parameters``.
    """
    groups: dict[tuple[float, str], list[list[float]]] = {}
    for r in sorted(records, key=lambda r: (r.spec.sigma, operations(r.spec.model), r.spec.model)):
        if r.status == "finished":
            by_step = [step[key] for step in r.metrics["by_operations"]]
            groups.setdefault((r.spec.sigma, r.spec.model), []).append(by_step)
    panels: dict[str, dict[str, ErrorCurve]] = {}
    for (sigma, model), runs in groups.items():
        most = min(map(len, runs))
        errors = np.array([run[:most] for run in runs])
        spread = errors.std(0, ddof=1) if len(runs) > 1 else None
        curve = ErrorCurve(errors.mean(0), operations(model), spread)
        panels.setdefault(f"σ = {sigma:g} px", {})[model] = curve
    return panels


def operations(model: str) -> int:
    """The number of warp operations in a model's name, such as 4 in ``IC-STN-4``."""
    return int(model.rsplit("-", 1)[1])
