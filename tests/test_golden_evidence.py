"""Each measure and interval of the evidence held against a few lines of NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden.sight import Place, matrix, positions

from icstn.datasets import Dataset, fingerprint
from icstn.evidence.alignment import lost_ink, window_of_box, zoom
from icstn.evidence.appearance import appearance_of
from icstn.evidence.estimates import Measured, difference, mean_error, paired
from icstn.experiments import Record, Spec, cells
from icstn.experiments.classification import Classification
from icstn.sampling import Frame
from icstn.warps import homography

#: Warps that turn, stretch and tilt differently along x and y.
P = torch.tensor(
    [[0.3, -0.1, 0.2, 0.05, -0.2, -0.1, 0.1, -0.15], [-0.2, 0.1, 0, 0.3, 0.5, 0.1, -0.05, 0.2]]
).double()


@pytest.fixture
def crops(generator: torch.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images that are not square, of three classes of unequal size, labels, and what each sample saw."""
    images = torch.rand(11, 2, 12, 20, generator=generator).double().numpy()
    seen = (torch.rand(11, 1, 12, 20, generator=generator) * 0.5 + 0.5).double().numpy()
    return images * seen, np.array([4, 1, 1, 2, 4, 1, 1, 2, 1, 4, 1]), seen


def test_appearance(crops: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Variance within classes and in all, the share that the class does not explain, the lost share and the
    sharpness of what was seen."""
    images, labels, seen = crops
    found = appearance_of(*map(torch.from_numpy, (images, labels)), [1, 2, 4], torch.from_numpy(seen))
    residual, sharpness = images.copy(), []
    for c in (1, 2, 4):
        mine = images[labels == c]
        residual[labels == c] -= mine.mean(0)
        mean = (mine.sum(0) / seen[labels == c].sum(0))[:, 3:9, 5:15]
        square = (np.diff(mean, axis=2) ** 2).mean() + (np.diff(mean, axis=1) ** 2).mean()
        sharpness.append(math.sqrt(square))
    within, total = (residual**2).mean(), images.var(0).mean()
    assert found.within == pytest.approx(within)
    assert found.total == pytest.approx(total)
    assert found.unexplained == pytest.approx(within / total)
    assert found.lost == pytest.approx((1 - seen).mean())
    assert found.sharpness == pytest.approx(np.mean(sharpness))


def test_zoom_is_how_much_larger_a_small_square_at_the_centre_becomes() -> None:
    found = zoom(homography, P).numpy()
    small = 1e-5
    square = np.array([[-small, -small, 1], [small, -small, 1], [small, small, 1], [-small, small, 1]])
    for m, value in zip(matrix(P).numpy(), found, strict=True):
        x, y, w = m @ square.T
        x, y = x / w, y / w
        area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
        assert value == pytest.approx(math.sqrt(area) / (2 * small), rel=1e-4)


def test_lost_ink_counts_each_sample_with_the_area_it_stands_for(generator: torch.Generator) -> None:
    """On a frame that is neither square nor of the image's own resolution."""
    place = Place(10, 16, (14.0, 9.0), (12.0, 7.0))
    frame = Frame(10, 16, place.center, place.half)
    aligned = torch.rand(2, 1, 10, 16, generator=generator).double()
    sources = torch.randint(100, 255, (2, 1, 20, 30), dtype=torch.uint8, generator=generator)
    task = task_of(frame, sources)
    x, y = positions(P, place)
    (xx, xy), (yx, yy) = _slopes(x.numpy()), _slopes(y.numpy())
    shown = (aligned[:, 0, 1:-1, 1:-1].numpy() * np.abs(xx * yy - xy * yx)).sum((1, 2))
    middle = torch.zeros_like(aligned)
    middle[..., 1:-1, 1:-1] = aligned[..., 1:-1, 1:-1]
    ink = sources.numpy().sum((1, 2, 3)) / 255
    assert (shown < ink).all()
    assert lost_ink(task, middle, P).numpy() == pytest.approx(1 - shown / ink, rel=5e-3)


def task_of(frame: Frame, images: torch.Tensor, boxes: torch.Tensor | None = None) -> Classification:
    """A task with these test images, all of class 0."""
    labels = torch.zeros(len(images), dtype=torch.long)
    data = Dataset(images, labels, "made up", "test", fingerprint(images, labels), boxes=boxes)
    spec = cells("table_2", "quick", models=["CNN(b)"])[0]
    assert isinstance(spec, Spec)
    return Classification(spec, data, data, frame, torch.device("cpu"), False)


def _slopes(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (z[:, 1:-1, 2:] - z[:, 1:-1, :-2]) / 2, (z[:, 2:, 1:-1] - z[:, :-2, 1:-1]) / 2


def test_the_window_against_the_box() -> None:
    """Square roots of areas: 24 by 14 pixels under a warp that doubles x, against a box of 9 by 4."""
    frame = Frame(10, 16, (14.0, 9.0), (12.0, 7.0))
    boxes = torch.tensor([[3.0, 5.0, 12.0, 9.0]])
    task = task_of(frame, torch.zeros(1, 3, 20, 30, dtype=torch.uint8), boxes)
    p = torch.tensor([[1.0, 0, 0.3, 0, 0, 0, 0, 0]])
    assert window_of_box(task, p).item() == pytest.approx(
        math.sqrt(2) * math.sqrt(24 * 14) / math.sqrt(9 * 4)
    )


def record(errors: np.ndarray, seed: int, half: float) -> Record:
    """A Record of Table 2 with these outcomes, ``(draws, items)``."""
    spec = cells("table_2", "quick", [seed], ["CNN(b)"])[0]
    mean = 100 * errors.mean()
    metrics = {"test_error": mean, "unit": "%", "interval": [max(0.0, mean - half), mean + half]}
    return Record(spec, "finished", metrics, {}, {}, {}, torch.from_numpy(errors))


def test_mean_over_seeds(generator: torch.Generator) -> None:
    """Seeds shrink with their number and items do not; Student's quantile, with Satterthwaite's freedom."""
    stats = pytest.importorskip("scipy.stats")
    halves = [1.2, 0.9, 1.6, 1.1]
    runs = [
        record(torch.rand(3, 50, generator=generator).numpy() < 0.1 + 0.02 * k, k, half)
        for k, half in enumerate(halves)
    ]
    values = np.array([r.test_error for r in runs])
    items, seeds = np.mean(halves) / 1.96, values.var(ddof=1) / 4
    spread = items**2 + seeds
    freedom = spread**2 / (seeds**2 / 3)
    found = mean_error(runs)
    assert found.value == pytest.approx(values.mean())
    assert found.half == pytest.approx(stats.t.ppf(0.975, freedom) * math.sqrt(spread))
    assert mean_error(runs[:1]).half == pytest.approx(1.2)
    p = 2 * stats.t.sf(abs(values.mean() - 9) / math.sqrt(spread), freedom)
    assert found.p_value(9.0) == pytest.approx(p)


def test_a_difference_is_taken_item_by_item() -> None:
    """Its spread, by a bootstrap of seeds and items with other random numbers; hard items are hard for both,
    so that it is far smaller than that of two independent means."""
    random = np.random.default_rng(3)
    hard = 0.95 * (random.random(200) < 0.4)
    of_seed = np.array([1.0, 0.8, 0.95, 0.7])[:, None, None]  # seeds that differ, too
    a, b = (random.random((4, 2, 200)) < hard * factor * of_seed for factor in (1.0, 0.95))
    first, second = (100 * x.mean(1) for x in (a, b))
    means = []
    for _ in range(6000):
        item = random.integers(0, 200, 200)
        own = [x[random.integers(0, 4, 3)][:, item].mean() for x in (first, second)]
        means.append(own[0] - own[1])
    found = paired(*map(torch.from_numpy, (first, second)))
    assert found.value == pytest.approx(first.mean() - second.mean())
    assert found.error == pytest.approx(np.std(means), rel=0.08)
    seeds = [x.mean(1).var(ddof=1) / 4 for x in (first, second)]
    alone = sum(x.mean(0).var() / 200 for x in (first, second)) + sum(seeds)
    assert found.error < 0.9 * math.sqrt(alone)
    runs = [[record(x, seed, 1.0) for seed, x in enumerate(own)] for own in (a, b)]
    assert difference(*runs).error == pytest.approx(found.error)
    assert difference(*runs).value == pytest.approx(100 * (a.mean() - b.mean()))


def test_the_jackknife() -> None:
    """(G − 1)/G Σ (x₋g − mean)², joined with the variance over seeds."""
    left_out = np.array([[1.0, 1.4, 0.9, 1.1], [2.0, 2.2, 1.7, 2.1], [1.5, 1.6, 1.2, 1.7]])
    values = np.array([1.1, 2.05, 1.52])
    runs = [Measured(v, tuple(x)) for v, x in zip(values, left_out, strict=True)]
    mean = left_out.mean(0)
    of_items = 3 / 4 * ((mean - mean.mean()) ** 2).sum()
    found = Measured.over_seeds(runs, "a").estimate
    assert found.value == pytest.approx(values.mean())
    assert found.error**2 == pytest.approx(of_items + values.var(ddof=1) / 3)
    spread, doubt = found.error**2, of_items**2 / 3 + (values.var(ddof=1) / 3) ** 2 / 2
    assert found.freedom == pytest.approx(spread**2 / doubt)
    other = Measured(0.5, (0.4, 0.6, 0.3, 0.9))
    gone = np.array(other.left_out) - mean
    apart = (other - Measured.over_seeds(runs, "a")).estimate
    assert apart.error**2 == pytest.approx(3 / 4 * ((gone - gone.mean()) ** 2).sum() + values.var(ddof=1) / 3)


def test_two_numbers_of_one_model_are_compared_run_by_run() -> None:
    """A difference and, to first order, a ratio: what one run is better in than another falls out of both."""
    before = np.array([[9.0, 9.3, 8.8, 9.1], [5.2, 5.4, 4.9, 5.1], [7.1, 7.0, 7.4, 7.3]])
    after = before * np.array([[0.80], [0.82], [0.79]]) - np.array([0.1, 0.0, 0.2, 0.05])
    runs = [[Measured(x.mean(), tuple(x)) for x in errors] for errors in (before, after)]
    a, b = (Measured.over_seeds(of, "one") for of in runs)
    found, apart, gone = (a - b).estimate, (before - after).mean(1), (before - after).mean(0)
    assert found.error**2 == pytest.approx(apart.var(ddof=1) / 3 + 3 / 4 * ((gone - gone.mean()) ** 2).sum())
    assert found.seeds == 3
    other = Measured.over_seeds(runs[0], "another")
    twice, parts = ((other - b) - b).estimate, [x.mean(1).var(ddof=1) / 3 for x in (before, 2 * after)]
    assert twice.of_seeds == pytest.approx(sum(parts))
    share, ratio, kept = (b / a).estimate, after.mean() / before.mean(), after.mean(0) / before.mean(0)
    of_seeds = (after.mean(1) - ratio * before.mean(1)) / before.mean()
    of_items = 3 / 4 * ((kept - kept.mean()) ** 2).sum()
    assert share.value == pytest.approx(ratio)
    assert share.error**2 == pytest.approx(of_seeds.var(ddof=1) / 3 + of_items)
    assert share.error < 0.2 * (b / other).estimate.error
