"""What every data set is handed out as: :class:`Dataset`, and :class:`DataError` where it can't be."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64, UInt8
from torch import Tensor


class DataError(RuntimeError):
    """Data that are missing, damaged or not what they should be; the message says what to do."""


class UnavailableError(DataError):
    """Data that no source has; the message lists each source with its reason."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labeled images of one split, in memory.

    Args:
        images: ``(N, C, H, W)`` uint8, 0 to 255.
        labels: ``(N,)`` int64 class numbers from 0.
        name: the data set's name, for example ``"mnist"``.
        split: ``"train"`` or ``"test"``.
        fingerprint: SHA-256 (hex) of images and labels, see :func:`fingerprint`.
        notes: what a reader of any result on these data must know, in words; empty for official data.
        stand_in: the images are rendered, not the data set that the name suggests.
        boxes: ``(N, 4)`` float32 annotated boxes (left, top, right, bottom) in pixel centers of
            ``images``, for the data sets that have them.
        groups: ``(N,)`` int64, equal where images show one and the same thing (GTSRB's training images: the
            track of one physical sign), for the data sets that have such images. In a folder of one's own
            each image is a group of its own, and the number that of its file.
        classes: names of the classes by their numbers, for the data sets that name them.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    name: str
    split: str
    fingerprint: str
    notes: tuple[str, ...] = ()
    stand_in: bool = False
    boxes: Float[Tensor, "n 4"] | None = None
    groups: Int64[Tensor, " n"] | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.images.dim() != 4 or len(self.images) != len(self.labels):
            raise DataError(
                f"{self.name}/{self.split}: images (N, C, H, W) and labels (N,) do not match, "
                f"got {tuple(self.images.shape)} and {tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.images.shape))
        kind = ", rendered stand-in" if self.stand_in else ""
        return f"<{self.name}/{self.split}: {shape} uint8, fingerprint {self.fingerprint[:12]}{kind}>"


def fingerprint(images: UInt8[Tensor, "n c h w"], labels: Int64[Tensor, " n"]) -> str:
    """SHA-256 (hex) of the images' shape, their bytes and the labels."""
    digest = hashlib.sha256(repr(tuple(images.shape)).encode())
    digest.update(np.ascontiguousarray(images.numpy()).data)
    digest.update(np.ascontiguousarray(labels.numpy(), dtype="<i8").data)
    return digest.hexdigest()


def check_split(split: str) -> None:
    """Raises ``ValueError`` unless ``split`` is ``"train"`` or ``"test"``."""
    if split not in ("train", "test"):
        raise ValueError(f"split is 'train' or 'test', not {split!r}")


def check_folder(source: str | os.PathLike[str]) -> Path:
    """The user's data folder, ``~`` written out.

    Raises:
        DataError: there is none, or it is a file.
    """
    root = Path(source).expanduser()
    if not root.is_dir():
        what = (
            "is a file, not a folder: name a folder"
            if root.exists()
            else "does not exist: name one that does"
        )
        raise DataError(f"the data folder {root} {what}, or none")
    return root
