"""What the benchmarks measure time with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


class Clock:
    """Milliseconds of a call, by wall and by processor."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def time(self, call: Callable[[], Any], times: int = 1) -> None:
        """Time so many calls."""
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(times):
            call()
        self.add(wall, cpu, times)

    def add(self, wall: float, cpu: float, times: int) -> None:
        """So many calls began at these readings of the two clocks and are over."""
        self.cpu.append((time.process_time() - cpu) / times * 1e3)
        self.wall.append((time.perf_counter() - wall) / times * 1e3)

    def summary(self) -> dict[str, float]:
        """Medians, and quartiles of the wall's."""
        quartiles = statistics.quantiles(self.wall, n=4) if len(self.wall) > 1 else [self.wall[0]] * 3
        low, middle, high = (round(value, 3) for value in quartiles)
        return {"ms": middle, "low": low, "high": high, "cpu_ms": round(statistics.median(self.cpu), 3)}
