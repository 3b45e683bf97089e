"""Alignment: what a Record's model makes of test images, warp operation by warp operation.

The one definition of the aligned image. A compositional network samples the source image under its last
warp; a Spatial Transformer resamples its own output, and what lies outside that is black.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from icstn.experiments.classification import Classification
from icstn.experiments.models import Model, build_model
from icstn.experiments.records import Record
from icstn.experiments.spec import Spec
from icstn.sampling import Frame, sample
from icstn.transformers import STN
from icstn.warps import Warp

#: Images that are aligned at once.
CHUNK = 250


class Aligned(NamedTuple):
    """What a model made of some test images.

    Attributes:
        images: before the first and after each warp operation, in [0, 1], ``(n, channels, h, w)`` each.
        seen: what each sample of these saw of the source image, 0 (nothing) to 1, ``(n, 1, h, w)`` each.
        warps: warp parameters, ``(n, k)`` each.
    """

    images: list[Tensor]
    seen: list[Tensor]
    warps: list[Tensor]


class Crops(NamedTuple):
    """Images in [0, 1], ``(n, channels, h, w)``, and what each sample saw of its source, ``(n, 1, h, w)``."""

    images: Tensor
    seen: Tensor


class AlignedSet(NamedTuple):
    """A test set before and after alignment: labels ``(n,)``, samples, first and last warps ``(n, k)``."""

    labels: Tensor
    initial: Crops
    final: Crops
    start: Tensor
    p: Tensor


def trained(record: Record, frame: Frame, channels: int) -> Model:
    """The Record's model with its weights, ready to be applied."""
    assert isinstance(record.spec, Spec)
    model = build_model(record.spec, frame, channels)
    model.load_state_dict(record.weights)
    return model.eval()


@torch.inference_mode()
def align(task: Classification, record: Record, index: Sequence[int]) -> Aligned:
    """Align test images under their perturbations (number 0, as in the tables).

    Args:
        task: test images and perturbations.
        record: what to apply.
        index: which test images.
    """
    index = list(index)
    images = task.test.images[index]
    model = trained(record, task.frame, task.channels)
    p = task.test_warps(len(task.test), 0)[index].cpu()
    warps = model.align(task.prepare(images), p).warps
    raw = images.float() / 255
    both = replay(model, torch.cat((torch.ones_like(raw[:, :1]), raw), 1), warps)
    return Aligned([x[:, 1:] for x in both], [x[:, :1] for x in both], warps)


def align_test_set(task: Classification, record: Record) -> AlignedSet:
    """Align the whole perturbed test set."""
    n = len(task.test)
    parts = [align(task, record, range(i, min(i + CHUNK, n))) for i in range(0, n, CHUNK)]
    initial, final = (
        Crops(torch.cat([x.images[k] for x in parts]), torch.cat([x.seen[k] for x in parts])) for k in (0, -1)
    )
    start, p = (torch.cat([x.warps[k] for x in parts]) for k in (0, -1))
    return AlignedSet(task.test.labels, initial, final, start, p)


def replay(model: Model, images: Tensor, warps: Sequence[Tensor]) -> list[Tensor]:
    """Images as the model samples them under given warps, before the first and after each warp operation.

    Args:
        model: says whether each output is sampled from the source image or from the output before it.
        images: any images of the source's size, ``(n, channels, H, W)``.
        warps: warps of the source image, ``(n, k)`` each, as the model returns them.
    """
    if not isinstance(model.transformer, STN):
        return [sample(images, p, model.frame, model.warp) for p in warps]
    whole = Frame.full(model.frame.height, model.frame.width)
    outputs = [sample(images, warps[0], model.frame, model.warp)]
    for before, after in pairwise(warps):
        dp = model.warp.compose(model.warp.inverse(before, check=False), after, side="template", check=False)
        outputs.append(sample(outputs[-1], dp, whole, model.warp))
    return outputs


def zoom(warp: Warp, p: Tensor) -> Tensor:
    """Linear magnification of a warp at the template's center, ``(n,)``: the square root of the area's.

    Above 1 the output shows more than the template, so that the object looks smaller.
    """
    m = warp.matrix(p)  # (n, 3, 3)
    jacobian = m[:, :2, :2] / m[:, 2:, 2:] - m[:, :2, 2:] @ m[:, 2:, :2] / m[:, 2:, 2:] ** 2
    return torch.linalg.det(jacobian).abs().sqrt()


def lost_ink(task: Classification, images: Tensor, p: Tensor) -> Tensor:
    """Share of each digit's ink that its aligned image no longer shows, ``(n,)``, 0 to 1.

    The sum of an aligned image, each sample weighted with the area that it stands for in the source, against
    the sum of the source: zooming changes nothing, what is cut off is missing.

    Args:
        task: whose test set the images come from.
        images: the aligned images, all of them in order, ``(n, channels, h, w)``.
        p: the warps under which they show the source, ``(n, k)``.
    """
    m, frame = task.warp.matrix(p.double()), task.frame
    points = torch.nn.functional.pad(frame.grid(torch.float64), (0, 1), value=1.0)  # (h·w, 3)
    w = (points @ m[:, 2:].mT).view(-1, 1, frame.height, frame.width)
    step = frame.half_extent[0] * frame.half_extent[1] * 4 / ((frame.width - 1) * (frame.height - 1))
    area = torch.linalg.det(m).abs().view(-1, 1, 1, 1) / w.abs().pow(3) * step
    shown = (images.double() * area).sum((1, 2, 3))
    ink = task.test.images[: len(images)].double().sum((1, 2, 3)) / 255
    return (1 - shown / ink).clamp(0, 1)


def window_of_box(task: Classification, p: Tensor) -> Tensor:
    """Side of the aligned image's window over the side of the sign's annotated box, ``(n,)``.

    Below 1 the window is smaller than the box: the sign is zoomed in on. Sides are square roots of areas, the
    window's at its center.
    """
    assert task.test.boxes is not None
    box = task.test.boxes[: len(p)].double()  # left, top, right, bottom
    side = ((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])).sqrt()
    window = 2 * (task.frame.half_extent[0] * task.frame.half_extent[1]) ** 0.5
    return zoom(task.warp, p.double()) * window / side


def first_of_each(labels: Tensor, classes: Sequence[int]) -> list[int]:
    """Index of the first test image of each class: samples that nobody picked."""
    return [int((labels == c).nonzero()[0]) for c in classes]


def step_by_step(
    task: Classification, record: Record, stn: Record, index: Sequence[int]
) -> dict[str, Tensor]:
    """Rows of Figures 8 and 10: the perturbation, every step of one model, and the original STN's result."""
    frames = align(task, record, index).images
    rows = {"initial": frames[0]}
    rows |= {f"iteration {k}": frame for k, frame in enumerate(frames[1:-1], 1)}
    final = {f"{record.spec.model} final": frames[-1]}
    return rows | final | {stn.spec.model: align(task, stn, index).images[-1]}


def off_center(images: Tensor) -> float:
    """Mean distance of the images' centers of brightness from the middle, in pixels.

    Args:
        images: dark but for what is looked at, ``(n, channels, h, w)``.
    """
    height, width = images.shape[-2:]
    light = images.double().sum(1)
    total = light.sum((1, 2))
    x = (light.sum(1) @ torch.arange(width, dtype=torch.float64)) / total - (width - 1) / 2
    y = (light.sum(2) @ torch.arange(height, dtype=torch.float64)) / total - (height - 1) / 2
    return float(torch.hypot(x, y).mean())
