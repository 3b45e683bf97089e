"""Where each run is: finished, diverged, running, left half done, or damaged."""

from __future__ import annotations

import datetime
import json
import math
from dataclasses import dataclass
from pathlib import Path

from icstn.experiments.progress import read_state
from icstn.experiments.records import Records, load_record
from icstn.experiments.spec import RunSpec, SpecError, spec_from_dict
from icstn.files import StorageError


@dataclass(frozen=True)
class RunStatus:
    """Where a run is.

    Attributes:
        spec: the run.
        state: ``finished``, ``diverged``, ``running``, ``left`` (it can be resumed) or ``damaged``.
        step, iterations: steps done and to do.
        error: test error of a finished run, else the mean training error last reported.
        unit: of the error.
        rate: steps a second, 0 where unknown.
        seconds_left: estimated, 0 unless it is running.
        by: host and process (running or left), device (finished), or the reason (damaged).
        remark: what a reader of the error has to know.
    """

    spec: RunSpec
    state: str
    step: int = 0
    iterations: int = 0
    error: float = math.nan
    unit: str = ""
    rate: float = 0.0
    seconds_left: float = 0.0
    by: str = ""
    remark: str = ""

    def __str__(self) -> str:
        done = f"{self.step}/{self.iterations}"
        error = "" if math.isnan(self.error) else f"{self.error:.3f} {self.unit}"
        rate = f"{self.rate:.1f}/s" if self.rate else ""
        left = f"{datetime.timedelta(seconds=round(self.seconds_left))} left" if self.seconds_left else ""
        columns = f"{self.state:<9}{done:>15}{error:>13}{rate:>10}  {self.spec.key}"
        remark = f"({self.remark})" if self.remark else ""
        return "  ".join(part for part in (columns, left, self.by, remark) if part)


def run_status(records: Records) -> list[RunStatus]:
    """Every run of all folders, by key: finished, diverged, running, left or damaged."""
    found: dict[str, RunStatus] = {}
    for folder in (records.folder, *records.also):
        for path in sorted(folder.glob("*/")):
            if path.name not in found and (row := _status(path)) is not None:
                found[path.name] = row
    return [found[key] for key in sorted(found)]


def _status(folder: Path) -> RunStatus | None:
    if not (folder / "record.json").is_file():
        return _status_under_way(folder)
    try:
        record = load_record(folder)
    except StorageError as error:
        spec = _damaged_spec(folder)
        return None if spec is None else RunStatus(spec, "damaged", by=str(error))
    facts, seconds = record.provenance, float(record.provenance.get("training_seconds", 0))
    step = int(facts.get("steps", 0))
    return RunStatus(
        record.spec,
        record.status,
        step,
        getattr(record.spec, "iterations", step),
        record.test_error,
        str(record.metrics.get("unit", "")),
        step / seconds if seconds else 0.0,
        by=str(facts.get("device", "")),
        remark=record.remark,
    )


def _status_under_way(folder: Path) -> RunStatus | None:
    state = read_state(folder)
    if state is None:
        return None
    try:
        spec = spec_from_dict(state["spec"])
    except SpecError:  # another version's
        return None
    running = Records(folder.parent).locked(spec)
    to_do = state["iterations"] - state["step"]
    return RunStatus(
        spec,
        "running" if running else "left",
        state["step"],
        state["iterations"],
        state["error"],
        spec.about.unit,
        state["rate"],
        to_do / state["rate"] if running and state["rate"] else 0.0,
        f"{state['host']}, process {state['process']}",
    )


def _damaged_spec(folder: Path) -> RunSpec | None:
    """Whatever the damaged file says it is, if it says so legibly."""
    try:
        return spec_from_dict(json.loads((folder / "record.json").read_text())["spec"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
