"""Records with given numbers, for tests of what is judged by them."""

from __future__ import annotations

from dataclasses import replace

import torch

from icstn.experiments import Record, cells, paper

FACTS = {"command": "icstn train", "commit": "c" * 40, "device": "CPU, some", "threads": 1, "steps": 10}

#: The paper's own numbers of Table 2.
PAPER = {m: row.error for m, row in paper.TABLE_2.items()}


def made(
    experiment: str, model: str, error: float, *, half: float = 0.1, seed: int = 0, preset: str = "quick",
    sigma: float | None = None, **changes: object,
) -> Record:  # fmt: skip
    """A finished Record of a cell, its error and half interval as given."""
    spec = next(s for s in cells(experiment, preset, (seed,), [model]) if sigma is None or s.sigma == sigma)
    metrics = {"test_error": error, "interval": [error - half, error + half]}
    curve = [error * 2, error, error * 0.5, error * 0.5]
    steps = [{"corner_px": e, "interval": [0.9 * e, 1.1 * e]} for e in curve]
    if experiment == "table_1":
        n = int(model.rsplit("-", 1)[1])
        metrics["by_operations"] = steps[:1] * n + steps[1:]
    weights = {"w": torch.zeros(paper.TABLE_2[model].capacity if experiment == "table_2" else 3)}
    return Record(replace(spec, **changes), "finished", metrics, {}, dict(FACTS), weights)


def table(experiment: str, errors: dict[str, float], **options) -> list[Record]:
    """Records of some models."""
    return [made(experiment, m, e, **options) for m, e in errors.items()]
