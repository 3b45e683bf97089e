"""``icstn align`` and ``icstn track``: folders in, pictures, tables, sheet and film out; failures said."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from icstn.cli import app
from icstn.datasets import photograph
from icstn.photos import PhotoError, read
from icstn.sampling import Frame, sample
from icstn.warps import homography

pytest.importorskip("skimage.data")
SHIFTS = [(0, 0), (5, -3), (-6, 4), (8, 6)]


def picture(dx: float, dy: float, gain: float = 1.0) -> Image.Image:
    """A color photograph, moved; its template's pixel x lies at x + (dx, dy)."""
    photo = photograph("coffee", scale=0.5)
    frame = Frame.full(*photo.shape[-2:])
    shift = torch.tensor([[[1.0, 0, -dx], [0, 1, -dy], [0, 0, 1]]])
    moved = sample(photo, frame.params(homography, shift).float(), frame, homography)[0] * gain
    return Image.fromarray((moved.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("burst")
    for n, (dx, dy) in enumerate(SHIFTS):
        picture(dx, dy, 1 - 0.1 * n).save(folder / f"shot_{n}.png")
    return folder


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.output


def matrices(out: Path) -> list[dict]:
    return json.loads((out / "matrices.json").read_text())["images"]


def test_a_folder_is_aligned(folder: Path, tmp_path: Path) -> None:
    code, text = run("align", folder / "shot_0.png", folder, "--warp", "affine", "--out", tmp_path)
    assert code == 0, text
    assert f"4 of 4 pictures aligned: {tmp_path}" in text
    rows = matrices(tmp_path)
    for row, (dx, dy) in zip(rows, SHIFTS, strict=True):
        assert np.abs(np.array(row["matrix"])[:2, 2] - [dx, dy]).max() < 0.1
    table = list(csv.DictReader((tmp_path / "matrices.csv").read_text().splitlines()))
    assert [float(r["m02"]) for r in table] == [r["matrix"][0][2] for r in rows]
    first = np.asarray(read(folder / "shot_0.png"), float)
    for n in range(4):
        aligned = np.asarray(read(tmp_path / "aligned" / f"shot_{n}.png"), float)
        assert np.abs(aligned / (1 - 0.1 * n) - first)[12:-12, 12:-12].mean() < 3
    assert read(tmp_path / "contact_sheet.png").width > 400
    with Image.open(tmp_path / "before_after.webp") as film:
        assert film.n_frames == 4


def test_what_fails_is_said_and_the_others_are_finished(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "empty").mkdir(parents=True)
    broken, small, noise = (tmp_path / "in" / n for n in ("broken.png", "small.png", "noise.png"))
    broken.write_bytes((folder / "shot_1.png").read_bytes()[:3000])
    read(folder / "shot_1.png").resize((40, 30)).save(small)
    random = np.random.default_rng(0).integers(0, 255, (200, 300), dtype=np.uint8)
    Image.fromarray(random).save(noise)
    files = [
        folder / "shot_1.png",
        broken,
        tmp_path / "in" / "missing.png",
        small,
        noise,
        tmp_path / "in/empty",
    ]
    code, text = run("align", folder / "shot_0.png", *files, "--out", tmp_path / "out", "--warp", "affine")
    assert code == 1
    assert "1 of 6 pictures aligned" in text
    for sentence in (
        "broken.png: cannot be read as a picture", "there is no file", "is smaller than the template",
        "empty holds no pictures", "noise.png: ",
    ):  # fmt: skip
        assert sentence in text
    assert "Traceback" not in text
    assert [r["status"] == "converged" for r in matrices(tmp_path / "out")] == [True] + [False] * 5
    assert [p.name for p in (tmp_path / "out" / "aligned").iterdir()] == ["shot_1.png"]


def test_a_template_that_cannot_be_used_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    code, text = run("align", tmp_path / "none.png", folder, "--out", tmp_path / "a")
    assert code == 1
    assert text.strip().count("\n") == 0
    code, text = run("align", folder / "shot_0.png", folder, "--out", tmp_path / "a", "--region", "1,2,3")
    assert code == 2
    assert "LEFT,TOP,RIGHT,BOTTOM" in text
    with pytest.raises(PhotoError, match="is a folder"):
        read(folder)


def test_two_files_of_one_name_are_both_kept(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    picture(2, 2).save(tmp_path / "other" / "shot_0.png")
    files = [folder / "shot_0.png", tmp_path / "other" / "shot_0.png"]
    code, _ = run("align", folder / "shot_0.png", *files, "--warp", "translation", "--out", tmp_path / "out")
    assert code == 0
    assert [r["aligned"] for r in matrices(tmp_path / "out")] == ["shot_0.png", "shot_0_2.png"]


@pytest.mark.parametrize("kind", ["folder", "gif", "avi"])
def test_a_film_is_tracked(tmp_path: Path, kind: str) -> None:
    frames = [picture(2 * n, n).convert("L") for n in range(6)]
    frames[3] = Image.effect_noise(frames[3].size, 90)
    if kind == "folder":
        source = tmp_path / "frames"
        source.mkdir()
        for n, frame in enumerate(frames):
            frame.save(source / f"{n:03d}.png")
    elif kind == "gif":
        source = tmp_path / "film.gif"
        frames[0].save(source, save_all=True, append_images=frames[1:])
    else:
        cv2 = pytest.importorskip("cv2")
        source = tmp_path / "film.avi"
        writer = cv2.VideoWriter(str(source), cv2.VideoWriter_fourcc(*"MJPG"), 10, frames[0].size)
        for frame in frames:
            writer.write(np.array(frame.convert("RGB"))[..., ::-1].copy())
        writer.release()
    frames[0].save(tmp_path / "first.png")
    out = tmp_path / "out"
    code, text = run(
        "track",
        tmp_path / "first.png",
        source,
        "--region",
        "90,50,210,150",
        "--warp",
        "translation",
        "--out",
        out,
    )
    rows = matrices(out)
    assert [r["status"] == "tracked" for r in rows] == [True] * 3 + [False] + [True] * 2, text
    assert code == 1
    assert "lost (" in text
    for n in (0, 1, 2, 4, 5):
        assert np.abs(np.array(rows[n]["matrix"])[:2, 2] - [2 * n, n]).max() < 0.3
