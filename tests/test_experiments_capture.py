"""What a GPU needs and a CPU can show: no waiting for the device; replayed and compiled steps like plain."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import runs
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from icstn.experiments import capture, training
from icstn.experiments.capture import check, pick_mode, restore, snapshot
from icstn.experiments.classification import Classification
from icstn.experiments.planar import Planar
from icstn.experiments.prefetch import Prefetcher
from icstn.experiments.training import State, make_optimizer, set_rates, train_step
from icstn.sampling import Frame

MODELS = ("CNN(a)", "STN(a)", "c-STN-2(a)", "IC-STN-2(a)")


def started(spec, device: str = "cpu") -> tuple[Classification, State]:
    task = runs.small_task(spec, None, device)
    model = task.model()
    return task, State(model, make_optimizer(spec, model))


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
        replay = capture.capture(self.step, self.batches[0], self.tensors)
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
            assert capture.capture(self.step, self.batches[0], self.tensors) == self.step

    def test_a_capture_that_fails_is_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def failing(step, batch):
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

        self.graph(monkeypatch, failing)
        with pytest.warns(UserWarning, match=r"no CUDA graph \(operation not permitted .*capturing\)"):
            assert capture.capture(self.step, self.batches[0], self.tensors) == self.step

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
from icstn.experiments.training import State, make_optimizer, set_rates, train_step
torch.set_num_threads(1)
spec = runs.small_spec(sys.argv[2])
task = runs.small_task(spec, None, "cpu")
batches = list(task.block(0))[:3]
ends = []
for backend in (None, sys.argv[3]):
    model = task.model()
    state = State(model, make_optimizer(spec, model))
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
