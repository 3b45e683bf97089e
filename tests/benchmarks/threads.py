"""Two cores: do two runs with a thread each finish Table 2 sooner, or one run after another with two?

    python tests/benchmarks/threads.py

Both ways take turns at the same number of steps of every row. What decides is the median of a turn's wall
clock; :func:`icstn.experiments.running.default_workers` follows it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

import torch

from icstn.experiments import Spec, cells
from icstn.experiments.spec import cost


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
    for name, values in seconds.items():
        print(f"{name}: median {statistics.median(values):.2f} s, {min(values):.2f}–{max(values):.2f} s")
    for pool in pools.values():
        pool.shutdown()


if __name__ == "__main__":
    main()
