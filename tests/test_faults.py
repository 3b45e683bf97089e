"""Faults in each phase of a reproduction: some in each run of the tests, all with ``--long``."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from fault_phases import PHASES, SPEC
from faults import FAULTS, PAGE, Child, Trial, page, read_results, sandbox

#: What takes moments.
QUICK = ("download", "decode", "render")


def tried(name: str, fault: str) -> None:
    if fault in ("full", "read-only") and os.geteuid():
        pytest.skip("to run it, be root: it mounts a file system of its own")
    found = Trial(PHASES[name]).outcome(fault)
    assert found.held, found.why


@pytest.mark.slow
@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("name", QUICK)
def test_a_quick_phase(name: str, fault: str) -> None:
    tried(name, fault)


@pytest.mark.long
@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("name", [name for name in PHASES if name not in QUICK])
def test_a_slow_phase(name: str, fault: str) -> None:
    tried(name, fault)


class TestPage:
    def test_it_is_written_from_the_results(self) -> None:
        assert PAGE.read_text("utf-8") == page(*read_results())

    def test_every_phase_met_every_fault_and_held(self) -> None:
        outcomes, does = read_results()
        assert [(o.phase, o.fault) for o in outcomes] == [
            (name, fault) for name in PHASES for fault in FAULTS
        ]
        assert does == {phase.name: phase.does for phase in PHASES.values()}
        assert [o for o in outcomes if not o.held] == []
        assert all(o.times >= 1 for o in outcomes)


class TestRunner:
    """What is not whole is noticed."""

    def test_a_half_written_file(self, tmp_path: Path) -> None:
        trial = Trial(PHASES["render"])
        (tmp_path / "rendered").mkdir()
        (tmp_path / "rendered" / "table_0.csv").write_text("half")
        assert "half a file" in str(trial._half_written(tmp_path))

    def test_a_traceback_and_two_sentences(self) -> None:
        trial = Trial(PHASES["render"])
        assert trial._sentence(2, "TRACEBACK KeyError()")
        assert trial._sentence(1, "icstn: one\nicstn: two")
        assert not trial._sentence(1, "icstn: one")

    def test_an_error_that_icstn_does_not_tell_is_a_traceback(self) -> None:
        def wrong() -> None:
            raise KeyError("x")

        assert Child(wrong).wait() == (2, "TRACEBACK KeyError('x')")

    def test_a_kill_is_a_kill(self) -> None:
        child = Child(signal.pause)
        child.kill()
        assert child.wait() == (-signal.SIGKILL, "")

    def test_where_nothing_may_be_mounted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert sandbox(tmp_path) is False


def test_scratch_files_of_the_dead_are_swept_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    import platform

    from icstn.files import write_atomic

    dead = Child(lambda: None)
    dead.wait()
    node = platform.node()[:40]
    names = [f".a.txt.{node}.{process}.x.tmp" for process in (dead.pid, os.getpid())]
    names += [".a.txt.elsewhere.1.x.tmp", f".b.txt.{node}.{dead.pid}.x.tmp"]
    for name in names:
        (tmp_path / name).touch()
    write_atomic(tmp_path / "a.txt", "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*names[1:], "a.txt"])


def test_the_network_of_the_training_is_one_of_the_tables() -> None:
    assert SPEC.model in SPEC.about.rows
