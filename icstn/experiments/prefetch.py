"""Prefetching: the next block's draws are made while a GPU works on this one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType

from icstn.experiments.task import Draws, Task


class Prefetcher:
    """A task's draws, block by block, on its device.

    On a CPU they are made when they are asked for: the processor has nothing else to do meanwhile.

    Args:
        task: whose draws.
        ahead: make the next block's in a thread of their own; by default on a GPU.
    """

    def __init__(self, task: Task, ahead: bool | None = None) -> None:
        self.task = task
        self.ahead = task.device.type == "cuda" if ahead is None else ahead
        self.stack = ExitStack()
        self.pool: ThreadPoolExecutor | None = None
        self.waiting: dict[tuple[int, int], Future[Draws]] = {}

    def __enter__(self) -> Prefetcher:
        if self.ahead:
            self.pool = self.stack.enter_context(ThreadPoolExecutor(1))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()

    def get(self, block: int, restart: int) -> Draws:
        """The draws of that block, and a start on those of the next."""
        ready = self.waiting.pop((block, restart), None)
        draws = ready.result() if ready else self.task.draws(block, restart)
        self.waiting.clear()
        if self.pool:
            self.waiting[block + 1, restart] = self.pool.submit(self.task.draws, block + 1, restart)
        return draws.to(self.task.device)
