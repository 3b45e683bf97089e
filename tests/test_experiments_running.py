"""Many runs side by side: failures cost no other run, dead processes are replaced, and status tells."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import runs
import torch

from icstn.datasets import DataError
from icstn.experiments import Execution, Records, Spec, StorageError, cells, ensure, local, training
from icstn.experiments.failures import RunsFailedError, portable, raise_failures
from icstn.experiments.progress import Progress, read_state, write_state
from icstn.experiments.status import RunStatus, run_status

#: Here, without a bar.
HERE = Execution(device="cpu", progress=False)


def planar(**changes) -> Spec:
    """A cell of Table 1: its photograph comes with scikit-image."""
    pytest.importorskip("skimage")
    short = {"iterations": 50, "batch": 4, "test_items": 8}
    return cells("table_1", "smoke", models=["IC-STN-2"], **(short | changes))[0]


def state_of(records: Records, spec: Spec, seconds: float = 500) -> dict:
    """Wait for the run's first report."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := read_state(records.path(spec)):
            return found
        time.sleep(0.01)
    raise TimeoutError(f"{spec.key} did not start")


@pytest.mark.slow
def test_a_killed_process_is_replaced_and_a_failing_run_costs_no_other(tmp_path: Path) -> None:
    records = Records(tmp_path)
    victim, bystander = planar(iterations=600), planar(seed=1)
    broken = replace(planar(), architecture="[FC(6)]×", seed=2)
    killed: list[int] = []

    def kill() -> None:
        killed.append(state_of(records, victim)["process"])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(ValueError, match="number of warp operations"):
        ensure([victim, broken, bystander], records, replace(HERE, workers=2))
    killer.join()
    assert killed
    assert killed[0] != os.getpid()
    assert [records.find(s) is not None for s in (victim, bystander, broken)] == [True, True, False]
    again = ensure([bystander, victim], records, HERE)
    assert [r.spec for r in again] == [bystander, victim]


def test_a_worker_has_its_parents_environment_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of the time when the process was started whose forks the workers are."""
    for value in ("first", "second"):
        monkeypatch.setenv("ICSTN_TEST", value)
        with ProcessPoolExecutor(1, local.beginning(), local.begin, (dict(os.environ),)) as pool:
            assert pool.submit(os.getenv, "ICSTN_TEST").result() == value


@pytest.mark.slow
def test_no_worker_outlives_a_killed_parent(tmp_path: Path) -> None:
    """After a SIGKILL of the parent its worker lets go of the run, in the middle, and the run can go on."""
    spec, records = planar(iterations=600), Records(tmp_path / "records")
    command = [sys.executable, "-c", PARENT, str(records.folder)]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}) as parent:
        worker = state_of(records, spec)["process"]
        parent.kill()
    assert parent.pid != worker
    with records.lock(spec, wait=60):
        assert records.find(spec) is None
        left = read_state(records.path(spec))
    assert left["process"] == worker
    assert left["step"] < spec.iterations
    record = training.train(spec, records, HERE)
    assert record.curve["step"] == [100, 200, 300, 400, 500, 600]


#: A process that trains as the command line does.
PARENT = """
import sys
from test_experiments_running import planar
from icstn.experiments import Execution, Records, ensure
ensure([planar(iterations=600)], Records(sys.argv[1]), Execution(device="cpu", workers=1, progress=False))
"""


#: As on the page of training: a script without a guard.
SCRIPT = """
import sys
from icstn.experiments import Execution, Records, cells, ensure

print("read once")
specs = cells("table_1", "smoke", seeds=[0, 1], models=["c-STN-1"], iterations=20, test_items=20)[:2]
for record in ensure(specs, Records(sys.argv[1]), Execution(device="cpu", workers=2, progress=False)):
    print(record.status)
"""


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    """Workers begin without the script that asked for them, and do not run it again."""
    pytest.importorskip("skimage")
    (script := tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "records")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split("\n")) == (0, ["read once", "finished", "finished", ""]), done


def test_processes_that_always_die_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pools = []

    def dying(specs, *_: object) -> list[Spec]:
        pools.append(list(specs))
        return list(specs)

    monkeypatch.setattr(local, "_run_pool", dying)
    with pytest.raises(RunsFailedError, match="killed again and again"):
        ensure([planar()], Records(tmp_path), HERE)
    assert len(pools) == 1 + local.RETRIES


def test_an_interrupt_stops_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the pool, and no others."""
    spec, records = planar(iterations=100_000), Records(tmp_path)

    def interrupted(*_: object):
        state_of(records, spec)
        raise KeyboardInterrupt

    bystander = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    bystander.start()
    monkeypatch.setattr(local, "_finished", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure([spec], records, replace(HERE, workers=1))
    until = time.monotonic() + 30
    while len(multiprocessing.active_children()) > 1 and time.monotonic() < until:
        time.sleep(0.01)
    assert multiprocessing.active_children() == [bystander]
    bystander.terminate()
    bystander.join()


class Unsendable(ValueError):
    """Made from two arguments where pickle will hand it one, and holding what can't be pickled."""

    def __init__(self, text: str, at: int) -> None:
        super().__init__(f"{text} at {at}")
        self.read_again = lambda: text


class TestFailures:
    """What is raised in the end."""

    def test_one_reason_is_raised_as_it_is(self) -> None:
        error = DataError("no data")
        with pytest.raises(DataError, match="no data"):
            raise_failures({planar(): error, planar(seed=1): DataError("no data")})

    def test_several_are_listed(self) -> None:
        failures = {planar(): DataError("no data"), planar(seed=1): OSError("no disk")}
        with pytest.raises(RunsFailedError, match=r"2 runs failed\n.*: no data\n.*: no disk"):
            raise_failures(failures)

    def test_errors_that_can_not_be_sent_keep_their_message(self) -> None:
        """An exception that can't be pickled back would look like a dead process."""
        original = Unsendable("FC(", 3)
        sent = portable(original)
        assert (type(sent), str(sent)) == (ValueError, "FC( at 3")
        fine = DataError("no data")
        assert portable(fine) is fine

    def test_none(self) -> None:
        raise_failures({})


class TestStatus:
    """The rows of ``icstn status``."""

    def test_finished_running_left_diverged_and_damaged(self, tmp_path: Path) -> None:
        records = Records(tmp_path)
        specs = {s: runs.small_spec(seed=s, iterations=5) for s in range(5)}
        for seed in (0, 4):
            runs.train(specs[seed], tmp_path)
        wild = replace(specs[1], rate_classifier=1e25, optimizer="sgd")
        runs.train(wild, tmp_path)
        for seed in (2, 3):
            records.path(specs[seed]).mkdir()
            progress = Progress(2, 5, 12.5, 4.0)
            write_state(records.path(specs[seed]), specs[seed], progress)
        damaged = records.path(specs[4]) / "weights.safetensors"
        damaged.write_bytes(damaged.read_bytes()[:-1])
        with records.lock(specs[3]):
            rows = {row.spec: row for row in run_status(records)}
        assert {s.seed: rows[s].state for s in specs.values() if s in rows and s.seed != 1} == {
            0: "finished",
            2: "left",
            3: "running",
            4: "damaged",
        }
        assert rows[wild].state == "diverged"
        assert (rows[specs[4]].step, rows[specs[4]].iterations) == (0, 0)
        assert (rows[specs[0]].step, rows[specs[0]].iterations) == (5, 5)
        assert rows[specs[0]].error == records.find(specs[0]).test_error
        took = records.find(specs[0]).provenance["training_seconds"]
        assert rows[specs[0]].rate == pytest.approx(5 / took)
        assert rows[specs[3]].seconds_left == pytest.approx(3 / 4)
        assert rows[specs[2]].seconds_left == 0
        assert str(os.getpid()) in rows[specs[2]].by
        assert "12.500 %" in str(rows[specs[2]])
        assert "2/5" in str(rows[specs[2]])
        assert all(row.spec.key in str(row) for row in rows.values())

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        assert run_status(Records(tmp_path)) == []

    def test_ignores_folders_of_others(self, tmp_path: Path) -> None:
        (tmp_path / "notes").mkdir()
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "state.json").write_text(json.dumps({"step": 1}))
        assert run_status(Records(tmp_path)) == []

    def test_prints_an_unknown_error_as_nothing(self) -> None:
        assert "nan" not in str(RunStatus(planar(), "diverged"))


@pytest.mark.parametrize(("cores", "asked", "threads"), [(8, 1, 1), (8, 3, 3), (2, 3, 2)])
def test_a_worker_has_no_more_threads_than_cores_or_than_pytorch_would_take(
    cores: int, asked: int, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OMP_NUM_THREADS holds for workers, too: threads without a core of their own keep each other waiting."""
    given: list[int] = []

    def submit(pool: object, spec: Spec, folder: Path, n: int, execution: Execution) -> Future[str]:
        given.append(n)
        (job := Future[str]()).set_result(spec.key)
        return job

    monkeypatch.setattr(local, "cores", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: asked)
    monkeypatch.setattr(local, "_submit", submit)
    local.run([planar()], Records(tmp_path), lambda: None, replace(HERE, workers=1))
    assert set(given) == {threads}


def test_two_threads_on_one_spec_train_it_once(tmp_path: Path) -> None:
    """The second waits for the first and returns its Record; with no patience it says who is in the way."""
    spec, results = runs.small_spec(iterations=300), []
    first = threading.Thread(target=lambda: results.append(runs.train(spec, tmp_path)))
    first.start()
    until = time.monotonic() + 60
    while not Records(tmp_path).locked(spec) and not results and time.monotonic() < until:
        time.sleep(0.001)
    assert not results
    with pytest.raises(StorageError, match="another process is training"):
        training.train(spec, Records(tmp_path), HERE, wait=0)
    first.join()
    assert runs.train(spec, tmp_path) == results[0]
