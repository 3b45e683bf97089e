"""The command line: what it prints, and one plain sentence where something is wrong."""

from __future__ import annotations

import importlib.metadata
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from PIL import Image
from typer.testing import CliRunner

from icstn.cli import app
from icstn.experiments import Record, Records, cells

SMALL = ["table_1", "-m", "IC-STN-2", "--preset", "smoke", "--device", "cpu", "--workers", "1"]
SMALL += [f"--set={change}" for change in ("sigma=2.5", "iterations=120", "batch=4", "test_items=8")]


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    done = CliRunner().invoke(app, [*arguments])
    return done.exit_code, done.stdout, done.stderr


def in_a_process(*arguments: str, file_size: int = resource.RLIM_INFINITY) -> tuple[int, str, str]:
    """The same, in a process that may write files of so many bytes."""
    python = warm.PYTHON if file_size == resource.RLIM_INFINITY else (sys.executable,)
    command = [*python, "-c", "from icstn.cli import app; app()", *arguments]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))  # noqa: E731
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, preexec_fn=limit, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
class TestTrain:
    """``icstn train``."""

    def test_a_full_disk_then_room_again(self, tmp_path: Path) -> None:
        """The first checkpoint does not fit: one sentence, nothing half-written; later the run is trained."""
        pytest.importorskip("skimage")
        where = ["--records", str(tmp_path)]
        status, out, err = in_a_process("train", *SMALL, *where, file_size=20_000)
        assert (status, out) == (1, "")
        [sentence] = [line for line in err.splitlines() if " elapsed, " not in line]  # a bar's, on a busy day
        assert sentence.startswith("icstn: cannot write ")
        assert "File too large" in sentence
        assert sentence.endswith("what was there before is untouched")
        assert not [p for p in tmp_path.rglob("*") if p.suffix in (".tmp", ".safetensors")]
        status, out, err = run("train", *SMALL, *where, "--log", str(tmp_path / "log"))
        [record] = Records(tmp_path)
        assert (status, "icstn: " in err) == (0, False)
        assert out.split()[:3] == [f"{record.test_error:.3f}", "px", record.spec.key]
        assert record.remark in out
        assert list((tmp_path / "log" / record.spec.key).iterdir())
        assert run("status", *where)[1].startswith("finished")

    def test_a_folder_that_can_not_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        status, out, err = run("train", *SMALL, "--records", str(tmp_path / "file" / "records"))
        assert (status, out) == (1, "")
        assert err.startswith("icstn: cannot write Records to ")
        assert err.endswith("choose another --records\n")


class TestReproduce:
    """``icstn reproduce``."""

    @pytest.mark.slow
    def test_a_diagram_needs_no_training(self, tmp_path: Path) -> None:
        where = ["--records", str(tmp_path / "records"), "--output", str(tmp_path / "out")]
        status, out, err = in_a_process("reproduce", "figure-3", *where)
        assert (status, err) == (0, "")
        assert out.startswith("results: ")
        assert (tmp_path / "out" / "rendered" / "figure_3_light.svg").is_file()

    @pytest.mark.long
    def test_a_table_from_nothing(self, tmp_path: Path) -> None:
        where = ["--records", str(tmp_path / "records"), "--output", str(tmp_path / "out")]
        status, out, _ = in_a_process("reproduce", "table_1", "--preset", "smoke", *where)
        assert status == 0
        assert [out.count(text) for text in ("Table 1. ", "in warp parameters. ", "conditional-LK")] == [
            1,
            1,
            1,
        ]
        assert len(list(Records(tmp_path / "records"))) == sum(
            len(cells(experiment, "smoke", [0])) for experiment in ("table_1", "baselines")
        )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "table_1", "--set", "iterations"], "a parameter is NAME=VALUE, not 'iterations'"),
        (["train", "table_4"], "table_4"),
        (["train", "table_1", "-m", "IC-STN-5"], "IC-STN-5"),
        (["train", "table_1", "--preset", "tiny"], "tiny"),
        (["train", "table_1", "--device", "tpu"], "unknown device 'tpu': choose auto, cpu, cuda or cuda:1"),
        (["train", "table_1", "--seeds", "one"], "one"),
        (["reproduce", "figure_12"], "unknown exhibit 'figure_12': choose from table_1"),
        (["trace", "table_2 IC-STN-9(a)"], "IC-STN-9(a)"),
        (["train", "table_1", "--set", "iterations=-5"], "iterations is at least 1, not -5"),
        (["train", "table_1", "--set", "iterations=4.5"], "iterations is an int, not 4.5"),
        (["train", "table_1", "--set", "nonsense=1"], "a spec has no field 'nonsense'"),
        (["reproduce", "table_1", "-p", "nonsense=1"], "table_1 has no parameter 'nonsense'"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_bad_usage_gets_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, unchecked: None
) -> None:
    status, out, err = run(*arguments, "--records", str(tmp_path))
    assert (status, out) == (2, "")
    assert err.startswith("icstn: ")
    assert sentence in err


def test_a_picture_that_can_not_be_read_is_one_sentence(tmp_path: Path) -> None:
    """Exit status 1 is no error of its own, which once was printed as a sentence."""
    Image.effect_noise((64, 64), 80).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    files = [str(tmp_path / name) for name in ("a.png", "b.png")]
    status, _, err = run("align", *files, "--out", str(tmp_path / "out"))
    assert (status, err.count("icstn: ")) == (1, 1)
    assert "b.png: cannot be read as a picture" in err


def test_status_of_an_empty_folder(tmp_path: Path) -> None:
    assert run("status", "--records", str(tmp_path)) == (0, f"no runs in {tmp_path}\n", "")


def test_what_a_number_needs_is_said_beside_it(tmp_path: Path) -> None:
    """A run that is no better than doing nothing, printed by train and by status."""
    [spec] = cells("table_1", "smoke", models=["c-STN-1"], sigma=2.5)
    facts = {"remark": "no better than doing nothing"}
    Records(tmp_path).save(Record(spec, "finished", {"test_error": 66.0, "unit": "px"}, {}, facts))
    cell = ["train", "table_1", "-m", "c-STN-1", "--preset", "smoke", "--set", "sigma=2.5"]
    expected = f"   66.000 px  {spec.key}  (no better than doing nothing)\n"
    assert run(*cell, "--records", str(tmp_path)) == (0, expected, "")
    assert run("status", "--records", str(tmp_path))[1].endswith("(no better than doing nothing)\n")


@pytest.mark.parametrize("command", [["status"], ["trace", "table_2 CNN(a)"]], ids=lambda c: c[0])
def test_a_folder_of_records_that_is_none_is_an_error(command: list[str], tmp_path: Path) -> None:
    status, out, err = run(*command, "--records", str(tmp_path / "typo"))
    assert (status, out) == (2, "")
    assert err == f"icstn: the folder of Records {tmp_path / 'typo'} does not exist: name one that does\n"
    (tmp_path / "file").touch()
    status, _, err = run(*command, "--records", str(tmp_path / "file"))
    assert status == 2
    assert err == f"icstn: the folder of Records {tmp_path / 'file'} is a file: name a folder\n"


@pytest.mark.parametrize(
    "command",
    [["data"], ["data", "mnist"], ["data", "gtsrb"], ["train", "table_2"], ["reproduce", "table_2"]],
    ids=" ".join,
)
def test_data_that_are_a_file(command: list[str], tmp_path: Path) -> None:
    file = tmp_path / "afile"
    file.touch()
    where = ["--records", str(tmp_path)] if command[0] in ("train", "reproduce") else []
    status, out, err = run(*command, "--data", str(file), *where)
    assert (status, out) == (1, "")
    assert err == f"icstn: the data folder {file} is a file, not a folder: name a folder, or none\n"
    assert "does not exist" in run(*command, "--data", str(tmp_path / "typo"), *where)[2]


@pytest.mark.parametrize(
    "how", [["-m", "icstn"], ["-c", "from icstn.cli import app; app()"]], ids=["module", "script"]
)
def test_version(how: list[str]) -> None:
    done = subprocess.run([sys.executable, *how, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"icstn {importlib.metadata.version('icstn')}\n"


def test_trace_is_the_same_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From another folder, even one with figures/records of its own, it is this checkout's that is traced."""
    monkeypatch.setenv("ICSTN_RECORDS", str(tmp_path / "mine"))
    here = run("trace", "table_2 IC-STN-4(a)")
    assert here[0] == 0
    (tmp_path / "figures" / "records").mkdir(parents=True)
    (tmp_path / "figures" / "table_2.ipynb").touch()
    monkeypatch.chdir(tmp_path)
    assert run("trace", "table_2 IC-STN-4(a)") == here


def test_trace_outside_any_checkout_says_where_the_records_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICSTN_RECORDS", str(tmp_path))
    monkeypatch.setattr("icstn.experiments.records.checkout", lambda: None)
    status, _, err = run("trace", "table_2 IC-STN-4(a)")
    assert status == 2
    assert "the published Records are in the project's checkout: run this inside it" in err


def test_a_cache_that_can_not_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ICSTN_CACHE", str(tmp_path / "file" / "cache"))
    status, _, err = run("data")
    assert status == 0
    assert err == (
        f"note: the cache {tmp_path / 'file' / 'cache'} can't be written ({tmp_path / 'file'} is a file): "
        "set ICSTN_CACHE to a folder that can be\n"
    )
