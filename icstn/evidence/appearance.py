"""Appearance: mean and variance of aligned images class by class, and what they say as a number.

The one definition of the variance and the sharpness that figures, claims and the book speak of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from icstn.evidence.alignment import Crops, align_test_set
from icstn.experiments.classification import Classification
from icstn.experiments.records import Record


@dataclass(frozen=True)
class Appearance:
    """Mean and variance of a set of aligned images, class by class.

    Attributes:
        mean: ``(classes, channels, h, w)``; a sample that saw nothing counts as black.
        variance: ``(classes, channels, h, w)``, biased (divided by the number of images).
        count: images of each class, ``(classes,)``.
        seen: share of the images whose sample saw the source image, ``(classes, 1, h, w)``.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor
    seen: Tensor

    @property
    def within(self) -> float:
        """Variance of a pixel within its class, averaged over pixels, channels and images."""
        return float((self._weight * self.variance).sum(0).mean())

    @property
    def total(self) -> float:
        """Variance of a pixel over all images, averaged over pixels and channels."""
        center = (self._weight * self.mean).sum(0)
        return self.within + float((self._weight * (self.mean - center).square()).sum(0).mean())

    @property
    def unexplained(self) -> float:
        """Share of the total variance that the class does not explain, 0 to 1.

        A transformer that only dims or shrinks its images lowers :attr:`within`, but not this share.
        """
        return self.within / self.total

    @property
    def lost(self) -> float:
        """Mean share of the samples that saw nothing of the source image, 0 to 1."""
        return float((self._weight * (1 - self.seen)).sum(0).mean())

    @property
    def sharpness(self) -> float:
        """RMS difference between neighboring pixels of the class means, averaged over classes.

        What a network has lost must not count: the edge of a black border is as sharp as can be, and says
        nothing about alignment. So each pixel's mean is taken over the images that saw it, and only the
        central half of the images is looked at, where nearly all did.
        """
        mean = self.mean / self.seen.clamp_min(1e-6)
        h, w = mean.shape[-2:]
        center = mean[..., h // 4 : h - h // 4, w // 4 : w - w // 4]
        dx, dy = (center.diff(dim=d).square().mean((1, 2, 3)) for d in (-1, -2))
        return float((dx + dy).sqrt().mean())

    @property
    def _weight(self) -> Tensor:
        return (self.count / self.count.sum()).view(-1, 1, 1, 1)


@dataclass(frozen=True)
class Totals:
    """Sums over aligned images, class by class; the difference of two is that of their images.

    Attributes:
        count: images, ``(classes,)``.
        x, squares: sums of the images and of their squares, ``(classes, channels, h, w)``.
        seen: sums of what the samples saw, ``(classes, 1, h, w)``.
    """

    count: Tensor
    x: Tensor
    squares: Tensor
    seen: Tensor

    @classmethod
    def of(cls, samples: Crops, labels: Tensor, classes: Sequence[int]) -> Totals:
        """Sum the images of each class."""
        of = [labels == c for c in classes]
        images = [samples.images[mine].double() for mine in of]
        return cls(
            torch.stack([mine.sum() for mine in of]).double(),
            torch.stack([x.sum(0) for x in images]),
            torch.stack([x.square().sum(0) for x in images]),
            torch.stack([samples.seen[mine].double().sum(0) for mine in of]),
        )

    def __sub__(self, other: Totals) -> Totals:
        return Totals(
            self.count - other.count,
            self.x - other.x,
            self.squares - other.squares,
            self.seen - other.seen,
        )

    @property
    def appearance(self) -> Appearance:
        """Means and variances."""
        n = self.count.view(-1, 1, 1, 1)
        mean = self.x / n
        return Appearance(mean, (self.squares / n - mean.square()).clamp_min(0), self.count, self.seen / n)


def appearance_of(
    images: Float[Tensor, "n channels h w"],
    labels: Int[Tensor, " n"],
    classes: int | Sequence[int] = 10,
    seen: Float[Tensor, "n 1 h w"] | None = None,
) -> Appearance:
    """Mean and variance of the images of each class.

    Args:
        images: aligned images.
        labels: class of each image.
        classes: how many classes there are, or which ones to keep.
        seen: what each sample saw of its source image, 0 to 1; everything by default.

    Raises:
        ValueError: a class has no image.
    """
    kept = list(range(classes)) if isinstance(classes, int) else list(classes)
    if empty := [c for c in kept if not (labels == c).any()]:
        raise ValueError(f"there is no image of class {', '.join(map(str, empty))} to average")
    samples = Crops(images, torch.ones_like(images[:, :1]) if seen is None else seen)
    return Totals.of(samples, labels, kept).appearance


def appearances(task: Classification, records: Mapping[str, Record]) -> dict[str, Appearance]:
    """Appearance of the whole perturbed test set, all classes, before alignment and after each model.

    Args:
        task: test images and perturbations.
        records: label → what to apply.

    Returns:
        ``initial``, then the labels.
    """
    rows: dict[str, Appearance] = {}
    for label, record in records.items():
        aligned = align_test_set(task, record)
        classes = aligned.labels.unique().tolist()
        if not rows:
            rows["initial"] = Totals.of(aligned.initial, aligned.labels, classes).appearance
        rows[label] = Totals.of(aligned.final, aligned.labels, classes).appearance
    return rows
