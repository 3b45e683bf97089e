"""A training process is killed with SIGKILL, again and again, and leaves what an unkilled one leaves."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import subprocess
import time
from pathlib import Path

import pytest
import runs
import torch
import warm

from icstn.experiments import DataOptions, Execution, Record, Records, StorageError, training
from icstn.experiments.checkpoints import save_checkpoint

pytestmark = pytest.mark.unchecked

ADAM = {"iterations": 450}
SGD = {"iterations": 450, "optimizer": "sgd", "schedule": "constant", "rate_predictor": 1e-4, "side": "image"}
LONG = {"iterations": 1500}
#: Diverges in its first block whatever it draws, and is restarted twice.
WILD = {"iterations": 300, "optimizer": "sgd", "rate_classifier": 1e25, "restarts": 2}
#: Explodes within its first block and stays finite: later blocks look tame beside that one.
LOUD = {"iterations": 300, "schedule": "constant", "rate_classifier": 10.0}


def start(folder: Path, model: str, changes: dict, die: str = "") -> subprocess.Popen[str]:
    command = [*warm.PYTHON, runs.__file__, str(folder), model, json.dumps(changes), die]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def train_through(folder: Path, model: str, changes: dict, deaths: list[str | float]) -> tuple[Record, int]:
    """Start, die, start again …; a float is seconds after the first step, a string a place to die in."""
    died = 0
    for death in deaths:
        process = start(folder, model, changes, death if isinstance(death, str) else "")
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n"
        if isinstance(death, float):
            time.sleep(death)
            process.kill()
        process.communicate()
        died += process.returncode == -9
    process = start(folder, model, changes)
    process.communicate()
    assert process.returncode == 0
    found = Records(folder).find(runs.small_spec(model, **changes))
    assert found is not None
    return found, died


def same_bits(a: Record, b: Record, folders: tuple[Path, Path]) -> None:
    for name in ("weights.safetensors", "outcomes.safetensors"):
        files = [folder / a.spec.key / name for folder in folders]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert a.curve == b.curve
    assert a.metrics == b.metrics
    assert (a.status, a.provenance["restarts"]) == (b.status, b.provenance["restarts"])


def check(tmp_path: Path, model: str, changes: dict, deaths: list[str | float], least: int) -> None:
    whole, _ = train_through(tmp_path / "whole", model, changes, [])
    took = whole.provenance["training_seconds"]
    scaled = [d * took if isinstance(d, float) else d for d in deaths]
    killed, died = train_through(tmp_path / "killed", model, changes, scaled)
    print(f"{model}: died {died} times")
    assert died >= least
    same_bits(whole, killed, (tmp_path / "whole", tmp_path / "killed"))
    assert sorted(p.name for p in (tmp_path / "killed" / whole.spec.key).iterdir()) == [
        "outcomes.safetensors",
        "record.json",
        "weights.safetensors",
    ]


@pytest.mark.slow
def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    """Its seal and its spec are right, its tensors or its facts are not."""
    spec = runs.small_spec()
    meta = {"spec": spec.digest, "step": 100, "restarts": 0, "seconds": 1.0, "curve": {}}
    path = tmp_path / spec.key / "checkpoint.safetensors"
    for tensors, facts in (({"model.w": torch.zeros(2)}, meta), ({}, {"spec": spec.digest})):
        path.parent.mkdir(exist_ok=True)
        save_checkpoint(path, tensors, facts)
        with pytest.raises(StorageError, match="is none of this run; delete it to start afresh"):
            runs.train(spec, tmp_path)


def test_killed_three_times(tmp_path: Path) -> None:
    """Once while a checkpoint is written but not yet in place, once at any time, once between two renames."""
    check(tmp_path, "IC-STN-2(b)", ADAM, ["fsync:3", random.uniform(0.0, 0.3), "replace:2"], 2)


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("IC-STN-4(a)", ADAM | LONG),
        ("c-STN-2(a)", ADAM | LONG),
        ("CNN(a)", ADAM | LONG),
        ("STN(b)", SGD | LONG),
        ("IC-STN-2(b)", WILD),
    ],
    ids=["IC-STN-4(a)", "c-STN-2(a)", "CNN(a)", "STN(b)-sgd", "diverging"],
)
def test_killed_again_and_again(tmp_path: Path, model: str, changes: dict) -> None:
    """Eight deaths each at random moments, half of them inside a write: forty in all, or nearly."""
    chance = random.Random()
    deaths: list[str | float] = [chance.uniform(0.0, 0.15) for _ in range(4)]
    deaths += [f"{chance.choice(['fsync', 'replace'])}:{chance.randint(1, 3)}" for _ in range(4)]
    chance.shuffle(deaths)
    print(model, deaths)
    check(tmp_path, model, changes, deaths, 6 if model != "IC-STN-2(b)" else 4)


def test_divergence_is_recorded_and_restarted(tmp_path: Path) -> None:
    """Each restart draws anew from the last milestone; when none is left the run stops as diverged."""
    record = runs.train(runs.small_spec(**WILD), tmp_path)
    assert record.status == "diverged"
    assert record.provenance["restarts"] == 2
    assert record.metrics == {}
    assert record.test_error != record.test_error
    again = Records(tmp_path).find(record.spec)
    assert again == record


def test_without_restarts_divergence_ends_the_run(tmp_path: Path) -> None:
    record = runs.train(runs.small_spec(**{**WILD, "restarts": 0}), tmp_path)
    assert (record.status, record.provenance["restarts"]) == ("diverged", 0)


def test_an_explosion_in_the_first_block_is_noticed(tmp_path: Path) -> None:
    """The yardstick is the untrained model's loss, not a block that may have gone wrong already."""
    record = runs.train(runs.small_spec(**LOUD), tmp_path)
    assert (record.status, record.provenance["steps"]) == ("diverged", 100)
    again = runs.train(runs.small_spec(**LOUD, restarts=1), tmp_path)
    assert (again.status, again.provenance["restarts"]) == ("diverged", 1)


def test_a_slow_rise_is_no_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose loss creeps up, never ten times what it was, has learned nothing and says so."""
    original = training.train_step

    def rising(*arguments):
        return original(*arguments) + torch.tensor([4.0, 0.0])

    monkeypatch.setattr(training, "train_step", rising)
    record = runs.train(runs.small_spec(iterations=200), tmp_path)
    assert record.status == "diverged"
    assert "it ended with a loss of" in record.remark
    assert record.metrics == {}


def test_a_finished_run_that_leaves_more_error_than_it_found_has_diverged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loss may look tame, as when it goes wrong in its last steps: the test has the last word."""
    from test_experiments_running import planar

    spec = planar(iterations=50)
    step, done = training.train_step, []

    def wrong_in_the_end(*arguments):
        result = step(*arguments)
        done.append(0)
        if len(done) == spec.iterations:
            for p in arguments[2].model.parameters():
                p.data.fill_(0.01)
        return result

    monkeypatch.setattr(training, "train_step", wrong_in_the_end)
    record = training.train(spec, Records(tmp_path), Execution(device="cpu"))
    curve = record.metrics["by_operations"]
    assert curve[2]["corner_px"] > curve[0]["corner_px"]
    assert record.status == "diverged"
    assert f"leaves more error than the {curve[0]['corner_px']:.3f} px it starts from" in record.remark
    assert record.outcomes.shape == (1, 8)


def test_a_classifier_that_learned_nothing_says_so(tmp_path: Path) -> None:
    """The bars have ten equal classes: a run without a rate is finished, with a word."""
    still = runs.small_spec("CNN(b)", rate_classifier=0.0, rate_predictor=0.0, iterations=5)
    record = runs.train(still, tmp_path)
    assert record.status == "finished"
    assert record.remark == "no better than always naming the commonest class (90.00 %)"
    assert runs.train(runs.small_spec("CNN(b)"), tmp_path).remark == ""


def test_the_outcomes_are_what_the_error_is_made_of(tmp_path: Path) -> None:
    record = runs.train(runs.small_spec("CNN(b)", iterations=100, test_draws=3), tmp_path)
    assert record.outcomes.shape == (3, 20)
    assert record.outcomes.dtype == torch.bool
    assert record.outcomes.double().mean().item() * 100 == pytest.approx(record.test_error)
    by_draw = (record.outcomes.double().mean(1) * 100).tolist()
    assert by_draw == pytest.approx(record.metrics["errors_by_draw"])
    assert Records(tmp_path).find(record.spec).outcomes.equal(record.outcomes)


def test_the_loss_a_run_begins_with_follows_from_its_spec() -> None:
    spec = runs.small_spec()
    task = runs.small_task(spec, DataOptions(), "cpu")
    before = torch.get_rng_state()
    first = training.first_loss(task)
    assert training.first_loss(task) == first
    assert torch.get_rng_state().equal(before)
    assert first == pytest.approx(math.log(10), rel=0.2)


def test_a_full_disk_stops_a_run_and_costs_only_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left half-written, and with room again the run ends in the same bits."""
    spec, calls, original = runs.small_spec(iterations=250), [], os.fsync

    def full(file: int) -> None:
        calls.append(file)
        if len(calls) > 2:  # the first state, the first checkpoint
            raise OSError(errno.ENOSPC, "No space left on device")
        original(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"cannot write .*No space left.*what was there before"):
        runs.train(spec, tmp_path / "full", checkpoint_seconds=0)
    monkeypatch.undo()
    steps: list[int] = []
    record = runs.train(spec, tmp_path / "full", report=lambda progress: steps.append(progress.step))
    assert steps == [200, 250]
    whole = runs.train(spec, tmp_path / "whole")
    same_bits(whole, record, (tmp_path / "whole", tmp_path / "full"))


@pytest.mark.slow
def test_two_processes_train_a_spec_once(tmp_path: Path) -> None:
    """Started together, one waits for the other; each block is done by one of them."""
    processes = [start(tmp_path, "IC-STN-2(b)", ADAM) for _ in range(2)]
    lines = [line for process in processes for line in process.communicate()[0].splitlines()]
    assert [process.returncode for process in processes] == [0, 0]
    assert [line for line in lines if line != "training"] == [f"step {n}" for n in (100, 200, 300, 400, 450)]
    assert Records(tmp_path).find(runs.small_spec("IC-STN-2(b)", **ADAM)) is not None


def test_goes_on_from_the_last_milestone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that blows up once goes back to its last milestone, not to the start, and finishes."""
    spec, calls = runs.small_spec(iterations=400, restarts=1), []
    monkeypatch.setattr(training, "MILESTONE", 200)
    original = runs.Classification.draws

    def draws(task, block: int, restart: int = 0):
        calls.append((block, restart))
        found = original(task, block, restart)
        return found._replace(p=found.p * float("nan")) if (block, restart) == (3, 0) else found

    monkeypatch.setattr(runs.Classification, "draws", draws)
    record = runs.train(spec, tmp_path)
    assert (record.status, record.provenance["restarts"]) == ("finished", 1)
    assert calls == [(0, 0), (0, 0), (1, 0), (2, 0), (3, 0), (2, 1), (3, 1)]  # the first for its first loss
    assert record.curve["step"] == [100, 200, 300, 400]


def test_weights_that_blow_up_in_a_blocks_last_step_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the last step is finite, the weights after it are not: no checkpoint may hold them."""
    original, steps = training.train_step, []

    def step(spec, task, state, batch, *forward):
        steps.append(0)
        result = original(spec, task, state, batch, *forward)
        if len(steps) == 200:
            next(state.model.parameters()).data[0] = float("inf")
        return result

    monkeypatch.setattr(training, "train_step", step)
    record = runs.train(runs.small_spec(iterations=300), tmp_path)
    assert record.status == "diverged"
    assert record.curve["step"] == [100]


def test_returns_the_record_that_is_there(tmp_path: Path) -> None:
    spec = runs.small_spec(iterations=5)
    first = runs.train(spec, tmp_path)
    assert runs.train(spec, tmp_path) == first
