"""What a fit on one's own images shows: errors, their difference, examples, class means and failures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from icstn.evidence.alignment import align, first_of_each, trained
from icstn.evidence.appearance import Appearance, appearances
from icstn.evidence.estimates import Estimate, difference, mean_error
from icstn.experiments.classification import Classification
from icstn.experiments.records import Record

#: Most failures that are shown, those that the network is surest of.
MOST = 12


class Failure(NamedTuple):
    """A held-out image that is named wrongly: its number, its class and what it is named, how surely."""

    item: int
    label: int
    said: int
    probability: float


@dataclass(frozen=True)
class FitFindings:
    """What the runs of a fit show on the held-out images.

    Attributes:
        errors: model → test error in percent, as in its Record; without those that diverged.
        difference: error without the transformer minus error with it, image by image, in points of percent;
            None where one of the two diverged.
        by_class: model → error of each class in percent, ``(classes,)``.
        items: held-out images of each class, ``(classes,)``.
        examples: before alignment and after each warp operation, the first image of each class,
            ``(classes, channels, h, w)`` in [0, 1]; empty where the run with the transformer diverged.
        appearance: ``initial`` and the model: mean image of each class; empty likewise.
        failures: of the run with the transformer, under the first draw of the perturbations.
        failed: these images before and after alignment, ``(n, channels, h, w)`` each.
    """

    errors: dict[str, Estimate]
    difference: Estimate | None
    by_class: dict[str, Tensor]
    items: Tensor
    examples: list[Tensor]
    appearance: dict[str, Appearance]
    failures: list[Failure]
    failed: tuple[Tensor, Tensor]

    @property
    def verdict(self) -> str:
        """In a sentence, whether the transformer helped."""
        if self.difference is None:
            return "A run diverged, so there is nothing to compare."
        gain = f"{abs(self.difference.value):.2f} points of percent"
        if self.difference.low > 0:
            return f"With the transformer the error is {gain} lower: it helps on these images."
        if self.difference.high < 0:
            return f"With the transformer the error is {gain} higher: it does not help on these images."
        return "The two can't be told apart on so few held-out images."


def fit_findings(task: Classification, plain: Record, transformer: Record) -> FitFindings:
    """Judge two runs on one folder of images.

    Args:
        task: of the second run, on the CPU.
        plain, transformer: Records without and with a transformer, which meet the same test images under the
            same draws.
    """
    good = {r.spec.model: r for r in (plain, transformer) if r.status == "finished"}
    labels, n = task.test.labels, len(task.train.classes)
    items = labels.bincount(minlength=n)
    whole = transformer.spec.model in good
    failures = _failures(task, transformer) if whole else []
    return FitFindings(
        {model: _error(r) for model, r in good.items()},
        difference([plain], [transformer]) if len(good) == 2 else None,
        {model: _by_class(r, labels, items) for model, r in good.items()},
        items,
        align(task, transformer, first_of_each(labels, range(n))).images if whole else [],
        appearances(task, {transformer.spec.model: transformer}) if whole else {},
        failures,
        _pictures(task, transformer, [f.item for f in failures]),
    )


def _error(record: Record) -> Estimate:
    """The Record's error; where all images are alike its interval has no width, and that is said."""
    found = mean_error([record])
    if found.error:
        return found
    n = record.outcomes.shape[1]
    return replace(found, remark=f"all {n} images alike: the true error may be {300 / n:.2g} points off")


def _by_class(record: Record, labels: Tensor, items: Tensor) -> Tensor:
    wrong = record.outcomes.double().mean(0) * 100
    return torch.zeros(len(items), dtype=torch.double).index_add(0, labels, wrong) / items


@torch.inference_mode()
def _failures(task: Classification, record: Record) -> list[Failure]:
    model = trained(record, task.frame, task.channels)
    logits = torch.cat([model(batch.image, batch.p) for batch in task.test_batches(0)])
    sure, said = logits.softmax(1).max(1)
    wrong = (said != task.test.labels).nonzero().flatten()
    first = wrong[sure[wrong].argsort(descending=True)][:MOST].tolist()
    labels = task.test.labels
    return [Failure(i, int(labels[i]), int(said[i]), float(sure[i])) for i in first]


def _pictures(task: Classification, record: Record, items: list[int]) -> tuple[Tensor, Tensor]:
    if not items:
        none = torch.empty(0, task.channels, task.frame.height, task.frame.width)
        return none, none
    images = align(task, record, items).images
    return images[0], images[-1]
