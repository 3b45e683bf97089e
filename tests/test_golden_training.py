"""Training held against a second, plain implementation (tests/golden): the weights after some steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import course, pictures
from golden.course import Course
from golden.nets import ROWS, Weights
from golden.problems import problem
from golden.settings import ITEMS, METHODS, NAMES, PLAIN, PRESETS, Settings, beside, settings
from golden.sight import Place
from torch import Tensor

from icstn.experiments import (
    EXPERIMENTS,
    BaselineSpec,
    DataOptions,
    Execution,
    Record,
    Records,
    Spec,
    cells,
    make_task,
    training,
)
from icstn.experiments.classification import Classification
from icstn.experiments.execution import pick_device
from icstn.experiments.planar import Planar
from icstn.experiments.recipes import varied
from icstn.experiments.task import Draws, Task
from icstn.sampling import Frame

EXECUTION = Execution(device="cpu", mode="eager", data=DataOptions("a folder"))


@pytest.fixture(autouse=True)
def real_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The few real pictures in place of the data sets."""
    pictures.hand_out(monkeypatch)


def spec_of(table: str, preset: str, model: str, seed: int = 3, **changes: Any) -> Spec:
    """A cell of a table, shortened: that of the σ asked for, where there are several."""
    planned = cells(table, preset, [seed], [model])
    found = varied(next(s for s in planned if s.sigma == changes.get("sigma", planned[0].sigma)), changes)
    assert isinstance(found, Spec)
    return found


def trained(spec: Spec, folder: Path, **options: Any) -> Record:
    """By the library."""
    return training.train(spec, Records(folder), EXECUTION, **options)


def plain(spec: Spec, **changes: Any) -> Course:
    """The same run, from the settings of tests/golden and the spec's length alone."""
    own = {"iterations": spec.iterations, "batch": spec.batch, **changes}
    s = settings(spec.experiment, spec.preset, spec.model, spec.sigma)._replace(**own)
    row = ROWS[spec.experiment][spec.model]
    return course.run(row, problem(spec.experiment, spec.sigma), s, spec.seed)


def assert_same(found: dict[str, Tensor], wanted: Weights, start: Weights, share: float = 3e-3) -> None:
    """Each tensor has moved from where it started to where it should be, within a share of its way."""
    assert len(found) == len(wanted.flat)
    for (name, own), goal, first in zip(found.items(), wanted.flat, start.flat, strict=True):
        way, rounding = (goal - first).norm(), 1e-6 * first.norm()
        missed = (own.double() - goal).norm()
        assert missed <= share * way + rounding, f"{name}: off by {missed:.2e} on a way of {way:.2e}"


def agrees(record: Record, wanted: Course, share: float = 3e-3) -> None:
    """Weights, and the mean loss and error of the first block."""
    assert_same(record.weights, wanted.tested, wanted.start, share)
    n = min(100, len(wanted.losses))
    assert record.curve["step"][0] == n
    assert record.curve["loss"][0] == pytest.approx(np.mean(wanted.losses[:n]), rel=1e-3)
    assert record.curve["error"][0] == pytest.approx(np.mean(wanted.errors[:n]), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(("table", "preset"), sorted(PRESETS))
def test_each_preset_says_what_was_typed_here_again(table: str, preset: str) -> None:
    for spec in cells(table, preset, [3]):
        assert isinstance(spec, Spec)
        told, wanted = asdict(spec), settings(table, preset, spec.model, spec.sigma)
        assert Settings(**{name: told[name] for name in Settings._fields}) == wanted, spec.model
        assert spec.warp == ("affine" if table == "table_1" else "homography")
        assert (spec.invert, spec.tested_on) == (False, "test")


@pytest.mark.parametrize("table", sorted(ROWS))
def test_each_network_is_what_was_typed_here_again(table: str) -> None:
    for model, row in ROWS[table].items():
        stacks = [f"[{row.predictor}]×{row.operations}"] * bool(row.operations) + [row.classifier]
        assert spec_of(table, "full", model).architecture == " → ".join(s for s in stacks if s)


@pytest.mark.parametrize("preset", NAMES)
@pytest.mark.parametrize("experiment", ["cascades", "tolerance", "two_images"])
def test_so_does_each_of_what_stands_beside_the_tables(experiment: str, preset: str) -> None:
    for spec in cells(experiment, preset, [3]):
        assert isinstance(spec, Spec)
        told, trained_at = asdict(spec), PLAIN.get(spec.model, (None,))[0]
        wanted = beside(experiment, preset, spec.model)
        assert Settings(**{name: told[name] for name in Settings._fields}) == wanted, spec.model
        assert spec.sigma_trained == (-1.0 if trained_at is None else trained_at)
        assert spec.supervision == ("each" if experiment == "two_images" else "last")
        assert (spec.seed, spec.invert, spec.tested_on) == (3, False, "test")


@pytest.mark.parametrize("preset", NAMES)
@pytest.mark.parametrize("experiment", list(ITEMS))
def test_so_does_each_classical_method(experiment: str, preset: str) -> None:
    for spec in cells(experiment, preset, [3]):
        assert isinstance(spec, BaselineSpec)
        steps, *samples = METHODS[spec.model]
        learned = samples[NAMES.index(preset)]
        assert (spec.steps, spec.samples, spec.seed) == (steps, learned, 3 if learned else 0), spec.model
        assert (spec.test_items, spec.test_draws) == (ITEMS[experiment][NAMES.index(preset)], 1)
        assert spec.warp == ("affine" if experiment == "baselines" else "homography")


def test_no_experiment_is_without_its_settings_here() -> None:
    known = {"cascades", "tolerance", "two_images", *ITEMS, *(table for table, _ in PRESETS)}
    assert known == set(EXPERIMENTS)


@pytest.mark.parametrize("preset", ["full", "paper"])
@pytest.mark.parametrize("model", sorted(ROWS["table_1"]))
def test_table_1(model: str, preset: str, tmp_path: Path) -> None:
    steps = 2 if model == "IC-STN-6" else 5  # whose long chain doubles what rounding does at each of them
    spec = spec_of("table_1", preset, model, iterations=steps, batch=4, test_items=5, sigma=5.0)
    agrees(trained(spec, tmp_path), plain(spec), share=2e-2)


#: Rows of each table whose first samples do not lie on the image's pixels, where its slope has two values.
SMOOTH = [
    *(("table_2", m) for m in ("CNN(a)", "c-STN-2(a)", "IC-STN-2(a)", "CNN(b)", "IC-STN-4(b)")),
    *(("table_3", m) for m in ("CNN", "c-STN-1", "IC-STN-2")),
]


@pytest.mark.parametrize("preset", ["full", "paper"])
@pytest.mark.parametrize(("table", "model"), SMOOTH)
def test_tables_2_and_3(table: str, model: str, preset: str, tmp_path: Path) -> None:
    spec = spec_of(table, preset, model, iterations=4, batch=3, test_draws=1)
    agrees(trained(spec, tmp_path), plain(spec))


@pytest.mark.parametrize("preset", ["full", "paper"])
@pytest.mark.parametrize(("table", "model"), [("table_2", "STN(b)"), ("table_3", "STN")])
def test_a_step_of_the_transformer_that_resamples_its_crop(table: str, model: str, preset: str) -> None:
    """From weights whose prediction is not zero, where the crop is resampled between its pixels."""
    spec = spec_of(table, preset, model, iterations=4, batch=3)
    task = make_task(spec, EXECUTION.data, "cpu")
    network = task.model()
    noise = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.01 * torch.randn(weight.shape, generator=noise)
    start = course.like(ROWS[table][model], list(network.state_dict().values()))
    state = training.TrainingState(network, training.make_optimizer(spec, network))
    for step, batch in zip(range(2), task.block(0), strict=False):
        training.set_rates(spec, state.optimizer, step)
        training.train_step(spec, task, state, batch)
    s = settings(table, preset, model)._replace(iterations=4, batch=3)
    wanted = course.run(ROWS[table][model], problem(table), s, 3, steps=2, start=start)
    assert_same(dict(network.state_dict()), wanted.last, start)


@pytest.mark.parametrize(
    ("changes", "settled"),
    [
        ({"clip": 0.05}, {"clip": 0.05}),
        ({"average": 0.6}, {"average": 0.6}),
        ({"weight_decay": 0.5}, {"weight_decay": 0.5}),
        ({"std_classifier": 0.2, "std_predictor": 0.05}, {"std_classifier": 0.2, "std_predictor": 0.05}),
        ({"optimizer": "sgd", "clip": 0.05}, {"optimizer": "sgd", "clip": 0.05}),
        ({"appearance": 0.7}, {"appearance": 0.7}),
        ({"appearance": 1.5}, {"appearance": 1.5}),
    ],
    ids=lambda value: "-".join(value),
)
def test_what_a_recipe_may_add(changes: dict, settled: dict, tmp_path: Path) -> None:
    spec = spec_of("table_2", "full", "IC-STN-2(b)", iterations=5, batch=3, test_draws=1, **changes)
    without = plain(spec)
    agrees(trained(spec, tmp_path), wanted := plain(spec, **settled))
    with pytest.raises(AssertionError):  # and it makes a difference that would be seen
        assert_same(dict(enumerate(without.tested.flat)), wanted.tested, wanted.start)


class StoppedError(Exception):
    """What a test stops a run with."""


@pytest.mark.parametrize(("table", "model"), [("table_1", "IC-STN-2"), ("table_2", "IC-STN-2(b)")])
def test_a_resumed_run(table: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped before its second block of a hundred steps, it goes on with that block's draws and rates."""
    # A cosine's last steps would be too small to count, and bounded ones of two images, or steps as long as
    # Table 2's, too much alike: rounding of the smallest gradients would count as much as the largest.
    changes = {"schedule": "constant", "clip": 0.0, "rate_predictor": 3e-5}
    spec = spec_of(table, "full", model, iterations=115, batch=2, test_items=5, test_draws=1, **changes)
    stop_before_block(1, monkeypatch)
    with pytest.raises(StoppedError):
        trained(spec, tmp_path, checkpoint_seconds=0)
    monkeypatch.undo()
    pictures.hand_out(monkeypatch)
    record = trained(spec, tmp_path)
    agrees(record, plain(spec, **changes), share=2e-2)
    assert record.curve["step"] == [100, 115]


def stop_before_block(wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a run where it asks for the draws of that block."""
    for kind in (Planar, Classification):
        original = kind.draws

        def draws(self: Task, block: int, restart: int = 0, original: Callable = original) -> Draws:
            if block == wanted:
                raise StoppedError
            return original(self, block, restart)

        monkeypatch.setattr(kind, "draws", draws)


def test_a_restart_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that diverged, began again and was stopped there goes on with the draws of its restart."""
    spec = spec_of("table_1", "full", "IC-STN-2", iterations=6, batch=3, test_items=5)
    original, healthy = Planar.draws, []

    def spoiled(self: Task, block: int, restart: int = 0) -> Draws:
        if restart == 1:
            raise StoppedError
        found = original(self, block, restart)
        healthy.append(block)
        return found if len(healthy) == 1 else found._replace(p=found.p * float("nan"))

    monkeypatch.setattr(Planar, "draws", spoiled)  # the first draws tell what loss a run begins with
    with pytest.raises(StoppedError):
        trained(spec, tmp_path, checkpoint_seconds=1e9)
    monkeypatch.setattr(Planar, "draws", original)
    record = trained(spec, tmp_path)
    assert record.provenance["restarts"] == 1
    agrees(record, restarted(spec, 1), share=2e-2)
    with pytest.raises(AssertionError):
        agrees(record, restarted(spec, 0), share=2e-2)


def restarted(spec: Spec, restart: int) -> Course:
    """The plain run with the draws of that restart."""
    s = settings(spec.experiment, spec.preset, spec.model)._replace(
        iterations=spec.iterations, batch=spec.batch
    )
    row = ROWS[spec.experiment][spec.model]
    return course.run(row, problem(spec.experiment, spec.sigma), s, spec.seed, restart=restart)


@pytest.mark.parametrize("table", ["table_2", "table_3"])
def test_a_validation_run_never_sees_what_it_is_tested_on(table: str, tmp_path: Path) -> None:
    """It trains on the rest: all but the last sixth of the digits, or every sixth light of each sign."""
    model = {"table_2": "CNN(b)", "table_3": "CNN"}[table]
    spec = spec_of(table, "full", model, iterations=4, batch=3, test_draws=1, tested_on="validation")
    record = trained(spec, tmp_path)
    whole = problem(table)
    kept = torch.tensor([i for i in range(len(whole.labels)) if i not in held_out(table)])
    rest = whole._replace(images=whole.images[kept], labels=whole.labels[kept])
    s = settings(table, "full", model)._replace(iterations=4, batch=3)
    agrees(record, course.run(ROWS[table][model], rest, s, 3))
    assert record.metrics["test_items"] == len(held_out(table))


def held_out(table: str) -> list[int]:
    """Numbers of the validation images."""
    if table == "table_2":
        n = len(pictures.digits("train"))
        return list(range(n - n // 6, n))
    data = pictures.signs("train")
    found = []
    for label in sorted(set(data.labels.tolist())):
        own = sorted((group, i) for i, group in enumerate(data.groups.tolist()) if data.labels[i] == label)
        found += [own[k][1] for k in range(5, len(own), 6)] if len(own) >= 6 else [own[-1][1]]
    return sorted(found)


def test_a_template_that_is_not_square(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pixel of the noise is 2/width across and 2/height down."""
    frame, place = Frame.crop(50, 50, 24, 36), Place(24, 36, (24.5, 24.5), (17.5, 11.5))
    train, test = pictures.signs("train"), pictures.signs("test")
    task = lambda spec, *_: Classification(spec, train, test, frame, pick_device("cpu"), True)  # noqa: E731
    monkeypatch.setattr(training, "make_task", task)
    spec = spec_of("table_3", "full", "IC-STN-2", iterations=3, batch=3, test_draws=1)
    s = settings("table_3", "full", "IC-STN-2")._replace(iterations=3, batch=3)
    wanted = course.run(ROWS["table_3"]["IC-STN-2"], problem("table_3")._replace(place=place), s, 3)
    agrees(trained(spec, tmp_path), wanted)
