"""The planar test: warps by the predictor whose turn it is, and an error of their corners."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_experiments_running import planar

from icstn.experiments.planar import BEYOND, Planar, reapplied
from icstn.sampling import Frame

#: Wider than high, and off the middle, so that no two of its sides can be taken for each other.
FRAME = Frame(9, 15, (20.0, 16.0), (14.0, 8.0))


def task(**changes) -> Planar:
    spec = replace(planar(), **changes)
    image = torch.rand(1, 1, 34, 42, generator=torch.Generator().manual_seed(0))
    return Planar(spec, image, FRAME, torch.device("cpu"))


def trained(planar_task: Planar) -> torch.nn.Module:
    """A model whose predictors differ from each other and from nothing."""
    model = planar_task.model()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=3e-3, generator=generator)
    return model.eval()


@torch.no_grad()
def test_each_step_of_a_cascade_has_its_own_predictor() -> None:
    """A c-STN of three predictors is applied as it was trained, and no further."""
    t = task(model="c-STN-3", architecture="[FC(6)]×3")
    model, p = trained(t), t.test_warps(7, 0)
    warps = reapplied(model, t.photograph, p, chunk=3)
    expected = model.warps(t.photograph, p, 3)
    assert len(warps) == 4
    for ours, theirs in zip(warps, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    one = model.transformer.geometric_predictors
    one[1].load_state_dict(one[0].state_dict())
    assert not reapplied(model, t.photograph, p)[2].allclose(warps[2])


@torch.no_grad()
@pytest.mark.parametrize("model", ["IC-STN-2", "c-STN-1"])
def test_one_predictor_is_applied_beyond_training(model: str) -> None:
    n = int(model[-1])
    t = task(model=model, architecture=f"[FC(6)]×{n}")
    network, p = trained(t), t.test_warps(5, 0)
    warps = reapplied(network, t.photograph, p)
    assert len(warps) == BEYOND + 1
    by_hand = p
    for k in range(1, BEYOND + 1):
        by_hand = network.warps(t.photograph, by_hand, 1)[-1]
        torch.testing.assert_close(warps[k], by_hand)


def test_the_error_is_the_root_mean_square_over_the_corners() -> None:
    """On corners that move by different distances, in template pixels of 2/width."""
    t = task()
    p = torch.tensor([[0.3, -0.1, 0.2, 0.4, -0.2, 0.05]])
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=float)
    m = np.array([[1.3, -0.1, 0.2], [0.4, 0.8, 0.05]])
    moved = square @ m[:, :2].T + m[:, 2]
    distance = np.linalg.norm(moved - square, axis=1)
    assert np.ptp(distance) > 0.1
    rms = np.sqrt((distance**2).mean()) * 15 / 2
    assert t.pixels(p).item() == pytest.approx(rms, rel=1e-5)


@torch.no_grad()
def test_what_a_test_keeps_is_what_its_metrics_are_made_of() -> None:
    t = task(test_items=40)
    tested = t.evaluate(trained(t))
    errors = tested.outcomes[0].double().numpy()
    metrics = tested.metrics
    assert tested.outcomes.shape == (1, 40)
    assert metrics["test_error"] == pytest.approx(errors.mean(), rel=1e-6)
    assert metrics["median_px"] == pytest.approx(np.sort(errors)[19], rel=1e-6)
    half = 1.96 * errors.std(ddof=1) / np.sqrt(40)
    assert metrics["interval"] == pytest.approx([errors.mean() - half, errors.mean() + half], rel=1e-5)
    assert metrics["by_operations"][2]["under_1_px"] == pytest.approx((errors < 1).mean())
    start = t.pixels(t.test_warps(40, 0)).mean().item()
    assert metrics["by_operations"][0]["corner_px"] == pytest.approx(start, rel=1e-5)
    assert tested.diverged == (metrics["test_error"] > start)
