"""Elsewhere than in training: a trained model with more warp operations, and under other noise.

Nothing is trained here. Test items and the directions of their perturbations are drawn as in the tables, so
that models are paired under each noise and after each number of operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import replace

import torch
from torch import Tensor

from icstn.experiments.classification import Classification
from icstn.experiments.models import Model
from icstn.experiments.planar import Planar
from icstn.experiments.task import Batch
from icstn.sampling import sample
from icstn.transformers import ICSTN

#: Standard deviations of the test noise in pixels, by experiment: a half to twice the paper's.
NOISE = {
    "table_1": (2.5, 5.0, 7.5, 10.0),
    "table_2": (1.75, 3.5, 5.25, 7.0),
    "table_3": (1.75, 3.5, 5.25, 7.0),
}

#: Warp operations that a classifier's predictor is applied for, at most.
MOST = 8

#: Test items at once.
CHUNK = 500


def under_noise(task: Planar | Classification, model: Model, sigma: float) -> Tensor:
    """Error of each test item under noise of another size, ``(items,)``: pixels, or 100 where misclassified.

    Args:
        task: whose test items, drawn once (number 0).
        model: a trained one.
        sigma: of the test noise, in pixels.
    """
    other = copy(task)
    other.spec = replace(task.spec, sigma=sigma)  # type: ignore[assignment]
    if isinstance(other, Planar):
        p = other.test_warps(other.spec.test_items or 10_000, 0)
        with torch.inference_mode():
            ends = [model.warps(other.photograph, part)[-1] for part in p.split(CHUNK)]
        return other.pixels(torch.cat(ends)).double()
    with torch.inference_mode():
        return torch.cat([_wrong(model(b.image, b.p), b) for b in other.test_batches(0)])


def by_operations(task: Classification, model: Model) -> Tensor:
    """Error of each test image after 0, 1, … :data:`MOST` operations, ``(operations + 1, images)``, 0 or 100.

    Raises:
        ValueError: the model has no single predictor that passes on warp parameters.
    """
    if not isinstance(model.transformer, ICSTN):
        raise ValueError(f"only an IC-STN can be applied for more operations, not {type(model.transformer)}")
    with torch.inference_mode():
        return torch.cat([torch.stack(list(_steps(model, b))) for b in task.test_batches(0, CHUNK)], 1)


def _steps(model: Model, batch: Batch) -> Iterator[Tensor]:
    assert model.classifier is not None
    for p in model.warps(batch.image, batch.p, MOST):
        yield _wrong(model.classifier(sample(batch.image, p, model.frame, model.warp)), batch)


def _wrong(logits: Tensor, batch: Batch) -> Tensor:
    return (logits.argmax(1) != batch.label).double() * 100
