"""Could several runs of one architecture train as one computation, faster than one after the other?

    python tests/benchmarks/batching.py

Four seeds (or the four σ of Table 1) together would do at least the work of one run with a batch four times
as large, which has a single set of weights to read. So four steps with a batch of 100 against one step with a
batch of 400, in turns, bound what there is to gain. One thread, by processor time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import speed
import torch

from icstn.experiments import Spec, cells
from icstn.experiments.execution import DataOptions
from icstn.experiments.provenance import cpu_model, now
from icstn.experiments.tasks import make_task
from icstn.experiments.training import TrainingState, make_optimizer, train_step

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "book" / "assets" / "batching.md"
ROWS = (
    ("table_1", "IC-STN-4"),
    ("table_2", "CNN(a)"),
    ("table_2", "IC-STN-4(a)"),
    ("table_2", "IC-STN-4(b)"),
)
TOGETHER = 4


def stepper(spec: Spec) -> Callable[[], Any]:
    """A training step of the spec, on random images or on the photograph."""
    if spec.experiment == "table_2":
        return speed.Ours(spec, *speed.random_data("table_2")).step
    task = make_task(spec, DataOptions(), "cpu")
    model = task.model()
    state, batches = TrainingState(model, make_optimizer(spec, model)), task.block(0)
    return lambda: train_step(spec, task, state, next(batches))


def measure(spec: Spec, rounds: int) -> dict[str, float]:
    """Milliseconds of four small steps and of one large one."""
    steps = {n: stepper(replace(spec, batch=n * spec.batch)) for n in (1, TOGETHER)}
    clocks: dict[int, list[float]] = {n: [] for n in steps}
    for _ in range(rounds):
        for n, step in steps.items():
            before = time.process_time()
            for _ in range(TOGETHER // n):
                step()
            clocks[n].append((time.process_time() - before) * 1e3)
    apart, together = (round(statistics.median(v[1:]), 2) for v in clocks.values())
    return {"apart": apart, "together": together, "ratio": round(apart / together, 2)}


def markdown(report: dict[str, Any]) -> str:
    """The report as a table."""
    lines = ["| | 4 steps of 100, ms | 1 step of 400, ms | ratio |", "|:--|--:|--:|--:|"]
    for name, r in report["rows"].items():
        lines.append(f"| {name} | {r['apart']:.1f} | {r['together']:.1f} | {r['ratio']:.2f} |")
    return "\n".join(lines) + f"\n\nMedians, one thread, {report['processor']}, {report['date']}.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Bound what training several runs at once could gain.")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {"date": now(), "processor": cpu_model(), "rounds": options.rounds, "rows": {}}
    for table, model in ROWS:
        spec = cells(table, "full", models=[model])[0]
        name = f"{table.replace('_', ' ').capitalize()}, {model}"
        report["rows"][name] = measure(spec, options.rounds)
    (HERE / "batching.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(markdown(report))
    print(markdown(report))


if __name__ == "__main__":
    main()
