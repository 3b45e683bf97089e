"""What can be watched while a run is under way: the bar, the lines of a log file, TensorBoard's curves."""

from __future__ import annotations

import io
import math
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import runs

from icstn.experiments import Records
from icstn.experiments import bar as module
from icstn.experiments.progress import Progress, write_state

pytestmark = pytest.mark.unchecked

SPECS = [runs.small_spec(seed=seed) for seed in range(2)]


class Terminal(io.StringIO):
    """A stream that says it is one."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """One run of two is at a fifth of its steps."""
    found = Records(tmp_path)
    found.path(SPECS[0]).mkdir()
    write_state(found.path(SPECS[0]), SPECS[0], Progress(100, 500, 12.5, 40.0))
    return found


def watch(records: Records, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, updates: int) -> str:
    """Everything that is written to a stream in so many half seconds."""
    clock = SimpleNamespace(now=0.0, time=time.time)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(sys, "stderr", stream)
    with module.Bar(SPECS, records, True) as bar:
        for _ in range(updates):
            clock.now += 0.5
            bar.update()
    return stream.getvalue()


class TestBar:
    """On a terminal it moves; anywhere else it is a line now and then."""

    def test_an_hours_log_has_a_line_each_half_minute(
        self, records: Records, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = watch(records, io.StringIO(), monkeypatch, 7200)
        lines = text.splitlines()
        assert len(lines) == 3600 / module.LINE_SECONDS
        assert not set("\r\x1b█") & set(text)
        assert lines[0].startswith(" 10%, 00:30 elapsed, ")
        assert lines[-1].startswith(" 10%, 1:00:00 elapsed, ")
        assert lines[0].endswith("0/2 runs · IC-STN-2(b) 12.5 at 40/s")

    def test_what_is_soon_over_leaves_a_notebook_clean(
        self, records: Records, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert watch(records, io.StringIO(), monkeypatch, 59) == ""

    def test_a_terminal_has_a_bar(self, records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
        text = watch(records, Terminal(), monkeypatch, 3)
        assert text.count("\r") >= 4
        assert "10%|██  " in text
        assert "0/2 runs · IC-STN-2(b) 12.5 at 40/s" in text
        assert text.count("\n") == 1

    def test_runs_that_are_finished_are_counted(self, records: Records) -> None:
        records.path(SPECS[1]).mkdir()
        (records.path(SPECS[1]) / "record.json").write_text("{}")
        with module.Bar(SPECS, records, False) as bar:
            done, text = bar._progress()
        assert text == "1/2 runs · IC-STN-2(b) 12.5 at 40/s"
        assert bar.total / 2 < done < bar.total

    def test_time_left_counts_what_is_done_in_this_session(
        self, records: Records, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A tenth was done before, a tenth is done in 30 s: four fifths take 240 s more."""
        with module.Bar(SPECS, records, False) as bar:
            assert bar.before == bar.total / 10
            assert "04:00 left" in bar._line(2 * bar.before, 30.0, "")

    def test_nothing_where_nothing_is_wanted(
        self, records: Records, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "LINE_SECONDS", 0)
        with module.Bar(SPECS, records, False) as bar:
            bar.update()
        assert capsys.readouterr().err == ""


def scalars(log: Path) -> dict[str, list[tuple[int, float]]]:
    """Every curve of a folder of event files, as TensorBoard shows it."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(log)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


class TestTensorBoard:
    """``--log``."""

    def test_curves(self, tmp_path: Path) -> None:
        spec = runs.small_spec(iterations=250)
        record = runs.train(spec, tmp_path / "records", log=tmp_path / "log")
        found = scalars(tmp_path / "log" / spec.key)
        for name in ("loss", "error"):
            steps, values = zip(*found[f"train/{name}"], strict=True)
            assert list(steps) == record.curve["step"] == [100, 200, 250]
            assert values == pytest.approx(record.curve[name])
        for name, base in (
            ("rate_predictor", spec.rate_predictor),
            ("rate_classifier", spec.rate_classifier),
        ):
            wanted = [(n, base * 0.5 * (1 + math.cos(math.pi * (n - 1) / 250))) for n in (100, 200, 250)]
            assert found[f"train/{name}"] == [(n, pytest.approx(rate, abs=1e-9)) for n, rate in wanted]
        assert all(rate > 0 for _, rate in found["train/steps_per_second"])

    def test_steps_done_again_after_a_stop_are_shown_once(self, tmp_path: Path) -> None:
        """The first process logs 200 but saves only 100; the second begins there."""
        spec, log = runs.small_spec(iterations=300), tmp_path / "log"

        def stop(progress: Progress) -> None:
            if progress.step == 300:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            runs.train(spec, tmp_path / "records", log=log, report=stop, checkpoint_seconds=1e9)
        steps: list[int] = []
        record = runs.train(spec, tmp_path / "records", log=log, report=lambda p: steps.append(p.step))
        assert steps == [200, 300]
        assert len(list((log / spec.key).iterdir())) == 2
        found = scalars(log / spec.key)["train/loss"]
        assert [step for step, _ in found] == [100, 200, 300]
        assert [loss for _, loss in found] == pytest.approx(record.curve["loss"])
