"""A folder of one's own images, one subfolder a class, as a :class:`Dataset`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from icstn.datasets.dataset import DataError, Dataset, check_folder, fingerprint
from icstn.datasets.images import picture

#: Endings of the files that are read; others are left alone, and counted in the data set's notes.
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

#: Fewest images of a class: one to learn from, one to test on.
LEAST = 2

#: Smallest side, in pixels, of an image and of what it is brought to.
LEAST_SIDE = 8

#: Largest side, in pixels, of what an image is brought to.
MOST_SIDE = 2048

#: Names of parts of a data set: a folder that has only these has its classes one floor down.
PARTS = frozenset({"test", "testing", "train", "training", "val", "valid", "validation"})


class ImageFile(NamedTuple):
    """A picture of a folder: its path, and the number of its class."""

    path: Path
    label: int


class _Listing(NamedTuple):
    classes: tuple[str, ...]
    files: list[ImageFile]
    others: int


def image_folder(folder: str | os.PathLike[str], size: int = 36, *, gray: bool | None = None) -> Dataset:
    """All pictures of a folder that has one subfolder a class, as a training set.

    Each picture is brought to ``size × size`` (stretched where it is not square, with antialiasing; as it is
    where it has that size), upright as its EXIF tag says, transparent pixels on black. Classes are numbered
    in the order of their names, pictures class by class in the order of their paths; subfolders of a class
    belong to it. Hidden files are not looked at.

    Args:
        folder: with one subfolder a class.
        size: side of the images in pixels, 8 to 2048.
        gray: one channel (luma) or three; by default one where no picture has any color.

    Returns:
        images ``(N, 1 or 3, size, size)`` with the names of their classes; every picture is a group of its
        own, whose number is its place in :func:`image_files`, so that
        :func:`icstn.datasets.split_validation` holds out every sixth of each class.

    Raises:
        DataError: there is no such folder, it has fewer than two classes, a class has fewer than two
            pictures, or some can't be read; the message says which.
        ValueError: size is below 8 or above 2048.
    """
    if not LEAST_SIDE <= size <= MOST_SIDE:
        raise ValueError(f"images are {LEAST_SIDE} to {MOST_SIDE} pixels wide, got size {size}")
    root = check_folder(folder)
    found = _listing(root)
    images = _pixels(root, found.files, size, gray)
    labels = torch.tensor([file.label for file in found.files])
    notes = (
        (f"{found.others} files are no pictures by their names and were left out",) if found.others else ()
    )
    groups, name = torch.arange(len(labels)), root.resolve().name
    digest = fingerprint(images, labels)
    return Dataset(images, labels, name, "train", digest, notes, groups=groups, classes=found.classes)


def image_files(folder: str | os.PathLike[str]) -> list[ImageFile]:
    """The pictures of :func:`image_folder`, in its order.

    Raises:
        DataError: as there, but for pictures that can't be read.
    """
    return _listing(check_folder(folder)).files


def read_picture(path: str | os.PathLike[str], size: int, gray: bool) -> np.ndarray:
    """One picture as :func:`image_folder` reads it, ``(size, size[, 3])`` uint8.

    Raises:
        DataError: it is no picture that can be read.
    """
    from PIL import Image

    image = picture(Path(path), least=LEAST_SIDE)
    if gray:
        image = image.convert("L")
    return np.array(image.resize((size, size), Image.Resampling.BILINEAR))


def _listing(root: Path) -> _Listing:
    names = sorted(d.name for d in root.iterdir() if d.is_dir() and not d.name.startswith("."))
    if len(names) < 2:
        what = f"only one, {names[0]}" if names else "none"
        raise DataError(f"{root} should have one subfolder a class, at least two, and has {what}")
    if {name.lower() for name in names} <= PARTS:
        raise DataError(f"the subfolders of {root} are parts of a data set, not classes: name one of them")
    files, others = [], 0
    for label, name in enumerate(names):
        seen = [p for p in sorted((root / name).rglob("*")) if p.is_file() and not _hidden(p, root)]
        own = [p for p in seen if p.suffix.lower() in ENDINGS]
        others += len(seen) - len(own)
        if len(own) < LEAST:
            raise DataError(
                f"the class {name} of {root} has {len(own)} pictures and needs at least {LEAST}, one to "
                "learn from and one to test on: add some, or move it away"
            )
        files += [ImageFile(p, label) for p in own]
    return _Listing(tuple(names), files, others)


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _pixels(root: Path, files: list[ImageFile], size: int, gray: bool | None) -> Tensor:
    read, broken = [], []
    for file in files:
        try:
            read.append(read_picture(file.path, size, bool(gray)))
        except DataError as error:
            broken.append(str(error))
    if broken:
        many = (
            f"{len(broken)} of {len(files)} pictures of {root} can't be used: mend or move them. The first: "
        )
        raise DataError((many if len(broken) > 1 else "") + broken[0])
    images = torch.from_numpy(np.stack(read))
    if images.dim() == 3:
        return images[:, None]
    colorless = gray is None and bool((images == images[..., :1]).all())
    return images.permute(0, 3, 1, 2)[:, : 1 if colorless else 3].contiguous()
