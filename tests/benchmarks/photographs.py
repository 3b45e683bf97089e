"""Image alignment where it was never tuned: eight other photographs, light, noise, blur and cover.

    python tests/benchmarks/photographs.py              # everything, into photographs.json and the book
    python tests/benchmarks/photographs.py --trials 1 --dry

The task is that of alignment.py with σ of 12 pixels, beside OpenCV's ``findTransformECCMultiScale``. Each
trial goes to both in turn, in one process with one thread. Three times are told, as ratios to OpenCV's of the
same trials (medians of processor time, which other processes disturb less than the wall's):

    one        the aligner is built and called once, as somebody does who has two pictures
    prepared   it is called with its first picture behind it, as in a folder or a film
    batch      256 pictures in a call, for each of them; told as a rate

A result is *wrong* when it is more than a pixel off, and *silent* when it is called converged all the same.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data
import torch
from alignment import ecc, pixels, point_error
from torch import Tensor

from icstn.classical import Aligner
from icstn.classical.trials import Trials, make_trials
from icstn.datasets import photograph
from icstn.experiments.provenance import commit, cpu_model, now

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "book" / "assets" / "photographs.md"
PHOTOGRAPHS = (
    "camera.png", "coffee.png", "rocket.jpg", "coins.png", "motorcycle_left.png", "ihc.png", "brick.png",
    "hubble_deep_field.jpg",
)  # fmt: skip
SIGMA, SIZE, MARGIN, BATCH = 12.0, 100, 50, 256


def gray(name: str) -> Tensor:
    """A photograph that ships with scikit-image."""
    return photograph(Path(skimage.data.__file__).parent / name, gray=True)


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
    images[..., MARGIN : MARGIN + SIZE // 2, MARGIN : MARGIN + SIZE // 2] = 0.9
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
MASKED = "a fourth of the template covered, masked"


def template_of(t: Trials, row: str) -> tuple[Tensor, dict[str, Any]]:
    """The template and the settings for a row."""
    if row != MASKED:
        return t.template, {}
    template, mask = t.template.clone(), torch.ones(SIZE, SIZE)
    template[..., : SIZE // 2, : SIZE // 2] = 0.9
    mask[: SIZE // 2, : SIZE // 2] = 0
    return template, {"mask": mask}


def cpu(call: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What it returns, and milliseconds of processor time."""
    before = time.process_time()
    result = call(*arguments)
    return result, (time.process_time() - before) * 1e3


def once(template: Tensor, warp: str, settings: dict[str, Any], image: Tensor) -> Any:
    """Build an aligner and call it, as for two pictures."""
    return Aligner(template, warp, **settings)(image)


def measure(warp: str, row: str, trials: int, rounds: int) -> dict[str, Any]:
    """One row of one family: how often, how well, how honest, how fast."""
    times: dict[str, list[float]] = {"opencv": [], "one": [], "prepared": [], "batch": []}
    errors: dict[str, list[float]] = {"ours": [], "opencv": []}
    converged, silent = 0, 0
    for name in PHOTOGRAPHS:
        t = make_trials(
            gray(name),
            trials,
            SIGMA,
            warp,
            generator=torch.Generator().manual_seed(2),
            size=SIZE,
            margin=MARGIN,
        )
        images, (template, settings) = ROWS[row](t), template_of(t, row)
        aligner, truths = Aligner(template, warp, **settings), pixels(t.truth, t.warp)
        aligner(images[:1])
        for image, truth in zip(images.split(1), truths, strict=True):
            peer = ecc(template[0, 0].numpy(), image[0, 0].numpy(), warp, True)
            theirs, ms = cpu(peer)
            times["opencv"].append(ms)
            ours, ms = cpu(aligner, image)
            times["prepared"].append(ms)
            _, ms = cpu(once, template, warp, settings, image)
            times["one"].append(ms)
            errors["opencv"].append(point_error(theirs, truth, warp))
            error = point_error(pixels(ours.p, t.warp)[0], truth, warp)
            errors["ours"].append(error if np.isfinite(error) else np.inf)
            converged += bool(ours.converged)
            silent += bool(ours.converged) and error > 1
        many = images.repeat(-(-BATCH // trials), 1, 1, 1)[:BATCH].contiguous()
        times["batch"].append(min(cpu(aligner, many)[1] for _ in range(rounds)) / BATCH)
    ms = {k: statistics.median(v) for k, v in times.items()}
    good = {k: [e for e in v if e < 1] for k, v in errors.items()}
    n = len(errors["ours"])
    return {
        "n": n,
        "within a pixel": {k: round(len(v) / n, 4) for k, v in good.items()},
        "called converged": round(converged / n, 4),
        "wrong and silent": silent,
        "error_px": {k: round(statistics.median(v), 4) if v else None for k, v in good.items()},
        "cpu_ms": {k: round(v, 3) for k, v in ms.items()},
    }


def run(trials: int, rounds: int) -> dict[str, Any]:
    """The whole report."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    report: dict[str, Any] = {
        "date": now(), "commit": commit(), "processor": cpu_model(), "python": platform.python_version(),
        "command": f"python tests/benchmarks/photographs.py --trials {trials} --rounds {rounds}",
        "versions": {"torch": torch.__version__, "opencv": cv2.__version__}, "tables": {},
    }  # fmt: skip
    for warp in ("affine", "homography"):
        report["tables"][warp] = {row: measure(warp, row, trials, rounds) for row in ROWS}
        print(markdown(report), flush=True)
    return report


def markdown(report: dict[str, Any]) -> str:
    """The report as tables."""
    versions = ", ".join(f"{k} {v}" for k, v in report["versions"].items())
    lines = [f"{report['date']}, {report['processor']}, one thread. {versions}.", ""]
    for warp, rows in report["tables"].items():
        lines += [
            f"| {warp}, σ = {SIGMA:g} px | within a pixel | OpenCV | error, px | OpenCV | called converged "
            "| wrong and silent | one, × OpenCV's time | prepared, × | batch, × its rate |",
            "|:--|" + "--:|" * 9,
        ]
        for name, r in rows.items():
            ms, good, error = r["cpu_ms"], r["within a pixel"], r["error_px"]
            px = ["–" if error[k] is None else f"{error[k]:.3f}" for k in ("ours", "opencv")]
            lines.append(
                f"| {name} | {good['ours']:.3f} | {good['opencv']:.3f} | {px[0]} | {px[1]} "
                f"| {r['called converged']:.3f} | {r['wrong and silent']} of {r['n']} "
                f"| {ms['one'] / ms['opencv']:.2f} | {ms['prepared'] / ms['opencv']:.2f} "
                f"| {ms['opencv'] / ms['batch']:.1f} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description="Align other photographs, whatever was done to them.")
    parser.add_argument("--trials", type=int, default=12, help="of each photograph, row and family")
    parser.add_argument(
        "--rounds", type=int, default=3, help="repetitions of a batch, of which the best counts"
    )
    parser.add_argument("--dry", action="store_true", help="print only")
    arguments = parser.parse_args()
    report = run(arguments.trials, arguments.rounds)
    if not arguments.dry:
        (HERE / "photographs.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        PAGE.write_text(markdown(report))


if __name__ == "__main__":
    main()
