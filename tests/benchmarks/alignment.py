"""Image alignment: the library beside what one would otherwise take, on the same trials.

    pip install -r requirements.txt -r requirements-benchmarks.txt
    python tests/benchmarks/alignment.py              # everything, into two files and the book
    python tests/benchmarks/alignment.py --trials 4 --slow 1 --dry

The task: 100×100 templates (the face in scikit-image's ``chelsea`` and in its ``astronaut``) are looked for
in 200×200 images, in which their canonical points (three for affine warps, four for homographies) have moved
by Gaussian noise of σ pixels. A trial has converged when the RMS error of these points is below one pixel.
Peers that only take images of one size (pystackreg, kornia) get the 100×100 pixels at the starting place.
Peers work at their defaults, on what they are made for: OpenCV on 8-bit images (its multi-scale version
goes wrong on floats in [0, 1]), the others on floats.

Each trial goes to every method before the next one comes, in one process with one thread. A method's time
is that of its call alone, not of the conversion of arguments. Both clocks are reported, the wall's and the
processor's: other processes disturb the second less. Light and noise are rows of the tables that pairs.py
makes, with three columns of time that it explains.

The library and its peers are told of in aligners.json and in the book. The cost of a step and the study of
the algorithms, which do not depend on the aligner's defaults, are in alignment.json (``--study 0`` leaves
them as they are).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from clock import Clock
from pairs import MARGIN, ROWS, SIZE, Matrix, ecc, lines, measure, pixels, point_error, shift
from torch import Tensor

from icstn.classical import ALGORITHMS, Aligner
from icstn.classical.level import Image, Scale, Template
from icstn.classical.study import convergence, wilson
from icstn.classical.trials import Trials, make_trials
from icstn.datasets import photograph
from icstn.experiments.provenance import commit, cpu_model, now
from icstn.sampling import Frame
from icstn.warps import family

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "book" / "assets" / "alignment.md"
#: Top-left corner of each template in its photograph.
PLACES = {"chelsea": (175, 100), "astronaut": (175, 60)}
SIGMAS = (4, 6, 8, 10)
#: What is told of the library and its peers, beside the cost and the study of the algorithms.
TABLES = ("tables", "changes", "throughput")
#: Rows of light and noise.
CHANGES = 5
PACKAGES = ("torch", "numpy", "opencv-python-headless", "pystackreg", "SimpleITK", "kornia")


def gray(name: str) -> Tensor:
    """The photograph, gray, ``(1, 1, H, W)`` in [0, 1]."""
    return photograph(name, gray=True)


def trials_of(sigma: float, warp: str, n: int, seed: int = 0) -> list[Trials]:
    """n trials, half of them from each photograph."""
    generator = torch.Generator().manual_seed(seed)
    return [
        make_trials(gray(k), n // 2, sigma, warp, generator=generator, size=SIZE, margin=MARGIN, center=at)
        for k, at in PLACES.items()
    ]


# ---------------------------------------------------------------------------------- the methods
# Each takes a template (SIZE×SIZE) and an image and returns a call without arguments, whose result is the
# matrix from the template's pixels to the image's.


def turboreg(template: Matrix, image: Matrix, warp: str) -> Callable[[], Matrix]:
    """pystackreg, the TurboReg algorithm; it knows no homography."""
    from pystackreg import StackReg

    crop = np.ascontiguousarray(image[MARGIN : MARGIN + SIZE, MARGIN : MARGIN + SIZE])
    return lambda: shift(MARGIN) @ StackReg(StackReg.AFFINE).register(template, crop)


def simple_itk(template: Matrix, image: Matrix, warp: str) -> Callable[[], Matrix]:
    """SimpleITK's registration framework: mean squares, gradient descent, three levels; no homography."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    fixed, moving = sitk.GetImageFromArray(template), sitk.GetImageFromArray(image)
    fixed.SetOrigin((MARGIN, MARGIN))

    def call() -> Matrix:
        r = sitk.ImageRegistrationMethod()
        r.SetMetricAsMeanSquares()
        r.SetInterpolator(sitk.sitkLinear)
        r.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 200, gradientMagnitudeTolerance=1e-8)
        r.SetOptimizerScalesFromPhysicalShift()
        r.SetShrinkFactorsPerLevel([4, 2, 1])
        r.SetSmoothingSigmasPerLevel([2, 1, 0])
        r.SetInitialTransform(sitk.AffineTransform(2), inPlace=False)
        found = r.Execute(fixed, moving)
        corners = np.array(
            [found.TransformPoint((MARGIN + x, MARGIN + y)) for x, y in ((0, 0), (1, 0), (0, 1))]
        )
        m = np.eye(3)
        m[:2, 2], m[:2, 0], m[:2, 1] = corners[0], corners[1] - corners[0], corners[2] - corners[0]
        return m

    return call


def kornia_registrator(template: Matrix, image: Matrix, warp: str) -> Callable[[], Matrix]:
    """kornia's ImageRegistrator at its defaults (for affine warps its model with the last row held)."""
    from kornia.geometry import ImageRegistrator
    from kornia.geometry.transform import HomographyWarper
    from kornia.geometry.transform.image_registrator import BaseModel

    class Affine(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.model = torch.nn.Parameter(torch.eye(3)[:2])

        def reset_model(self) -> None:
            torch.nn.init.eye_(self.model)

        def forward(self) -> Tensor:
            return torch.cat((self.model, torch.tensor([[0.0, 0.0, 1.0]]))).unsqueeze(0)

        def forward_inverse(self) -> Tensor:
            return torch.linalg.inv(self.forward())

    dst, src = (torch.tensor(x)[None, None].float() for x in (template, image))
    src = src[..., MARGIN : MARGIN + SIZE, MARGIN : MARGIN + SIZE].contiguous()
    to_pixels = np.array([[SIZE / 2, 0, (SIZE - 1) / 2], [0, SIZE / 2, (SIZE - 1) / 2], [0, 0, 1]])

    def call() -> Matrix:
        model = (
            ImageRegistrator("homography")
            if warp == "homography"
            else ImageRegistrator(Affine(), warper=HomographyWarper)
        )
        m = model.register(src, dst)[0].detach().double().numpy()
        return shift(MARGIN) @ to_pixels @ m @ np.linalg.inv(to_pixels)

    return call


def ours(aligner: Aligner, image: Matrix) -> Callable[[], Matrix]:
    """The recommended settings, or others; the aligner is made once for a template."""
    x = torch.tensor(image)[None, None]
    return lambda: pixels(aligner(x).p, aligner.warp)[0]


PEERS: dict[str, tuple[str, Callable[..., Callable[[], Matrix]], tuple[str, ...]]] = {
    "OpenCV findTransformECC": ("cv2", lambda *a: ecc(*a, False), ("affine", "homography")),
    "OpenCV findTransformECCMultiScale": ("cv2", lambda *a: ecc(*a, True), ("affine", "homography")),
    "pystackreg (TurboReg)": ("pystackreg", turboreg, ("affine",)),
    "SimpleITK, mean squares, 3 levels": ("SimpleITK", simple_itk, ("affine",)),
    "kornia ImageRegistrator": ("kornia", kornia_registrator, ("affine", "homography")),
}
OURS: dict[str, dict[str, Any]] = {
    "icstn, recommended": {},
    "icstn, IC, 3 levels": {"algorithm": "IC", "levels": 3, "blur": 1, "retry": False},
    "icstn, FA, 1 level": {"algorithm": "FA", "levels": 1, "blur": 1, "retry": False},
    "icstn, IC, 1 level": {"algorithm": "IC", "levels": 1, "blur": 1, "retry": False},
}
#: Peers that take so long that they get fewer of the trials.
SLOW = ("kornia", "SimpleITK")
BATCH = "icstn, recommended, one batch"


# ---------------------------------------------------------------------------------- the table


class Row:
    """What one method did with one family."""

    def __init__(self) -> None:
        self.errors: dict[int, list[float]] = {s: [] for s in SIGMAS}
        self.silent = 0
        self.clock = Clock()

    def add(self, sigma: int, error: float) -> None:
        """One trial's error; not finite is not converged."""
        self.errors[sigma].append(error if np.isfinite(error) else float("inf"))

    def summary(self) -> dict[str, Any]:
        """Frequencies with intervals, error of the converged, times."""
        good = [e for errors in self.errors.values() for e in errors if e < 1]
        hits = {s: sum(e < 1 for e in errors) for s, errors in self.errors.items()}
        return {
            "n": {s: len(e) for s, e in self.errors.items()},
            "converged": {s: round(hits[s] / len(e), 4) for s, e in self.errors.items()},
            "interval": {s: [round(v, 4) for v in wilson(hits[s], len(e))] for s, e in self.errors.items()},
            "error_px": round(statistics.median(good), 4) if good else None,
            **self.clock.summary(),
        }


def available(module: str) -> bool:
    """Whether a peer is installed."""
    try:
        __import__(module)
    except ImportError:
        return False
    return True


def table(warp: str, trials: int, few: int) -> dict[str, Any]:
    """Every method on every trial, interleaved."""
    peers = {k: make for k, (module, make, warps) in PEERS.items() if warp in warps and available(module)}
    rows = {name: Row() for name in (*OURS, BATCH, *peers)}
    flags = {"trials": 0, "wrong": 0, "wrong and not flagged": 0, "right but flagged": 0}
    for sigma in SIGMAS:
        for part in trials_of(sigma, warp, trials):
            aligners = {name: Aligner(part.template, warp, **settings) for name, settings in OURS.items()}
            for aligner in aligners.values():
                aligner(part.images[:1])  # grids are made for an image size once
            template, truths = part.template[0, 0].numpy(), pixels(part.truth, part.warp)
            for i, (image, truth) in enumerate(zip(part.images[:, 0].numpy(), truths, strict=True)):
                calls = {name: ours(aligner, image) for name, aligner in aligners.items()}
                for name, make in peers.items():
                    if not name.startswith(SLOW) or i < few:
                        calls[name] = make(template, image, warp)
                for name, call in calls.items():
                    found: list[Matrix] = []
                    rows[name].clock.time(lambda call=call, found=found: found.append(call()))
                    rows[name].add(sigma, point_error(found[0], truth, warp))
            batch(aligners["icstn, recommended"], part, sigma, rows[BATCH], flags)
    result = {name: row.summary() for name, row in rows.items() if any(row.errors.values())}
    return {"rows": result, "verdicts": flags}


def batch(aligner: Aligner, part: Trials, sigma: int, row: Row, flags: dict[str, int]) -> None:
    """All images of a template at once, and whether the verdicts were right."""
    n, wall, cpu = len(part.images), time.perf_counter(), time.process_time()
    found = aligner(part.images)
    row.clock.add(wall, cpu, n)
    right = part.error(found.p) < 1
    for e in part.error(found.p).tolist():
        row.add(sigma, e)
    flags["trials"] += n
    flags["wrong"] += int((~right).sum())
    flags["wrong and not flagged"] += int((~right & found.converged).sum())
    flags["right but flagged"] += int((right & ~found.converged).sum())


# ---------------------------------------------------------------------------------- throughput, cost


def throughput(warp: str, threads: int, rounds: int, n: int = 256) -> dict[str, Any]:
    """Alignments per second of n images to one template (σ of 1, 2 and 4 px mixed)."""
    parts = [
        make_trials(
            gray("chelsea"), k, s, warp, generator=torch.Generator().manual_seed(s), center=PLACES["chelsea"]
        )
        for s, k in ((1, n // 3), (2, n // 3), (4, n - 2 * (n // 3)))
    ]
    images, truth = torch.cat([t.images for t in parts]), torch.cat([t.truth for t in parts])
    template = parts[0].template
    aligner = Aligner(template, warp)
    t8 = template[0, 0].numpy()
    loops = {
        name: [ecc(t8, x, warp, multi) for x in images[:, 0].numpy()]
        for name, multi in (("OpenCV findTransformECC", False), ("OpenCV findTransformECCMultiScale", True))
    }
    found: dict[str, Any] = {}
    clocks = {name: Clock() for name in (BATCH, *loops)}
    with ThreadPoolExecutor(threads) as pool:
        torch.set_num_threads(threads)
        for _ in range(rounds):
            clocks[BATCH].time(lambda: found.update({BATCH: pixels(aligner(images).p, family(warp))}))
            for name, calls in loops.items():
                clocks[name].time(
                    lambda name=name, calls=calls: found.update({name: list(pool.map(lambda c: c(), calls))})
                )
        torch.set_num_threads(1)
    truths, report = pixels(truth, family(warp)), {}
    for name, clock in clocks.items():
        errors = [point_error(m, t, warp) for m, t in zip(found[name], truths, strict=True)]
        s = clock.summary()
        report[name] = {
            "per_second": round(n / s["ms"] * 1e3, 1),
            "per_cpu_second": round(n / s["cpu_ms"] * 1e3, 1),
            "converged": round(float(np.mean([e < 1 for e in errors])), 4),
            "error_px": round(statistics.median(errors), 4),
        }
    return report


def cost(rounds: int) -> list[dict[str, Any]]:
    """Least processor time (ms) of one alignment's step, by algorithm, N pixels and n parameters."""
    rows = []
    for side in (25, 50, 100, 200):
        image = gray("astronaut")[..., 100:500, 100:500]
        frame = Frame.crop(400, 400, side, side)
        corner = (400 - side) // 2
        values = image[..., corner : corner + side, corner : corner + side]
        for warp in ("translation", "similarity", "affine", "homography"):
            s = Scale(frame, family(warp), 0, image)
            T, I = Template(s, values), Image(s, image, (400, 400))  # noqa: E741
            clocks = {}
            for name, algorithm in ALGORITHMS.items():
                if name != "IA" or warp != "homography":
                    clocks[name] = (Clock(), _stepper(algorithm, T, I))
            for _ in range(rounds):
                for clock, call in clocks.values():
                    clock.time(call, 3)
            for name, (clock, _) in clocks.items():
                rows.append({"algorithm": name, "pixels": side * side, "parameters": family(warp).dim,
                             "warp": warp, "ms": round(min(clock.cpu), 4)})  # fmt: skip
    return rows


def _stepper(algorithm: Any, T: Template, I: Image) -> Callable[[], Any]:  # noqa: E741
    from icstn.classical.lucas_kanade import solve

    fixed, zero = algorithm.precompute(T), T.scale.warp.identity(1)

    def call() -> Tensor:
        p = zero + 0.01  # a new tensor: the image remembers where the last one lies
        step = algorithm.step(T, I, p, fixed)
        return algorithm.update(T.scale, p, solve(step.H, step.b)[0])

    with torch.no_grad():
        call()

    def quiet() -> None:
        with torch.no_grad():
            call()

    return quiet


# ---------------------------------------------------------------------------------- the report


def changed(warp: str, trials: int, rounds: int) -> dict[str, Any]:
    """Light and noise, and the three times."""

    def problem(name: str, at: tuple[int, int]) -> Trials:
        generator = torch.Generator().manual_seed(2)
        return make_trials(
            gray(name), trials, 10.0, warp, generator=generator, size=SIZE, margin=MARGIN, center=at
        )

    problems = [partial(problem, name, at) for name, at in PLACES.items()]
    return {row: measure(problems, row, rounds) for row in list(ROWS)[:CHANGES]}


def run(
    trials: int,
    few: int,
    rounds: int,
    effort: int,
    numbers: Sequence[int] = (1, 2),
) -> dict[str, Any]:
    """The whole report; without effort it has no cost and no study."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    report: dict[str, Any] = {
        "date": now(), "commit": commit(), "processor": cpu_model(), "python": platform.python_version(),
        "command": f"python tests/benchmarks/alignment.py --trials {trials} --slow {few} "
        f"--rounds {rounds} --threads {' '.join(map(str, numbers))} "
        f"--study {effort}",
        "threads": 1, "versions": {p: _version(p) for p in PACKAGES}, "tables": {}, "throughput": {},
    }  # fmt: skip
    for warp in ("affine", "homography"):
        report["tables"][warp] = table(warp, trials, few)
        print(markdown(report), flush=True)
    report["changes"] = {
        warp: changed(warp, max(2, trials // 10), rounds) for warp in ("affine", "homography")
    }
    for warp in ("affine", "homography"):
        for threads in numbers:
            report["throughput"][f"{warp}, {threads} thread" + "s" * (threads > 1)] = throughput(
                warp, threads, rounds
            )
    if effort:
        report["cost"], report["study"] = cost(max(5, rounds)), study(effort)
    return report


def study(n: int) -> list[dict[str, Any]]:
    """Baker and Matthews' experiment with every variant, n trials of each photograph for each σ."""
    rows = []
    for warp, names in (
        ("affine", ("FA", "FC", "ESM", "IC", "IA")),
        ("homography", ("FA", "FC", "ESM", "IC")),
    ):
        rows += convergence(
            [gray(name) for name in PLACES],
            warp=warp,
            sigmas=(2, 4, 6, 8, 10),
            n=n,
            generator=torch.Generator().manual_seed(0),
            algorithms=names,
            centers=list(PLACES.values()),
        )
    return [{**asdict(row), "rate": [round(e, 5) for e in row.rate]} for row in rows]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def markdown(report: dict[str, Any]) -> str:
    """The report as tables."""
    versions = ", ".join(f"{k} {v}" for k, v in report["versions"].items() if v)
    text = [f"{report['date']}, {report['processor']}, one thread. {versions}.", ""]
    for warp, part in report["tables"].items():
        text += [f"| {warp} | " + " | ".join(f"σ={s}" for s in SIGMAS) + " | error, px | ms | CPU ms |",
                  "|:--|" + "--:|" * (len(SIGMAS) + 3)]  # fmt: skip
        for name, row in part["rows"].items():
            hits = " | ".join(f"{v:.3f}" for v in row["converged"].values())
            error = "–" if row["error_px"] is None else f"{row['error_px']:.3f}"
            text.append(f"| {name} | {hits} | {error} | {row['ms']:.2f} | {row['cpu_ms']:.2f} |")
        v = part["verdicts"]
        wrong, missed, spared = v["wrong"], v["wrong and not flagged"], v["right but flagged"]
        text += ["", f"Verdicts of the batch: {wrong} of {v['trials']} alignments were wrong, "
                  f"{missed} of them not flagged; {spared} were right but flagged.", ""]  # fmt: skip
    for warp, rows in report.get("changes", {}).items():
        text += lines(f"{warp}, σ = 10 px", rows)
    if report["throughput"]:
        text += [
            "| 256 images, one template | alignments/s | per CPU second | converged | error, px |",
            "|:--|--:|--:|--:|--:|",
        ]
    for title, rows in report["throughput"].items():
        for name, r in rows.items():
            speed = f"{r['per_second']:.0f} | {r['per_cpu_second']:.0f}"
            text.append(f"| {title}: {name} | {speed} | {r['converged']:.3f} | {r['error_px']:.3f} |")
    return "\n".join(text) + "\n"


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description="Align images with the library and with its peers.")
    parser.add_argument("--trials", type=int, default=200, help="for each σ, half of them of each photograph")
    parser.add_argument("--slow", type=int, default=10, help="trials of each half that the slow peers get")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of the throughput and the cost")
    parser.add_argument(
        "--study", type=int, default=100, help="trials of each photograph for each σ; 0 for none"
    )
    parser.add_argument("--dry", action="store_true", help="print only")
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        default=[1, 2],
        help="of the throughput; more than one says nothing on a machine that does other work",
    )
    arguments = parser.parse_args()
    report = run(arguments.trials, arguments.slow, arguments.rounds, arguments.study, arguments.threads)
    if not arguments.dry:
        algorithms = {key: value for key, value in report.items() if key not in TABLES}
        if arguments.study:
            write("alignment", algorithms)
        write("aligners", {key: value for key, value in report.items() if key not in ("cost", "study")})
        PAGE.write_text(markdown(report))
    print(markdown(report))


def write(name: str, report: dict[str, Any]) -> None:
    """One report beside this file."""
    (HERE / f"{name}.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
