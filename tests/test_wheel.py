"""The built wheel in an environment that has what it declares and nothing else: what is promised works."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow

SNIPPET = """
import torch
from icstn.classical import Aligner
from icstn.transformers import ICSTN
from icstn.warps import homography
align = ICSTN(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 8)), n=2, warp="homography")
assert align(torch.rand(2, 1, 28, 28)).shape == (2, 1, 28, 28)
import icstn.networks, icstn.perturb, icstn.layers
"""

IN_TURN = """
import json, sys
from typer.testing import CliRunner
from icstn.cli import app
done = [CliRunner().invoke(app, call) for call in json.loads(sys.argv[1])]
print(json.dumps([(d.exit_code, d.stdout, d.stderr) for d in done]))
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheel."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(self, *command: str | Path, cwd: Path | None = None) -> tuple[int, str, str]:
        """Exit status, stdout and stderr of a command of this environment; no checkout is in sight."""
        unset = ("PYTHONPATH", "ICSTN_RECORDS", "ICSTN_CACHE")
        own = {k: v for k, v in os.environ.items() if k not in unset}
        own |= {"HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder / "share")}
        own |= {"XDG_CACHE_HOME": str(self.folder / "cache"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            list(map(str, command)),
            cwd=cwd or self.folder,
            env=own,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def icstn(self, *arguments: str | Path, cwd: Path | None = None) -> tuple[int, str, str]:
        return self.run(self.folder / "bin" / "icstn", *arguments, cwd=cwd)

    def in_turn(self, *calls: list[str], cwd: Path | None = None) -> list[tuple[int, str, str]]:
        """What ``icstn`` does with each of these arguments, in one process, which starts up but once."""
        code, out, err = self.run(self.python, "-c", IN_TURN, json.dumps(calls), cwd=cwd)
        assert (code, err) == (0, "")
        return [tuple(found) for found in json.loads(out)]


Install = Callable[..., Environment]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    shutil.copytree(root / "icstn", source / "icstn", ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", source / "out", source], check=True
    )
    [built] = (source / "out").glob("*.whl")
    return built


def declared(name: str, extras: Iterable[str], own: importlib.metadata.Distribution) -> set[str]:
    """All distributions that an installation with these extras brings, as pip would find them."""
    found: set[str] = set()
    todo = [(name, extra) for extra in ("", *extras)]
    seen = set(todo)
    while todo:
        current, extra = todo.pop()
        found.add(current)
        for text in (own if current == name else importlib.metadata.distribution(current)).requires or ():
            one = Requirement(text)
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                more = {(canonicalize_name(one.name), e) for e in ("", *one.extras)} - seen
                seen |= more
                todo += more
    return found - {name}


def link(names: Iterable[str], site: Path) -> None:
    """Let the environment see these distributions of ours, and no others."""
    for name in names:
        one = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in one.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists() and not top.endswith(".pth"):
                (site / top).symlink_to(Path(str(one.locate_file(top))))


@pytest.fixture(scope="module")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Makes an environment in which ``pip install 'icstn[…]'`` has been run, without a network."""

    @functools.cache
    def make(*extras: str) -> Environment:
        made = Environment(tmp_path_factory.mktemp("-".join(("environment", *extras))))
        venv.create(made.folder, symlinks=True)
        pip = [sys.executable, "-m", "pip", "--python", str(made.python), "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
        [site] = made.folder.glob("lib/python*/site-packages")
        [own] = importlib.metadata.distributions(name="icstn", path=[str(site)])
        link(declared("icstn", extras, own), site)
        return made

    return make


class TestLibrary:
    """``pip install .``"""

    def test_it_has_few_requirements(self, install: Install) -> None:
        ask = "import importlib.metadata as m; print(*[r for r in m.requires('icstn') if 'extra' not in r])"
        names = re.findall(r"[a-z]+(?=>=)", install().run(install().python, "-c", ask)[1])
        assert names == ["jaxtyping", "numpy", "safetensors", "torch"]
        assert install().run(install().python, "-c", "import typer")[0] == 1, "the environment is not clean"

    def test_the_ideas_work(self, install: Install) -> None:
        assert install().run(install().python, "-c", SNIPPET) == (0, "", "")

    @pytest.mark.parametrize(
        "how", [["icstn"], ["icstn", "list"], ["icstn", "train", "table_1"]], ids=" ".join
    )
    def test_the_command_says_which_extra_it_needs(self, install: Install, how: list[str]) -> None:
        expected = (1, "", "icstn: this needs typer, rich: pip install 'icstn[experiments]'\n")
        assert install().icstn(*how[1:]) == expected
        assert install().run(install().python, "-m", *how) == expected

    @pytest.mark.parametrize(
        ("module", "extra"), [("datasets", "data"), ("experiments", "experiments"), ("exhibits", "exhibits")]
    )
    def test_a_part_says_which_extra_it_needs(self, install: Install, module: str, extra: str) -> None:
        code, _, err = install().run(install().python, "-c", f"import icstn.{module}")
        assert code == 1
        assert re.search(rf"ImportError: this needs .*: pip install 'icstn\[{extra}\]'$", err.strip())


class TestExperiments:
    """``pip install '.[experiments]'``"""

    def test_every_command_answers(self, install: Install) -> None:
        made = install("experiments")
        calls = [["list"], ["data"], ["status"], ["train", "--help"]]
        answers = [made.icstn("--version"), *made.in_turn(*calls)]
        for call, (code, out, err) in zip((["--version"], *calls), answers, strict=True):
            assert (code, err) == (0, ""), call
            assert out, call

    def test_a_cell_is_trained_and_traced(self, install: Install, tmp_path: Path) -> None:
        icstn = install("experiments").icstn
        small = [f"--set={change}" for change in ("sigma=2.5", "iterations=100", "batch=4", "test_items=8")]
        where = ["--records", tmp_path]
        code, out, err = icstn(
            "train", "table_1", "-m", "c-STN-1", "--preset", "smoke", "--device", "cpu", *small, *where
        )
        assert (code, "Traceback" in err) == (0, False), err
        key = out.split()[2]
        assert icstn("status", *where)[1].startswith("finished")
        code, out, err = icstn("trace", key, *where)
        assert (code, err) == (0, "")
        assert "icstn train table_1 -m c-STN-1" in out

    def test_a_classical_method_is_tested(self, install: Install, tmp_path: Path) -> None:
        small = ["--set=sigma=2.5", "--set=test_items=4", "--device", "cpu"]
        code, out, err = install("experiments").icstn(
            "train", "baselines", "-m", "IC-LK", "--preset", "smoke", *small, "--records", tmp_path
        )
        assert (code, " px " in out) == (0, True), err

    def test_pictures_are_aligned(self, install: Install, root: Path, tmp_path: Path) -> None:
        picture = root / "figures" / "rendered" / "figure_6_light.png"
        code, out, err = install("experiments").icstn("align", picture, picture, "--out", tmp_path / "out")
        assert (code, err) == (0, "")
        assert out.startswith("1 of 1 pictures aligned")

    def test_what_needs_the_checkout_says_so(self, install: Install, tmp_path: Path) -> None:
        reproduced, trained, traced = install("experiments").in_turn(
            ["reproduce", "figure_3"],
            ["reproduce", "figure_3", "--train-only"],
            ["trace", "table_2 CNN(a)"],
            cwd=tmp_path,
        )
        assert reproduced[:2] == (2, "")
        assert reproduced[2].startswith(
            "icstn: the exhibits' notebooks are not in the installed package: run"
        )
        assert trained == (0, "", "")
        assert traced[:2] == (2, "")
        assert "the published Records are in the project's checkout" in traced[2]

    def test_in_the_checkout_what_needs_more_says_so(
        self, install: Install, root: Path, tmp_path: Path
    ) -> None:
        [run, *_] = (path.name for path in (root / "figures" / "records").glob("table_2-ic-stn-4-a-*"))
        calls = (
            ["export", run, str(tmp_path / "m.onnx")],
            ["reproduce", "figure_3"],
            ["trace", "table_2 CNN(a)"],
        )
        exported, reproduced, traced = install("experiments").in_turn(*calls, cwd=root)
        assert exported[:2] == reproduced[:2] == (1, "")
        assert re.fullmatch(r"icstn: .*pip install 'icstn\[onnx\]'\n", exported[2])
        assert re.fullmatch(
            r"icstn: this needs .*papermill: pip install 'icstn\[exhibits\]'\n", reproduced[2]
        )
        assert (traced[0], traced[2]) == (0, "")
        assert "CNN(a)" in traced[1]


def test_with_the_exhibits_one_is_reproduced(install: Install, root: Path, tmp_path: Path) -> None:
    """``pip install '.[exhibits]'``, then ``icstn reproduce`` in the checkout."""
    where = ["--records", tmp_path / "records", "--output", tmp_path / "out"]
    code, _, err = install("exhibits").icstn("reproduce", "figure_3", *where, cwd=root)
    assert (code, err) == (0, "")
    assert (tmp_path / "out" / "rendered" / "figure_3_light.svg").is_file()
