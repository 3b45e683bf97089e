"""Runs on their way: where they are kept, what a cluster is told, what a baseline is measured by."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from golden import methods, trial
from golden.problems import problem
from golden.sight import corner_pixels

from icstn.experiments import (
    BaselineSpec,
    DataOptions,
    Execution,
    Record,
    Records,
    RunSpec,
    baselines,
    cells,
    clusters,
    ensure,
    local,
)
from icstn.experiments.planar import Planar
from icstn.experiments.tasks import planar_task


def record_of(spec: RunSpec) -> Record:
    """Some Record of a spec."""
    curve: dict[str, list[float]] = {"step": [], "loss": [], "error": []}
    return Record(spec, "finished", {"test_error": 1.0, "unit": "%"}, curve, {}, {"w": torch.ones(1)})


def test_what_a_notebook_says_of_its_data() -> None:
    assert DataOptions.parse(None) == DataOptions(None, False)
    assert DataOptions.parse("stand-in") == DataOptions(None, True)
    assert DataOptions.parse(Path("a") / "folder") == DataOptions("a/folder", False)


@pytest.mark.parametrize("stand_in", [True, False])
def test_runs_on_stand_ins_have_a_folder_of_their_own(
    stand_in: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is read from or written to the ordinary folder, and the other way round."""
    given: list[tuple[Sequence[RunSpec], Path]] = []

    def run(missing: Sequence[RunSpec], records: Records, update: Callable, execution: Execution) -> dict:
        given.append((missing, records.folder))
        for spec in missing:
            records.save(record_of(spec))
        return {}

    monkeypatch.setattr(local, "run", run)
    specs = cells("table_3", "smoke", models=["CNN", "STN"])
    own, other = (tmp_path / "stand-in", tmp_path) if stand_in else (tmp_path, tmp_path / "stand-in")
    Records(other).save(record_of(specs[0]))  # is not what is asked for
    execution = Execution(data=DataOptions(None, stand_in), progress=False)
    found = ensure(specs, Records(tmp_path), execution)
    assert [r.spec for r in found] == specs
    assert given == [([specs[1], specs[0]], own)]
    assert {p.parent.name for p in own.glob("*/record.json")} == {s.key for s in specs}
    assert {p.parent.name for p in other.glob("*/record.json")} == {specs[0].key}


class Client:
    """Takes what a dask client is given, and answers with a Record's files."""

    calls: ClassVar[list[tuple[Any, tuple, dict]]] = []

    def __init__(self, address: str, **_: object) -> None:
        self.address = address

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    as_current = lambda self: self  # noqa: E731

    def scheduler_info(self, **_: object) -> dict:
        return {"workers": {"a": {"resources": {"GPU": 1}}, "b": {"resources": {}}}}

    def submit(
        self, function: Callable, spec: RunSpec, folder: str, execution: Execution, **options: Any
    ) -> Any:
        Client.calls.append((function, (spec, folder, execution), options))
        there = Records(Path(folder).with_name("there"))
        there.save(record_of(spec))
        files = {f.name: f.read_bytes() for f in there.path(spec).iterdir()}
        return Job(files)


class Job:
    """One of its jobs, done."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def result(self) -> dict[str, bytes]:
        return self.files

    def release(self) -> None:
        return None


@pytest.mark.parametrize(("device", "resources"), [("cuda", {"GPU": 1}), ("cpu", None), ("auto", None)])
def test_what_a_cluster_is_told(
    device: str, resources: dict | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run with its spec, folder and execution, three further tries, and a GPU where one is asked for."""
    wait = lambda jobs, **_: (set(jobs), set())  # noqa: E731
    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(Client=Client, wait=wait))
    monkeypatch.setattr(Client, "calls", [])
    specs = cells("table_2", "smoke", models=["CNN(a)", "STN(a)"])
    execution = Execution(device=device, scheduler="tcp://somewhere:1", data=DataOptions("a folder"))
    records, updates = Records(tmp_path / "here"), []
    assert clusters.run(specs, records, lambda: updates.append(1), execution) == {}
    wanted = {"retries": 3, "pure": False, "resources": resources}
    assert Client.calls == [
        (clusters.train_there, (s, str(records.folder), execution), wanted) for s in specs
    ]
    assert all(records.find(s) == record_of(s) for s in specs)
    assert updates


def test_an_error_comes_back_from_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the failure of its run alone."""
    wait = lambda jobs, **_: (set(jobs), set())  # noqa: E731
    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(Client=Client, wait=wait))
    error, original = ValueError("no such digits"), Job.result
    specs = cells("table_2", "smoke", models=["CNN(a)", "STN(a)"])

    def result(job: Job) -> Any:
        return error if '"CNN(a)"' in job.files["record.json"].decode() else original(job)

    monkeypatch.setattr(Job, "result", result)
    execution, records = Execution(scheduler="tcp://somewhere:1"), Records(tmp_path / "here")
    assert clusters.run(specs, records, lambda: None, execution) == {specs[0]: error}
    assert records.find(specs[0]) is None
    assert records.find(specs[1]) is not None


@pytest.mark.parametrize("model", ["LK", "IC-LK", "SDM"])
def test_a_baseline_meets_the_trials_of_table_1(model: str, tmp_path: Path) -> None:
    """The same perturbations, and the same error, whatever its seed; and a second, plain method agrees."""
    samples = 120 if model == "SDM" else 0
    spec = cells("baselines", "smoke", [5], [model], samples=samples, test_items=15, steps=3)[0]
    assert isinstance(spec, BaselineSpec)
    assert spec.sigma == 2.5
    task, plane = planar_task(spec, "cpu"), problem("table_1", 2.5)
    assert isinstance(task, Planar)
    record = baselines.run(spec, Records(tmp_path), task)
    p = trial.perturbed("table_1", "chelsea", plane, 15, 0)
    curve = record.metrics["by_operations"]
    start = corner_pixels(p, 50).numpy()
    assert curve[0]["corner_px"] == pytest.approx(start.mean(), rel=1e-4)
    assert curve[0]["interval"] == pytest.approx(trial.interval(start), rel=1e-4)
    last = {"LK": methods.forwards, "IC-LK": methods.inverse, "SDM": methods.cascade}[model](plane, p, spec)
    left = corner_pixels(last, 50).numpy()
    assert record.outcomes[0].numpy() == pytest.approx(left, rel=1e-2, abs=1e-2)
    assert record.test_error == pytest.approx(left.mean(), rel=1e-2)
    assert left.mean() < start.mean() * 0.9
