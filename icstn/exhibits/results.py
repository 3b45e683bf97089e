"""From Records to the arrays that the figures draw: models are applied to test images, never trained."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from icstn.exhibits.curves import ErrorCurve
from icstn.exhibits.montages import Appearance, appearance
from icstn.experiments import DataOptions, Record, build_model, cells, ensure, open_records
from icstn.experiments.classification import Classification
from icstn.experiments.models import Model
from icstn.sampling import Frame, sample


class ExhibitError(ValueError):
    """A figure that can't be drawn from these Records; the message says what is missing."""


def obtain(
    experiment: str,
    models: Sequence[str] | None = None,
    *,
    preset: str = "quick",
    seeds: int | str | Sequence[int] = 0,
    device: str = "auto",
    data: str | None = None,
    records: str | None = None,
) -> list[Record]:
    """The Records that an exhibit shows; what is missing is trained first, with a progress bar.

    Args:
        experiment: ``table_1``, ``table_2`` or ``table_3``.
        models: only these rows.
        preset, device, data, records: the notebook's parameters.
        seeds: one seed, a list, or a text such as ``"0,1,2"`` or ``"0-4"``.

    Raises:
        SpecError, DataError, StorageError, ExhibitError: a parameter is no good; the message says which.
    """
    specs = cells(experiment, preset, seed_list(seeds), models)
    return ensure(specs, open_records(records), device=device, data=data_options(data))


def data_options(data: str | None) -> DataOptions:
    """The notebooks' parameter ``data``: a folder, None, or ``"stand-in"`` for rendered traffic signs."""
    return DataOptions(None, True) if data == "stand-in" else DataOptions(data)


#: What a figure of the stand-in says on its face.
STAND_IN = "rendered stand-in, not GTSRB"


def seed_list(seeds: int | str | Sequence[int]) -> list[int]:
    """Seeds as a list, from a number, a list or a text.

    Raises:
        ExhibitError: the text names no seeds.

    Example:
        >>> seed_list("0,2,5-7")
        [0, 2, 5, 6, 7]
    """
    if isinstance(seeds, int):
        return [seeds]
    if not isinstance(seeds, str):
        return [int(seed) for seed in seeds]
    try:
        ranges = [[int(end) for end in part.split("-")] for part in seeds.split(",")]
        return [seed for ends in ranges for seed in range(ends[0], ends[-1] + 1)]
    except ValueError as error:
        raise ExhibitError(f"seeds are numbers such as 0, 0,1,2 or 0-4; got {seeds!r}") from error


def one(records: Iterable[Record], model: str) -> Record:
    """The finished Record of a model with the least seed.

    Raises:
        ExhibitError: there is none.
    """
    runs = [r for r in records if r.spec.model == model and r.status == "finished"]
    if not runs:
        raise ExhibitError(
            f"there is no finished run of {model} to draw; train it with another seed or preset"
        )
    return min(runs, key=lambda r: r.spec.seed)


def trained(record: Record, frame: Frame, channels: int) -> Model:
    """The Record's model with its weights, ready to be applied."""
    model = build_model(record.spec, frame, channels)
    model.load_state_dict(record.weights)
    return model.eval()


def error_curves(records: Iterable[Record], key: str = "corner_px") -> dict[str, dict[str, ErrorCurve]]:
    """Curves of Figure 7: title of the panel (σ) → model → test error after each number of operations.

    Args:
        records: of ``table_1``; several seeds are averaged.
        key: ``corner_px``, ``median_px`` or ``parameters``.
    """
    groups: dict[tuple[float, str], list[list[float]]] = {}
    for r in sorted(records, key=lambda r: (r.spec.sigma, _operations(r.spec.model), r.spec.model)):
        if r.status == "finished":
            by_step = [step[key] for step in r.metrics["by_operations"]]
            groups.setdefault((r.spec.sigma, r.spec.model), []).append(by_step)
    panels: dict[str, dict[str, ErrorCurve]] = {}
    for (sigma, model), runs in groups.items():
        most = min(map(len, runs))
        errors = np.array([run[:most] for run in runs])
        spread = errors.std(0, ddof=1) if len(runs) > 1 else None
        curve = ErrorCurve(errors.mean(0), _operations(model), spread)
        panels.setdefault(f"σ = {sigma:g} px", {})[model] = curve
    return panels


def _operations(model: str) -> int:
    """The number of warp operations in a model's name, such as 4 in IC-STN-4."""
    return int(model.rsplit("-", 1)[1])


def first_of_each(labels: Tensor, classes: Sequence[int]) -> list[int]:
    """Index of the first test image of each class: samples that nobody picked."""
    return [int((labels == c).nonzero()[0]) for c in classes]


@torch.inference_mode()
def steps(task: Classification, record: Record, index: Sequence[int]) -> list[Tensor]:
    """Test images before the first and after each warp operation of a model, in [0, 1].

    Args:
        task: test images and perturbations (number 0, as in the tables).
        record: what to apply.
        index: which test images.

    Returns:
        operations + 1 tensors ``(len(index), channels, h, w)``. What a Spatial Transformer has lost
        outside its crop is black.
    """
    index = list(index)
    images = task.test.images[index]
    model = trained(record, task.frame, task.channels)
    p = task.test_warps(len(task.test), 0)[index].cpu()
    warps = model.align(task.prepare(images), p).warps
    raw = images.float() / 255
    if record.spec.kind == "STN":
        return _resampled(raw, warps, model)
    return [sample(raw, q, model.frame, model.warp) for q in warps]


def _resampled(raw: Tensor, warps: Sequence[Tensor], model: Model) -> list[Tensor]:
    """An STN's images: each is sampled from the one before."""
    whole = Frame.full(model.frame.height, model.frame.width)
    images = [sample(raw, warps[0], model.frame, model.warp)]
    for before, after in pairwise(warps):
        dp = model.warp.compose(model.warp.inverse(before, check=False), after, side="template", check=False)
        images.append(sample(images[-1], dp, whole, model.warp))
    return images


def alignments(task: Classification, record: Record, stn: Record, index: Sequence[int]) -> dict[str, Tensor]:
    """Rows of Figures 8 and 10: the perturbation, every step of one model, and the original STN's result."""
    frames = steps(task, record, index)
    rows = {"initial": frames[0]}
    rows |= {f"iteration {k}": frame for k, frame in enumerate(frames[1:-1], 1)}
    return rows | {f"{record.spec.model} final": frames[-1], stn.spec.model: steps(task, stn, index)[-1]}


def appearances(
    task: Classification, records: Mapping[str, Record], classes: Sequence[int], *, items: int = 0
) -> dict[str, Appearance]:
    """Mean and variance of aligned appearance, for the perturbed images and after each model (Figs. 9, 11).

    Args:
        task: test images and perturbations.
        records: label → what to apply.
        classes: which classes.
        items: only the first so many test images; 0 for all.
    """
    labels = task.test.labels[: items or None]
    index = torch.isin(labels, torch.tensor(list(classes))).nonzero().flatten()
    first = next(iter(records.values()))
    rows = {"initial": initial(task, first, index)}
    rows |= {label: _aligned(task, record, index) for label, record in records.items()}
    return {label: appearance(images, labels[index], classes) for label, images in rows.items()}


def initial(task: Classification, record: Record, index: Tensor) -> Tensor:
    """The perturbed test images before any alignment, in [0, 1]."""
    p = task.test_warps(len(task.test), 0)[index].cpu()
    return sample(task.test.images[index].float() / 255, p, task.frame, record.spec.warp)


def _aligned(task: Classification, record: Record, index: Tensor) -> Tensor:
    return torch.cat([steps(task, record, part.tolist())[-1] for part in index.split(250)])


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
    path.parent.mkdir(parents=True, exist_ok=True)
    data = io.BytesIO()
    np.savez_compressed(data, allow_pickle=False, key=np.array(key), **arrays)
    path.write_bytes(data.getvalue())
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


def pack(rows: Mapping[str, Appearance]) -> dict[str, np.ndarray]:
    """Means and variances as float16 arrays, for :func:`kept`."""
    packed: dict[str, np.ndarray] = {}
    for label, stats in rows.items():
        packed |= {
            f"{label}|mean": stats.mean.numpy().astype(np.float16),
            f"{label}|variance": stats.variance.numpy().astype(np.float16),
            f"{label}|count": stats.count.numpy(),
        }
    return packed


def unpack(arrays: Mapping[str, np.ndarray]) -> dict[str, Appearance]:
    """The inverse of :func:`pack`, up to rounding."""
    labels = dict.fromkeys(name.split("|")[0] for name in arrays)
    parts = ("mean", "variance", "count")
    return {
        label: Appearance(*(torch.from_numpy(arrays[f"{label}|{part}"]).double() for part in parts))
        for label in labels
    }
