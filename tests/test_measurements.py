"""Measurements of Records: each number again in NumPy, from aligned images, with each twentieth left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import pictures
from golden.nets import ROWS, like
from golden.problems import problem
from golden.trial import perturbed, pixels_left

from icstn.evidence import measurements
from icstn.evidence.alignment import AlignedSet, align_test_set, lost_ink, trained, window_of_box, zoom
from icstn.evidence.collection import Measurements, identity
from icstn.evidence.curves import ErrorCurve
from icstn.evidence.estimates import Measured
from icstn.evidence.measurements import measure, read_measurements, to_measure, write_measurements
from icstn.experiments import DataOptions, Record, build_model, cells, make_task
from icstn.experiments.classification import Classification
from icstn.experiments.task import Task
from icstn.sampling import Frame

#: Where the data are said to be.
DATA = DataOptions("a folder")


def made(task: Task, size: float = 0.01) -> Record:
    """A Record of the task's spec with random weights."""
    network, noise = build_model(task.spec, task.frame, task.channels), torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weight in network.parameters():
            weight += size * torch.randn(weight.shape, generator=noise)
    return Record(task.spec, "finished", {"test_error": 1.0}, {}, {}, dict(network.state_dict()))


def classification(table: str, model: str) -> Classification:
    """The test pictures, each several times so that no class is within one group; signs with boxes."""
    data = {"table_2": pictures.digits, "table_3": pictures.signs}[table]("test")
    several = torch.arange(len(data.labels)).repeat(3)
    boxes = torch.tensor([[7.0, 9, 42, 40], [10, 8, 38, 41]])[several % 2] if table == "table_3" else None
    test = replace(data, images=data.images[several], labels=data.labels[several], boxes=boxes)
    frame = Frame.full(28, 28) if table == "table_2" else Frame.crop(50, 50, 36, 36)
    (spec,) = cells(table, "quick", [0], [model])
    return Classification(spec, test, test, frame, torch.device("cpu"), table == "table_3")


def without_each(values: np.ndarray, statistic: Callable[[np.ndarray], float]) -> list[float]:
    """Of all, and of all but those whose number leaves the remainder 0, 1, … 19 on division by twenty."""
    number = np.arange(len(values))
    return [statistic(values), *(statistic(values[number % 20 != g]) for g in range(20))]


def middle(values: np.ndarray) -> float:
    """The lower of the two in the middle."""
    return float(np.sort(values)[(len(values) - 1) // 2])


def looks(images: np.ndarray, seen: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Variance within classes and its share, sharpness of what was seen, and the lost share."""
    residual, sharpness = images.copy(), []
    h, w = images.shape[-2:]
    for c in np.unique(labels):
        mine = images[labels == c]
        residual[labels == c] -= mine.mean(0)
        mean = mine.sum(0) / np.maximum(seen[labels == c].sum(0), 1e-6 * len(mine))
        mean = mean[:, h // 4 : h - h // 4, w // 4 : w - w // 4]
        sharpness.append(np.sqrt((np.diff(mean, axis=2) ** 2).mean() + (np.diff(mean, axis=1) ** 2).mean()))
    within = (residual**2).mean()
    found = {"within": within, "unexplained": within / images.var(0).mean()}
    return found | {"sharpness": np.mean(sharpness), "lost": (1 - seen).mean()}


def expected_looks(aligned: AlignedSet) -> dict[str, list[float]]:
    labels, number = aligned.labels.numpy(), np.arange(len(aligned.labels))
    found: dict[str, list[float]] = {}
    for prefix, crops in (("initial_", aligned.initial), ("", aligned.final)):
        images, seen = crops.images.double().numpy(), crops.seen.double().numpy()
        for kept in (number >= 0, *(number % 20 != g for g in range(20))):
            for name, value in looks(images[kept], seen[kept], labels[kept]).items():
                found.setdefault(prefix + name, []).append(value)
    return found


@pytest.mark.parametrize(("table", "model"), [("table_2", "IC-STN-2(a)"), ("table_3", "c-STN-1")])
def test_of_aligned_images(table: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = classification(table, model)
    monkeypatch.setattr(measurements, "make_task", handing_out(task))
    record = made(task)
    found, aligned = measure(record, DATA), align_test_set(task, record)
    wanted, by_class = expected_looks(aligned), {"zoom": zoom(task.warp, aligned.p.double())}
    wanted["zoom"] = without_each(by_class["zoom"].numpy(), middle)
    if table == "table_2":
        for name, crops, p in (("initial_", aligned.initial, aligned.start), ("", aligned.final, aligned.p)):
            ink = lost_ink(task, crops.images, p).numpy()
            wanted[f"{name}lost_ink"] = without_each(ink, lambda x: float(x.mean()))
    else:
        by_class["window"] = window_of_box(task, aligned.p)
    assert (found.of, found.items) == (identity(record), len(task.test.labels))
    assert set(found.measures) == set(wanted)
    for name, values in wanted.items():
        told = found.measures[name]
        assert [told.value, *told.left_out] == pytest.approx(values, rel=2e-4, abs=1e-7), name
    assert set(found.by_class) == set(by_class)
    for name, numbers in by_class.items():
        for label, told in zip(task.test.labels.unique(), found.by_class[name], strict=True):
            values = without_each(numbers[task.test.labels == label].numpy(), middle)
            assert [told.value, *told.left_out] == pytest.approx(values, rel=1e-5), name


def handing_out(task: Task) -> Callable[..., Task]:
    """In place of make_task: with the data that were named, on the processor."""

    def handed(spec: object, data: DataOptions, device: str) -> Task:
        assert (spec, data, device) == (task.spec, DATA, "cpu")
        return task

    return handed


def test_of_the_planar_experiment() -> None:
    """Pixels after the trained number of operations and after the last, of ten draws of the test."""
    (spec,) = cells("table_1", "quick", [0], ["IC-STN-2"], sigma=5.0, test_items=41)
    record = made(make_task(spec, DataOptions(), "cpu"), size=1e-4)
    found, plane = measure(record), problem("table_1", 5.0)
    row = ROWS["table_1"]["IC-STN-2"]
    p = torch.cat([perturbed("table_1", spec.image, plane, 41, draw) for draw in range(10)])
    most = 12  # the paper's Figure 7 goes as far
    left = pixels_left(row, like(row, list(record.weights.values())), plane, p, spec.side, most)
    assert found.items == 41
    assert set(found.measures) == {"error_trained", "error_last"}
    for name, step in (("error_trained", 2), ("error_last", most)):
        told, values = found.measures[name], without_each(left[step], lambda x: float(x.mean()))
        assert [told.value, *told.left_out] == pytest.approx(values, rel=1e-3)


def test_what_lacks_a_number_is_measured_again() -> None:
    (spec,) = cells("table_1", "quick", [0], ["IC-STN-2"], sigma=5.0, test_items=41)
    record = made(make_task(spec, DataOptions(), "cpu"), size=1e-4)
    own = replace(record, spec=cells("table_1", "quick", [0], ["IC-STN-2"])[0])
    number = Measured(1.0, (1.0,) * 20)
    for names, asked in (
        (("error_trained", "error_last"), []),
        (("error_trained",), [own]),
        (("error_last",), [own]),
        (("trained", "last"), [own]),
    ):
        known = Measurements(identity(own), 41, dict.fromkeys(names, number), {})
        assert to_measure([own], {own.spec.key: known}) == asked


def test_of_as_many_items_as_the_test_has() -> None:
    (spec,) = cells("table_1", "quick", [0], ["c-STN-1"], sigma=5.0, test_items=0)
    task = make_task(spec, DataOptions(), "cpu")
    record = made(task)
    tested = task.evaluate(trained(record, task.frame, task.channels)).outcomes[0]
    assert measure(record, DataOptions()).items == len(tested)


def test_kept_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = classification("table_2", "STN(a)")
    monkeypatch.setattr(measurements, "make_task", handing_out(task))
    found = {"a run": measure(made(task), DATA)}
    write_measurements(tmp_path / "measurements.json", found)
    assert (tmp_path / "measurements.json").read_text(encoding="utf-8").endswith("}\n")
    assert read_measurements(tmp_path / "measurements.json") == found
    assert read_measurements(tmp_path / "none.json") == {}


def test_a_curve_that_ends_too_early() -> None:
    with pytest.raises(ValueError, match="ends at 2 warp operations, before the trained 3"):
        ErrorCurve(np.array([3.0, 2.0, 1.0]), 3)
    assert ErrorCurve(np.array([3.0, 1.0, 2.0]), 2).best == 1
