"""Every ``icstn`` command that a page shows is understood; those on one's own images are run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import typer.main
from PIL import Image
from typer.testing import CliRunner

from icstn.cli import app
from icstn.datasets import gtsrb_stand_in, photograph
from icstn.sampling import Frame, sample
from icstn.warps import homography

pytestmark = pytest.mark.unchecked

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", *(f"book/{p.name}" for p in sorted((ROOT / "book").glob("*.md"))))
NOTEBOOKS = tuple(f"{p.parent.name}/{p.name}" for p in sorted(ROOT.glob("*/*.ipynb")))
#: Words of a line that stand for something the reader puts in.
MEANT = {"FIRST", "OTHERS…", "FRAMES…", "TEMPLATE", "IMAGE…", "FOLDER", "NAME", "RUN", "…"}
#: Not a command but what the tool says.
SAID = "icstn needs Python"


def text_of(page: str) -> str:
    """A page's prose, without the outputs of its cells."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if not page.endswith(".ipynb"):
        return text
    cells = json.loads(text)["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


@cache
def commands(page: str) -> list[str]:
    """The ``icstn`` commands of a page, in its blocks (a backslash goes on in the next line) and lines."""
    text = text_of(page).replace("\\\n", " ")
    inline = re.findall(r"(?<!`)`(?:\.venv/bin/)?(icstn [a-z][^`\n]*)`", text)
    blocks = re.findall(r"```(?:bash|sh)\n(.*?)```", text, re.DOTALL)
    pattern = r"^(?:\S+=\S+ )*(?:\.venv/bin/)?(icstn [a-z][^\n#&|]*)"
    shown = re.findall(pattern, "\n".join(blocks), re.MULTILINE)
    return [line.strip() for line in inline + shown if not line.startswith(SAID)]


def understood(line: str) -> None:
    """Parse a command, without running it."""
    words = [w for w in shlex.split(line)[1:] if w not in MEANT]
    group: Any = typer.main.get_command(app)
    name, command, rest = group.resolve_command(group.make_context("icstn", ["list"]), words)
    missing = [p.name for p in command.params if p.required and p.param_type_name == "argument"]
    bare = not [w for w in rest if not w.startswith("-")]
    command.make_context(name, rest + (["x"] * len(missing) if bare else []))


@pytest.mark.parametrize("page", [p for p in (*PAGES, *NOTEBOOKS) if commands(p)])
def test_commands_are_understood(page: str) -> None:
    for line in commands(page):
        try:
            understood(line)
        except Exception as error:  # whatever it is, the reader would meet it
            pytest.fail(f"{page}: {line}: {error!r}")


def test_a_wrong_command_would_be_noticed() -> None:
    for line in ("icstn allign a b", "icstn align a b --outt c", "icstn fit x --size many"):
        with pytest.raises(Exception, match=r"allign|outt|integer"):
            understood(line)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages' lines name: pictures, a film, signs in classes."""
    photo = photograph("coffee", gray=True, scale=0.6)
    frame, frames = Frame.full(*photo.shape[-2:]), []
    for i in range(6):
        M = np.array([[1, -0.01 * i, 2.0 * i], [0.01 * i, 1, 0.5 * i], [0, 0, 1]])
        p = frame.params(homography, torch.from_numpy(np.linalg.inv(M))[None])
        moved = sample(photo, p.float(), frame, homography)[0, 0] * (1 - 0.04 * i)
        frames.append(moved.mul(255).round().byte().numpy())
    (tmp_path / "folder").mkdir()
    for i, picture in enumerate(frames):
        name = "first.jpg" if i == 0 else f"folder/{i}.png"
        Image.fromarray(picture).save(tmp_path / name)
    shutil.copy(tmp_path / "first.jpg", tmp_path / "shot_0.jpg")
    Image.fromarray(frames[0]).save(tmp_path / "first.png")
    code, size = cv2.VideoWriter.fourcc(*"mp4v"), frames[0].shape[::-1]
    film = cv2.VideoWriter(str(tmp_path / "film.mp4"), code, 10, size)
    for picture in frames:
        film.write(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR))
    film.release()
    signs = gtsrb_stand_in("train", seed=7, count=43 * 8, size=32)
    for name, label in {"priority": 12, "stop": 14, "yield": 13}.items():
        (tmp_path / "my-signs" / name).mkdir(parents=True)
        for k, picture in enumerate(signs.images[signs.labels == label]):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / "my-signs" / name / f"{k}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ICSTN_RECORDS", str(tmp_path / "records"))
    return tmp_path


def run(line: str) -> str:
    """Run a command of a page as it stands."""
    done = CliRunner().invoke(app, shlex.split(line)[1:])
    assert done.exit_code == 0, (line, done.output)
    return done.stdout


def own(page: str) -> list[str]:
    """The commands of a page that work on files of the reader's own."""
    return [c for c in commands(page) if re.match(r"icstn (align|track) [a-z]", c)]


@pytest.mark.parametrize("page", ["README.md", "book/your_images.ipynb"])
def test_pictures_and_films(page: str, desk: Path) -> None:
    lines = own(page)
    assert {line.split()[1] for line in lines} == {"align", "track"}
    for line in lines:
        run(line if "--out" in line else f"{line} --out tracked")
    found = json.loads((desk / "aligned" / "matrices.json").read_text())["images"]
    assert [item["status"] for item in found] == ["converged"] * 5
    assert {"matrices.csv", "matrices.json"} <= {file.name for file in (desk / "tracked").iterdir()}


def test_a_classifier_is_fitted_and_traced(desk: Path) -> None:
    """The README's lines in their order, cut short; test_fitting.py exports as the third one does."""
    fit, trace, export = (
        next(c for c in commands("README.md") if c.startswith(f"icstn {word} ") and marks in c)
        for word, marks in (("fit", "my-signs"), ("trace", "folder"), ("export", "onnx"))
    )
    assert "%" in run(f"{fit} --size 16 --iterations 40 --workers 1")
    assert "my-signs" in run(trace)
    assert export == 'icstn export "folder IC-STN-4" model.onnx'
