"""Two cores: do two runs with a thread each finish Table 2 sooner, or one run after another with two?

    python tests/benchmarks/threads.py

Both ways take turns at the same number of steps of every row. What decides is the median of a turn's wall
clock; :func:`icstn.experiments.execution.Execution.processes` follows it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from icstn.experiments import Spec, cells
from icstn.experiments.provenance import cpu_model, now
from icstn.experiments.recipes import cost

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "book" / "assets" / "threads.md"


@cache
def _ours(spec: Spec):
    import speed

    return speed.Ours(spec, *speed.random_data("table_2"))


def work(spec: Spec, steps: int, threads: int) -> None:
    torch.set_num_threads(threads)
    ours = _ours(spec)
    for _ in range(steps):
        ours.step()


def turn(pool: ProcessPoolExecutor, steps: int, threads: int) -> float:
    specs = sorted(cells("table_2", "full"), key=cost, reverse=True)
    before = time.perf_counter()
    for job in [pool.submit(work, spec, steps, threads) for spec in specs]:
        job.result()
    return time.perf_counter() - before


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    ways = {"2 runs × 1 thread": (2, 1), "1 run × 2 threads": (1, 2)}
    pools = {name: ProcessPoolExecutor(n, mp_context=get_context("spawn")) for name, (n, _) in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(options.rounds + 2):
        for name, (_, threads) in ways.items():
            took = turn(pools[name], options.steps, threads)
            print(f"{name}: {took:.2f} s", flush=True)
            if round_ > 1:  # the first turns set things up
                seconds[name].append(took)
    for pool in pools.values():
        pool.shutdown()
    report = {"date": now(), "processor": cpu_model(), "steps": options.steps, "seconds": seconds}
    (HERE / "threads.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(markdown(report))
    print(markdown(report))


def markdown(report: dict[str, Any]) -> str:
    """The report as a table."""
    lines = ["| two cores | median, s | range, s |", "|:--|--:|--:|"]
    for name, values in report["seconds"].items():
        middle = statistics.median(values)
        lines.append(f"| {name} | {middle:.2f} | {min(values):.2f}–{max(values):.2f} |")
    steps, turns = report["steps"], min(map(len, report["seconds"].values()))
    what = f"{steps} steps of every row of Table 2, {turns} turns, {report['processor']}, {report['date']}"
    return "\n".join(lines) + f"\n\n{what}.\n"


if __name__ == "__main__":
    main()
