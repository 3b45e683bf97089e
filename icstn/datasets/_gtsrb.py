"""The German Traffic Sign Recognition Benchmark, from its official archives or their unpacked tree."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from icstn.datasets.archives import Tree, open_tree, plain_name
from icstn.datasets.cache import cache_dir, cached_dataset, download, load_dataset, locked, md5_of
from icstn.datasets.dataset import (
    DataError,
    Dataset,
    UnavailableError,
    check_folder,
    check_split,
    fingerprint,
)
from icstn.datasets.standin import gtsrb_stand_in

Split = Literal["train", "test"]

URL = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"
#: The official archives and their MD5, images first.
ARCHIVES: dict[str, tuple[tuple[str, str], ...]] = {
    "train": (("GTSRB_Final_Training_Images.zip", "f33fd80ac59bff73c82d25ab499e03a3"),),
    "test": (
        ("GTSRB_Final_Test_Images.zip", "c7e4e6327067d32654124b0fe9e82185"),
        ("GTSRB_Final_Test_GT.zip", "fe31e9c9270bbcd7b84b7f21a9d9d9e5"),
    ),
}
COUNTS = {"train": 39_209, "test": 12_630}
CLASSES = 43
TRUTH = "GT-final_test.csv"
FOLDERS = {"train": ("Final_Training/Images", "Training"), "test": ("Final_Test/Images",)}
#: Where archives or trees may lie below the folder that the user names.
SUBFOLDERS = ("", "gtsrb", "GTSRB", "gtsrb/GTSRB")
MAX_SIDE = 2048


class Annotation(NamedTuple):
    """One line of an annotation file: where the image is, its annotated size, box, class and track."""

    path: str
    width: int
    height: int
    box: tuple[int, int, int, int]
    label: int
    track: int = -1


@dataclass(frozen=True)
class Copy:
    """One copy of a split: an archive or a folder of images, and for the test set the annotations."""

    split: str
    images: Path
    truth: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files and folders that make up the copy."""
        return (self.images,) if self.truth is None else (self.images, self.truth)

    def identity(self) -> tuple[str, ...]:
        """What tells this copy from another: MD5s of files, a hash over the listing of a folder."""
        return tuple(open_tree(p).identity() if p.is_dir() else md5_of(p) for p in self.paths)


def gtsrb(split: Split, source: str | os.PathLike[str] | None = None, size: int = 50) -> Dataset:
    """GTSRB, 43 classes of traffic signs, each whole image rescaled to ``size × size``.

    The first of these that has it is taken: the folder ``source`` (the official archives or what
    unpacking them gives, directly in it or in ``gtsrb/``), the user's cache, and the official download
    (276 MB for training, 89 MB for the test). Archives are read in place. The decoded images are cached.
    A copy that is not the official one byte for byte is accepted, and says so in ``notes``.

    Args:
        split: ``"train"`` (39,209) or ``"test"`` (12,630).
        source: the user's data folder; it may hold other data sets, and is then passed over.
        size: side of the square in pixels to which every image is rescaled, whatever its aspect.

    Returns:
        images ``(N, 3, size, size)``, labels 0 to 42, the annotated ``boxes`` of the signs in pixels of
        these images, and for training the ``groups``: 1,307 tracks, each of one physical sign.

    Raises:
        DataError: ``source`` is no folder or holds a damaged, unsafe or incomplete copy.
        UnavailableError: the data can't be had; the message lists each place with its reason.
        ValueError: another split, or a size below 2.
    """
    check_split(split)
    if size < 2:
        raise ValueError(f"size is the side of the rescaled images in pixels, at least 2; got {size}")
    found = _resolve(split, source, size)
    if isinstance(found, Dataset):
        return found
    identity = found.identity()
    return cached_dataset(_cache_path(split, size, identity), lambda: read(found, size, identity))


def gtsrb_or_stand_in(split: Split, source: str | os.PathLike[str] | None = None, size: int = 50) -> Dataset:
    """:func:`gtsrb`, or :func:`~icstn.datasets.gtsrb_stand_in` where either split can't be had at all.

    So the two splits are always of one kind. A damaged copy below ``source`` is still refused.
    """
    check_split(split)
    try:
        for needed in COUNTS:
            _resolve(needed, source, size)
    except UnavailableError:
        rendered = gtsrb_stand_in(split, size=size)
        return replace(rendered, notes=(*rendered.notes, "GTSRB itself was neither found nor downloaded"))
    return gtsrb(split, source, size)


def _resolve(split: str, source: str | os.PathLike[str] | None, size: int) -> Copy | Dataset:
    """The user's copy, or the official images from the cache, or the official archives, downloaded."""
    tried: list[str] = []
    if copy := users_copy(split, source, tried):
        return copy
    return load_dataset(decoded(split, size)) or _downloaded(split, tried)


def locate(split: str, source: str | os.PathLike[str] | None = None) -> Copy | None:
    """The copy that :func:`gtsrb` would read without a download, or ``None``."""
    archives = [cache_dir("gtsrb") / name for name, _ in ARCHIVES[split]]
    cached = Copy(split, *archives) if all(path.is_file() for path in archives) else None
    return users_copy(split, source, []) or cached


def users_copy(split: str, source: str | os.PathLike[str] | None, tried: list[str]) -> Copy | None:
    """The copy of a split below the folder ``source``, if there is one.

    Raises:
        DataError: ``source`` is no folder, or has test images without their annotations.
    """
    if source is None:
        return None
    root = check_folder(source)
    for folder in (root / sub for sub in SUBFOLDERS):
        options = (folder / ARCHIVES[split][0][0], *(folder / name for name in FOLDERS[split]))
        if images := next((path for path in options if path.exists()), None):
            return Copy(split, images, _find_truth(root, folder, images) if split == "test" else None)
    tried.append(f"{root}: no {ARCHIVES[split][0][0]} and no {FOLDERS[split][0]} there")
    return None


def _find_truth(root: Path, folder: Path, images: Path) -> Path:
    places = [folder, folder.parent, root] if folder != root else [folder]
    options = [place / name for place in places for name in (ARCHIVES["test"][1][0], TRUTH)]
    if images.is_dir():
        options += [images / TRUTH, images.parent / TRUTH]
    if truth := next((path for path in options if path.exists()), None):
        return truth
    raise DataError(f"{images} has no annotations: put {ARCHIVES['test'][1][0]} or {TRUTH} into {folder}")


def _downloaded(split: str, tried: list[str]) -> Copy:
    """The official archives in the cache, downloaded where they are missing or damaged."""
    folder = cache_dir("gtsrb")
    with locked(folder):
        for name, md5 in ARCHIVES[split]:
            try:
                download(folder, name, URL + name, f"md5:{md5}", progress=True)
            except DataError as error:
                tried += [f"the cache {folder}: no intact {name} there", f"{URL}{name}: {error}"]
                reasons = "".join(f"\n  - {reason}" for reason in tried)
                raise UnavailableError(
                    f"GTSRB ({split}) was not found anywhere; put the official archives into a folder "
                    f"and name it. Tried:{reasons}"
                ) from None
    return Copy(split, *(folder / name for name, _ in ARCHIVES[split]))


def decoded(split: str, size: int = 50) -> Path:
    """Where the cache keeps the decoded images of the official archives."""
    return _cache_path(split, size, tuple(md5 for _, md5 in ARCHIVES[split]))


def _cache_path(split: str, size: int, identity: tuple[str, ...]) -> Path:
    key = hashlib.sha256("/".join(("2", *identity)).encode()).hexdigest()[:16]
    return cache_dir("gtsrb") / f"{split}-{size}-{key}.safetensors"


def read(copy: Copy, size: int, identity: tuple[str, ...]) -> Dataset:
    """Decode a copy; see :func:`gtsrb` for the arguments' meaning and the errors."""
    tree = open_tree(copy.images)
    rows = _training_rows(tree) if copy.truth is None else _test_rows(tree, copy.truth)
    _check_counts(copy, rows)
    images = np.empty((len(rows), 3, size, size), np.uint8)
    boxes = np.empty((len(rows), 4), np.float32)
    sizes = []
    for i, row in enumerate(tqdm(rows, desc=f"GTSRB {copy.split}", unit="image", disable=None)):
        images[i], actual = _decode(tree, row.path, size)
        boxes[i] = _scaled_box(row, size)
        sizes.append(actual)
    labels = torch.tensor([row.label for row in rows])
    notes = (*_origin_notes(copy, identity), *_size_notes(copy.split, rows, sizes))
    pixels = torch.from_numpy(images)
    digest = fingerprint(pixels, labels)
    tracks = torch.tensor([row.track for row in rows]) if copy.truth is None else None
    where = torch.from_numpy(boxes)
    return Dataset(pixels, labels, "gtsrb", copy.split, digest, notes, boxes=where, groups=tracks)


def _training_rows(tree: Tree) -> list[Annotation]:
    pattern = re.compile(r"(?:^|/)(\d{5})/GT-\1\.csv$")
    files = sorted((m[1], name) for name in tree.names if (m := pattern.search(name)))
    rows = []
    for number, name in files:
        own = _rows(tree.read(name), name, str(PurePosixPath(name).parent))
        if any(row.label != int(number) for row in own):
            raise DataError(f"{tree.path}: {name} has rows of another class than its folder's")
        rows += [_with_track(tree, row) for row in own]
    return rows


def _with_track(tree: Tree, row: Annotation) -> Annotation:
    """Images of one physical sign share the first number of their names: 00012_00029.ppm is of track 12."""
    found = re.match(r"(\d{5})_\d{5}\.", PurePosixPath(row.path).name)
    if found is None:
        raise DataError(f"{tree.path}: {row.path} does not name its track, as 00012_00029.ppm does")
    return row._replace(track=row.label * 100_000 + int(found[1]))


def _test_rows(tree: Tree, truth: Path) -> list[Annotation]:
    where = {PurePosixPath(name).name: name for name in tree.names if name.endswith((".ppm", ".png"))}
    if truth.suffix == ".zip":
        archive = open_tree(truth)
        name = next((n for n in archive.names if PurePosixPath(n).name == TRUTH), TRUTH)
        text = archive.read(name)
    else:
        text = truth.read_bytes()
    rows = _rows(text, str(truth), "")
    return [row._replace(path=where.get(row.path, row.path)) for row in rows]


def _rows(text: bytes, name: str, folder: str) -> list[Annotation]:
    lines = csv.DictReader(io.StringIO(text.decode("utf-8-sig", "replace")), delimiter=";")
    rows = []
    for number, line in enumerate(lines, 2):
        try:
            rows.append(_row(line, folder))
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{name}, line {number}: not an annotation of GTSRB ({line})") from None
    return rows


def _row(line: dict[str, str], folder: str) -> Annotation:
    file = line["Filename"]
    width, height = int(line["Width"]), int(line["Height"])
    box = tuple(int(line[f"Roi.{side}"]) for side in ("X1", "Y1", "X2", "Y2"))
    if not plain_name(file) or "/" in file or width < 1 or height < 1:
        raise ValueError(file)
    path = f"{folder}/{file}" if folder not in ("", ".") else file
    return Annotation(path, width, height, (box[0], box[1], box[2], box[3]), int(line["ClassId"]))


def _check_counts(copy: Copy, rows: list[Annotation]) -> None:
    classes = {row.label for row in rows}
    if len(rows) != COUNTS[copy.split] or classes != set(range(CLASSES)):
        raise DataError(
            f"{copy.images} holds {len(rows):,} annotated images of {len(classes)} classes, but the "
            f"{copy.split} set of GTSRB has {COUNTS[copy.split]:,} of {CLASSES}: the copy is not complete"
        )


def _decode(tree: Tree, name: str, size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """One image as ``(3, size, size)`` uint8, and the ``(width, height)`` that it has in its file."""
    from PIL import Image

    data = tree.read(name)
    try:
        with Image.open(io.BytesIO(data), formats=("PPM", "PNG")) as image:
            if max(image.size) > MAX_SIDE:
                raise ValueError(f"{image.size[0]}×{image.size[1]} pixels are too many")
            actual = image.size
            small = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{tree.path}: {name} is no readable picture ({error})") from None
    return np.asarray(small).transpose(2, 0, 1), actual


def _scaled_box(row: Annotation, size: int) -> list[float]:
    """The annotated box in pixels of the rescaled image: pixel centers are at whole numbers.

    Only the annotated size matters: wherever the file is a rescaled copy, its box scales with it.
    """
    scale = (size / row.width, size / row.height) * 2
    return [(value + 0.5) * s - 0.5 for value, s in zip(row.box, scale, strict=True)]


def _origin_notes(copy: Copy, identity: tuple[str, ...]) -> tuple[str, ...]:
    notes = []
    for path, found, (name, md5) in zip(copy.paths, identity, ARCHIVES[copy.split], strict=True):
        if path.suffix != ".zip":
            notes.append(f"{path.name} is unpacked, so it could not be checked against {name}")
        elif found != md5:
            notes.append(f"{name} is not the official archive (MD5 {found}, official {md5})")
    return tuple(f"GTSRB {copy.split}: {note}" for note in notes)


def _size_notes(split: str, rows: list[Annotation], sizes: list[tuple[int, int]]) -> tuple[str, ...]:
    other = [s for row, s in zip(rows, sizes, strict=True) if s != (row.width, row.height)]
    if not other:
        return ()
    low, high = min(other), max(other)
    span = f"{low[0]}×{low[1]}" + ("" if low == high else f" to {high[0]}×{high[1]}")
    return (
        f"GTSRB {split}: {len(other):,} of {len(rows):,} images are not of their annotated size "
        f"(they have {span} pixels); their annotated boxes were scaled",
    )
