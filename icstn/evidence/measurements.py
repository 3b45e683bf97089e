"""Measurements: what Records' models make of their test images, as a few numbers in a file.

A measurement (variance of aligned images, zoom of the predicted warps …) applies a Record's model to its test
set, which needs the data. Measurements are kept in a small JSON file beside the Records, each under the
digest of what it was measured from, so that claims can be judged where there is no data. Each number
stands beside those from all but one of twenty groups of the test images, from which its interval comes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from icstn.evidence.alignment import Crops, align_test_set, lost_ink, trained, window_of_box, zoom
from icstn.evidence.appearance import Totals
from icstn.evidence.collection import PREFERRED, Measurements, identity
from icstn.evidence.curves import operations
from icstn.evidence.elsewhere import MOST, NOISE, by_operations, under_noise
from icstn.evidence.estimates import Measured
from icstn.experiments.classification import Classification
from icstn.experiments.execution import DataOptions
from icstn.experiments.planar import Planar, reapplied
from icstn.experiments.recipes import is_own
from icstn.experiments.records import Record
from icstn.experiments.tasks import make_task
from icstn.files import write_atomic

#: Rows of which the aligned images are measured, at every preset.
LOOKED_AT = {
    "table_1": ("IC-STN-2", "IC-STN-3", "IC-STN-4", "IC-STN-6"),
    "cascades": ("RNN-4",),
    "table_2": ("STN(a)", "c-STN-1(a)", "IC-STN-2(a)", "IC-STN-4(a)"),
    "table_3": ("STN", "c-STN-1", "IC-STN-2", "IC-STN-4"),
}

#: Presets of whose rows the error elsewhere than in training is measured.
ELSEWHERE = ("full", "paper")

#: Times as many perturbations as a test of planar alignment has are measured: where nearly all end within a
#: thousandth of a pixel, the mean is decided by the few among ten thousand that are lost.
PLANAR_DRAWS = 10

#: Numbers of planar alignment.
OF_PLANAR = ("error_trained", "error_last")

#: Groups of test images, of which each is left out in turn.
GROUPS = 20

#: Numbers of an :class:`icstn.evidence.appearance.Appearance`.
OF_APPEARANCE = ("within", "unexplained", "sharpness", "lost")


def read_measurements(path: str | Path) -> dict[str, Measurements]:
    """The measurements' file by Record, empty if there is none."""
    path = Path(path)
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {key: _parsed(found) for key, found in content.items()}


def write_measurements(path: str | Path, measurements: Mapping[str, Measurements]) -> None:
    """Write the measurements' file."""
    content = {key: _plain(found) for key, found in measurements.items()}
    lines = (f" {json.dumps(key)}: {json.dumps(found)}" for key, found in sorted(content.items()))
    write_atomic(Path(path), "{\n" + ",\n".join(lines) + "\n}\n")


def to_measure(records: Iterable[Record], known: Mapping[str, Measurements]) -> list[Record]:
    """The Records that are to be measured, and are not, or have changed since, or not in everything."""
    return [r for r in records if _wanted(r) and _stale(known.get(r.spec.key), r)]


def measure(record: Record, data: DataOptions | None = None) -> Measurements:
    """Apply a Record's model to its perturbed test set (draw 0, unless another is named).

    Returns:
        of Table 1 and beside it, in pixels: ``error_trained`` and ``error_last``, the corner errors after the
        trained number of operations and after the last that is tested, over draws 0 to 9 of the test.

        Of the rows of Tables 2 and 3 in :data:`LOOKED_AT`: ``within``, ``unexplained``, ``sharpness`` and
        ``lost`` of :class:`icstn.evidence.appearance.Appearance`, before (``initial_…``) and after alignment;
        ``zoom``: the median magnification of the final warp (:func:`icstn.evidence.alignment.zoom`), also by
        class. On MNIST ``initial_lost_ink`` and ``lost_ink`` (:func:`icstn.evidence.alignment.lost_ink`),
        means over images; on GTSRB by class ``window``, the median of
        :func:`icstn.evidence.alignment.window_of_box`.

        Of the presets in :data:`ELSEWHERE` in the unit of the table: ``error_at_5``, the error under noise of
        5 px, and of IC-STNs that classify ``error_after_6``, the error after six operations
        (:mod:`icstn.evidence.elsewhere`).
    """
    task = make_task(record.spec, data or DataOptions(), "cpu")
    assert isinstance(task, Planar | Classification)
    measures, by_class = _elsewhere(task, record), {}
    if _looked_at(record):
        own, by_class = (_planar(task, record), {}) if isinstance(task, Planar) else _looks(task, record)
        measures |= own
    return Measurements(identity(record), _items(task), measures, by_class)


def _items(task: Planar | Classification) -> int:
    return (task.spec.test_items or 10_000) if isinstance(task, Planar) else len(task.test)


def _elsewhere(task: Planar | Classification, record: Record) -> dict[str, Measured]:
    model, names = trained(record, task.frame, task.channels), _names_elsewhere(record)
    sigmas = [s for s in NOISE.get(record.spec.experiment, ()) if f"error_at_{s:g}" in names]
    measures = {f"error_at_{s:g}": _jackknife(under_noise(task, model, s), torch.mean) for s in sigmas}
    if "error_after_1" in names:
        assert isinstance(task, Classification)
        errors = by_operations(task, model)
        measures |= {f"error_after_{n}": _jackknife(error, torch.mean) for n, error in enumerate(errors)}
    return measures


def _names_elsewhere(record: Record) -> set[str]:
    spec = record.spec
    if spec.preset not in ELSEWHERE:
        return set()
    names = {f"error_at_{sigma:g}" for sigma in NOISE.get(spec.experiment, ())}
    again = spec.experiment in ("table_2", "table_3") and spec.kind == "IC-STN"
    return names | ({f"error_after_{n}" for n in range(MOST + 1)} if again else set())


def _looks(task: Classification, record: Record) -> tuple[dict[str, Measured], dict[str, list[Measured]]]:
    aligned = align_test_set(task, record)
    zooms = zoom(task.warp, aligned.p.double())
    measures = _of_appearance(aligned.initial, aligned.labels, "initial_")
    measures |= _of_appearance(aligned.final, aligned.labels, "")
    measures["zoom"] = _jackknife(zooms, torch.median)
    by_class = {"zoom": _by_class(zooms, aligned.labels)}
    if task.test.boxes is not None:
        by_class["window"] = _by_class(window_of_box(task, aligned.p), aligned.labels)
    else:
        ink = {"initial_lost_ink": aligned.initial, "lost_ink": aligned.final}
        warps = {"initial_lost_ink": aligned.start, "lost_ink": aligned.p}
        measures |= {
            name: _jackknife(lost_ink(task, samples.images, warps[name]), torch.mean)
            for name, samples in ink.items()
        }
    return measures, by_class


@torch.no_grad()
def _planar(task: Planar, record: Record) -> dict[str, Measured]:
    model = trained(record, task.frame, task.channels)
    n, errors = operations(record.spec.model), []
    for draw in range(PLANAR_DRAWS):
        warps = reapplied(model, task.photograph, task.test_warps(_items(task), draw), chunk=100)
        errors.append(torch.stack([task.pixels(warps[k]).double() for k in (n, -1)]))
    return {
        name: _jackknife(error, torch.mean)
        for name, error in zip(OF_PLANAR, torch.cat(errors, 1), strict=True)
    }


def _of_appearance(samples: Crops, labels: Tensor, prefix: str) -> dict[str, Measured]:
    classes = labels.unique().tolist()
    parts = [
        Totals.of(Crops(samples.images[g::GROUPS], samples.seen[g::GROUPS]), labels[g::GROUPS], classes)
        for g in range(GROUPS)
    ]
    whole = Totals.of(samples, labels, classes)
    without = [(whole - part).appearance for part in parts]
    return {
        prefix + name: Measured(
            _round(getattr(whole.appearance, name)), tuple(_round(getattr(x, name)) for x in without)
        )
        for name in OF_APPEARANCE
    }


def _jackknife(values: Tensor, statistic: Callable[[Tensor], Tensor]) -> Measured:
    """A statistic of one number an image, from all of them and without each group."""
    group = torch.arange(len(values)) % GROUPS
    without = tuple(_round(float(statistic(values[group != g]))) for g in range(GROUPS))
    return Measured(_round(float(statistic(values))), without)


def _by_class(values: Tensor, labels: Tensor) -> list[Measured]:
    return [_jackknife(values[labels == c], torch.median) for c in labels.unique()]


def _wanted(record: Record) -> bool:
    spec = record.spec
    wanted = _looked_at(record) or bool(_names_elsewhere(record))
    return wanted and is_own(spec) and record.status == "finished" and not record.stand_in


def _looked_at(record: Record) -> bool:
    spec = record.spec
    return spec.model in LOOKED_AT.get(spec.experiment, ()) and spec.preset in PREFERRED


def _stale(known: Measurements | None, record: Record) -> bool:
    if known is None or known.of != identity(record):
        return True
    planar = OF_PLANAR if _looked_at(record) and record.spec.about.by_sigma else ()
    return not {*_names_elsewhere(record), *planar} <= set(known.measures)


def _plain(found: Measurements) -> dict[str, Any]:
    return {
        "of": found.of,
        "items": found.items,
        "measures": {name: [m.value, *m.left_out] for name, m in found.measures.items()},
        "by_class": {name: [[m.value, *m.left_out] for m in of] for name, of in found.by_class.items()},
    }


def _parsed(content: Mapping[str, Any]) -> Measurements:
    return Measurements(
        content["of"],
        content["items"],
        {name: _measured(m) for name, m in content["measures"].items()},
        {name: [_measured(m) for m in of] for name, of in content["by_class"].items()},
    )


def _measured(numbers: list[float]) -> Measured:
    return Measured(numbers[0], tuple(numbers[1:]))


def _round(value: float) -> float:
    return float(f"{value:.6g}")
