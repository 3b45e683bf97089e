"""``icstn fit``: from a folder of real pictures to Records, networks and a report, and back."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import warm
from PIL import Image
from typer.testing import CliRunner

from icstn.cli import app
from icstn.datasets import DataError, gtsrb_stand_in, image_files, image_folder, split_validation
from icstn.evidence.estimates import difference
from icstn.evidence.trace import find
from icstn.experiments import DataOptions, Execution, Records, SpecError, StorageError, folder_specs, train
from icstn.experiments.bar import Bar
from icstn.experiments.classification import prepared
from icstn.experiments.classifiers import load_classifier
from icstn.experiments.spec import spec_from_dict
from icstn.experiments.status import run_status
from icstn.experiments.tasks import fit_task
from icstn.fitting import Fit, fit
from icstn.networks import Architecture, NotationError
from icstn.sampling import sample

pytestmark = pytest.mark.unchecked

SIGNS = {"no-entry": 17, "priority": 12, "stop": 14, "yield": 13}
SMALL: dict[str, Any] = {"size": 16, "iterations": 130, "batch": 8, "restarts": 0}
HERE = Execution(device="cpu", workers=1, progress=False)


@pytest.fixture(scope="module")
def signs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight rendered signs of 32×32 in each of four classes."""
    root = tmp_path_factory.mktemp("images") / "my-signs"
    found = gtsrb_stand_in("train", seed=7, count=43 * 8, size=32)
    for name, label in SIGNS.items():
        (root / name).mkdir(parents=True)
        for k, picture in enumerate(found.images[found.labels == label]):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(root / name / f"{k}.png")
    return root


def small_fit(signs: Path, to: Path, **options: Any) -> Fit:
    return fit(signs, out=to / "out", records=Records(to / "records"), execution=HERE, **SMALL | options)


@pytest.fixture(scope="module")
def done(signs: Path, tmp_path_factory: pytest.TempPathFactory) -> Fit:
    return small_fit(signs, tmp_path_factory.mktemp("done"))


def invoked(*arguments: str | Path) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, [*map(str, arguments)])
    return found.exit_code, found.stdout, found.stderr


def command(*arguments: str | Path) -> tuple[int, str, str]:
    return invoked("fit", *arguments)


class TestWayBack:
    """From a number of the report, or a name, to the Record, and to an ONNX file."""

    @pytest.mark.parametrize("ask", ["folder IC-STN-4", "IC-STN-4", "key", "number"])
    def test_a_fit_is_traced(self, done: Fit, ask: str) -> None:
        record = done.records["IC-STN-4"]
        query = {"key": record.spec.key, "number": f"{record.test_error:.3f}"}.get(ask, ask)
        records = Records(done.report.parent.parent / "records")
        status, out, err = invoked("trace", query, "--records", records.folder)
        assert (status, err) == (0, "")
        assert f"record:       {record.spec.key}" in out
        assert f"folder IC-STN-4 images={record.spec.about.data}" in out
        assert f"iterations=130, warp=homography, {record.spec.architecture}" in out
        assert f"{record.test_error:.3f} %" in out
        assert "on one's own images" in out

    def test_fits_that_differ_are_no_seeds_of_one_cell(self, done: Fit) -> None:
        one = done.records["CNN"]
        other = replace(
            one, spec=replace(one.spec, iterations=140), metrics={"test_error": one.test_error + 1}
        )
        again = replace(one, spec=replace(one.spec, seed=1), metrics={"test_error": one.test_error + 3})
        mean = f"{one.test_error + 1.5:.3f}"
        assert [o.record.spec.seed for o in find(mean, [one, other, again])] == [0, 1]
        assert [o.variation[:24] for o in find("folder CNN", [one, other])] == [
            "sigma=2, iterations=130,", "sigma=2, iterations=140,"
        ]  # fmt: skip

    @pytest.mark.slow
    def test_a_fit_is_exported(self, done: Fit, tmp_path: Path) -> None:
        onnxruntime = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
        records, path = done.report.parent.parent / "records", tmp_path / "signs.onnx"
        export = [*warm.PYTHON, "-m", "icstn", "export", "folder IC-STN-4", path, "--records", records]
        out = subprocess.run(export, check=True, capture_output=True, text=True).stdout
        assert out.startswith(f"{path}: {done.records['IC-STN-4'].spec.key}, outputs within ")
        images = torch.randint(256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
        logits, _ = onnxruntime.InferenceSession(str(path)).run(None, {"image": images.numpy()})
        torch.testing.assert_close(
            torch.from_numpy(logits), done.classifier(images).detach(), atol=1e-4, rtol=1e-4
        )


class TestFolder:
    """A folder as a data set."""

    def test_what_is_read(self, signs: Path) -> None:
        data = image_folder(signs, 32)
        assert data.classes == ("no-entry", "priority", "stop", "yield")
        assert data.images.shape == (32, 3, 32, 32)
        assert data.labels.tolist() == [k // 8 for k in range(32)]
        files = image_files(signs)
        assert [f.label for f in files] == data.labels.tolist()
        for k in (0, 13, 31):
            pixels = torch.tensor(list(Image.open(files[k].path).tobytes())).view(32, 32, 3)
            assert data.images[k].permute(1, 2, 0).equal(pixels.byte()), "as it is where it has the size"
        train, test = split_validation(data)
        assert test.labels.tolist() == [0, 1, 2, 3]
        assert (len(train), train.classes) == (28, data.classes)
        assert test.groups is not None
        assert [files[i].path.name for i in test.groups.tolist()] == ["5.png"] * 4

    def test_gray_is_seen_and_can_be_asked_for(self, signs: Path, tmp_path: Path) -> None:
        shutil.copytree(signs, tmp_path / "gray")
        for file in image_files(tmp_path / "gray"):
            Image.open(file.path).convert("L").save(file.path)
        seen, asked = image_folder(tmp_path / "gray", 20), image_folder(signs, 32, gray=True)
        assert seen.images.shape == (32, 1, 20, 20)
        assert asked.fingerprint == image_folder(tmp_path / "gray", 32).fingerprint
        assert image_folder(tmp_path / "gray", 20, gray=False).images.shape[1] == 3
        for images, gray in ((asked, True), (image_folder(signs, 20), False)):
            assert [spec.gray for spec in folder_specs(images)] == [gray] * 2

    def test_other_files_are_counted_and_left_out(self, signs: Path, tmp_path: Path) -> None:
        shutil.copytree(signs, tmp_path / "signs")
        (tmp_path / "signs" / "stop" / "notes.txt").touch()
        (tmp_path / "signs" / "stop" / ".hidden.png").touch()
        (tmp_path / "signs" / ".git").mkdir()
        data = image_folder(tmp_path / "signs")
        assert data.notes == ("1 files are no pictures by their names and were left out",)
        assert data.fingerprint == image_folder(signs).fingerprint


def _no_folder(root: Path) -> None:
    shutil.rmtree(root)


def _no_classes(root: Path) -> None:
    for folder in root.iterdir():
        shutil.rmtree(folder)


def _one_class(root: Path) -> None:
    for name in ("no-entry", "priority", "yield"):
        shutil.rmtree(root / name)


def _too_few(root: Path) -> None:
    for k in range(1, 8):
        (root / "stop" / f"{k}.png").unlink()


def _broken(root: Path) -> None:
    (root / "stop" / "3.png").write_bytes(b"no picture")


def _parts(root: Path) -> None:
    for name in ("train", "test"):
        shutil.copytree(root / "stop", root / name / "stop")
    for name in SIGNS:
        shutil.rmtree(root / name)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_no_folder, "does not exist: name one that does"),
        (_no_classes, "should have one subfolder a class, at least two, and has none"),
        (_one_class, "should have one subfolder a class, at least two, and has only one, stop"),
        (_too_few, "the class stop of .* has 1 pictures and needs at least 2"),
        (_broken, "3.png is no picture that can be read"),
        (_parts, "are parts of a data set, not classes: name one of them"),
    ],
)
def test_a_folder_that_can_not_be_used(
    signs: Path, tmp_path: Path, spoil: Callable[[Path], None], sentence: str
) -> None:
    shutil.copytree(signs, tmp_path / "signs")
    spoil(tmp_path / "signs")
    status, out, err = command(tmp_path / "signs", "--out", tmp_path / "out")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert re.search(sentence, err), err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--network", "large"], "unknown network 'large': choose small, medium, or write"),
        (["--network", "conv(9x9,3)-FC(10)"], "a network for 4 classes ends in FC(4), not in FC(10)"),
        (["--network", "[FC(6)]x2 -> FC(4)"], "ends in FC(8), not in FC(6)"),
        (["--network", "[FC(8)]x2 -> FC(4)", "--operations", "3"], "has ×2, and 3 operations are asked for"),
        (["--network", "conv(9x9"], "expected a layer"),
        (["--operations", "0"], "an IC-STN has at least 1 warp operation, not 0"),
        (["--sigma", "-1"], "sigma is at least 0, not -1.0"),
        (["--iterations", "0"], "iterations is at least 1, not 0"),
        (["--size", "4"], "images are 8 to 2048 pixels wide, got size 4"),
        (["--size", "12"], "is not for images of 12×12: "),
        (["--set", "dropout=1"], "a spec has no field dropout"),
        (["--set", "warp=spline"], "unknown warp 'spline'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("unchecked")
def test_a_wrong_option_gets_a_sentence(
    signs: Path, tmp_path: Path, options: list[str], sentence: str
) -> None:
    status, out, err = command(signs, *options, "--out", tmp_path / "out", "--records", tmp_path)
    assert (status, out) == (2, "")
    assert err.startswith("icstn: ")
    assert sentence in err


def test_results_are_kept_out_of_the_images(signs: Path) -> None:
    status, _, err = command(signs, "--out", signs / "stop" / "out")
    assert (status, "where it would be a class: name another --out" in err) == (2, True)
    assert not (signs / "stop" / "out").exists()


class TestSpecs:
    """What is run."""

    def test_named_networks_are_the_papers(self, signs: Path) -> None:
        plain, whole = folder_specs(image_folder(signs, 28), "small", operations=2)
        assert plain.architecture == "conv(3×3,3)-conv(3×3,6)-P-conv(3×3,9)-conv(3×3,12)-FC(48)-FC(4)"
        assert whole.architecture == "[conv(7×7,4)-conv(7×7,8)-P-FC(48)-FC(8)]×2 → conv(9×9,3)-FC(4)"
        assert (plain.model, whole.model, whole.sigma) == ("CNN", "IC-STN-2", 3.5)
        assert (whole.kind, whole.about.classical, whole.about.by_sigma) == ("IC-STN", False, False)

    def test_notation(self, signs: Path) -> None:
        data = image_folder(signs, 16)
        plain, whole = folder_specs(data, "[FC(6)]x3 -> conv(9x9,3)-FC(4)", warp="affine", sigma=0)
        assert (plain.architecture, plain.test_draws) == ("conv(9×9,3)-FC(4)", 1)
        assert whole.model == "IC-STN-3"
        [behind] = folder_specs(data, "FC(4)")[1:]
        assert Architecture.parse(behind.architecture).warps == 4
        with pytest.raises(NotationError):
            folder_specs(data, "FC(4")

    @pytest.mark.parametrize(
        ("network", "std"),
        [
            ("[FC(8)]x2 -> FC(4)", 0.1),
            ("[FC(16)-FC(8)]x2 -> FC(4)", 0.1),
            ("[conv(5x5,2)-FC(8)]x2 -> FC(4)", 0.001),
        ],
    )
    def test_a_predictor_that_looks_at_a_map_begins_small(
        self, signs: Path, network: str, std: float
    ) -> None:
        whole = folder_specs(image_folder(signs, 16), network)[1]
        assert (whole.std_predictor, whole.std_classifier) == (std, 0.1)

    def test_a_spec_survives_its_record(self, signs: Path) -> None:
        for spec in folder_specs(image_folder(signs, 16)):
            assert spec_from_dict(asdict(spec)) == spec
            with pytest.raises(SpecError, match="unknown experiment 'table_2': choose from folder"):
                replace(spec, experiment="table_2")


class TestFit:
    """End to end."""

    def test_the_report_says_what_the_records_say(self, done: Fit) -> None:
        page = html.unescape(done.report.read_text(encoding="utf-8"))
        for model, record in done.records.items():
            row = re.search(rf"<tr><td>{re.escape(model)}</td><td>([\d.]+) \[([−\d.]+), ([\d.]+)\]", page)
            assert row, model
            value, low, high = (float(n.replace("−", "-")) for n in row.groups())
            assert value == pytest.approx(record.test_error, abs=0.006)
            assert high == pytest.approx(record.metrics["interval"][1], abs=0.006)
            assert value - low == pytest.approx(high - value, abs=0.02)
        [gain] = re.findall(r"\(difference (−?[\d.]+) \[", page)
        wanted = difference(*([r] for r in done.records.values()))
        assert float(gain.replace("−", "-")) == pytest.approx(wanted.value, abs=0.006)
        assert wanted.remark == "", "item by item"
        for model, by_class in done.findings.by_class.items():
            assert by_class.mean().item() == pytest.approx(done.records[model].test_error), (
                "one held out each"
            )

    def test_the_report_reads_offline(self, done: Fit) -> None:
        page = done.report.read_text(encoding="utf-8")
        assert not re.findall(r"https?://|<script|<link", page)
        assert "prefers-color-scheme:dark" in page
        assert len(page) < 400_000
        pictures = re.findall(r"<img [^>]*>", page)
        assert len(pictures) >= 4 * 7
        assert all(re.match(r"<img alt='[^']+' src='data:image/png;base64,", p) for p in pictures)

    def test_the_networks_make_the_records_errors(self, signs: Path, done: Fit) -> None:
        """Every image under every draw, one at a time, through the file that was written."""
        for model, path in done.networks.items():
            record, network = done.records[model], load_classifier(path)
            task = fit_task(record.spec, image_folder(signs, 16), "cpu")
            for draw in range(4):
                p = task.test_warps(4, draw)
                for k in range(4):
                    logits = network.model(prepared(task.test.images[k : k + 1], True), p[k : k + 1])
                    wrong = logits.argmax(1).item() != task.test.labels[k].item()
                    assert wrong == record.outcomes[draw, k].item()

    def test_what_failed_is_what_the_record_has_wrong(self, done: Fit) -> None:
        wrong = done.records["IC-STN-4"].outcomes[0].nonzero().flatten().tolist()
        assert sorted(f.item for f in done.findings.failures) == wrong
        page = html.unescape(done.report.read_text(encoding="utf-8"))
        assert all(f"{list(SIGNS)[i]}/5.png</td>" in page for i in wrong)

    def test_failures_are_shown_as_they_were_and_as_they_were_aligned(self, signs: Path, done: Fit) -> None:
        record, items = done.records["IC-STN-4"], [f.item for f in done.findings.failures]
        task = fit_task(record.spec, image_folder(signs, 16), "cpu")
        p, images = task.test_warps(4, 0), task.test.images / 255
        network = load_classifier(done.networks["IC-STN-4"]).model
        last = network.align(prepared(task.test.images, True), p).warps[-1]
        for shown, warps in zip(done.findings.failed, (p, last), strict=True):
            assert shown.shape == (len(items), 3, 16, 16)
            seen = sample(images, warps.detach(), task.frame, task.warp)
            torch.testing.assert_close(shown, seen[items], atol=2e-3, rtol=0)

    def test_the_same_images_elsewhere_are_the_same_run(
        self, signs: Path, done: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(signs, tmp_path / "renamed")
        records = Records(done.report.parents[1] / "records")
        monkeypatch.setattr("icstn.experiments.training.make_task", pytest.fail)
        again = fit(tmp_path / "renamed", out=tmp_path / "out", records=records, execution=HERE, **SMALL)
        assert {m: r.spec for m, r in again.records.items()} == {m: r.spec for m, r in done.records.items()}
        assert {s.spec.key for s in run_status(records)} == {r.spec.key for r in done.records.values()}

    def test_other_images_are_refused(self, signs: Path, done: Fit, tmp_path: Path) -> None:
        shutil.copytree(signs, tmp_path / "signs")
        Image.new("RGB", (32, 32), "red").save(tmp_path / "signs" / "stop" / "0.png")
        spec = done.records["CNN"].spec
        other = replace(HERE, data=DataOptions(str(tmp_path / "signs")))
        with pytest.raises(DataError, match="does not hold the images that this run is of"):
            train(spec, Records(tmp_path), other)
        with pytest.raises(DataError, match="needs that folder"):
            train(spec, Records(tmp_path), HERE)
        changed = folder_specs(image_folder(tmp_path / "signs", 16))[0]
        assert changed.key.split("-")[1] != spec.key.split("-")[1]

    def test_stopped_and_again(
        self, signs: Path, done: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = []

        def stop(bar: Bar) -> None:
            calls.append(bar)
            if len(calls) == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr(Bar, "update", stop)
        with pytest.raises(KeyboardInterrupt):
            small_fit(signs, tmp_path)
        [left] = run_status(Records(tmp_path / "records"))
        assert (left.state, left.spec.model) == ("left", "CNN")
        assert (tmp_path / "records" / left.spec.key / "checkpoint.safetensors").is_file()
        again = small_fit(signs, tmp_path)
        for model, record in done.records.items():
            assert again.records[model].metrics == record.metrics
            assert all(again.records[model].weights[k].equal(w) for k, w in record.weights.items())

    def test_a_run_that_diverges_is_said_to(self, signs: Path, tmp_path: Path) -> None:
        small = ["--size", "16", "--iterations", "100", "--set", "batch=4", "--set", "restarts=0"]
        where = ["--out", tmp_path / "out", "--records", tmp_path / "records", "--workers", "1"]
        wild = ["--set", "rate_classifier=1e6", "--network", "[FC(8)]x4 -> conv(9x9,3)-FC(4)"]
        status, out, err = command(signs, *small, *where, *wild, "--device", "cpu")
        assert status == 1
        assert "A run diverged, so there is nothing to compare." in out
        assert err.startswith("icstn: CNN diverged: its loss rose to ")
        assert "; IC-STN-4 diverged: its loss rose to " in err
        assert (tmp_path / "out" / "report.html").read_text().count("<td>diverged: its loss rose to ") == 2
        assert not list((tmp_path / "out").glob("*.safetensors"))


def test_images_as_they_are(signs: Path, tmp_path: Path) -> None:
    """σ = 0: a classifier that is given the files makes the Record's errors."""
    status, out, err = command(
        *[signs, "--sigma", "0", "--size", "16", "--iterations", "60", "--set", "batch=8", "--workers", "1"],
        *["--device", "cpu", "--out", tmp_path / "out", "--records", tmp_path / "records"],
    )
    assert status == 0, err
    records = {r.spec.model: r for r in Records(tmp_path / "records")}
    files = [signs / name / "5.png" for name in SIGNS]
    for model, record in records.items():
        network = load_classifier(tmp_path / "out" / f"{model.lower()}.safetensors")
        wrong = [name != said for name, (said, _) in zip(SIGNS, network.classify(files), strict=True)]
        assert record.outcomes.tolist() == [wrong]
        assert f"{record.test_error:.2f} [" in out
    images = network.read(files)
    cnn = load_classifier(tmp_path / "out" / "cnn.safetensors")
    torch.testing.assert_close(cnn.align(images), images.float(), atol=1e-2, rtol=0)


def test_a_file_that_is_no_network(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read"):
        load_classifier(tmp_path / "none.safetensors")
    (tmp_path / "some.safetensors").write_bytes(b"something else, of some length")
    with pytest.raises(StorageError, match="is no network that icstn fit has written"):
        load_classifier(tmp_path / "some.safetensors")


def test_the_pages_lines_run(
    root: Path, signs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(signs, tmp_path / "my-signs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ICSTN_RECORDS", str(tmp_path / "records"))
    blocks = re.findall(r"```python\n(.*?)```", (root / "book" / "fit.md").read_text(), re.DOTALL)
    assert [block.count("iterations=2000") for block in blocks] == [1, 0]
    for block in blocks:
        exec(compile(block.replace("iterations=2000", "iterations=5"), "book/fit.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("{'CNN': '")
    assert printed[1] == printed[2], "the file is the network"
