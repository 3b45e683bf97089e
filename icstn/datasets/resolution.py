"""Images of less resolution: what does a data set's size in pixels do to the errors on it?"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from icstn.datasets.dataset import Dataset, fingerprint

#: Images at a time.
CHUNK = 2000


def reduced(data: Dataset, side: int) -> Dataset:
    """The data set with every image reduced to ``side`` × ``side`` pixels and brought back to its size.

    Both ways bilinearly, reduced with smoothing (``antialias``), so that what is finer is lost and nothing
    else changes: sizes, boxes and warps in pixels stay what they are.

    Args:
        data: any data set.
        side: at least 2; an image that is no larger stays as it is but for rounding.

    Raises:
        ValueError: ``side`` is below 2.
    """
    if side < 2:
        raise ValueError(f"images can be reduced to 2 pixels a side or more, not {side}")
    size = data.images.shape[-2:]
    parts = []
    for part in data.images.split(CHUNK):
        small = F.interpolate(part.float(), (side, side), mode="bilinear", antialias=True)
        parts.append(F.interpolate(small, size, mode="bilinear", antialias=True).round().clamp(0, 255))
    images = torch.cat(parts).to(torch.uint8)
    note = f"images reduced to {side}×{side} pixels and brought back"
    return replace(
        data, images=images, fingerprint=fingerprint(images, data.labels), notes=(*data.notes, note)
    )
