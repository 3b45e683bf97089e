"""What claims need from Records: runs of a cell, differences with intervals, and measurements on test images.

Measurements (variance of aligned images, zoom of the predicted warps …) apply a Record's model to its test
set, which needs the data. They are kept in a small JSON file beside the Records, each under the digest of
what it was measured from, so that the claims can be judged where there is no data.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor

from icstn.experiments import paper
from icstn.experiments.classification import Classification
from icstn.experiments.execution import DataOptions
from icstn.experiments.models import Model
from icstn.experiments.recipes import cells
from icstn.experiments.records import Record
from icstn.experiments.spec import Spec
from icstn.experiments.tasks import make_task
from icstn.files import write_atomic
from icstn.sampling import Frame, sample

#: Presets from which evidence is taken, the best first.
PREFERRED = ("full", "paper", "quick")

#: Normal quantile of the intervals.
Z = 1.96

#: Test images that a measurement looks at.
MEASURED_ITEMS = 4000

#: Which rows are measured.
MEASURED = {
    "table_2": ("STN(a)", "c-STN-1(a)", "IC-STN-2(a)", "IC-STN-4(a)"),
    "table_3": ("STN", "c-STN-1", "IC-STN-2", "IC-STN-4"),
}


class MissingError(LookupError):
    """Records or measurements that a claim needs are not there; the message lists them."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes:
        value: the estimate.
        half: half the width of the interval.
    """

    value: float
    half: float

    @property
    def low(self) -> float:
        """Lower end."""
        return self.value - self.half

    @property
    def high(self) -> float:
        """Upper end."""
        return self.value + self.half

    def __sub__(self, other: Estimate) -> Estimate:
        return Estimate(self.value - other.value, math.hypot(self.half, other.half))

    def show(self, digits: int = 2) -> str:
        """``1.23 [1.10, 1.36]``."""
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def mean_error(runs: Sequence[Record], metric: str = "test_error") -> Estimate:
    """Mean over seeds; the interval joins the spread over seeds with that over test items.

    The test items are the same for every seed, so their part does not shrink with the number of seeds. It
    ignores that two models meet the same perturbations, which makes the interval of a difference too wide
    rather than too narrow.
    """
    values = [float(r.metrics[metric]) for r in runs]
    items = fmean((r.metrics["interval"][1] - r.metrics["interval"][0]) / 2 for r in runs)
    seeds = Z * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return Estimate(fmean(values), math.hypot(items, seeds))


class Evidence:
    """Records by cell, and measurements.

    Args:
        records: any Records; those of stand-in data and diverged ones are left out.
        measurements: content of the measurements' file.
        presets: from which evidence may be taken, the best first.
    """

    def __init__(
        self,
        records: Iterable[Record],
        measurements: dict[str, dict[str, Any]] | None = None,
        presets: Sequence[str] = PREFERRED,
    ) -> None:
        self.records = [r for r in records if not r.stand_in]
        self.measurements = measurements or {}
        self.presets = tuple(presets)
        self.used: set[str] = set()

    def runs(
        self, experiment: str, model: str, preset: str, sigma: float | None = None, **changes: Any
    ) -> list[Record]:
        """Finished Records of a cell, by seed.

        Raises:
            MissingError: there is none.
        """
        wanted = [s for s in cells(experiment, preset, models=[model]) if sigma is None or s.sigma == sigma]
        wanted = [replace(s, **changes) for s in wanted]
        found = [r for r in self.records if replace(r.spec, seed=0) in wanted and r.status == "finished"]
        if not found:
            extra = "".join(f", {name}={value}" for name, value in changes.items())
            raise MissingError(f"{model}{'' if sigma is None else f' σ={sigma:g}'}{extra} at {preset}")
        self.used |= {r.spec.key for r in found}
        return sorted(found, key=lambda r: r.spec.seed)

    def preset(self, experiment: str, models: Sequence[str], **changes: Any) -> str:
        """The best preset that has all of these models (at every σ).

        Raises:
            MissingError: none has; the message lists what the one with most lacks.
        """
        lacking = {preset: self._lacking(experiment, models, preset, changes) for preset in self.presets}
        best = min(self.presets, key=lambda p: len(lacking[p]))
        if lacking[best]:
            raise MissingError(_listed(lacking[best]))
        return next(p for p in self.presets if not lacking[p])

    def _lacking(
        self, experiment: str, models: Sequence[str], preset: str, changes: dict[str, Any]
    ) -> list[str]:
        missing = []
        for model in models:
            for sigma in paper.SIGMAS if experiment == "table_1" else (None,):
                try:
                    self.runs(experiment, model, preset, sigma, **changes)
                except MissingError as error:
                    missing.append(str(error))
        return missing

    def error(
        self, experiment: str, model: str, preset: str, sigma: float | None = None, **changes: Any
    ) -> Estimate:
        """Test error of a cell."""
        return mean_error(self.runs(experiment, model, preset, sigma, **changes))

    def measured(self, experiment: str, model: str, preset: str) -> dict[str, Any]:
        """Measurements of the cell's first seed.

        Raises:
            MissingError: it was not measured, or its Record has changed since.
        """
        record = self.runs(experiment, model, preset)[0]
        found = self.measurements.get(record.spec.key)
        if found is None or found["of"] != identity(record):
            raise MissingError(f"measurements of {model} at {preset} (python -m tools.ledgers --measure)")
        return found


def best_runs(records: Iterable[Record], experiment: str, presets: Sequence[str] = PREFERRED) -> list[Record]:
    """The table's own runs (no variation, no stand-in data) at the preset with most cells, the best first."""
    own = [r for r in records if r.spec.experiment == experiment and not r.stand_in]
    own = [r for r in own if r.spec in cells(experiment, r.spec.preset, (r.spec.seed,))]
    groups = {p: [r for r in own if r.spec.preset == p] for p in presets}
    return max(groups.values(), key=lambda runs: len({(r.spec.model, r.spec.sigma) for r in runs}))


def identity(record: Record) -> str:
    """Digest of a Record's spec and metrics."""
    text = record.spec.json() + json.dumps(record.metrics, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_measurements(path: str | Path) -> dict[str, dict[str, Any]]:
    """The measurements' file, empty if there is none."""
    path = Path(path)
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def write_measurements(path: str | Path, measurements: dict[str, dict[str, Any]]) -> None:
    """Write the measurements' file."""
    write_atomic(Path(path), json.dumps(measurements, sort_keys=True, indent=1, ensure_ascii=False) + "\n")


def to_measure(records: Iterable[Record], known: dict[str, dict[str, Any]]) -> list[Record]:
    """The Records that :data:`MEASURED` wants measured and that are not (or have changed)."""
    wanted = []
    for record in records:
        spec: Spec = record.spec
        usual = spec in cells(spec.experiment, spec.preset, (spec.seed,)) and spec.seed == 0
        rows = MEASURED.get(spec.experiment, ())
        if not usual or spec.model not in rows or spec.preset not in PREFERRED:
            continue
        stale = known.get(spec.key, {}).get("of") != identity(record)
        if record.status == "finished" and not record.stand_in and stale:
            wanted.append(record)
    return wanted


@torch.inference_mode()
def measure(record: Record, data: DataOptions | None = None) -> dict[str, Any]:
    """Apply a Record's model to (the first :data:`MEASURED_ITEMS` of) its perturbed test set.

    Returns:
        ``of``: :func:`identity`; ``items``; variance of a pixel ``within`` the classes and its share of the
        total variance, ``unexplained``, before (``initial_…``) and after alignment; ``sharpness`` of the
        class means, before and after; ``zoom``: the mean linear magnification of the final warp (above 1
        the output shows more than the template, so that the object looks smaller), and for each class
        ``zoom_by_class``; ``lost``: mean share of the output's samples that saw nothing of the image.
    """
    task = make_task(record.spec, data or DataOptions(), "cpu")
    assert isinstance(task, Classification)
    model = task.model()
    model.load_state_dict(record.weights)
    model.eval()
    before, after, zoom, lost = [], [], [], []
    labels: list[Tensor] = []
    for batch in task.test_batches(0):
        aligned = model.align(batch.image, batch.p)
        raw = _raw(task, len(labels) * 500, len(batch.label))
        before.append(sample(raw, batch.p, task.frame, task.warp))
        seen, out = _replay(model, raw, aligned.warps)
        after.append(out)
        lost.append((seen == 0).double().mean((1, 2, 3)))
        zoom.append(_zoom(model, aligned.warps[-1]))
        labels.append(batch.label)
        if sum(map(len, labels)) >= MEASURED_ITEMS:
            break
    label = torch.cat(labels)
    first, last = _variance(torch.cat(before), label), _variance(torch.cat(after), label)
    zooms = torch.cat(zoom)
    return {
        "of": identity(record),
        "items": len(label),
        **{f"initial_{name}": _round(value) for name, value in first.items()},
        **{name: _round(value) for name, value in last.items()},
        "zoom": _round(float(zooms.median())),
        "zoom_by_class": [_round(float(zooms[label == c].median())) for c in label.unique()],
        "lost": _round(float(torch.cat(lost).mean())),
    }


def _round(value: float) -> float:
    return float(f"{value:.5g}")


def _raw(task: Classification, start: int, n: int) -> Tensor:
    return task.test.images[start : start + n].float() / 255


def _replay(model: Model, raw: Tensor, warps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """What the output's samples saw of the image (0 to 1), and the output in [0, 1]."""
    both = torch.cat((torch.ones_like(raw[:, :1]), raw), 1)
    if not model.transformer or type(model.transformer).__name__ != "STN":
        out = sample(both, warps[-1], model.frame, model.warp)
    else:
        out, whole = (
            sample(both, warps[0], model.frame, model.warp),
            Frame.full(model.frame.height, model.frame.width),
        )
        for p, q in itertools.pairwise(warps):
            step = model.warp.compose(model.warp.inverse(p, check=False), q, side="template", check=False)
            out = sample(out, step, whole, model.warp)
    return out[:, :1], out[:, 1:]


def _zoom(model: Model, p: Tensor) -> Tensor:
    """Linear magnification at the template's centre, the square root of the area's."""
    x = torch.tensor([[0.0, 0.0], [1e-2, 0.0], [0.0, 1e-2]])
    o, a, b = model.warp.apply(p, x).unbind(1)
    u, v = (a - o) * 100, (b - o) * 100
    return (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).abs().sqrt().double()


def _variance(images: Tensor, labels: Tensor) -> dict[str, float]:
    classes = labels.unique()
    means = torch.stack([images[labels == c].double().mean(0) for c in classes])
    weight = torch.stack([(labels == c).double().mean() for c in classes])
    spread = torch.stack([images[labels == c].double().var(0, correction=0).mean() for c in classes])
    within = float((weight * spread).sum())
    total = float(images.double().var(0, correction=0).mean())
    dx, dy = (means.diff(dim=d).square().mean((1, 2, 3)) for d in (-1, -2))
    return {"within": within, "unexplained": within / total, "sharpness": float((dx + dy).sqrt().mean())}


def _listed(items: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(items[:most])
    return shown + (f" and {len(items) - most} more" if len(items) > most else "")
