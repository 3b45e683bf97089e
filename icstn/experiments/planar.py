"""Planar alignment of one photograph (Sec. 5.1): error in pixels."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from icstn.experiments.models import Model
from icstn.experiments.recurrent import ElmanAlignment
from icstn.experiments.spec import RunSpec
from icstn.experiments.task import Batch, Draws, Evaluation, Loss, Task, seeded
from icstn.sampling import Frame, sample
from icstn.transformers import CompositionalSTN
from icstn.warps import corner_error

#: Warp operations that the test goes on to, at least; twice as many as in training if that is more.
BEYOND = 12


class Planar(Task):
    """Planar alignment of one photograph (Sec. 5.1): squared L2 error of the warp parameters.

    The photograph is shifted and scaled so that its ground-truth crop has zero mean and unit variance.
    """

    def __init__(self, spec: RunSpec, image: Tensor, frame: Frame, device: torch.device) -> None:
        super().__init__(spec, frame, image.shape[1], device)
        crop = sample(image, self.warp.identity(1), frame, self.warp)
        self.photograph = ((image - crop.mean()) / crop.std()).to(device)

    @property
    def data(self) -> dict[str, Any]:
        """Provenance of the photograph."""
        digest = hashlib.sha256(self.photograph.cpu().numpy().tobytes()).hexdigest()
        return {"name": self.spec.image, "stand_in": False, "fingerprints": {"image": digest}, "notes": []}

    def draws(self, block: int, restart: int = 0) -> Draws:
        """Perturbations alone: there is one image."""
        warps = self.training_warps(seeded("train", self.spec.seed, restart, block))
        return Draws(warps, torch.zeros(warps.shape[:2], dtype=torch.long))

    def batches(self, draws: Draws) -> Iterator[Batch]:
        """The photograph with new perturbations; the true warp is the identity."""
        none = torch.empty(0, device=self.device)
        for p in draws.p:
            yield Batch(self.photograph, p, none)

    def loss(self, model: Model, batch: Batch) -> Loss:
        """Mean squared L2 norm of the final parameters, and the corner error in pixels."""
        p = model(batch.image, batch.p)
        return Loss(p.square().sum(1).mean(), self.pixels(p.detach()).mean())

    def pixels(self, p: Tensor) -> Tensor:
        """RMS distance of the corners from their true places, in template pixels."""
        return corner_error(self.warp, p) / self.frame.pixel

    @torch.no_grad()
    def evaluate(self, model: Model) -> Evaluation:
        """Corner error in pixels and parameter error, after each number of warp operations."""
        p = self.test_warps(self.spec.test_items or 10_000, 0)
        warps = reapplied(model, self.photograph, p)
        assert model.transformer is not None
        curve = [self.summary(w) for w in warps]
        n = model.transformer.operations
        worse = curve[n]["corner_px"] > curve[0]["corner_px"]
        remark = f"leaves more error than the {curve[0]['corner_px']:.3f} px it starts from" if worse else ""
        metrics = self.metrics(curve, n) | {"test_items": len(p), "test_draws": 1}
        return Evaluation(metrics, self.pixels(warps[n]).float()[None].cpu(), remark, worse)

    def metrics(self, curve: list[dict[str, Any]], n: int) -> dict[str, Any]:
        """The metrics of a Record from the summaries after 0, 1, … operations, of which the nth counts."""
        return {
            "test_error": curve[n]["corner_px"],
            "unit": self.spec.about.unit,
            "parameter_error": curve[n]["parameters"],
            "median_px": curve[n]["median_px"],
            "interval": curve[n]["interval"],
            "by_operations": curve,
        }

    def summary(self, p: Tensor) -> dict[str, Any]:
        """What is left of the perturbations: corner error in pixels, parameter error, share under a pixel."""
        error = self.pixels(p).double()
        half = 1.96 * error.std().item() / math.sqrt(len(p))
        mean = error.mean().item()
        return {
            "corner_px": mean,
            "median_px": error.median().item(),
            "parameters": p.double().norm(dim=1).mean().item(),
            "interval": [mean - half, mean + half],
            "under_1_px": (error < 1).double().mean().item(),
        }


def reapplied(model: Model, image: Tensor, p: Tensor, chunk: int = 1000) -> list[Tensor]:
    """The warps before the first and after each warp operation, beyond the trained number where that can be.

    One predictor is applied again and again; a c-STN with several has no more operations than predictors.
    """
    transformer = model.transformer
    assert transformer is not None
    n = transformer.operations
    several = isinstance(transformer, CompositionalSTN) and n > 1
    most = n if several else max(BEYOND, 2 * n)
    parts = [torch.stack(_operations(model, image, part, n, most)) for part in p.split(chunk)]
    return list(torch.cat(parts, 1))


def _operations(model: Model, image: Tensor, p: Tensor, n: int, most: int) -> list[Tensor]:
    """The trained operations in one go, then one at a time as far as the last; a state must be kept."""
    if isinstance(model.transformer, ElmanAlignment):
        return model.warps(image, p, most)
    warps = model.warps(image, p, n)
    for _ in range(most - n):
        warps.append(model.warps(image, warps[-1], 1)[-1])
    return warps
