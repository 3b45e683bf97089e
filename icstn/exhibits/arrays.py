"""The arrays behind a figure, kept in a file beside it: drawn again without data, and in no time."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from icstn.exhibits.montages import Averages
from icstn.experiments.records import Record
from icstn.files import write_atomic

IMAGES = ("mean", "variance")
NUMBERS = ("within", "unexplained", "sharpness")


def kept(
    path: str | Path, records: Iterable[Record], compute: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Arrays of a figure, from the file beside it where they belong to the same Records, else computed.

    So a figure can be redrawn without its data set, and in no time.

    Args:
        path: the ``.npz`` file.
        records: what the arrays depend on.
        compute: makes them; called only if the file is missing or stale.
    """
    path, key = Path(path), _key(records)
    if path.is_file():
        with np.load(path) as file:
            if str(file["key"]) == key:
                return {name: file[name] for name in file.files if name != "key"}
    arrays = compute()
    data = io.BytesIO()
    np.savez_compressed(data, allow_pickle=False, key=np.array(key), **arrays)
    write_atomic(path, data.getvalue())
    return arrays


def _key(records: Iterable[Record]) -> str:
    facts = sorted([r.spec.digest, json.dumps(r.metrics, sort_keys=True), r.stand_in] for r in records)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def to_bytes(rows: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Images in [0, 1] as uint8, for :func:`kept`."""
    return {label: (x * 255).round().to(torch.uint8).numpy() for label, x in rows.items()}


def from_bytes(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The inverse of :func:`to_bytes`, up to rounding."""
    return {label: torch.from_numpy(x).float() / 255 for label, x in arrays.items()}


def pack(rows: Mapping[str, Averages]) -> dict[str, np.ndarray]:
    """Averages as arrays, for :func:`kept`: images as float16, numbers as they are."""
    packed: dict[str, np.ndarray] = {}
    for label, row in rows.items():
        images = {name: getattr(row, name).numpy().astype(np.float16) for name in IMAGES}
        numbers = {name: np.array(getattr(row, name)) for name in NUMBERS}
        packed |= {f"{label}|{name}": array for name, array in (images | numbers).items()}
    return packed


def unpack(arrays: Mapping[str, np.ndarray]) -> dict[str, Averages]:
    """The inverse of :func:`pack`, up to rounding of the images."""
    labels = dict.fromkeys(name.split("|")[0] for name in arrays)
    return {label: _averages(arrays, label) for label in labels}


def _averages(arrays: Mapping[str, np.ndarray], label: str) -> Averages:
    mean, variance = (torch.from_numpy(arrays[f"{label}|{name}"]).double() for name in IMAGES)
    return Averages(mean, variance, *(float(arrays[f"{label}|{name}"]) for name in NUMBERS))
