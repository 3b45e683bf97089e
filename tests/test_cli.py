"""The command line: what it prints, and one plain sentence where something is wrong."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from icstn.cli import app
from icstn.exhibits import reproduction
from icstn.experiments import Records, cells

SMALL = ["table_1", "-m", "IC-STN-2", "--preset", "smoke", "--device", "cpu", "--workers", "1"]
SMALL += [f"--set={change}" for change in ("sigma=2.5", "iterations=120", "batch=4", "test_items=8")]


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    done = CliRunner().invoke(app, [*arguments])
    return done.exit_code, done.stdout, done.stderr


def in_a_process(*arguments: str, file_size: int = resource.RLIM_INFINITY) -> tuple[int, str, str]:
    """The same, in a process that may write files of so many bytes."""
    command = [sys.executable, "-c", "from icstn.cli import app; app()", *arguments]
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
        assert err.startswith("icstn: cannot write ")
        assert "File too large" in err
        assert err.endswith("what was there before is untouched\n")
        assert err.count("\n") == 1
        assert not [p for p in tmp_path.rglob("*") if p.suffix in (".tmp", ".safetensors")]
        status, out, err = run("train", *SMALL, *where, "--log", str(tmp_path / "log"))
        [record] = Records(tmp_path)
        assert (status, err) == (0, "")
        assert out.split() == [f"{record.test_error:.3f}", "px", record.spec.key]
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

    def test_all_tables_are_printed_under_their_captions(self, root: Path) -> None:
        rendered = root / "figures" / "rendered"
        text = reproduction.tables(["table_1", "figure_3", "table_2"], rendered)
        headings = [line for line in text.splitlines() if line.startswith("## ")]
        assert headings == [
            "## Table 1. Test error of planar alignment, in pixels",
            "## Table 1, in warp parameters. Test error of planar alignment, as the L2 norm of p",
            "## Classical methods on the trials of Table 1, a comparison that the paper does not make: "
            "test error in pixels",
            "## Table 2. Test error on perturbed MNIST, in percent",
        ]

    def test_no_rendered_table_is_forgotten(self, root: Path) -> None:
        rendered = {path.stem for path in (root / "figures" / "rendered").glob("table_*.md")}
        assert {t for exhibit in reproduction.EXHIBITS.values() for t in exhibit.tables} == rendered

    @pytest.mark.slow
    def test_a_diagram_needs_no_training(self, tmp_path: Path) -> None:
        where = ["--records", str(tmp_path / "records"), "--output", str(tmp_path / "out")]
        status, out, _ = in_a_process("reproduce", "figure-3", *where)
        assert status == 0
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
        (["train", "table_1", "--device", "tpu"], "unknown device 'tpu': choose auto, cpu or cuda"),
        (["train", "table_1", "--seeds", "one"], "one"),
        (["reproduce", "figure_12"], "unknown exhibit 'figure_12': choose from table_1"),
        (["trace", "table_2 IC-STN-9(a)"], "IC-STN-9(a)"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_bad_usage_gets_one_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    status, out, err = run(*arguments, "--records", str(tmp_path))
    assert (status, out) == (2, "")
    assert err.startswith("icstn: ")
    assert sentence in err


def test_status_of_an_empty_folder(tmp_path: Path) -> None:
    assert run("status", "--records", str(tmp_path)) == (0, f"no runs in {tmp_path}\n", "")
