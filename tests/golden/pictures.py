"""Pictures: a handful of real digits and signs, as training and as other test data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from icstn import datasets
from icstn.datasets import Dataset, fingerprint

PICTURES = Path(__file__).resolve().parents[2] / "book" / "assets" / "live" / "pictures"


def digits(split: str) -> Dataset:
    """Digits as they are and bolder ones to train on; shifted and fainter ones, reordered, as a test."""
    images, labels = _read("digits", 1, 28)
    if split == "train":
        return _dataset("mnist", split, [images, _bolder(images)], [labels, labels])
    moved = np.roll(images, (1, -2), (2, 3))[::-1]
    return _dataset("mnist", split, [moved, moved[3:] // 2 + 20], [labels[::-1], labels[::-1][3:]])


def signs(split: str) -> Dataset:
    """Signs in several lights, each light of a sign one group; darker and bluer ones, shifted, as a test."""
    images, labels = _read("signs", 3, 50)
    if split == "test":
        moved = np.roll(images, (2, 1), (2, 3))[::-1]
        blue = (moved * np.array([0.5, 0.6, 1.0])[:, None, None]).astype(np.uint8)
        return _dataset("gtsrb", split, [moved // 3, blue], [labels[::-1], labels[::-1]])
    lights = [images, images // 2, images // 4 + 60]
    many = [np.roll(images[:1], k, 3) for k in range(1, 6)]  # the first class has eight groups
    return _dataset("gtsrb", split, lights + many, [labels] * 3 + [labels[:1]] * 5, groups=True)


def hand_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The few pictures in place of MNIST and GTSRB; to ask for another folder fails."""

    def handed(load: Callable[[str], Dataset]) -> Callable[..., Dataset]:
        def loader(split: str, source: object = None, **_: object) -> Dataset:
            assert source == "a folder"
            return load(split)

        return loader

    monkeypatch.setattr(datasets, "mnist", handed(digits))
    monkeypatch.setattr(datasets, "gtsrb", handed(signs))


def ready(data: Dataset, standardized: bool) -> tuple[Tensor, Tensor]:
    """Images in [0, 1], or each of zero mean and unit variance; and their labels."""
    x = data.images.numpy().astype(np.float64)
    if not standardized:
        return torch.from_numpy(x / 255), data.labels
    rows = [(image - image.mean()) / max(1.0, np.sqrt(np.mean((image - image.mean()) ** 2))) for image in x]
    return torch.from_numpy(np.stack(rows)), data.labels


def _read(name: str, channels: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    labels = [item["label"] for item in json.loads((PICTURES / "pictures.json").read_text())[name]]
    pixels = np.frombuffer((PICTURES / f"{name}.bin").read_bytes(), np.uint8)
    return pixels.reshape(len(labels), channels, side, side), np.array(labels, np.int64)


def _bolder(images: np.ndarray) -> np.ndarray:
    return np.maximum(images, np.roll(images, 1, 3))


def _dataset(
    name: str, split: str, images: list[np.ndarray], labels: list[np.ndarray], groups: bool = False
) -> Dataset:
    pixels, numbers = torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(labels))
    own = torch.arange(len(numbers)) * 7 % 101 if groups else None
    return Dataset(pixels, numbers, name, split, fingerprint(pixels, numbers), groups=own)
