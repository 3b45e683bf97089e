"""Pairs of pictures under light, noise, blur and cover: the library beside OpenCV, trial by trial.

Each trial goes to both in turn, in one process with one thread. Three times are told, in units of that of
OpenCV's ``findTransformECCMultiScale`` in the same trials (medians of processor time, which other processes
disturb less than the wall's):

    one        the aligner is built and called once, as somebody does who has two pictures
    prepared   it is called with its first picture behind it, as in a folder or a film
    batch      256 pictures in a call, for each of them; told as a rate

Where OpenCV found none of a row's templates, its time is that of giving up; the row is then told in units of
its time with the images as they are, and marked with a star. A result is *wrong* when it is more than a pixel
off, and *silent* when it is called converged all the same.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from icstn.classical import Aligner
from icstn.classical.trials import Trials, canonical_points
from icstn.warps import family

SIZE, MARGIN, BATCH = 100, 50, 256
Matrix = np.ndarray


def shift(by: float) -> Matrix:
    """Move right and down by so many pixels."""
    return np.array([[1.0, 0, by], [0, 1, by], [0, 0, 1]])


def ecc(
    template: Matrix, image: Matrix, warp: str, multiscale: bool, mask: Matrix | None = None
) -> Callable[[], Matrix]:
    """OpenCV's enhanced correlation coefficient at its defaults; the mask is of the template."""
    t, i = (np.round(x * 255).astype(np.uint8) for x in (template, image))
    motion = cv2.MOTION_HOMOGRAPHY if warp == "homography" else cv2.MOTION_AFFINE
    counts = None if mask is None else (mask > 0).astype(np.uint8) * 255
    start = shift(MARGIN).astype(np.float32)[: 3 if warp == "homography" else 2]
    parameters = cv2.ECCParameters()
    parameters.motionType = motion

    def call() -> Matrix:
        try:
            if multiscale:
                _, m = cv2.findTransformECCMultiScale(t, i, start.copy(), parameters, counts)
            else:
                _, m = cv2.findTransformECC(t, i, start.copy(), motion)
        except cv2.error:  # it says so when it fails
            m = start
        return np.vstack([m, [0, 0, 1]])[:3].astype(float)

    return call


def pixels(p: Tensor, warp: Any, size: int = SIZE) -> Matrix:
    """Warp parameters → matrices from the template's pixels to the image's."""
    half = (size - 1) / 2
    scale = np.array([[half, 0, half], [0, half, half], [0, 0, 1]])
    return shift(MARGIN) @ scale @ warp.matrix(p.double()).numpy() @ np.linalg.inv(scale)


def point_error(m: Matrix, truth: Matrix, warp: str, size: int = SIZE) -> float:
    """RMS distance of the canonical points under two matrices, in pixels."""
    points = canonical_points(family(warp)).numpy().astype(float)
    points = np.c_[(points + 1) / 2 * (size - 1), np.ones(len(points))]
    a, b = (points @ x.T for x in (m, truth))
    d = a[:, :2] / a[:, 2:] - b[:, :2] / b[:, 2:]
    return float(np.sqrt((d**2).sum(1).mean()))


def noisy(t: Trials, amount: float) -> Tensor:
    """With noise of a standard deviation in units of the range of gray values."""
    noise = torch.randn(t.images.shape, generator=torch.Generator().manual_seed(1))
    return (t.images + amount * noise).clamp(0, 1)


def blurred(t: Trials) -> Tensor:
    """With a Gaussian blur of one pixel, which the template has not."""
    return torch.stack(
        [torch.from_numpy(cv2.GaussianBlur(x[0].numpy(), (0, 0), 1.0))[None] for x in t.images]
    )


def covered(t: Trials) -> Tensor:
    """With a fourth of the template's place covered by one gray value."""
    images = t.images.clone()
    half = t.template.shape[-1] // 2
    images[..., MARGIN : MARGIN + half, MARGIN : MARGIN + half] = 0.9
    return images


#: Rows: what is done to the images.
ROWS: dict[str, Callable[[Trials], Tensor]] = {
    "as they are": lambda t: t.images,
    "darker: gain 0.7, offset 30 of 255": lambda t: 0.7 * t.images + 30 / 255,
    "brighter: gain 1.3, offset −20 of 255, cut off at white": lambda t: (1.3 * t.images - 0.08).clamp(0, 1),
    "noise, 5 % of the range": lambda t: noisy(t, 0.05),
    "noise, 10 % of the range": lambda t: noisy(t, 0.1),
    "blur, Gaussian of 1 px": blurred,
    "a fourth covered, not masked": covered,
    "a fourth of the template covered, masked": lambda t: t.images,
}
#: No batch is timed where every item takes all attempts that there are.
COVERED = "a fourth covered, not masked"
MASKED = "a fourth of the template covered, masked"


def template_of(t: Trials, row: str) -> tuple[Tensor, dict[str, Any]]:
    """The template and the settings for a row."""
    if row != MASKED:
        return t.template, {}
    template, half = t.template.clone(), t.template.shape[-1] // 2
    mask = torch.ones(template.shape[-2:])
    template[..., :half, :half], mask[:half, :half] = 0.9, 0
    return template, {"mask": mask}


def cpu(call: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What it returns, and milliseconds of processor time."""
    before = time.process_time()
    result = call(*arguments)
    return result, (time.process_time() - before) * 1e3


def once(template: Tensor, warp: str, settings: dict[str, Any], image: Tensor) -> Any:
    """Build an aligner and call it, as for two pictures."""
    return Aligner(template, warp, **settings)(image)


def measure(problems: Sequence[Callable[[], Trials]], row: str, rounds: int) -> dict[str, Any]:
    """One row: how often, how well, how honest, how fast.

    Args:
        problems: what makes the trials of each photograph, of one family and size.
        row: what is done to the images.
        rounds: repetitions of a batch, of which the median counts.
    """
    times: dict[str, list[float]] = {"opencv": [], "one": [], "prepared": [], "batch": []}
    errors: dict[str, list[float]] = {"ours": [], "opencv": []}
    converged, silent = 0, 0
    for problem in problems:
        t = problem()
        images, (template, settings) = ROWS[row](t), template_of(t, row)
        warp, size = t.warp.name, template.shape[-1]
        aligner, truths = Aligner(template, warp, **settings), pixels(t.truth, t.warp, size)
        aligner(images[:1])
        mask = settings["mask"].numpy() if settings else None
        for image, truth in zip(images.split(1), truths, strict=True):
            theirs, ms = cpu(ecc(template[0, 0].numpy(), image[0, 0].numpy(), warp, True, mask))
            times["opencv"].append(ms)
            ours, ms = cpu(aligner, image)
            times["prepared"].append(ms)
            _, ms = cpu(once, template, warp, settings, image)
            times["one"].append(ms)
            errors["opencv"].append(point_error(theirs, truth, warp, size))
            error = point_error(pixels(ours.p, t.warp, size)[0], truth, warp, size)
            errors["ours"].append(error if np.isfinite(error) else np.inf)
            converged += bool(ours.converged)
            silent += bool(ours.converged) and not error < 1
        if row == COVERED:
            continue
        many = images.repeat(-(-BATCH // len(images)), 1, 1, 1)[:BATCH].contiguous()
        times["batch"].append(statistics.median(cpu(aligner, many)[1] for _ in range(rounds)) / BATCH)
    good = {k: [e for e in v if e < 1] for k, v in errors.items()}
    n = len(errors["ours"])
    return {
        "n": n,
        "within a pixel": {k: round(len(v) / n, 4) for k, v in good.items()},
        "called converged": round(converged / n, 4),
        "wrong and silent": silent,
        "error_px": {k: round(statistics.median(v), 4) if v else None for k, v in good.items()},
        "cpu_ms": {k: round(statistics.median(v), 3) if v else None for k, v in times.items()},
    }


def lines(title: str, rows: dict[str, Any]) -> list[str]:
    """The rows of one family and size as two tables: how good, and how fast."""
    good = [
        f"| {title} | within a pixel | error, px | called converged | wrong and silent |",
        "|:--|--:|--:|--:|--:|",
    ]
    fast = [
        f"| {title} | OpenCV, ms | one, × its time | prepared, × | batch, × its rate |",
        "|:--|--:|--:|--:|--:|",
    ]
    usual = rows["as they are"]["cpu_ms"]["opencv"]
    for name, row in rows.items():
        good.append(f"| {name} | {_quality(row)} |")
        fast.append(f"| {name} | {_speed(row, usual)} |")
    return [*good, "", *fast, ""]


def _quality(r: dict[str, Any]) -> str:
    """Cells with ours before OpenCV's."""
    px = ["–" if r["error_px"][k] is None else f"{r['error_px'][k]:.3f}" for k in ("ours", "opencv")]
    share = [f"{r['within a pixel'][k]:.3f}" for k in ("ours", "opencv")]
    cells = (" / ".join(share), " / ".join(px), f"{r['called converged']:.3f}")
    return " | ".join((*cells, f"{r['wrong and silent']} of {r['n']}"))


def _speed(r: dict[str, Any], usual: float) -> str:
    """Cells in units of OpenCV's time, or of its usual one, with a star, where it found nothing."""
    ms = r["cpu_ms"]
    theirs, mark = (ms["opencv"], "") if r["within a pixel"]["opencv"] else (usual, "*")
    rate = "–" if ms["batch"] is None else f"{theirs / ms['batch']:.1f}{mark}"
    ratios = (f"{ms[k] / theirs:.2f}{mark}" for k in ("one", "prepared"))
    return " | ".join((f"{ms['opencv']:.2f}", *ratios, rate))
