"""A template followed through frames: found in each, said to be lost where it is covered, and regained."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from icstn.classical import Tracker, track
from icstn.datasets import photograph
from icstn.sampling import Frame, sample
from icstn.warps import homography

pytest.importorskip("skimage.data")
REGION = (150, 60, 270, 160)
COVERED = range(6, 9)


def film(n: int = 14) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """A photograph, frames in which it turns and drifts (bytes), and the true matrices."""
    photo = photograph("coffee", gray=True, scale=0.75)
    frame = Frame.full(*photo.shape[-2:])
    frames, truth = [], []
    for i in range(n):
        a = 0.012 * i
        M = np.array([[np.cos(a), -np.sin(a), 3.0 * i], [np.sin(a), np.cos(a), 0.8 * i], [0, 0, 1]])
        p = frame.params(homography, torch.from_numpy(np.linalg.inv(M))[None])
        picture = sample(photo, p.float(), frame, homography)[0, 0]
        frames.append((picture * (0.8 + 0.02 * i)).mul(255).round().clamp(0, 255).byte().numpy())
        truth.append(M)
    return frames[0], frames, truth


def error(matrix: np.ndarray, truth: np.ndarray) -> float:
    left, top, right, bottom = REGION
    x = np.array([[left, top, 1], [right, top, 1], [right, bottom, 1], [left, bottom, 1]])
    a, b = x @ matrix.T, x @ truth.T
    return float(np.abs(a[:, :2] / a[:, 2:] - b[:, :2] / b[:, 2:]).max())


def test_every_frame_is_found() -> None:
    first, frames, truth = film()
    tracked = list(track(first, frames, "affine", region=REGION))
    assert not any(t.lost for t in tracked)
    assert max(error(t.matrix(), m) for t, m in zip(tracked, truth, strict=True)) < 0.5
    assert tracked[-1].aligned(frames[-1]).shape == first.shape


def test_lost_while_covered_and_regained() -> None:
    first, frames, truth = film()
    for i in COVERED:
        frames[i] = np.random.default_rng(i).integers(0, 255, frames[i].shape, dtype=np.uint8)
    tracker = Tracker(first, "affine", region=REGION)
    tracked = [tracker(f) for f in frames]
    assert [i for i, t in enumerate(tracked) if t.lost] == list(COVERED)
    assert [t.event for t in tracked if t.event] == ["lost", "regained"]
    assert tracked[9].event == "regained"
    assert tracked[7].status.startswith("lost (")
    for i in COVERED:  # the last warp that was found is held
        assert np.array_equal(tracked[i].matrix(), tracked[5].matrix())
    after = [error(t.matrix(), m) for t, m in zip(tracked[9:], truth[9:], strict=True)]
    assert max(after) < 0.5


def test_one_template_only() -> None:
    with pytest.raises(ValueError, match="one template"):
        Tracker(torch.rand(2, 1, 40, 40))


def test_a_lost_template_is_sought_a_quarter_of_its_size_away() -> None:
    """Further than a single level sees, and after a frame without it."""
    generator = torch.Generator().manual_seed(0)
    scene = torch.nn.functional.interpolate(
        torch.rand(1, 1, 60, 60, generator=generator), scale_factor=3, mode="bilinear"
    )
    tracker = Tracker(scene, "translation", region=(60, 60, 120, 120), levels=1, retry=False)
    events = [tracker(x).event for x in (scene, torch.rand(scene.shape, generator=generator))]
    again = tracker(scene.roll((15, -15), (2, 3)))
    assert [*events, again.event] == ["", "lost", "regained"]
    assert again.matrix()[:2, 2] == pytest.approx([-15, 15], abs=0.05)
