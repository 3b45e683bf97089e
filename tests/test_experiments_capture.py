"""What a GPU needs and a CPU can show: no waiting for the device; replayed and compiled steps like plain."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import runs
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from icstn.experiments import Execution, Spec, capture, local, training
from icstn.experiments.capture import check, pick_mode, restore, snapshot
from icstn.experiments.classification import Classification
from icstn.experiments.execution import cores
from icstn.experiments.planar import Planar
from icstn.experiments.prefetch import Prefetcher
from icstn.experiments.provenance import gathered
from icstn.experiments.training import TrainingState, make_optimizer, set_rates, train_step
from icstn.sampling import Frame

pytestmark = pytest.mark.unchecked

MODELS = ("CNN(a)", "STN(a)", "c-STN-2(a)", "IC-STN-2(a)")


def started(spec, device: str = "cpu") -> tuple[Classification, TrainingState]:
    task = runs.small_task(spec, None, device)
    model = task.model()
    return task, TrainingState(model, make_optimizer(spec, model))


class HostReads(TorchDispatchMode):
    """Counts the operations that make the host wait for the device to see a value or a size."""

    WAITING = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "is_nonzero", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__.rsplit(".")[-1] in self.WAITING:
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_step_reads_nothing_back(model: str, optimizer: str) -> None:
    spec = runs.small_spec(model, optimizer=optimizer, clip=1.0)
    task, state = started(spec)
    batches = list(task.block(0))[:3]
    with HostReads() as reads:
        for step, batch in enumerate(batches):
            set_rates(spec, state.optimizer, step)
            train_step(spec, task, state, batch)
    assert reads.seen == []
    with reads:
        batches[0].p.sum().item()
    assert reads.seen


class HostData(TorchDispatchMode):
    """Counts the tensors that are made from the host's data, which a CUDA graph can't capture."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__.rsplit(".")[-1]
        if name.startswith("lift_fresh") or name == "_pin_memory":
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def no_host_data(spec, task) -> None:
    model = task.model()
    state = TrainingState(model, make_optimizer(spec, model))
    first, batch = list(task.block(0))[:2]
    train_step(spec, task, state, first)  # Adam sets up its state
    with HostData() as made:
        train_step(spec, task, state, batch)
    assert made.seen == []
    with made:
        torch.tensor([1.0, 2.0])
    assert made.seen


@pytest.mark.parametrize("model", MODELS)
def test_a_step_makes_no_tensor_from_the_hosts_data(model: str) -> None:
    spec = runs.small_spec(model, clip=1.0)
    no_host_data(spec, runs.small_task(spec, None, "cpu"))


def test_nor_does_one_of_planar_alignment() -> None:
    """Its loss measures the corners, whose places are constants."""
    from test_experiments_running import planar

    spec = planar(batch=3)
    image, frame = torch.rand(1, 1, 40, 50), Frame.crop(40, 50, 20, 20)
    no_host_data(spec, Planar(spec, image, frame, torch.device("cpu")))


@pytest.mark.parametrize("model", MODELS)
def test_a_step_runs_on_a_device_without_values(model: str) -> None:
    """On the meta device every look at a value raises, and so does a tensor left behind on the CPU."""
    spec = runs.small_spec(model)
    task = runs.small_task(spec, None, "meta")
    network = task.model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, foreach=True)
    for batch in list(task.block(0))[:2]:
        assert {t.device.type for t in batch} == {"meta"}
        result = task.loss(network, batch)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        assert result.loss.device.type == "meta"


def test_planar_alignment_runs_on_a_device_without_values() -> None:
    from test_experiments_running import planar

    spec = planar(batch=3)
    task = Planar(spec, torch.rand(1, 1, 40, 50), Frame.crop(40, 50, 20, 20), torch.device("meta"))
    network = task.model()
    task.loss(network, next(task.block(0))).loss.backward()
    assert all(p.grad is not None for p in network.parameters())


def test_a_block_reads_back_once(tmp_path: Path) -> None:
    """Loss and error of a hundred steps come in one transfer."""
    spec = runs.small_spec(iterations=training.BLOCK)
    run = training._Run(spec, runs.Records(tmp_path), runs.small_task(spec, None, "cpu"), "eager")
    calls = []
    original = torch.Tensor.tolist
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "tolist", lambda t: (calls.append(t.shape), original(t))[1])
        patch.setattr(torch.Tensor, "item", lambda t: pytest.fail("item() in the loop"))
        patch.setattr(torch.Tensor, "__float__", lambda t: pytest.fail("float() in the loop"))
        with Prefetcher(run.task) as draws:
            run._block(draws)
    assert calls == [(2,)]


class TestModes:
    """How a step is run."""

    def test_auto(self) -> None:
        assert pick_mode("auto", torch.device("cpu")) == "eager"
        assert pick_mode("auto", torch.device("cuda")) == "graph"
        assert pick_mode("compile", torch.device("cpu")) == "compile"

    @pytest.mark.parametrize(
        ("mode", "message"), [("fast", "choose from auto, eager"), ("graph", "CUDA device")]
    )
    def test_refusals(self, mode: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            pick_mode(mode, torch.device("cpu"))


class TestReplay:
    """Capturing, with the CUDA graph played by a closure."""

    def setup_method(self) -> None:
        self.spec = runs.small_spec("IC-STN-2(b)")
        self.task, self.state = started(self.spec)
        set_rates(self.spec, self.state.optimizer, 0)
        self.batches = list(self.task.block(0))[:5]

    def step(self, batch) -> torch.Tensor:
        return train_step(self.spec, self.task, self.state, batch)

    def tensors(self):
        return self.state.tensors().values()

    def graph(self, monkeypatch: pytest.MonkeyPatch, make: Callable) -> None:
        monkeypatch.setattr(capture, "_graph", make)

    def test_training_through_a_capture_is_training_without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Warming up and checking leave weights and optimizer as they were."""
        _, plain = started(self.spec)
        set_rates(self.spec, plain.optimizer, 0)
        self.graph(monkeypatch, lambda step, batch: lambda b: step(b))
        replay = capture.captured(self.step, self.batches[0], self.tensors)
        for batch in self.batches:
            a, b = replay(batch), train_step(self.spec, self.task, plain, batch)
            assert a.equal(b)
        for ours, theirs in zip(self.tensors(), plain.tensors().values(), strict=True):
            assert ours.equal(theirs)

    def test_a_replay_that_disagrees_is_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def wrong(step, batch):
            return lambda b: step(b._replace(image=b.image * 0.5))

        self.graph(monkeypatch, wrong)
        with pytest.warns(UserWarning, match="does not agree with a plain one.*goes on step by step"):
            assert capture.captured(self.step, self.batches[0], self.tensors) == self.step

    def test_a_capture_that_fails_is_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def failing(step, batch):
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

        self.graph(monkeypatch, failing)
        with pytest.warns(UserWarning, match=r"no CUDA graph \(operation not permitted .*capturing\)"):
            assert capture.captured(self.step, self.batches[0], self.tensors) == self.step

    def test_a_replay_of_the_captured_batch_is_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A graph whose inputs are not filled anew would train on one batch for ever."""
        self.graph(monkeypatch, lambda step, first: lambda b: step(first))
        with pytest.warns(UserWarning, match="does not agree with a plain one"):
            assert capture.captured(self.step, self.batches[0], self.tensors) == self.step

    def test_rounding_noise_does_not_refuse_a_graph(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Adam's first step moves a weight whose gradient is noise by the full rate, either way."""
        quiet = next(self.state.model.parameters())

        def noisy(step, batch):
            def replay(b):
                result = step(b)
                with torch.no_grad():
                    quiet.view(-1)[:3] += 2 * self.spec.rate_predictor
                return result

            return replay

        self.graph(monkeypatch, noisy)
        assert capture.captured(self.step, self.batches[0], self.tensors) != self.step

    def test_a_failed_capture_leaves_the_stream_as_it_was(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With the device and its streams played by a list; on the run's own device, not on the first."""
        current, used = ["default"], []
        monkeypatch.setattr(torch.cuda, "device", lambda d: used.append(d) or contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "synchronize", lambda d: None)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda d: current[0])
        monkeypatch.setattr(torch.cuda, "set_stream", lambda s: current.__setitem__(0, s))

        def refused() -> None:
            current[0] = "side"
            raise RuntimeError("refused")

        with pytest.raises(RuntimeError, match="refused"), capture.on_own_stream(torch.device("cuda:1")):
            refused()
        assert current == ["default"]
        assert used == [torch.device("cuda:1")]

    def test_check_puts_the_state_back(self) -> None:
        self.step(self.batches[0])
        before = snapshot(self.tensors())
        check(self.step, self.step, self.batches[1], self.tensors)
        assert all(a.equal(b) for a, b in zip(before, self.tensors(), strict=True))

    def test_restore_zeroes_what_had_no_value(self) -> None:
        tensors = [torch.ones(2), torch.ones(3)]
        restore(tensors, [torch.full((2,), 5.0)])
        assert [t.tolist() for t in tensors] == [[5, 5], [0, 0, 0]]


def test_the_rate_of_a_graph_is_a_tensor_filled_in_place() -> None:
    spec = runs.small_spec()
    _, state = started(spec)
    rates = [torch.ones(()), torch.ones(())]
    for group, rate in zip(state.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    set_rates(spec, state.optimizer, 0)
    assert [round(r.item(), 6) for r in rates] == [spec.rate_predictor, spec.rate_classifier]


COMPILED = """
import sys, torch
sys.path.insert(0, sys.argv[1])
import runs
from icstn.experiments import capture
from icstn.experiments.prefetch import Prefetcher
from icstn.experiments.provenance import gathered
from icstn.experiments.training import TrainingState, make_optimizer, set_rates, train_step
torch.set_num_threads(1)
spec = runs.small_spec(sys.argv[2])
task = runs.small_task(spec, None, "cpu")
batches = list(task.block(0))[:3]
ends = []
for backend in (None, sys.argv[3]):
    model = task.model()
    state = TrainingState(model, make_optimizer(spec, model))
    other = capture.compiled(model, backend=backend) if backend else None
    for step, batch in enumerate(batches):
        set_rates(spec, state.optimizer, step)
        train_step(spec, task, state, batch, other)
    ends.append([p.detach().clone() for p in model.parameters()])
print(max((a - b).abs().max().item() for a, b in zip(*ends)))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "backend"),
    [
        ("IC-STN-2(b)", "aot_eager"),
        pytest.param("IC-STN-4(a)", "inductor", marks=pytest.mark.long),
        pytest.param("STN(a)", "inductor", marks=pytest.mark.long),
    ],
)
def test_compiled_and_eager_agree(model: str, backend: str) -> None:
    """In a process of its own, without the shape checks that the compiler would have to look through."""
    command = [sys.executable, "-W", "ignore", "-c", COMPILED, str(Path(__file__).parent), model, backend]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < 1e-5


def test_training_compiled_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    monkeypatch.setattr(training, "compiled", lambda model: used.append(model) or model)
    record = runs.train(runs.small_spec(iterations=3), tmp_path, mode="compile")
    assert record.status == "finished"
    assert len(used) == 1


@pytest.mark.parametrize("ahead", [False, True])
def test_prefetched_draws_are_the_tasks_own(ahead: bool) -> None:
    task = runs.small_task(runs.small_spec(), None, "cpu")
    with Prefetcher(task, ahead) as draws:
        for block, restart in [(0, 0), (1, 0), (2, 0), (2, 1), (0, 2), (1, 2)]:
            ours, theirs = draws.get(block, restart), task.draws(block, restart)
            assert ours.p.equal(theirs.p)
            assert ours.item.equal(theirs.item)
            assert ours.seed == theirs.seed
        assert list(draws.waiting) == ([(2, 2)] if ahead else [])


class TestGpus:
    """Which device each process has, with the machine's GPUs played by a number."""

    @pytest.fixture(autouse=True)
    def two(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    @pytest.mark.parametrize(
        ("device", "devices"),
        [("auto", ["cuda:0", "cuda:1"]), ("cuda", ["cuda:0", "cuda:1"]), ("cuda:1", ["cuda:1"])],
    )
    def test_local_workers_share_all_of_them(self, device: str, devices: list[str]) -> None:
        execution = Execution(device=device)
        assert execution.devices() == devices
        assert execution.processes() == len(devices)

    def test_the_cpu_has_a_process_a_core(self) -> None:
        assert Execution(device="cpu").devices() == ["cpu"]
        assert Execution(device="cpu").processes() == cores()
        assert Execution(device="cpu", workers=3).processes() == 3

    @pytest.mark.parametrize("device", ["cuda:2", "gpu", "cpu:1", "cuda:x"])
    def test_refusals(self, device: str) -> None:
        with pytest.raises(ValueError, match=r"unknown device|this machine has 2 GPUs"):
            Execution(device=device).devices()

    def test_a_worker_takes_its_own(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        seen = []
        monkeypatch.setenv(local._DEVICE, "cuda:1")
        monkeypatch.setattr(
            local, "train", lambda spec, records, e: seen.append(e.device) or FakeRecord(spec)
        )
        local.train_one(runs.small_spec(), tmp_path, 1, Execution(device="cuda"))
        assert seen == ["cuda:1"]

    def test_a_record_names_what_decides_a_gpus_result(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda d: f"GPU of {d}")
        facts = gathered(torch.device("cuda:1"))
        assert facts["device"] == "GPU of cuda:1"
        assert {"cuda", "cudnn"} <= set(facts)
        assert set(facts["tf32"]) == {"matmul", "convolution"}
        assert set(facts["deterministic"]) == {"algorithms", "cudnn", "benchmark"}
        assert "cuda" not in gathered(torch.device("cpu"))


class FakeRecord(NamedTuple):
    """What a training returns, as far as a worker looks at it."""

    spec: Spec


def test_a_record_says_how_its_steps_ran(tmp_path: Path) -> None:
    assert runs.train(runs.small_spec(iterations=3), tmp_path).provenance["mode"] == "eager"
