"""Perturbed MNIST, GTSRB (Sec. 5.2 and 5.3) and folders: cross-entropy, error in percent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from icstn import datasets
from icstn.experiments.augmentation import varied_appearance
from icstn.experiments.models import Model
from icstn.experiments.spec import Spec
from icstn.experiments.task import Batch, Draws, Evaluation, Loss, Task, seeded
from icstn.sampling import Frame


def prepared(images: Tensor, standardize: bool) -> Tensor:
    """uint8 → float32: to [0, 1] on MNIST, zero mean and unit variance of each image on GTSRB."""
    x = images.float()
    if not standardize:
        return x / 255
    std, mean = torch.std_mean(x, (1, 2, 3), keepdim=True, correction=0)
    return (x - mean) / std.clamp_min(1.0)


class Classification(Task):
    """Perturbed MNIST and GTSRB: cross-entropy, error in percent."""

    def __init__(
        self,
        spec: Spec,
        train: datasets.Dataset,
        test: datasets.Dataset,
        frame: Frame,
        device: torch.device,
        standardize: bool,
    ) -> None:
        super().__init__(spec, frame, train.images.shape[1], device)
        self.spec: Spec = spec
        self.train, self.test, self.standardize = train, test, standardize

    @cached_property
    def train_images(self) -> Tensor:
        """Training images, uint8, on the device."""
        return self.train.images.to(self.device)

    @cached_property
    def train_labels(self) -> Tensor:
        """Training labels on the device."""
        return self.train.labels.to(self.device)

    @property
    def data(self) -> dict[str, Any]:
        """Provenance of the data."""
        both = (self.train, self.test)
        return {
            "name": self.train.name,
            "stand_in": any(d.stand_in for d in both),
            "fingerprints": {d.split: d.fingerprint for d in both},
            "notes": sorted({note for d in both for note in d.notes}),
            **({"classes": list(self.train.classes)} if self.train.classes else {}),
        }

    def draws(self, block: int, restart: int = 0) -> Draws:
        """Perturbations, and images uniformly and with replacement."""
        generator = seeded("train", self.spec.seed, restart, block)
        warps = self.training_warps(generator)
        item = torch.randint(len(self.train), warps.shape[:2], generator=generator)
        return Draws(warps, item, generator.initial_seed())

    def batches(self, draws: Draws) -> Iterator[Batch]:
        """Images, perturbations and labels."""
        generator = torch.Generator().manual_seed(draws.seed ^ 1)
        for p, i in zip(draws.p, draws.item, strict=True):
            image = self.prepare(self.train_images[i])
            yield Batch(varied_appearance(image, self.spec.appearance, generator), p, self.train_labels[i])

    def prepare(self, images: Tensor) -> Tensor:
        """As the networks see them, see :func:`prepared`."""
        return prepared(images, self.standardize)

    def loss(self, model: Model, batch: Batch) -> Loss:
        """Cross-entropy and percentage of wrong labels."""
        logits = model(batch.image, batch.p)
        wrong = logits.detach().argmax(1) != batch.label
        return Loss(F.cross_entropy(logits, batch.label), wrong.float().mean() * 100)

    def test_batches(self, draw: int, size: int = 500) -> Iterator[Batch]:
        """The perturbed test set, perturbation number ``draw``."""
        n = self.spec.test_items or len(self.test)
        p = self.test_warps(len(self.test), draw)
        for i in range(0, n, size):
            j = min(i + size, n)
            image = self.prepare(self.test.images[i:j].to(self.device))
            yield Batch(image, p[i:j], self.test.labels[i:j].to(self.device))

    @torch.no_grad()
    def evaluate(self, model: Model) -> Evaluation:
        """Test error in percent with its 95 % interval over images, for each draw and overall."""
        wrong = torch.stack([self._wrong(model, d) for d in range(self.spec.test_draws)])  # (draws, images)
        per_image = wrong.double().mean(0) * 100
        half = 1.96 * per_image.std().item() / math.sqrt(len(per_image))
        error = wrong.double().mean().item() * 100
        metrics = {
            "test_error": error,
            "unit": self.spec.about.unit,
            "interval": [max(0.0, error - half), error + half],
            "test_items": wrong.shape[1],
            "test_draws": wrong.shape[0],
            "errors_by_draw": (wrong.double().mean(1) * 100).tolist(),
        }
        return Evaluation(metrics, wrong, self._remark(error))

    def _wrong(self, model: Model, draw: int) -> Tensor:
        """Whether each test image is misclassified."""
        return torch.cat([model(b.image, b.p).argmax(1) != b.label for b in self.test_batches(draw)]).cpu()

    def _remark(self, error: float) -> str:
        """Whether a model that never looks at the image would do as well."""
        labels = self.test.labels[: self.spec.test_items or None]
        nothing = 100 - labels.bincount().max().item() / len(labels) * 100
        return (
            f"no better than always naming the commonest class ({nothing:.2f} %)" if error >= nothing else ""
        )
