"""A validation set, held out of the training data: for choosing a recipe without a look at the test set."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from icstn.datasets.dataset import Dataset, fingerprint

#: One image, or one group of each class, in so many is held out: 10,000 of MNIST's 60,000 digits.
SHARE = 6


def split_validation(data: Dataset) -> tuple[Dataset, Dataset]:
    """Training data without its validation set, and the validation set; always the same ones.

    Where images come in ``groups`` (GTSRB), whole groups are held out, every
    sixth of each class, so that no physical sign is on both sides. Elsewhere it is the last sixth: of MNIST,
    the last 10,000 digits.

    Args:
        data: a training set.

    Returns:
        the rest with ``split="train without validation"``, and the held-out images with
        ``split="validation"``; each with a fingerprint of its own.

    Raises:
        ValueError: ``data`` is not a training set, or a class has a single group, so that it would be missing
            on one side.
    """
    if data.split != "train":
        raise ValueError(f"a validation set is held out of the training data, not of {data.split!r}")
    held_out = _last(data) if data.groups is None else _groups(data.labels, data.groups)
    return subset(data, ~held_out, "train without validation"), subset(data, held_out, "validation")


def subset(data: Dataset, chosen: Bool[Tensor, " n"], split: str) -> Dataset:
    """The chosen images with all that belongs to them, in their order.

    Args:
        data: what to choose from.
        chosen: ``(N,)`` bool.
        split: what the part is called.
    """
    images, labels = data.images[chosen], data.labels[chosen]
    boxes = None if data.boxes is None else data.boxes[chosen]
    groups = None if data.groups is None else data.groups[chosen]
    digest = fingerprint(images, labels)
    kept = (data.notes, data.stand_in, boxes, groups, data.classes)
    return Dataset(images, labels, data.name, split, digest, *kept)


def _last(data: Dataset) -> Bool[Tensor, " n"]:
    return torch.arange(len(data)) >= len(data) - len(data) // SHARE


def _groups(labels: Tensor, groups: Tensor) -> Bool[Tensor, " n"]:
    """Every sixth group of each class, and the last one of a class that has fewer."""
    held_out = []
    for label in labels.unique():
        own = groups[labels == label].unique()
        if len(own) < 2:
            raise ValueError(f"class {int(label)} has a single group, which can't be on both sides")
        held_out.append(own[SHARE - 1 :: SHARE] if len(own) >= SHARE else own[-1:])
    return torch.isin(groups, torch.cat(held_out))
