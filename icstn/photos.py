"""Aligning and tracking picture files: what ``icstn align`` and ``icstn track`` do."""

from __future__ import annotations

import csv
import io
import json
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from icstn.classical import Aligner, Tracker
from icstn.files import check_place, write_atomic

if TYPE_CHECKING:
    from PIL.Image import Image

#: Endings of the files that are taken from a folder.
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".pgm", ".ppm", ".jp2")
#: Endings of films that OpenCV reads.
FILMS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
#: Width in pixels of a picture in the contact sheet and in the film, and how many stand in a row.
THUMBNAIL, FILM, COLUMNS = 200, 320, 5
#: Milliseconds for which a frame of the film is shown.
SHOWN = 500
#: What Pillow raises where a file is damaged.
UNREADABLE = (OSError, EOFError, SyntaxError, ValueError, TypeError, IndexError, struct.error)


class PhotoError(RuntimeError):
    """A file that cannot be used; the message is one sentence that says why."""


@dataclass(frozen=True)
class PhotoRow:
    """What became of one picture.

    Attributes:
        image: its file, with the number of the frame where it has several.
        status: ``converged`` or ``tracked``, or why not, in words.
        matrix: from the template's pixels to the picture's, three rows of three (see
            :meth:`~icstn.classical.result.AlignmentResult.matrix`), or None where there is none.
        correlation: with the template, in [-1, 1].
        aligned: name of the aligned picture, or None.
    """

    image: str
    status: str
    matrix: list[list[float]] | None = None
    correlation: float | None = None
    aligned: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the template was found."""
        return self.status in ("converged", "tracked")


def align_files(
    template: Path,
    images: Sequence[Path],
    out: Path,
    *,
    warp: str = "homography",
    region: tuple[int, int, int, int] | None = None,
    mask: Path | None = None,
    progress: bool = True,
) -> list[PhotoRow]:
    """Align picture files to one of them; one that cannot be used does not keep the others from being done.

    Writes into ``out``: ``aligned/`` (pictures of the template's size), ``matrices.csv`` and
    ``matrices.json`` (a :class:`PhotoRow` for each), ``contact_sheet.png``, and ``before_after.webp``, an
    animation. One picture is in memory at a time.

    Args:
        template: the picture that the others are brought to.
        images: files, or folders of them.
        out: folder, made where it is missing.
        warp: name of the family.
        region: the part of the template that counts, ``(left, top, right, bottom)``.
        mask: a picture of the template's size, black where it does not count.
        progress: a bar on stderr where that is a terminal.

    Raises:
        PhotoError: the template or the mask cannot be read.
        ValueError: the template does not determine the warp, or the region is outside of it.
        StorageError: the results can't be written.
    """
    reference = read(template)
    aligner = Aligner(reference.convert("L"), warp, region=region, mask=_mask(mask))
    job = _Job(out, reference)
    for path, problem in _bar(list(_files(images)), progress):
        if problem:
            job.fail(str(path), problem)
            continue
        try:
            picture = read(path)
            found = aligner(picture)
        except (PhotoError, ValueError) as error:
            job.fail(str(path), str(error))
            continue
        row = _row(path.name, found.status[0], found.matrix()[0], found.correlation[0])
        job.add(row, picture, found.aligned(picture), path.stem)
    return job.finish()


def track_files(
    template: Path,
    frames: Sequence[Path],
    out: Path,
    *,
    warp: str = "affine",
    region: tuple[int, int, int, int] | None = None,
    mask: Path | None = None,
    progress: bool = True,
) -> list[PhotoRow]:
    """Follow a template through frames: picture files in their order, folders of them, animations, or films.

    Writes what :func:`align_files` writes; a lost frame has the matrix of the last one that was found.

    Args:
        template: a picture, or the first frame with a ``region`` of it.
        frames: files or folders; films need OpenCV.
        out: folder, made where it is missing.
        warp: name of the family.
        region: the part of the template that counts, ``(left, top, right, bottom)``.
        mask: a picture of the template's size, black where it does not count.
        progress: a bar on stderr where that is a terminal.

    Raises:
        PhotoError: the template or the mask cannot be read.
        ValueError: the template does not determine the warp, or the region is outside of it.
        StorageError: the results can't be written.
    """
    reference = read(template)
    tracker = Tracker(reference.convert("L"), warp, region=region, mask=_mask(mask))
    job = _Job(out, reference)
    for path, problem in _bar(list(_files(frames, FILMS)), progress):
        try:
            if problem:
                raise PhotoError(problem)
            for name, picture in _frames(path):
                _track(tracker, job, name, picture)
        except PhotoError as error:
            job.fail(str(path), str(error))
    return job.finish()


def read(path: Path) -> Image:
    """A picture, upright as its EXIF tag says, gray or RGB with 8 bits.

    Raises:
        PhotoError: there is no such file, or it is no picture, or is damaged.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            return _eight_bits(picture)
    except FileNotFoundError:
        raise PhotoError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise PhotoError(f"{path} is a folder, not a picture") from None
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        raise PhotoError(f"{path} cannot be read as a picture: {error}") from None


def _mask(path: Path | None) -> Image | None:
    return None if path is None else read(path).convert("L")


def _eight_bits(picture: Image) -> Image:
    from PIL import Image

    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) / 257).round().astype(np.uint8))
    return picture.convert("L" if picture.mode in ("1", "L", "I", "F") else "RGB")


def _files(paths: Iterable[Path], more: Sequence[str] = ()) -> Iterator[tuple[Path, str]]:
    """Every file, those of folders in the order of their names, and what is wrong with a path."""
    for path in paths:
        if not path.is_dir():
            yield path, ""
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in (*ENDINGS, *more))
        if not inside:
            yield path, f"the folder {path} holds no pictures ({', '.join(e[1:] for e in ENDINGS)})"
        for file in inside:
            yield file, ""


def _frames(path: Path) -> Iterator[tuple[str, Image]]:
    """The pictures of a file: one, those of an animation, or those of a film."""
    from PIL import Image, ImageSequence

    if path.suffix.lower() in FILMS:
        yield from _film(path)
        return
    first = read(path)
    try:
        with Image.open(path) as file:
            if getattr(file, "n_frames", 1) == 1:
                yield path.name, first
                return
            for n, frame in enumerate(ImageSequence.Iterator(file)):
                yield f"{path.name} {n:05d}", _eight_bits(frame.copy())
    except UNREADABLE as error:
        raise PhotoError(f"{path} cannot be read to its end: {error}") from None


def _film(path: Path) -> Iterator[tuple[str, Image]]:
    from PIL import Image

    try:
        import cv2
    except ImportError:
        raise PhotoError(f"the film {path} needs OpenCV: pip install 'icstn[classical]'") from None
    film, n = cv2.VideoCapture(str(path)), 0
    while film.isOpened():
        there, frame = film.read()
        if not there:
            break
        yield f"{path.name} {n:05d}", Image.fromarray(frame[..., ::-1].copy())
        n += 1
    film.release()
    if not n:
        raise PhotoError(f"{path} cannot be read as a film")


def _track(tracker: Tracker, job: _Job, name: str, picture: Image) -> None:
    try:
        found = tracker(picture)
    except ValueError as error:
        job.fail(name, str(error))
        return
    row = _row(name, found.status, found.matrix(), found.result.correlation[0])
    job.add(row, picture, found.aligned(picture), Path(name).stem + name.partition(" ")[2])


def _row(name: str, status: str, matrix: np.ndarray, correlation: torch.Tensor) -> PhotoRow:
    rounded = None if not np.isfinite(matrix).all() else [[round(float(v), 9) for v in row] for row in matrix]
    return PhotoRow(name, status, rounded, round(float(correlation), 5))


def _bar(items: Sequence[Any], progress: bool) -> Iterable[Any]:
    return tqdm(items, disable=None if progress else True, unit="file")


class _Job:
    """What is written on the way, and at the end."""

    def __init__(self, out: Path, reference: Image) -> None:
        self.out, self.reference, self.rows = out, reference, list[PhotoRow]()
        self._small: list[tuple[PhotoRow, Image, Image]] = []
        check_place(out / "aligned", "--out")

    def add(self, row: PhotoRow, before: Image, after: Image, stem: str) -> None:
        """A picture that was looked at; it is written where the template was found in it."""
        if row.ok:
            taken = {r.aligned for r in self.rows}
            name = next(n for n in _names(stem) if n not in taken)
            self._write(Path("aligned") / name, after)
            row = PhotoRow(**{**asdict(row), "aligned": name})
        self.rows.append(row)
        self._small.append((row, _thumbnail(before, FILM), _thumbnail(after, FILM)))

    def fail(self, name: str, why: str) -> None:
        """A file that could not be used."""
        self.rows.append(PhotoRow(name, why.removeprefix(f"{name} ")))

    def finish(self) -> list[PhotoRow]:
        """Write the tables, the contact sheet and the film."""
        entries = [asdict(row) for row in self.rows]
        content = {"matrices": "from the template's pixels to the image's", "images": entries}
        write_atomic(self.out / "matrices.json", json.dumps(content, indent=1) + "\n")
        write_atomic(self.out / "matrices.csv", self._table())
        if self._small:
            self._write(Path("contact_sheet.png"), self._contact_sheet())
            first, *rest = [self._before_after(before, after) for _, before, after in self._small]
            options = {"save_all": True, "append_images": rest, "duration": SHOWN, "loop": 0, "quality": 80}
            self._write(Path("before_after.webp"), first, **options)
        return self.rows

    def _write(self, name: Path, picture: Image, **options: Any) -> None:
        """A picture, as a whole or not at all."""
        content = io.BytesIO()
        picture.save(content, name.suffix[1:], **options)
        write_atomic(self.out / name, content.getvalue())

    def _table(self) -> str:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        entries_of = [f"m{i}{j}" for i in range(3) for j in range(3)]
        writer.writerow(["image", "status", "correlation", "aligned", *entries_of])
        for r in self.rows:
            numbers = [v for line in r.matrix for v in line] if r.matrix else [""] * 9
            writer.writerow([r.image, r.status, r.correlation, r.aligned, *numbers])
        return text.getvalue()

    def _contact_sheet(self) -> Image:
        """The template, and every picture as aligned, with its name and what became of it below."""
        from PIL import Image, ImageDraw

        shown = [(self.reference, "template", True)]
        shown += [(after, f"{row.image}: {row.status}", row.ok) for row, _, after in self._small]
        cells = [_thumbnail(picture, THUMBNAIL) for picture, _, _ in shown]
        height = max(c.height for c in cells) + 18
        columns = min(COLUMNS, len(cells))
        lines = -(-len(cells) // columns)
        sheet = Image.new("RGB", (columns * (THUMBNAIL + 8) + 8, lines * (height + 8) + 8), "white")
        draw = ImageDraw.Draw(sheet)
        for n, (cell, (_, words, ok)) in enumerate(zip(cells, shown, strict=True)):
            x, y = 8 + n % columns * (THUMBNAIL + 8), 8 + n // columns * (height + 8)
            sheet.paste(cell, (x, y))
            draw.text((x, y + cell.height + 2), _fitting(words), fill="black" if ok else "firebrick")
        return sheet

    def _before_after(self, before: Image, after: Image) -> Image:
        from PIL import Image

        size = _thumbnail(self.reference, FILM).size
        frame = Image.new("RGB", (2 * size[0] + 4, size[1]), "white")
        frame.paste(before.resize(size), (0, 0))
        frame.paste(after.resize(size), (size[0] + 4, 0))
        return frame


def _names(stem: str) -> Iterator[str]:
    yield f"{stem}.png"
    n = 2
    while True:
        yield f"{stem}_{n}.png"
        n += 1


def _fitting(words: str) -> str:
    return words if len(words) <= 33 else f"{words[:16]}…{words[-16:]}"


def _thumbnail(picture: Image, width: int) -> Image:
    height = max(1, round(picture.height * width / picture.width))
    return picture.convert("RGB").resize((width, height))
