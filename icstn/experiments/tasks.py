"""The task of a Spec, with its data loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch

from icstn import datasets
from icstn.experiments.classification import Classification
from icstn.experiments.execution import DataOptions
from icstn.experiments.planar import Planar
from icstn.experiments.spec import FolderSpec, RunSpec, Spec
from icstn.experiments.task import Task
from icstn.experiments.two_images import TwoImages
from icstn.sampling import Frame

Split = Literal["train", "test"]


class Seen(NamedTuple):
    """How the images of a data set are seen.

    Attributes:
        frame: where the template lies in them.
        image_size: ``(height, width)``.
        channels: of an image.
        standardize: to zero mean and unit variance, each.
    """

    frame: Frame
    image_size: tuple[int, int]
    channels: int
    standardize: bool


#: By the name of the data.
PLACED = {
    "mnist": Seen(Frame.full(28, 28), (28, 28), 1, standardize=False),
    "gtsrb": Seen(Frame.crop(50, 50, 36, 36), (50, 50), 3, standardize=True),
}


def placed(spec: Spec) -> Seen:
    """How the images of a classification are seen."""
    if isinstance(spec, FolderSpec):
        frame = Frame.full(spec.size, spec.size)
        return Seen(frame, (spec.size, spec.size), 1 if spec.gray else 3, standardize=True)
    return PLACED[spec.about.data]


def make_task(spec: RunSpec, data: DataOptions, device: torch.device | str) -> Task:
    """Load the spec's data and put them on the device.

    Raises:
        DataError: the data can't be had; the message lists the sources tried.
    """
    device = torch.device(device)
    if isinstance(spec, FolderSpec):
        return folder_task(spec, data, device)
    if spec.about.kind == "planar":
        return planar_task(spec, device)
    if spec.about.kind == "pairs":
        return TwoImages(spec, device)
    assert isinstance(spec, Spec)
    place = placed(spec)
    if spec.about.data == "mnist":
        sets = _splits(spec, lambda split: datasets.mnist(split, data.folder))
    else:
        sets = _splits(spec, lambda split: _gtsrb(split, data))
    train, test = (datasets.reduced(x, spec.resolution) if spec.resolution else x for x in sets)
    return Classification(spec, train, test, place.frame, device, place.standardize)


def _splits(
    spec: Spec, load: Callable[[Split], datasets.Dataset]
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """What is trained on, and what is tested on; the test set is not even read for a validation."""
    if spec.tested_on == "validation":
        return datasets.split_validation(load("train"))
    return load("train"), load("test")


def planar_task(spec: RunSpec, device: torch.device | str) -> Planar:
    """The planar experiment on the spec's photograph."""
    scene = datasets.planar_scene(spec.image, gray=True)
    return Planar(spec, scene.image, scene.frame, torch.device(device))


def folder_task(spec: FolderSpec, data: DataOptions, device: torch.device | str) -> Classification:
    """The classification of a folder of one's own images: every sixth of each class is held out, and tested.

    Raises:
        DataError: no data folder is named, it can't be read, or its images are not the spec's.
    """
    if data.folder is None:
        raise datasets.DataError("a run on a folder of images needs that folder as its data folder")
    found = datasets.image_folder(data.folder, spec.size, gray=spec.gray)
    if found.fingerprint != spec.fingerprint:
        raise datasets.DataError(f"{data.folder} does not hold the images that this run is of: fit it anew")
    return fit_task(spec, found, device)


def fit_task(spec: FolderSpec, images: datasets.Dataset, device: torch.device | str) -> Classification:
    """The same with the images at hand."""
    train, test = datasets.split_validation(images)
    place = placed(spec)
    return Classification(spec, train, test, place.frame, torch.device(device), place.standardize)


def _gtsrb(split: Split, data: DataOptions) -> datasets.Dataset:
    if data.stand_in:
        return datasets.gtsrb_stand_in(split)
    return datasets.gtsrb(split, data.folder)
