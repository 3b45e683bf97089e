"""Training one Spec: a loop that can be killed at any moment and go on bit for bit where it was.

Everything a step depends on is either in the checkpoint (weights, optimizer state, step, curve, restarts)
or a pure function of the Spec and the step (draws, learning rates), so that a resumed run and an
uninterrupted one end in the same bits on the same CPU with the same number of threads. Checkpoints are
written by the clock, but a diverged run goes back to one that was written at a fixed step
(:data:`MILESTONE`), so that it goes back to the same place however often it was killed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from icstn.experiments import baselines, two_images_classical
from icstn.experiments.capture import Step, captured, compiled, pick_mode
from icstn.experiments.checkpoints import load_checkpoint, save_checkpoint
from icstn.experiments.execution import Execution, pick_device
from icstn.experiments.models import Model
from icstn.experiments.planar import Planar
from icstn.experiments.prefetch import Prefetcher
from icstn.experiments.progress import Progress, Report, tensorboard, write_state
from icstn.experiments.provenance import gathered, now
from icstn.experiments.records import Record, Records
from icstn.experiments.spec import BaselineSpec, RunSpec, Spec, learning_rate
from icstn.experiments.task import BLOCK, Evaluation, Task
from icstn.experiments.tasks import make_task
from icstn.experiments.two_images import TwoImages
from icstn.files import StorageError

#: A run whose mean loss over a block is this many times the loss it began with has diverged.
EXPLOSION = 10.0

#: Steps between the checkpoints that a diverged run goes back to.
MILESTONE = 10 * BLOCK

#: A run whose mean loss over its last blocks, so many of them, is this many times the loss it began with has
#: diverged, too. That loss is one batch's, and so is known to some tenths.
LAST_BLOCKS, RISE = 5, 1.5


@dataclass
class TrainingState:
    """What changes while training, and is all that a checkpoint holds.

    ``seconds`` is the wall's clock, ``cpu_seconds`` the processor time, which other work on the machine
    leaves as it is; the latter is NaN where a checkpoint that was resumed does not know it.
    """

    model: Model
    optimizer: torch.optim.Optimizer
    step: int = 0
    restarts: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    curve: dict[str, list[float]] = field(default_factory=lambda: {"step": [], "loss": [], "error": []})
    average: AveragedModel | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Weights and optimizer state, flat."""
        flat = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for i, values in self.optimizer.state_dict()["state"].items():
            flat |= {f"optimizer.{i}.{k}": v for k, v in values.items() if isinstance(v, Tensor)}
        if self.average is not None:
            flat |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        return flat

    @property
    def tested(self) -> Model:
        """The model that is tested and kept: the average where there is one."""
        if self.average is None:
            return self.model
        averaged = self.average.module
        assert isinstance(averaged, Model)
        return averaged

    def load(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """The inverse of :meth:`tensors`, in place."""
        model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        self.model.load_state_dict(model)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, i, key = name.split(".", 2)
                state.setdefault(int(i), {})[key] = value
        if self.average is not None:
            averaged = {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}
            self.average.load_state_dict(averaged)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.step, self.restarts, self.seconds = meta["step"], meta["restarts"], meta["seconds"]
        self.cpu_seconds = meta.get("cpu_seconds", math.nan)
        self.curve = meta["curve"]


def train(
    spec: RunSpec,
    records: Records,
    execution: Execution | None = None,
    *,
    report: Report | None = None,
    checkpoint_seconds: float = 15.0,
    wait: float = -1,
) -> Record:
    """Train a spec, or finish it where it was left, or return its Record if it is there.

    Args:
        spec: what to run; a :class:`BaselineSpec` is fitted and tested.
        records: where the Record, and until then the checkpoint, is kept.
        execution: device, data, log.
        report: called after each block of 100 steps.
        checkpoint_seconds: least time between two checkpoints.
        wait: seconds to wait for another process on the same spec; negative waits for ever.

    Raises:
        DataError: the data can't be had.
        StorageError: the folder can't be written, or holds something else.
    """
    execution = execution or Execution()
    if (found := records.find(spec)) is not None:
        return found
    with records.lock(spec, wait):
        if (found := records.find(spec)) is not None:
            return found
        task = make_task(spec, execution.data, pick_device(execution.device))
        if isinstance(spec, BaselineSpec):
            if isinstance(task, TwoImages):
                return two_images_classical.run(spec, records, task)
            assert isinstance(task, Planar)
            return baselines.run(spec, records, task)
        assert isinstance(spec, Spec)
        reports = [r for r in (report, tensorboard(execution.log, spec)) if r]
        run = _Run(spec, records, task, pick_mode(execution.mode, task.device), reports)
        return run.finish(checkpoint_seconds)


class _Run:
    """One training under way.

    Args:
        spec: what is trained.
        records: where checkpoints and the Record go.
        task: its data.
        mode: how a step is run, one of :data:`icstn.experiments.capture.MODES` but ``auto``.
        reports: called after each block.
    """

    def __init__(
        self, spec: Spec, records: Records, task: Task, mode: str, reports: Sequence[Report] = ()
    ) -> None:
        self.spec, self.records, self.task, self.mode, self.reports = spec, records, task, mode, reports
        self.folder = records.path(spec)
        self.checkpoint = self.folder / "checkpoint.safetensors"
        self.milestone = self.folder / "milestone.safetensors"
        self.shown, self.started = 0.0, now()
        self.step: Step | None = None
        self.first = max(first_loss(task), 1e-3)
        self.state = self._fresh()

    def _fresh(self) -> TrainingState:
        model = self.task.model()
        decay = get_ema_multi_avg_fn(self.spec.average or 0.5)
        state = TrainingState(model, make_optimizer(self.spec, model))
        state.average = AveragedModel(model, multi_avg_fn=decay) if self.spec.average else None
        return state

    def finish(self, checkpoint_seconds: float) -> Record:
        """Resume if there is a checkpoint, train to the end, evaluate, save the Record."""
        for left in self.folder.glob(".*.tmp"):  # of a process that was killed while writing
            left.unlink(missing_ok=True)
        if self.checkpoint.is_file():
            self._resume(self.checkpoint)
        status, remark = self._train(checkpoint_seconds)
        record = self._record(status, remark)
        self.records.save(record)
        for path in (self.checkpoint, self.milestone, self.folder / "state.json"):
            path.unlink(missing_ok=True)
        return record

    def _resume(self, checkpoint: Path) -> None:
        found = load_checkpoint(checkpoint, self.spec)
        try:
            self.state.load(*found)
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise StorageError(f"{checkpoint} is none of this run; delete it to start afresh") from error

    def _train(self, checkpoint_seconds: float) -> tuple[str, str]:
        """Train to the end: the run's status, and a remark."""
        saved = float("-inf")  # the first checkpoint is due after the first block
        with Prefetcher(self.task) as draws:
            while self.state.step < self.spec.iterations:
                before, cpu = time.monotonic(), time.process_time()
                loss, error, steps = self._block(draws)
                took = time.monotonic() - before
                self.state.seconds += took
                self.state.cpu_seconds += time.process_time() - cpu
                if not loss <= EXPLOSION * self.first:  # also true for NaN
                    if not self._restart():
                        return "diverged", f"its loss rose to {loss:.3g}, from {self.first:.3g} untrained"
                    continue
                self._note(loss, error, steps, took)
                if self.spec.restarts and self.state.step % MILESTONE == 0:
                    self._save(self.milestone)
                if time.monotonic() - saved >= checkpoint_seconds:
                    self._save(self.checkpoint)
                    saved = time.monotonic()
        return self._ending()

    def _ending(self) -> tuple[str, str]:
        """A run that ends with more loss than it began with has diverged, however slowly it came there."""
        last = self.state.curve["loss"][-LAST_BLOCKS:]
        mean = sum(last) / len(last)
        if mean <= RISE * self.first or self.spec.iterations < BLOCK:
            return "finished", ""
        return "diverged", f"it ended with a loss of {mean:.3g}, from {self.first:.3g} untrained"

    def _block(self, draws: Prefetcher) -> tuple[float, float, int]:
        """Up to BLOCK steps without waiting for the device; then mean loss, mean error and their number."""
        spec, state = self.spec, self.state
        block, total = state.step // BLOCK, torch.zeros(2, device=self.task.device)
        steps = min(BLOCK, spec.iterations - state.step)
        for i, batch in enumerate(self.task.batches(draws.get(block, state.restarts))):
            if i == steps:
                break
            set_rates(spec, state.optimizer, state.step + i)
            total += self._step(batch)
            if state.average is not None:
                state.average.update_parameters(state.model)
        state.step += steps
        total[0] += sum(0 * p.detach().sum() for p in state.model.parameters())  # NaN if any weight is
        loss, error = (total / steps).tolist()
        return loss, error, steps

    def _step(self, batch: Any) -> Tensor:
        if self.step is None:
            state = self.state
            model = compiled(state.model) if self.mode == "compile" else state.model
            plain: Step = lambda batch: train_step(self.spec, self.task, state, batch, model)  # noqa: E731
            self.step = plain
            if self.mode == "graph":
                self.step = captured(plain, batch, lambda: state.tensors().values())
                self.mode = "eager" if self.step is plain else "graph"
        return self.step(batch)

    def _restart(self) -> bool:
        """Go back to the last milestone (or the start) with new draws, if the spec still allows it."""
        restarts, seconds, cpu = self.state.restarts + 1, self.state.seconds, self.state.cpu_seconds
        if restarts > self.spec.restarts:
            return False
        self.state, self.step = self._fresh(), None
        if self.milestone.is_file():
            self._resume(self.milestone)
        self.state.restarts, self.state.seconds, self.state.cpu_seconds = restarts, seconds, cpu
        self._save(self.checkpoint)  # at once: what is resumed from here on knows of this restart
        return True

    def _note(self, loss: float, error: float, steps: int, took: float) -> None:
        curve = self.state.curve
        curve["step"].append(self.state.step)
        curve["loss"].append(loss)
        curve["error"].append(error)
        step, rates = self.state.step, [float(g["lr"]) for g in self.state.optimizer.param_groups]
        progress = Progress(step, self.spec.iterations, error, steps / max(took, 1e-9), loss, *rates)
        if time.monotonic() - self.shown >= 1:
            write_state(self.folder, self.spec, progress)
            self.shown = time.monotonic()
        for report in self.reports:
            report(progress)

    def _save(self, path: Path) -> None:
        s = self.state
        meta = {"spec": self.spec.digest, "step": s.step, "restarts": s.restarts}
        cpu = {} if math.isnan(s.cpu_seconds) else {"cpu_seconds": s.cpu_seconds}
        save_checkpoint(path, s.tensors(), {**meta, **cpu, "seconds": s.seconds, "curve": s.curve})

    def _record(self, status: str, remark: str) -> Record:
        facts = gathered(self.task.device) | {"mode": self.mode, "seed": self.spec.seed}
        facts |= {"started": self.started, "training_seconds": self.state.seconds}
        if not math.isnan(self.state.cpu_seconds):
            facts["training_cpu_seconds"] = self.state.cpu_seconds
        facts |= {"steps": self.state.step, "restarts": self.state.restarts, "data": self.task.data}
        tested = Evaluation({}, torch.empty(0, 0), remark)
        if status == "finished":
            before = time.monotonic()
            tested = self.task.evaluate(self.state.tested.eval())
            facts["test_seconds"] = time.monotonic() - before
        if tested.diverged:
            status = "diverged"
        if tested.remark:
            facts["remark"] = tested.remark
        facts["finished"] = now()
        weights = {k: v.detach().cpu() for k, v in self.state.tested.state_dict().items()}
        return Record(self.spec, status, tested.metrics, self.state.curve, facts, weights, tested.outcomes)


def first_loss(task: Task) -> float:
    """Loss of the untrained model on the first batch: what a run begins with, however it goes on."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return task.loss(task.model(), next(task.block(0))).loss.item()


def train_step(
    spec: Spec, task: Task, state: TrainingState, batch: Any, model: torch.nn.Module | None = None
) -> Tensor:
    """One step: forward, backward, update. Returns loss and error ``(2,)`` without waiting for the device.

    ``model`` is the state's model in another form, compiled for example.
    """
    result = task.loss(state.model if model is None else model, batch)  # type: ignore[arg-type]
    state.optimizer.zero_grad(set_to_none=True)
    result.loss.backward()
    if spec.clip and (parameters := state.optimizer.param_groups[0]["params"]):
        torch.nn.utils.clip_grad_norm_(parameters, spec.clip, foreach=True)
    state.optimizer.step()
    return torch.stack((result.loss.detach(), result.error))


def make_optimizer(spec: Spec, model: torch.nn.Module) -> torch.optim.Optimizer:
    """The spec's optimizer: the geometric predictor is its first group, the classifier its second."""
    groups: list[dict[str, Any]] = [
        {"params": [p for n, p in model.named_parameters() if n.startswith("transformer.")]},
        {"params": [p for n, p in model.named_parameters() if n.startswith("classifier.")]},
    ]
    device = next(model.parameters()).device
    on_gpu = device.type == "cuda"
    for group in groups:  # on a GPU a tensor, which a CUDA graph reads anew at each step
        group["lr"] = torch.ones((), device=device) if on_gpu else 1.0
    if spec.optimizer == "sgd":
        return torch.optim.SGD(groups, fused=True)
    if spec.weight_decay:
        return torch.optim.AdamW(groups, weight_decay=spec.weight_decay, fused=True, capturable=on_gpu)
    if spec.optimizer == "adam":
        return torch.optim.Adam(groups, fused=True, capturable=on_gpu)
    raise ValueError(f"unknown optimizer {spec.optimizer!r}: choose adam or sgd")


def set_rates(spec: Spec, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Learning rates of both groups at a step."""
    for group, base in zip(optimizer.param_groups, (spec.rate_predictor, spec.rate_classifier), strict=True):
        rate = learning_rate(spec, base, step)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
