"""A network fitted on a folder of images as one file, and its use on further images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from icstn.datasets.folder import read_picture
from icstn.experiments.classification import prepared
from icstn.experiments.models import build_model
from icstn.experiments.records import Record
from icstn.experiments.spec import FolderSpec
from icstn.files import StorageError, read_bytes, write_atomic
from icstn.sampling import Frame, sample


class FittedClassifier(nn.Module):
    """A network with the names of its classes, for images that lie as they lie (no perturbation).

    Args:
        spec: what was trained; says how images are read.
        classes: names of the classes by their numbers.

    Attributes:
        model: the network, see :class:`icstn.experiments.Model`.
    """

    def __init__(self, spec: FolderSpec, classes: Sequence[str]) -> None:
        super().__init__()
        self.spec, self.classes = spec, tuple(classes)
        self.model = build_model(spec, Frame.full(spec.size, spec.size), 1 if spec.gray else 3)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of images ``(n, 1 or 3, size, size)`` with values from 0 to 255."""
        p = self.model.warp.identity(len(images), device=images.device)
        return self.model(prepared(images, True), p)

    def read(self, files: Iterable[str | os.PathLike[str]]) -> Tensor:
        """Pictures as the network was trained on them, ``(n, 1 or 3, size, size)`` uint8.

        Raises:
            DataError: one can't be read.
        """
        read = [torch.from_numpy(read_picture(f, self.spec.size, self.spec.gray)) for f in files]
        images = torch.stack(read)
        return images[:, None] if self.spec.gray else images.permute(0, 3, 1, 2).contiguous()

    @torch.inference_mode()
    def classify(self, files: Iterable[str | os.PathLike[str]]) -> list[tuple[str, float]]:
        """The class of each picture, and the network's probability of it.

        Raises:
            DataError: one can't be read.
        """
        sure, label = self(self.read(files)).softmax(1).max(1)
        return [(self.classes[i], p) for i, p in zip(label.tolist(), sure.tolist(), strict=True)]

    @torch.inference_mode()
    def align(self, images: Tensor) -> Tensor:
        """Images ``(n, 1 or 3, size, size)`` as the network aligns them, in their own values, float32.

        A network without a transformer leaves them as they are.
        """
        p = self.model.warp.identity(len(images), device=images.device)
        warps = self.model.warps(prepared(images, True), p)
        return sample(images.float(), warps[-1], self.model.frame, self.model.warp)


def save_classifier(path: Path, record: Record, classes: Sequence[str]) -> None:
    """Write a Record's network to one safetensors file, with all that is needed to apply it.

    Raises:
        StorageError: the file can't be written.
    """
    about = json.dumps({"spec": asdict(record.spec), "classes": list(classes)}, ensure_ascii=False)
    weights = {name: w.contiguous() for name, w in record.weights.items()}
    write_atomic(path, safetensors.torch.save(weights, {"icstn": about}))


def load_classifier(path: str | os.PathLike[str]) -> FittedClassifier:
    """Read what :func:`save_classifier` wrote; nothing in the file is executed.

    Raises:
        StorageError: there is no such file, or it holds something else.
    """
    data = read_bytes(Path(path))
    try:
        weights = safetensors.torch.load(data)
        size = int.from_bytes(data[:8], "little")
        about = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["icstn"])
        fitted = FittedClassifier(FolderSpec.from_dict(about["spec"]), about["classes"])
        fitted.model.load_state_dict(weights)
    except (safetensors.SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise StorageError(f"{path} is no network that icstn fit has written: {error}") from error
    return fitted.eval()
