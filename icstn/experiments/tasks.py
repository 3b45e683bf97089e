"""The three tasks: what a batch is, what the loss is, and how the test error is measured.

Training draws depend on ``(seed, restart, block of steps)`` alone, so any step can be drawn again without
drawing those before it. Test perturbations depend on the task and σ alone: all models of a table meet the
same ones, and their errors are paired.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from icstn import datasets
from icstn.experiments.models import Model, build_model
from icstn.experiments.spec import Spec
from icstn.perturb import perturbations
from icstn.sampling import Frame, sample
from icstn.warps import corner_error, family

#: Steps whose draws are made at once.
BLOCK = 100


class Batch(NamedTuple):
    """One training or test batch: images, initial warps, and labels (empty for planar alignment)."""

    image: Tensor
    p: Tensor
    label: Tensor


class Loss(NamedTuple):
    """What a step reports: the mean loss and the mean error (%, or pixels for planar alignment)."""

    loss: Tensor
    error: Tensor


class Task:
    """Data of one experiment on one device.

    Args:
        spec: any spec of the experiment.
        frame: where the template lies in an image.
        channels: of an image.
    """

    unit = "%"

    def __init__(self, spec: Spec, frame: Frame, channels: int, device: torch.device) -> None:
        self.spec, self.frame, self.channels, self.device = spec, frame, channels, device
        self.warp = family(spec.warp)

    def model(self) -> Model:
        """The spec's model with its initial weights, on the device."""
        return build_model(self.spec, self.frame, self.channels).to(self.device)

    @property
    def data(self) -> dict[str, Any]:
        """Provenance of the data: name, fingerprints, notes."""
        raise NotImplementedError

    def batches(self, block: int, restart: int = 0) -> Iterator[Batch]:
        """The training batches of steps ``block·BLOCK`` to ``(block + 1)·BLOCK − 1``."""
        raise NotImplementedError

    def loss(self, model: Model, batch: Batch) -> Loss:
        """Loss and error of a batch."""
        raise NotImplementedError

    def evaluate(self, model: Model) -> dict[str, Any]:
        """The test metrics that end in a Record."""
        raise NotImplementedError

    def training_warps(self, generator: torch.Generator) -> Tensor:
        """A block of initial warps, ``(BLOCK, batch, k)``, on the device."""
        p = perturbations(
            BLOCK * self.spec.batch, self.spec.sigma, self.frame, self.warp, generator=generator
        )
        return p.view(BLOCK, self.spec.batch, -1).to(self.device)

    def test_warps(self, n: int, draw: int) -> Tensor:
        """Test perturbations ``(n, k)`` number ``draw``, shared by all models of the experiment."""
        generator = seeded("test", self.spec.experiment, self.spec.image, self.spec.sigma, draw)
        return perturbations(n, self.spec.sigma, self.frame, self.warp, generator=generator).to(self.device)


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
        }

    def batches(self, block: int, restart: int = 0) -> Iterator[Batch]:
        """Images and perturbations drawn on the fly, uniformly and with replacement."""
        generator = seeded("train", self.spec.seed, restart, block)
        warps = self.training_warps(generator)
        size = (BLOCK, self.spec.batch)
        index = torch.randint(len(self.train), size, generator=generator).to(self.device)
        for i, p in zip(index, warps, strict=True):
            yield Batch(self.prepare(self.train_images[i]), p, self.train_labels[i])

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 → float32: to [0, 1] on MNIST, zero mean and unit variance of each image on GTSRB."""
        x = images.float()
        if not self.standardize:
            return x / 255
        std, mean = torch.std_mean(x, (1, 2, 3), keepdim=True, correction=0)
        return (x - mean) / std.clamp_min(1.0)

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
    def evaluate(self, model: Model) -> dict[str, Any]:
        """Test error in percent with its 95 % interval over images, for each draw and overall."""
        draws = [self._wrong(model, d) for d in range(self.spec.test_draws)]
        wrong = torch.stack(draws)  # (draws, images)
        errors = (wrong.mean(1) * 100).tolist()
        per_image = wrong.mean(0) * 100
        half = 1.96 * per_image.std().item() / math.sqrt(len(per_image))
        error = wrong.mean().item() * 100
        return {
            "test_error": error,
            "unit": "%",
            "interval": [max(0.0, error - half), error + half],
            "test_items": wrong.shape[1],
            "test_draws": wrong.shape[0],
            "errors_by_draw": errors,
        }

    def _wrong(self, model: Model, draw: int) -> Tensor:
        """1 for each misclassified test image, else 0."""
        flags = [model(b.image, b.p).argmax(1) != b.label for b in self.test_batches(draw)]
        return torch.cat(flags).double().cpu()


class Planar(Task):
    """Planar alignment of one photograph (Sec. 5.1): squared L2 error of the warp parameters.

    The photograph is shifted and scaled so that its ground-truth crop has zero mean and unit variance.
    """

    unit = "px"

    def __init__(self, spec: Spec, image: Tensor, frame: Frame, device: torch.device) -> None:
        super().__init__(spec, frame, image.shape[1], device)
        crop = sample(image, self.warp.identity(1), frame, self.warp)
        self.photograph = ((image - crop.mean()) / crop.std()).to(device)

    @property
    def data(self) -> dict[str, Any]:
        """Provenance of the photograph."""
        digest = hashlib.sha256(self.photograph.cpu().numpy().tobytes()).hexdigest()
        return {"name": self.spec.image, "stand_in": False, "fingerprints": {"image": digest}, "notes": []}

    def batches(self, block: int, restart: int = 0) -> Iterator[Batch]:
        """The photograph with new perturbations; the true warp is the identity."""
        for p in self.training_warps(seeded("train", self.spec.seed, restart, block)):
            yield Batch(self.photograph, p, torch.empty(0))

    def loss(self, model: Model, batch: Batch) -> Loss:
        """Mean squared L2 norm of the final parameters, and the corner error in pixels."""
        p = model(batch.image, batch.p)
        return Loss(p.square().sum(1).mean(), self.pixels(p.detach()).mean())

    def pixels(self, p: Tensor) -> Tensor:
        """RMS distance of the corners from their true places, in template pixels."""
        return corner_error(self.warp, p) / self.frame.pixel

    @torch.no_grad()
    def evaluate(self, model: Model) -> dict[str, Any]:
        """Corner error in pixels and parameter error, after each number of warp operations."""
        n = model.transformer.operations if model.transformer else 0
        most = n if self.spec.kind == "c-STN" and n > 1 else max(12, 2 * n)
        p = self.test_warps(self.spec.test_items or 10_000, 0)
        warps = _reapply(model, self.photograph, p, most)
        curve = [self.summary(w) for w in warps]
        return {
            "test_error": curve[n]["corner_px"],
            "unit": "px",
            "parameter_error": curve[n]["parameters"],
            "median_px": curve[n]["median_px"],
            "interval": curve[n]["interval"],
            "test_items": len(p),
            "test_draws": 1,
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


def _reapply(model: Model, image: Tensor, p: Tensor, n: int) -> list[Tensor]:
    """All warps of n operations, applying a one-step predictor again and again, in chunks."""
    chunks = []
    for part in p.split(1000):
        warps = [part]
        for _ in range(n):
            warps.append(model.warps(image, warps[-1], 1)[-1])
        chunks.append(torch.stack(warps))
    return list(torch.cat(chunks, 1))


def seeded(*values: object) -> torch.Generator:
    """A CPU generator whose seed is a hash of the values."""
    digest = hashlib.sha256(repr(values).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@dataclass(frozen=True)
class DataOptions:
    """Where data come from.

    Attributes:
        folder: the user's own data folder (``--data``), or none.
        stand_in: use the rendered stand-in in place of GTSRB.
    """

    folder: str | None = None
    stand_in: bool = False


def make_task(spec: Spec, data: DataOptions, device: torch.device | str) -> Task:
    """Load the spec's data and put them on the device.

    Raises:
        DataError: the data can't be had; the message lists the sources tried.
    """
    device = torch.device(device)
    if spec.experiment == "baselines":  # the trials are those of Table 1
        spec = replace(spec, experiment="table_1")
    if spec.experiment == "table_1":
        scene = datasets.planar_scene(spec.image, gray=True)
        return Planar(spec, scene.image, scene.frame, device)
    if spec.experiment == "table_2":
        train, test = datasets.mnist("train", data.folder), datasets.mnist("test", data.folder)
        return Classification(spec, train, test, Frame.full(28, 28), device, standardize=False)
    train, test = _gtsrb("train", data), _gtsrb("test", data)
    return Classification(spec, train, test, Frame.crop(50, 50, 36, 36), device, standardize=True)


def _gtsrb(split: Literal["train", "test"], data: DataOptions) -> datasets.Dataset:
    if data.stand_in:
        return datasets.gtsrb_stand_in(split)
    return datasets.gtsrb(split, data.folder)
