"""A finished run as a network that stands alone, its images prepared as in training, and as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from icstn.experiments.classification import prepared
from icstn.experiments.models import Model, build_model
from icstn.experiments.records import Record
from icstn.experiments.spec import Spec
from icstn.experiments.tasks import placed, planar_task
from icstn.export import export_onnx
from icstn.files import StorageError, check_file


class Standalone(NamedTuple):
    """A network with what an exporter asks for.

    Attributes:
        network: with the run's weights.
        example: inputs of the right sizes.
        inputs, outputs: their names.
    """

    network: nn.Module
    example: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Classifier(nn.Module):
    """Images as the data hold them, uint8 ``(batch, channels, H, W)`` → logits and final warps."""

    def __init__(self, model: Model, standardize: bool) -> None:
        super().__init__()
        self.model, self.standardize = model, standardize

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """From the identity warp, as an image without a perturbation is classified."""
        p = self.model.warp.identity(image.shape[0], device=image.device)
        aligned, warps = self.model.align(prepared(image, self.standardize), p)
        assert self.model.classifier is not None
        return self.model.classifier(aligned), warps[-1]


def self_contained(record: Record) -> Standalone:
    """The network of a run, without its data.

    A classifier takes images as they are; planar alignment takes float images that were shifted and scaled
    like the photograph of the training, and initial warps.

    Raises:
        ValueError: the run has no network (a classical method), diverged, or is of pairs of images.
        StorageError: its weights are another network's.
    """
    spec = record.spec
    if not isinstance(spec, Spec) or record.status != "finished":
        why = "is a classical method" if not isinstance(spec, Spec) else record.status
        raise ValueError(f"{spec.key} {why}, so it left no network")
    if spec.about.kind == "pairs":
        raise ValueError(f"{spec.key} aligns pairs of images; such a network can't stand alone yet")
    generator = torch.Generator().manual_seed(0)
    if spec.about.kind == "planar":
        task = planar_task(spec, "cpu")
        model = _loaded(task.model(), record)
        example = (task.photograph.expand(2, -1, -1, -1), task.test_warps(2, 0))
        return Standalone(model, example, ("image", "p"), ("warps",))
    place = placed(spec)
    model = _loaded(build_model(spec, place.frame, place.channels), record)
    shape = (2, place.channels, *place.image_size)
    image = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    return Standalone(Classifier(model, place.standardize), (image,), ("image",), ("logits", "warps"))


def export_run(record: Record, path: Path) -> float:
    """Write a run's network with :func:`icstn.export.export_onnx`; the largest difference to PyTorch's."""
    check_file(path)
    found = self_contained(record)
    return export_onnx(found.network, path, *found.example, names=found.inputs, outputs=found.outputs)


def _loaded(model: Model, record: Record) -> Model:
    try:
        model.load_state_dict(record.weights)
    except RuntimeError as error:
        raise StorageError(f"{record.spec.key} holds the weights of another network; run it again") from error
    return model.eval()
