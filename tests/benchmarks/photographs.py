"""Image alignment where it was never tuned: eight other photographs, light, noise, blur and cover.

    python tests/benchmarks/photographs.py              # everything, into photographs.json and the book
    python tests/benchmarks/photographs.py --trials 1 --dry

The task is that of alignment.py with σ of 12 pixels and templates of 100×100 and 180×180 pixels, beside
OpenCV's ``findTransformECCMultiScale``; pairs.py says what the columns are.
"""

from __future__ import annotations

import argparse
import json
import platform
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import skimage.data
import torch
from pairs import MARGIN, ROWS, lines, measure
from torch import Tensor

from icstn.classical.trials import Trials, make_trials
from icstn.datasets import photograph
from icstn.experiments.provenance import commit, cpu_model, now

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "book" / "assets" / "photographs.md"
PHOTOGRAPHS = (
    "camera.png", "coffee.png", "rocket.jpg", "coins.png", "motorcycle_left.png", "ihc.png", "brick.png",
    "hubble_deep_field.jpg",
)  # fmt: skip
SIGMA, SIZES = 12.0, (100, 180)


def gray(name: str) -> Tensor:
    """A photograph that ships with scikit-image."""
    return photograph(Path(skimage.data.__file__).parent / name, gray=True)


@cache
def problem(name: str, trials: int, warp: str, size: int) -> Trials:
    """A photograph's trials, the same ones for every row."""
    generator = torch.Generator().manual_seed(2)
    return make_trials(gray(name), trials, SIGMA, warp, generator=generator, size=size, margin=MARGIN)


def run(trials: int, rounds: int) -> dict[str, Any]:
    """The whole report."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    report: dict[str, Any] = {
        "date": now(), "commit": commit(), "processor": cpu_model(), "python": platform.python_version(),
        "command": f"python tests/benchmarks/photographs.py --trials {trials} --rounds {rounds}",
        "versions": {"torch": torch.__version__, "opencv": cv2.__version__}, "tables": {},
    }  # fmt: skip
    for size in SIZES:
        for warp in ("affine", "homography"):
            problems = [partial(problem, name, trials, warp, size) for name in PHOTOGRAPHS]
            title = f"{warp}, {size}×{size}, σ = {SIGMA:g} px"
            report["tables"][title] = {row: measure(problems, row, rounds) for row in ROWS}
            print(markdown(report), flush=True)
    return report


def markdown(report: dict[str, Any]) -> str:
    """The report as tables."""
    versions = ", ".join(f"{k} {v}" for k, v in report["versions"].items())
    text = [f"{report['date']}, {report['processor']}, one thread. {versions}.", ""]
    for title, rows in report["tables"].items():
        text += lines(title, rows)
    return "\n".join(text)


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description="Align other photographs, whatever was done to them.")
    parser.add_argument("--trials", type=int, default=12, help="of each photograph, row and family")
    parser.add_argument(
        "--rounds", type=int, default=3, help="repetitions of a batch, of which the median counts"
    )
    parser.add_argument("--dry", action="store_true", help="print only")
    arguments = parser.parse_args()
    report = run(arguments.trials, arguments.rounds)
    if not arguments.dry:
        (HERE / "photographs.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        PAGE.write_text(markdown(report))


if __name__ == "__main__":
    main()
