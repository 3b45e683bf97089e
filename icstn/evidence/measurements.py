"""Measurements: what Records' models make of their test images, as a few numbers in a file.

A measurement (variance of aligned images, zoom of the predicted warps …) applies a Record's model to its test
set, which needs the data. Measurements are kept in a small JSON file beside the Records, each under the
digest of what it was measured from, so that claims can be judged where there is no data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from icstn.evidence.alignment import align_test_set, zoom
from icstn.evidence.appearance import Appearance, before_and_after
from icstn.evidence.collection import PREFERRED, identity
from icstn.experiments.classification import Classification
from icstn.experiments.execution import DataOptions
from icstn.experiments.recipes import is_own
from icstn.experiments.records import Record
from icstn.experiments.tasks import make_task
from icstn.files import write_atomic

#: Which rows are measured.
MEASURED = {
    "table_2": ("STN(a)", "c-STN-1(a)", "IC-STN-2(a)", "IC-STN-4(a)"),
    "table_3": ("STN", "c-STN-1", "IC-STN-2", "IC-STN-4"),
}


def read_measurements(path: str | Path) -> dict[str, dict[str, Any]]:
    """The measurements' file, empty if there is none."""
    path = Path(path)
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def write_measurements(path: str | Path, measurements: dict[str, dict[str, Any]]) -> None:
    """Write the measurements' file."""
    write_atomic(Path(path), json.dumps(measurements, sort_keys=True, indent=1, ensure_ascii=False) + "\n")


def to_measure(records: Iterable[Record], known: dict[str, dict[str, Any]]) -> list[Record]:
    """The Records that :data:`MEASURED` wants measured and that are not (or have changed)."""
    return [r for r in records if _wanted(r) and known.get(r.spec.key, {}).get("of") != identity(r)]


def _wanted(record: Record) -> bool:
    spec = record.spec
    row = spec.model in MEASURED.get(spec.experiment, ()) and spec.preset in PREFERRED and spec.seed == 0
    return row and is_own(spec) and record.status == "finished" and not record.stand_in


def measure(record: Record, data: DataOptions | None = None) -> dict[str, Any]:
    """Apply a Record's model to its perturbed test set.

    Returns:
        ``of``: :func:`icstn.evidence.collection.identity`; ``items``; ``within``, ``unexplained``,
        ``sharpness`` and ``lost`` of :class:`icstn.evidence.appearance.Appearance`, before (``initial_…``)
        and after alignment; ``zoom``: the median magnification of the final warp
        (:func:`icstn.evidence.alignment.zoom`), and for each class ``zoom_by_class``.
    """
    task = make_task(record.spec, data or DataOptions(), "cpu")
    assert isinstance(task, Classification)
    aligned = align_test_set(task, record)
    first, last = before_and_after(aligned)
    zooms = zoom(task.warp, aligned.p.double())
    return {
        "of": identity(record),
        "items": len(aligned.labels),
        **{f"initial_{name}": value for name, value in _numbers(first).items()},
        **_numbers(last),
        "zoom": _round(float(zooms.median())),
        "zoom_by_class": [
            _round(float(zooms[aligned.labels == c].median())) for c in aligned.labels.unique()
        ],
    }


def _numbers(found: Appearance) -> dict[str, float]:
    return {name: _round(getattr(found, name)) for name in ("within", "unexplained", "sharpness", "lost")}


def _round(value: float) -> float:
    return float(f"{value:.5g}")
