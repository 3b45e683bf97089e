"""One training step of every row of Tables 2 and 3: ours beside a plain implementation of the same step.

    python tests/benchmarks/speed.py                  # the whole table, into speed.json and the book
    python tests/benchmarks/speed.py --only "IC-STN-4(a)" --rounds 5 --dry

The plain step is what the authors' released code does, written anew in idiomatic PyTorch: the perturbation is
fitted at each step with numpy's batched inverse, the grid is rebuilt from homogeneous points by a batched
matmul, ``F.grid_sample`` samples it, the layers are ``nn.Conv2d`` and ``nn.MaxPool2d``, and gradients are
plain autograd's. Ours is the library's: the same task, model, optimizer and step that a run trains with.

Both take turns, a few steps each, so that whatever else the machine does hits both. Reported are medians
over the turns with their quartiles, by wall clock; the ratio by processor time stands beside it, which
other processes disturb less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from clock import Clock
from torch import Tensor, nn

from icstn.datasets import Dataset
from icstn.experiments import cells
from icstn.experiments.classification import Classification
from icstn.experiments.execution import DataOptions
from icstn.experiments.provenance import cpu_model
from icstn.experiments.spec import Spec
from icstn.experiments.task import BLOCK
from icstn.experiments.tasks import make_task
from icstn.experiments.training import TrainingState, make_optimizer, set_rates, train_step
from icstn.layers import Conv2d
from icstn.networks import FC, Architecture, Pool, Stack
from icstn.sampling import Frame

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "book" / "assets" / "speed.md"


# ---------------------------------------------------------------------------------- the plain step


def plain_stack(stack: Stack, channels: int, height: int, width: int) -> nn.Sequential:
    """The notation read word for word, in PyTorch's own layers."""
    modules: list[nn.Module] = []
    for i, layer in enumerate(stack):
        if isinstance(layer, Pool):
            modules.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
            continue
        if isinstance(layer, FC):
            if not any(isinstance(m, nn.Flatten) for m in modules):
                modules.append(nn.Flatten())
            modules.append(nn.Linear(channels * height * width, layer.units))
            channels, height, width = layer.units, 1, 1
        else:
            modules.append(nn.Conv2d(channels, layer.filters, (layer.height, layer.width)))
            channels, height, width = layer.filters, height - layer.height + 1, width - layer.width + 1
        if i + 1 < len(stack):
            modules.append(nn.ReLU())
    return nn.Sequential(*modules)


class Plain:
    """Data, networks, optimizer and step, with no thought of speed but none wasted on purpose."""

    def __init__(self, spec: Spec, data: Dataset, frame: Frame, standardize: bool) -> None:
        torch.manual_seed(0)
        self.rng = np.random.default_rng(0)
        self.spec, self.frame, self.standardize = spec, frame, standardize
        self.images, self.labels = data.images.numpy(), data.labels.numpy()
        self.size = data.images.shape[-1]
        architecture = Architecture.parse(spec.architecture)
        shape = (data.images.shape[1], frame.height, frame.width)
        self.operations = architecture.warps
        copies = architecture.warps if spec.kind == "c-STN" else min(1, architecture.warps)
        self.predictors = nn.ModuleList(plain_stack(architecture.predictor, *shape) for _ in range(copies))
        self.classifier = plain_stack(architecture.classifier, *shape)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(0, 0.1 if self.size == 28 else 0.01)
            for predictor in self.predictors:
                for parameter in predictor[-1].parameters():
                    parameter.zero_()
        groups = [
            {"params": list(self.predictors.parameters()), "lr": spec.rate_predictor},
            {"params": list(self.classifier.parameters()), "lr": spec.rate_classifier},
        ]
        groups = [group for group in groups if group["params"]]
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.Adam(groups) if spec.optimizer == "adam" else torch.optim.SGD(groups)
        )

    def parameters(self) -> Iterator[Tensor]:
        yield from self.predictors.parameters()
        yield from self.classifier.parameters()

    def batch(self) -> tuple[Tensor, Tensor]:
        index = self.rng.integers(len(self.images), size=self.spec.batch)
        x = self.images[index].astype(np.float32)
        if self.standardize:
            x = (x - x.mean((1, 2, 3), keepdims=True)) / np.maximum(x.std((1, 2, 3), keepdims=True), 1)
        else:
            x = x / 255
        return torch.from_numpy(x), torch.from_numpy(self.labels[index])

    def perturbation(self) -> Tensor:
        """Fit a homography to noisy corners: an 8×8 system for each image, by numpy's inverse."""
        n, scale = self.spec.batch, self.spec.sigma * 2 / self.frame.width
        x = np.tile(np.array([-1.0, -1.0, 1.0, 1.0]), (n, 1))
        y = np.tile(np.array([-1.0, 1.0, 1.0, -1.0]), (n, 1))
        u = x + self.rng.normal(0, scale, (n, 4)) + self.rng.normal(0, scale, (n, 1))
        v = y + self.rng.normal(0, scale, (n, 4)) + self.rng.normal(0, scale, (n, 1))
        o, i = np.zeros((n, 4)), np.ones((n, 4))
        top = np.stack([x, y, i, o, o, o, -u * x, -u * y], -1)
        bottom = np.stack([o, o, o, x, y, i, -v * x, -v * y], -1)
        a = np.concatenate([top, bottom], 1)
        b = np.concatenate([u, v], 1)[..., None]
        p = np.matmul(np.linalg.inv(a), b)[..., 0]
        p[:, [0, 4]] -= 1
        return torch.from_numpy(p.astype(np.float32))

    def matrix(self, p: Tensor) -> Tensor:
        one = torch.ones_like(p[:, 0])
        p1, p2, p3, p4, p5, p6, p7, p8 = p.unbind(1)
        rows = [1 + p1, p2, p3, p4, 1 + p5, p6, p7, p8, one]
        return torch.stack(rows, 1).view(-1, 3, 3)

    def vector(self, m: Tensor) -> Tensor:
        m = m / m[:, 2:, 2:]
        e1, e2, e3, e4, e5, e6, e7, e8, _ = m.reshape(-1, 9).unbind(1)
        return torch.stack([e1 - 1, e2, e3, e4, e5 - 1, e6, e7, e8], 1)

    def warp(self, image: Tensor, m: Tensor, whole: bool = False) -> Tensor:
        """Rebuild the grid, transform its homogeneous points by a batched matmul, sample."""
        h, w = self.frame.height, self.frame.width
        x, y = torch.meshgrid(torch.linspace(-1, 1, w), torch.linspace(-1, 1, h), indexing="xy")
        points = torch.stack([x.flatten(), y.flatten(), torch.ones(h * w)])
        moved = torch.matmul(m, points.expand(len(m), 3, h * w))
        factor = 1.0 if whole else (self.frame.width - 1) / (self.size - 1)
        gx = (moved[:, 0] / (moved[:, 2] + 1e-8)).view(-1, h, w) * factor
        gy = (moved[:, 1] / (moved[:, 2] + 1e-8)).view(-1, h, w) * factor
        return F.grid_sample(image, torch.stack([gx, gy], -1), align_corners=True)

    def logits(self, image: Tensor, p: Tensor) -> Tensor:
        if self.spec.kind == "STN":
            crop = self.warp(image, self.matrix(p))
            crop = self.warp(crop, self.matrix(self.predictors[0](crop)), whole=True)
            return self.classifier(crop)
        for i in range(self.operations):
            crop = self.warp(image, self.matrix(p))
            predictor = self.predictors[i if self.spec.kind == "c-STN" else 0]
            p = self.vector(torch.matmul(self.matrix(p), self.matrix(predictor(crop))))
        return self.classifier(self.warp(image, self.matrix(p)))

    def step(self) -> None:
        image, label = self.batch()
        loss = F.cross_entropy(self.logits(image, self.perturbation()), label)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


# ---------------------------------------------------------------------------------- ours


class Ours:
    """The library's own training, a step at a time; a block's draws are timed apart from its steps."""

    def __init__(self, spec: Spec, data: Dataset, frame: Frame, standardize: bool) -> None:
        self.spec = spec
        self.task = Classification(spec, data, data, frame, torch.device("cpu"), standardize)
        model = self.task.model()
        self.state = TrainingState(model, make_optimizer(spec, model))
        self.batches = self._batches()

    def _batches(self) -> Iterator[Any]:
        block = 0
        while True:
            yield from self.task.block(block)
            block += 1

    def step(self) -> None:
        batch = next(self.batches)
        set_rates(self.spec, self.state.optimizer, self.state.step)
        train_step(self.spec, self.task, self.state, batch)
        self.state.step = (self.state.step + 1) % self.spec.iterations

    def draw(self) -> None:
        """A whole block's draws (its first batch comes with them)."""
        next(self.task.block(0))


# ---------------------------------------------------------------------------------- turns


def random_data(table: str) -> tuple[Dataset, Frame, bool]:
    """Images of the table's size: speed does not ask what is on them."""
    channels, size, classes = (1, 28, 10) if table == "table_2" else (3, 50, 43)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2000, channels, size, size), generator=generator, dtype=torch.uint8)
    labels = torch.randint(classes, (2000,), generator=generator)
    frame = Frame.full(28, 28) if table == "table_2" else Frame.crop(50, 50, 36, 36)
    return Dataset(images, labels, "random", "train", "0"), frame, table == "table_3"


def measure(spec: Spec, rounds: int, budget_ms: float = 150.0) -> dict[str, Any]:
    """Both steps of one row, in turns."""
    data, frame, standardize = random_data(spec.experiment)
    sides = {"plain": Plain(spec, data, frame, standardize), "ours": Ours(spec, data, frame, standardize)}
    clocks, draws, times = {name: Clock() for name in sides}, Clock(), {}
    for name, side in sides.items():  # warm up, and find how many steps make a turn
        for _ in range(2):
            side.step()
        before = time.perf_counter()
        side.step()
        times[name] = max(1, min(10, round(budget_ms / ((time.perf_counter() - before) * 1e3))))
    for _ in range(rounds):
        for name, side in sides.items():
            clocks[name].time(side.step, times[name])
        draws.time(sides["ours"].draw)
    result: dict[str, Any] = {name: clock.summary() for name, clock in clocks.items()}
    share = {key: value / BLOCK for key, value in draws.summary().items()}
    result["ours"] = {key: round(value + share[key], 3) for key, value in result["ours"].items()}
    result["ratio"] = round(result["plain"]["ms"] / result["ours"]["ms"], 2)
    result["cpu_ratio"] = round(result["plain"]["cpu_ms"] / result["ours"]["cpu_ms"], 2)
    return result


def measure_planar(spec: Spec, rounds: int) -> dict[str, float]:
    """Our step of planar alignment, which has no plain counterpart here; draws are timed with it."""
    task = make_task(spec, DataOptions(), "cpu")
    model = task.model()
    state, clock = TrainingState(model, make_optimizer(spec, model)), Clock()
    for i in range(rounds):
        batches = task.block(i)
        clock.time(lambda b=batches: [train_step(spec, task, state, batch) for batch in b])
    return {key: round(value / BLOCK, 3) for key, value in clock.summary().items()}


def planar(rounds: int) -> dict[str, Any]:
    """Every model of Table 1."""
    specs = {spec.model: spec for spec in cells("table_1", "full")}
    return {model: measure_planar(spec, rounds) for model, spec in specs.items()}


# ---------------------------------------------------------------------------------- convolutions


def convolutions(spec: Spec) -> list[tuple[int, int, int, int, int]]:
    """``(channels, filters, kernel, input size, batch)`` of each convolution, as often as a step runs it."""
    channels, size = (1, 28) if spec.experiment == "table_2" else (3, 36)
    architecture = Architecture.parse(spec.architecture)
    found = []
    for stack, often in ((architecture.predictor, architecture.warps), (architecture.classifier, 1)):
        c, s = channels, size
        for layer in stack:
            if isinstance(layer, Pool):
                s //= 2
            elif not isinstance(layer, FC):
                found += [(c, layer.filters, layer.height, s, spec.batch)] * often
                c, s = layer.filters, s - layer.height + 1
    return found


def convolution_rates(shapes: set[tuple[int, ...]], rounds: int) -> dict[str, Any]:
    """Each convolution forwards and backwards (input and weights), ours and PyTorch's, beside a matmul.

    By processor time, which is what a core is busy with whatever else runs.
    """
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(1024, 1024, generator=generator) for _ in range(2))
    clocks = {"matmul": Clock()}
    calls: dict[str, Callable[[], Any]] = {"matmul": lambda: a @ b}
    for shape in sorted(shapes):
        channels, filters, kernel, size, batch = shape
        x = torch.randn(batch, channels, size, size, generator=generator).requires_grad_()
        for name, layer in (("ours", Conv2d), ("plain", nn.Conv2d)):
            calls[f"{shape} {name}"] = _back_and_forth(layer(channels, filters, kernel), x)
            clocks[f"{shape} {name}"] = Clock()
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            clocks[name].time(call, 3)
    ms = {name: clock.summary()["cpu_ms"] for name, clock in clocks.items()}
    return {"matmul_gflops": round(2 * 1024**3 / ms["matmul"] / 1e6, 1), "ms": ms}


def _back_and_forth(layer: nn.Module, x: Tensor) -> Callable[[], Any]:
    grad = torch.ones_like(layer(x))
    inputs = [x, *layer.parameters()]
    return lambda: torch.autograd.grad(layer(x), inputs, grad)


def gigaflops(shape: tuple[int, ...]) -> float:
    """Forward, input gradient and weight gradient: three times the forward pass."""
    channels, filters, kernel, size, batch = shape
    return 3 * 2 * batch * filters * (size - kernel + 1) ** 2 * channels * kernel**2 / 1e9


def fraction(spec: Spec, rates: dict[str, Any], name: str) -> float | None:
    """Share of the matmul's rate that the row's convolutions reach together."""
    shapes = convolutions(spec)
    if not shapes:
        return None
    seconds = sum(rates["ms"][f"{shape} {name}"] for shape in shapes) / 1e3
    return round(sum(map(gigaflops, shapes)) / seconds / rates["matmul_gflops"], 3)


# ---------------------------------------------------------------------------------- the report


def run(threads: int, rounds: int, only: list[str] | None) -> dict[str, Any]:
    torch.set_num_threads(threads)
    specs = [s for t in ("table_2", "table_3") for s in cells(t, "full") if not only or s.model in only]
    shapes = {shape for spec in specs for shape in convolutions(spec)}
    rates = convolution_rates(shapes, max(5, rounds // 2))
    report: dict[str, Any] = {
        "threads": threads,
        "rounds": rounds,
        "load": round(os.getloadavg()[0], 1),
        "processor": cpu_model(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "matmul_gflops": rates["matmul_gflops"],
        "rows": {"table_2": {}, "table_3": {}},
        "sums": {},
    }
    for spec in specs:
        row = measure(spec, rounds)
        row["matmul_fraction"] = {name: fraction(spec, rates, name) for name in ("ours", "plain")}
        report["rows"][spec.experiment][spec.model] = row
        print(f"{spec.experiment} {spec.model:12}", json.dumps(row), flush=True)
    report["planar"] = {} if only else planar(max(3, rounds // 4))
    for table, rows in report["rows"].items():
        if rows:
            report["sums"][table] = total(rows)
            print(table, "sum", report["sums"][table], flush=True)
    return report


def total(rows: dict[str, Any]) -> dict[str, float]:
    """One step of every row of a table."""
    sums = {k: {m: sum(r[k][m] for r in rows.values()) for m in ("ms", "cpu_ms")} for k in ("plain", "ours")}
    return {
        "plain_ms": round(sums["plain"]["ms"], 1),
        "ours_ms": round(sums["ours"]["ms"], 1),
        "ratio": round(sums["plain"]["ms"] / sums["ours"]["ms"], 2),
        "cpu_ratio": round(sums["plain"]["cpu_ms"] / sums["ours"]["cpu_ms"], 2),
    }


def markdown(report: dict[str, Any]) -> str:
    """The report as tables."""
    lines = [
        f"Milliseconds of a training step (batch 100) on one {report['processor']} with "
        f"{report['threads']} thread(s), PyTorch {report['torch']}: median [quartiles] of {report['rounds']} "
        f"turns, while the machine's load average was {report['load']}. A float32 matmul of 1024×1024 "
        f"reaches {report['matmul_gflops']:.0f} GFLOP/s there; the last columns are the share of it that the "
        "convolutions reach.",
        "",
    ]
    for table, rows in report["rows"].items():
        if not rows:
            continue
        title = table.replace("_", " ").capitalize()
        lines += [f"| {title} | plain | ours | ratio | by CPU time | convolutions, plain | ours |"]
        lines += ["|:--|--:|--:|--:|--:|--:|--:|"]
        lines += [_line(model, row) for model, row in rows.items()]
        s = report["sums"][table]
        ratios = f"**{s['ratio']:.2f}** | **{s['cpu_ratio']:.2f}**"
        lines += [f"| **all** | {s['plain_ms']:.0f} | {s['ours_ms']:.0f} | {ratios} | | |", ""]
    return "\n".join(lines)


def _line(model: str, row: dict[str, Any]) -> str:
    times = [f"{row[s]['ms']:.1f} [{row[s]['low']:.1f}–{row[s]['high']:.1f}]" for s in ("plain", "ours")]
    shares = [row["matmul_fraction"][s] for s in ("plain", "ours")]
    shown = ["–" if share is None else f"{share:.0%}" for share in shares]
    ratios = [f"{row['ratio']:.2f}", f"{row['cpu_ratio']:.2f}"]
    return "| " + " | ".join([model, *times, *ratios, *shown]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a training step of every row, ours and plain.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="*", help="only these rows")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    options = parser.parse_args()
    report = run(options.threads, options.rounds, options.only)
    print(markdown(report))
    if not options.dry and not options.only:
        (HERE / "speed.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        PAGE.write_text(markdown(report))


if __name__ == "__main__":
    main()
