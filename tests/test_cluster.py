"""A real cluster of separate processes on this machine: a scheduler, workers, and a worker that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import warm
from test_experiments_running import HERE, planar, state_of

from icstn.experiments import Records, StorageError, clusters, ensure, training

distributed = pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

Start = Callable[..., subprocess.Popen]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts a dask process; all are stopped in the end."""
    folder, processes = tmp_path_factory.mktemp("dask"), []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "120s"}

    def begin(kind: str, *arguments: str, **variables: str) -> subprocess.Popen:
        command = [*warm.PYTHON, "-m", "dask", kind, "--no-dashboard", *arguments]
        with (folder / f"{kind}-{len(processes)}.log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=folder, stdout=log, stderr=log, env=environment | variables, text=True
            )
        processes.append(process)
        return process

    yield begin
    for process in reversed(processes):
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def address(start: Start, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a scheduler with two workers of one thread, the first of which has a GPU, as it says."""
    file = tmp_path_factory.mktemp("scheduler") / "scheduler.json"
    start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
    until = time.monotonic() + 300
    while not (file.is_file() and file.read_text().endswith("}")):
        assert time.monotonic() < until
        time.sleep(0.1)
    address = json.loads(file.read_text())["address"]
    for extra in (["--resources", "GPU=1"], []):
        start("worker", address, "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1", *extra)
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=500)
    return address


def test_runs_come_back_and_a_killed_worker_loses_nothing(address: str, start: Start, tmp_path: Path) -> None:
    """One of two workers is killed in the middle of a run; the other takes it up, to the same bits."""
    records = Records(tmp_path / "shared")
    long, short = planar(iterations=700), planar(seed=1)
    killed: list[int] = []

    def kill() -> None:
        killed.append(state_of(records, long)["process"])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    found = ensure([long, short], records, replace(HERE, scheduler=address))
    killer.join()
    assert killed
    assert [r.spec for r in found] == [long, short]
    start("worker", address, "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1", "--resources", "GPU=1")
    for spec, record in zip((long, short), found, strict=True):
        expected = training.train(spec, Records(tmp_path / "alone"), HERE)
        assert record.provenance["threads"] == expected.provenance["threads"] == 1
        assert record.metrics == expected.metrics
        assert record.curve == expected.curve


def test_without_a_shared_folder_records_come_back_as_bytes(address: str, tmp_path: Path) -> None:
    """The workers can't make the client's folder (a file is in the way there): they use their own."""
    mine = tmp_path / "mine"
    spec = planar(seed=3)
    theirs = tmp_path / "file" / "theirs"
    theirs.parent.write_text("in the way")
    with distributed.Client(address, set_as_default=False) as client:
        job = client.submit(clusters.train_there, spec, str(theirs), HERE)
        files = job.result(timeout=500)
    record = clusters.receive(Records(mine), spec, files)
    assert Records(mine).find(spec) == record
    assert Records().find(spec) == record  # their own
    with pytest.raises(StorageError, match="damaged"):
        clusters.receive(Records(tmp_path / "other"), spec, files | {"weights.safetensors": b"x"})


def test_a_failing_run_says_why_and_costs_no_other(address: str, tmp_path: Path) -> None:
    good, bad = planar(seed=5), replace(planar(), architecture="[FC(6)]×", seed=4)
    with pytest.raises(ValueError, match="number of warp operations"):
        ensure([bad, good], Records(tmp_path), replace(HERE, scheduler=address))
    assert Records(tmp_path).find(good) is not None


def test_a_run_on_a_gpu_asks_for_the_workers_resource(address: str) -> None:
    with distributed.Client(address, set_as_default=False) as client:
        assert clusters._resources(client, "cpu") is None
        client.wait_for_workers(1, timeout=500)
        assert clusters._resources(client, "cuda") == {"GPU": 1}


def test_no_worker_with_a_gpu() -> None:
    class Client:
        def scheduler_info(self, n_workers: int) -> dict:
            return {"workers": {"a": {"resources": {}}}}

    with pytest.raises(StorageError, match="no worker offers a GPU; start them with"):
        clusters._resources(Client(), "cuda")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense"])
def test_no_scheduler(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = distributed.Client
    monkeypatch.setattr(distributed, "Client", lambda a, **k: original(a, **(k | {"timeout": "1s"})))
    with pytest.raises(StorageError, match="no dask scheduler answers at"):
        ensure([planar()], Records(tmp_path), replace(HERE, scheduler=address))
