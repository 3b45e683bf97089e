"""What a recipe may vary: weight decay, averaged weights, appearance, and what the run is tested on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import runs
import torch

from icstn import datasets
from icstn.experiments import DataOptions, Execution, Record, Records, Spec, cells, make_task, tasks, training
from icstn.experiments.augmentation import GAIN, NOISE, OFFSET, varied_appearance
from icstn.experiments.classification import Classification
from icstn.experiments.task import seeded
from icstn.experiments.training import TrainingState, make_optimizer, set_rates, train_step

pytestmark = pytest.mark.unchecked


def by_hand(spec: Spec, steps: int) -> list[dict[str, torch.Tensor]]:
    """The weights after each step of a plain loop."""
    task = runs.small_task(spec, DataOptions(), "cpu")
    model = task.model()
    state = TrainingState(model, make_optimizer(spec, model))
    found = []
    for step, batch in zip(range(steps), task.block(0), strict=False):
        set_rates(spec, state.optimizer, step)
        train_step(spec, task, state, batch)
        found.append({k: v.detach().clone() for k, v in model.state_dict().items()})
    return found


def test_the_average_is_exponential(tmp_path: Path) -> None:
    """It begins with the weights after the first step; the Record keeps it, and it is what is tested."""
    spec = runs.small_spec("CNN(b)", iterations=6, average=0.7)
    record = runs.train(spec, tmp_path)
    path = by_hand(replace(spec, average=0.0), 6)
    wanted = path[0]
    for weights in path[1:]:
        wanted = {k: 0.7 * wanted[k] + 0.3 * weights[k] for k in wanted}
    for name, weight in wanted.items():
        torch.testing.assert_close(record.weights[name], weight, rtol=1e-5, atol=1e-7)
    last = runs.train(replace(spec, average=0.0), tmp_path)
    assert any(not record.weights[k].equal(last.weights[k]) for k in wanted)
    assert record.curve == last.curve


def test_a_resumed_average_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = runs.small_spec(iterations=300, average=0.99)
    whole = runs.train(spec, tmp_path / "whole")

    def stop(progress: object) -> None:
        if len(steps) == 1:
            raise KeyboardInterrupt
        steps.append(progress)

    steps: list[object] = []
    with pytest.raises(KeyboardInterrupt):
        runs.train(spec, tmp_path / "cut", report=stop, checkpoint_seconds=0)
    resumed = runs.train(spec, tmp_path / "cut")
    assert all(resumed.weights[k].equal(v) for k, v in whole.weights.items())
    assert resumed.metrics == whole.metrics


class Clocks:
    """In place of the module ``time``: each look at a clock finds it a little later."""

    def __init__(self) -> None:
        self.wall = self.processor = 0.0

    def monotonic(self) -> float:
        self.wall += 3.0
        return self.wall

    def process_time(self) -> float:
        self.processor += 2.0
        return self.processor


class TestProcessorTime:
    def test_is_kept_through_an_interruption(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(training, "time", Clocks())
        spec = runs.small_spec(iterations=500)
        assert self.interrupted(spec, tmp_path).provenance["training_cpu_seconds"] == 5 * 2.0

    def test_is_not_guessed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A checkpoint of before it was counted: nothing is said rather than a part."""
        kept = training.save_checkpoint

        def without(path: Path, tensors: dict, meta: dict) -> None:
            kept(path, tensors, {k: v for k, v in meta.items() if k != "cpu_seconds"})

        monkeypatch.setattr(training, "save_checkpoint", without)
        facts = self.interrupted(runs.small_spec(iterations=500), tmp_path).provenance
        assert "training_cpu_seconds" not in facts
        assert facts["training_seconds"] > 0

    def interrupted(self, spec: Spec, folder: Path) -> Record:
        seen: list[object] = []

        def stop(progress: object) -> None:
            seen.append(progress)
            if len(seen) == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            runs.train(spec, folder, report=stop, checkpoint_seconds=0)
        return runs.train(spec, folder)


def test_weight_decay_is_decoupled(tmp_path: Path) -> None:
    """Against Adam's step by hand: first the weights shrink by rate × decay, then the step is Adam's."""
    spec = runs.small_spec("CNN(b)", iterations=1, weight_decay=0.5)
    decayed, plain = by_hand(spec, 1)[0], by_hand(replace(spec, weight_decay=0.0), 1)[0]
    start = runs.small_task(spec, DataOptions(), "cpu").model().state_dict()
    for name, weight in start.items():
        wanted = plain[name] - spec.rate_classifier * 0.5 * weight
        torch.testing.assert_close(decayed[name], wanted, rtol=1e-5, atol=1e-7)


class TestValidation:
    """A run for choosing a recipe neither trains on what it is tested on, nor reads the test set."""

    def test_the_test_set_is_not_even_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def mnist(split: str, folder: str | None) -> datasets.Dataset:
            asked.append(split)
            return runs.bars(split)

        monkeypatch.setattr(datasets, "mnist", mnist)
        spec = cells("table_2", "smoke", models=["CNN(b)"], tested_on="validation")[0]
        task = make_task(spec, DataOptions(), "cpu")
        assert isinstance(task, Classification)
        assert asked == ["train"]
        assert (len(task.train), len(task.test)) == (50, 10)
        assert task.test.images.equal(runs.bars("train").images[-10:])
        assert set(task.data["fingerprints"]) == {"train without validation", "validation"}
        usual = make_task(replace(spec, tested_on="test"), DataOptions(), "cpu")
        assert asked == ["train", "train", "test"]
        assert not usual.test_warps(5, 0).equal(task.test_warps(5, 0))

    def test_planar_alignment_has_other_draws(self) -> None:
        pytest.importorskip("skimage")
        spec = cells("table_1", "smoke", models=["c-STN-1"])[0]
        held = replace(spec, tested_on="validation")
        a, b = (tasks.planar_task(s, "cpu").test_warps(5, 0) for s in (spec, held))
        assert not a.equal(b)

    def test_it_is_another_run_and_no_cell_of_a_table(self) -> None:
        spec = cells("table_2", "smoke")[0]
        assert replace(spec, tested_on="validation").key != spec.key


class TestAppearance:
    """Other light on the same geometry."""

    def images(self, n: int = 4000) -> torch.Tensor:
        return torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(1))

    def test_none_changes_nothing(self) -> None:
        x = self.images(4)
        assert varied_appearance(x, 0.0, torch.Generator()) is x

    def test_its_size(self) -> None:
        """Black images show the offset, the slope and the noise; where the slope is zero, the first alone."""
        x = torch.zeros(4000, 3, 7, 7)
        y = varied_appearance(x, 1.0, torch.Generator().manual_seed(0))
        assert y[:, :, 3, 3].std().item() == pytest.approx((OFFSET**2 + NOISE**2 / 3) ** 0.5, rel=0.05)
        assert abs(y.mean().item()) < 0.01
        ones = varied_appearance(x + 1, 1.0, torch.Generator().manual_seed(0))
        assert (ones - y).mean((2, 3)).log().std().item() == pytest.approx(GAIN, rel=0.05)

    def test_a_seed_is_an_appearance(self) -> None:
        x = self.images(8)
        a, b, c = (varied_appearance(x, 1.0, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
        assert a.equal(b)
        assert not a.equal(c)

    def test_training_sees_it_and_the_test_does_not(self) -> None:
        plain = runs.small_spec(batch=4)
        spec = replace(plain, appearance=1.0)
        a, b = (runs.small_task(s, DataOptions(), "cpu") for s in (plain, spec))
        assert isinstance(a, Classification)
        assert isinstance(b, Classification)
        first, second = next(a.block(0)), next(b.block(0))
        assert first.p.equal(second.p)
        assert first.label.equal(second.label)
        assert not first.image.equal(second.image)
        generator = torch.Generator().manual_seed(seeded("train", 0, 0, 0).initial_seed() ^ 1)
        assert second.image.equal(varied_appearance(first.image, 1.0, generator))
        for x, y in zip(a.test_batches(0), b.test_batches(0), strict=True):
            assert x.image.equal(y.image)


def test_all_of_it_at_once(tmp_path: Path) -> None:
    spec = runs.small_spec(iterations=5, weight_decay=0.01, average=0.9, appearance=1.0)
    record = runs.train(spec, tmp_path)
    assert record.status == "finished"
    assert Records(tmp_path).find(spec) == record
    assert training.train(spec, Records(tmp_path), Execution(device="cpu")) == record
