"""A fork of the warm process is, to who started it and to itself, the Python that it stands for."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import warm

if not hasattr(os, "pidfd_open"):
    pytest.skip("to run it, be on Linux: elsewhere it is an ordinary Python", allow_module_level=True)

TELLS = """
import os, sys
print(sys.argv, sys.path[0], os.getcwd(), os.environ["SAID"], sys.stdin.read(), __name__)
print("no good", file=sys.stderr)
"""


def both(*arguments: str, **options: object) -> list[subprocess.CompletedProcess[str]]:
    """What comes of it, warm and cold."""
    return [
        subprocess.run([*python, *arguments], capture_output=True, text=True, check=False, **options)
        for python in (warm.PYTHON, (sys.executable,))
    ]


def test_it_is_a_fork_of_a_process_that_has_torch_and_nothing_of_ours() -> None:
    code = "import sys, os; print(*(m in sys.modules for m in ('torch', 'icstn')), end=' ');"
    code += "print(os.listdir('/proc/self/task'))"
    ours, theirs = (done.stdout for done in both("-c", code))
    assert re.fullmatch(r"True False \['\d+'\]\n", ours), "it has one thread"
    assert re.fullmatch(r"False False \['\d+'\]\n", theirs)


@pytest.mark.parametrize("how", ["-c", "-m", "file"])
def test_it_has_the_callers_arguments_folder_environment_and_streams(how: str, tmp_path: Path) -> None:
    (tmp_path / "tells.py").write_text(TELLS)
    asked = {"-c": ["-c", TELLS], "-m": ["-m", "tells"], "file": ["tells.py"]}[how]
    environment = os.environ | {"SAID": "\udcff ä"}
    ours, theirs = both(
        *asked, "a b", "", cwd=tmp_path, env=environment, input="read", errors="backslashreplace"
    )
    assert (ours.stdout, ours.stderr, ours.returncode) == (theirs.stdout, theirs.stderr, theirs.returncode)
    assert "read __main__" in ours.stdout


@pytest.mark.parametrize(
    "code",
    ["pass", "1 / 0", "raise SystemExit", "raise SystemExit(3)", "raise SystemExit('why')",
     "import os; os.kill(os.getpid(), 9)", "import atexit; atexit.register(print, 'last')",
     "import sys; sys.stdout.write('no newline')", "import threading as t; t.Timer(0.2, print, 'x').start()"],
)  # fmt: skip
def test_it_ends_alike(code: str) -> None:
    ours, theirs = both("-c", code)
    assert (ours.stdout, ours.returncode) == (theirs.stdout, theirs.returncode)
    assert ours.stderr.splitlines()[-1:] == theirs.stderr.splitlines()[-1:]


def test_it_draws_numbers_of_its_own() -> None:
    code = "import numpy, random; print(numpy.random.rand(), random.random())"
    drawn = [number for _ in range(3) for number in both("-c", code)[0].stdout.split()]
    assert len(set(drawn)) == 6


def test_it_lives_no_longer_than_its_caller() -> None:
    command = [*warm.PYTHON, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(500)"]
    for way in (signal.SIGKILL, signal.SIGTERM):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            child = int(process.stdout.readline())
            assert Path(f"/proc/{child}").exists()
            process.send_signal(way)
            assert process.wait() == -way
        until = time.monotonic() + 60
        while Path(f"/proc/{child}").exists() and time.monotonic() < until:
            time.sleep(0.01)
        assert not Path(f"/proc/{child}").exists()


def test_without_the_process_it_is_python() -> None:
    code = "import sys; print('torch' in sys.modules, sys.argv)"
    for place in ({}, {warm.PLACE: "/nowhere"}):
        environment = {k: v for k, v in os.environ.items() if k != warm.PLACE} | place
        [ours, theirs] = both("-c", code, "a", env=environment)
        assert ours.stdout == theirs.stdout == "False ['-c', 'a']\n"
