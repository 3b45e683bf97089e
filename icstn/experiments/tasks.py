"""The task of a Spec, with its data loaded."""

from __future__ import annotations

from typing import Literal

import torch

from icstn import datasets
from icstn.experiments.classification import Classification
from icstn.experiments.execution import DataOptions
from icstn.experiments.planar import Planar
from icstn.experiments.spec import RunSpec, Spec
from icstn.experiments.task import Task
from icstn.sampling import Frame


def make_task(spec: RunSpec, data: DataOptions, device: torch.device | str) -> Task:
    """Load the spec's data and put them on the device.

    Raises:
        DataError: the data can't be had; the message lists the sources tried.
    """
    device = torch.device(device)
    if spec.about.kind == "planar":
        return planar_task(spec, device)
    assert isinstance(spec, Spec)
    if spec.about.data == "mnist":
        train, test = datasets.mnist("train", data.folder), datasets.mnist("test", data.folder)
        return Classification(spec, train, test, Frame.full(28, 28), device, standardize=False)
    train, test = _gtsrb("train", data), _gtsrb("test", data)
    return Classification(spec, train, test, Frame.crop(50, 50, 36, 36), device, standardize=True)


def planar_task(spec: RunSpec, device: torch.device | str) -> Planar:
    """The planar experiment on the spec's photograph."""
    scene = datasets.planar_scene(spec.image, gray=True)
    return Planar(spec, scene.image, scene.frame, torch.device(device))


def _gtsrb(split: Literal["train", "test"], data: DataOptions) -> datasets.Dataset:
    if data.stand_in:
        return datasets.gtsrb_stand_in(split)
    return datasets.gtsrb(split, data.folder)
