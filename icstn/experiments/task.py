"""What a task is: training batches, a loss, and how the test error is measured.

Training draws depend on ``(seed, restart, block of steps)`` alone, so any step can be drawn again without
drawing those before it. Test perturbations depend on the task and σ alone: all models of a table meet the
same ones, and their errors are paired.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from icstn.experiments.models import Model, build_model
from icstn.experiments.spec import RunSpec, Spec
from icstn.perturb import perturbations
from icstn.sampling import Frame
from icstn.warps import family

#: Steps whose draws are made at once.
BLOCK = 100


class Batch(NamedTuple):
    """One training or test batch: images, initial warps, and labels.

    For planar alignment, whose true warp is the identity, the labels are empty; for pairs of images they are
    the true warps.
    """

    image: Tensor
    p: Tensor
    label: Tensor


class Loss(NamedTuple):
    """What a step reports: the mean loss and the mean error (%, or pixels for planar alignment)."""

    loss: Tensor
    error: Tensor


class Evaluation(NamedTuple):
    """What a test shows.

    Attributes:
        metrics: of the Record, JSON-able; ``test_error`` and its ``unit`` at least.
        outcomes: of each item under each draw, see :class:`icstn.experiments.records.Record`.
        remark: what a reader of the number has to know: that it is no better than doing nothing.
        diverged: whether the model leaves things worse than it found them.
    """

    metrics: dict[str, Any]
    outcomes: Tensor
    remark: str = ""
    diverged: bool = False


class Draws(NamedTuple):
    """What a block of steps draws.

    Attributes:
        p: initial warps ``(steps, batch, k)``.
        item: numbers of images ``(steps, batch)``.
        seed: for whatever else the images are subjected to.
    """

    p: Tensor
    item: Tensor
    seed: int = 0

    def to(self, device: torch.device) -> Draws:
        """On the device; a GPU gets them from pinned memory, without waiting for them."""
        if device.type != "cuda":
            return Draws(self.p.to(device), self.item.to(device), self.seed)
        p, item = (t.pin_memory().to(device, non_blocking=True) for t in (self.p, self.item))
        return Draws(p, item, self.seed)


class Task(ABC):
    """Data of one experiment on one device.

    Args:
        spec: any spec of the experiment.
        frame: where the template lies in an image.
        channels: of an image.
        device: where it computes.
    """

    def __init__(self, spec: RunSpec, frame: Frame, channels: int, device: torch.device) -> None:
        self.spec, self.frame, self.channels, self.device = spec, frame, channels, device
        self.warp = family(spec.warp)

    def model(self) -> Model:
        """The spec's model with its initial weights, on the device."""
        assert isinstance(self.spec, Spec)
        return build_model(self.spec, self.frame, self.channels).to(self.device)

    @property
    @abstractmethod
    def data(self) -> dict[str, Any]:
        """Provenance of the data: name, fingerprints, notes."""

    @abstractmethod
    def draws(self, block: int, restart: int = 0) -> Draws:
        """What steps ``block·BLOCK`` to ``(block + 1)·BLOCK − 1`` draw, on the CPU."""

    @abstractmethod
    def batches(self, draws: Draws) -> Iterator[Batch]:
        """The training batches of a block, from its draws on the device."""

    @abstractmethod
    def loss(self, model: Model, batch: Batch) -> Loss:
        """Loss and error of a batch."""

    @abstractmethod
    def evaluate(self, model: Model) -> Evaluation:
        """Test a model."""

    def block(self, block: int, restart: int = 0) -> Iterator[Batch]:
        """The training batches of a block, drawn here and now."""
        return self.batches(self.draws(block, restart).to(self.device))

    def training_warps(self, generator: torch.Generator) -> Tensor:
        """A block of initial warps, ``(BLOCK, batch, k)``."""
        assert isinstance(self.spec, Spec)
        sigma = self.spec.sigma if self.spec.sigma_trained < 0 else self.spec.sigma_trained
        p = perturbations(BLOCK * self.spec.batch, sigma, self.frame, self.warp, generator=generator)
        return p.view(BLOCK, self.spec.batch, -1)

    def test_warps(self, n: int, draw: int) -> Tensor:
        """Test perturbations ``(n, k)`` number ``draw``, shared by all models of the experiment."""
        split = getattr(self.spec, "tested_on", "test")
        generator = seeded(split, self.spec.about.trials, self.spec.image, self.spec.sigma, draw)
        return perturbations(n, self.spec.sigma, self.frame, self.warp, generator=generator).to(self.device)


def seeded(*values: object) -> torch.Generator:
    """A CPU generator whose seed is a hash of the values."""
    digest = hashlib.sha256(repr(values).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
