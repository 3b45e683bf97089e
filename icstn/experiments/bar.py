"""One bar of progress over many runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from icstn.experiments.progress import read_state
from icstn.experiments.recipes import cost
from icstn.experiments.records import Records, print_line
from icstn.experiments.spec import RunSpec

#: Seconds between two lines of progress where there is no terminal: a log of an hour has 120 lines.
LINE_SECONDS = 30.0

#: The end of a bar or of a line of progress.
TIMES = "{elapsed} elapsed, {remaining} left{postfix}"


class Bar:
    """One bar over the steps of all runs, weighed by their cost; reads the runs' own state files.

    A terminal shows a bar that moves. A log file or a notebook gets a line each :data:`LINE_SECONDS` instead,
    the first one after as long.
    """

    def __init__(self, specs: Sequence[RunSpec], records: Records, show: bool) -> None:
        self.specs, self.records = specs, records
        self.lines = show and not sys.stderr.isatty()
        self.began = self.shown = time.monotonic()
        self.total = round(sum(cost(s) for s in specs))
        self.before, _ = self._progress()
        self.bar = tqdm(
            total=self.total,
            initial=self.before,
            disable=not show or self.lines,
            file=sys.stderr,
            bar_format="{percentage:3.0f}%|{bar:20}| " + TIMES,
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def update(self) -> None:
        """Read how far each run is, and show it where it is time to."""
        now = time.monotonic()
        if self.lines and now - self.shown < LINE_SECONDS:
            return
        self.shown = now
        n, text = self._progress()
        if self.lines:
            print_line(self._line(n, now - self.began, text))
        else:
            self.bar.n = n
            self.bar.set_postfix_str(text, refresh=True)

    def _line(self, n: int, elapsed: float, text: str) -> str:
        form = "{percentage:3.0f}%, " + TIMES
        options = {"initial": self.before, "bar_format": form, "postfix": text}
        return str(tqdm.format_meter(n, self.total, elapsed, **options))

    def _progress(self) -> tuple[int, str]:
        """What is done in the bar's units, and how each run is doing."""
        done, running, finished = 0.0, [], 0
        for spec in self.specs:
            folder = self.records.path(spec)
            if (folder / "record.json").is_file():
                done += cost(spec)
                finished += 1
            elif (state := read_state(folder)) and {"step", "iterations", "updated"} <= state.keys():
                done += cost(spec) * state["step"] / state["iterations"]
                if time.time() - state["updated"] < 60:
                    running.append(f"{spec.model} {state['error']:.3g} at {state['rate']:.0f}/s")
        return min(round(done), self.total), " · ".join([f"{finished}/{len(self.specs)} runs", *running])
