"""Bad input at the command line: one clear sentence, the right exit status, no traceback, nothing written."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pooch
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from icstn.cli import app
from icstn.datasets import _gtsrb, _mnist, cache, images
from icstn.experiments import Execution, Record, Records, RunSpec, cells, local
from icstn.experiments.training import train

#: An address that refuses every connection.
NOWHERE = "http://127.0.0.1:9/"
MODEL = "train table_1 --preset smoke -m IC-STN-2 --device cpu "


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good and bad files."""
    folder = tmp_path_factory.mktemp("doors")
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC).save(folder / "good.png")
    Image.new("L", (64, 64), 128).save(folder / "flat.png")
    Image.new("L", (1, 1), 128).save(folder / "one.png")
    Image.new("L", (160, 120), 0).save(folder / "black.png")
    (folder / "junk.png").write_bytes(b"no picture at all")
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:2000])
    (folder / "empty.png").touch()
    (folder / "nothing").mkdir()
    for name, count in (("signs/a", 3), ("signs/b", 3), ("one/a", 2), ("few/a", 1), ("few/b", 2)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(noise[:20, i : i + 20]).save(folder / name / f"{i}.png")
    for part in ("train", "test"):
        shutil.copytree(folder / "signs" / "a", folder / "parts" / part)
    shutil.copytree(folder / "signs", folder / "broken")
    (folder / "broken" / "a" / "0.png").write_bytes(b"\x89PNG\r\n")
    _records(folder / "runs")
    return folder


def _records(folder: Path) -> None:
    """Runs: a finished one three times (two seeds, another preset), a diverged one, a classical one."""
    facts = {"data": {"name": "mnist"}}
    for spec in cells("table_2", "smoke", [0, 1], ["CNN(a)"]) + cells("table_2", "quick", [0], ["CNN(a)"]):
        Records(folder).save(Record(spec, "finished", {"test_error": 6.0, "unit": "%"}, {}, facts))
    for spec in [*cells("table_2", "smoke", [0], ["CNN(b)"]), *cells("baselines", "smoke", [0], ["LK"])]:
        status = "diverged" if spec.model == "CNN(b)" else "finished"
        Records(folder).save(Record(spec, status, {"test_error": 7.0, "unit": "px"}, {}, facts))


@pytest.fixture(autouse=True)
def doors(made: Path, monkeypatch: pytest.MonkeyPatch, unchecked: None) -> Path:
    """We stand among the files; cache and Records are here; no network; runs are done in this process."""
    monkeypatch.chdir(made)
    monkeypatch.setenv("ICSTN_CACHE", str(made / "cache"))
    monkeypatch.setenv("ICSTN_RECORDS", str(made / "own"))
    monkeypatch.setattr(_mnist, "MIRRORS", (NOWHERE,))
    monkeypatch.setattr(_gtsrb, "URL", NOWHERE)
    monkeypatch.setattr(images, "CAFFE_CAT_URL", NOWHERE)
    monkeypatch.setattr(cache, "RETRIES", 0)
    monkeypatch.setattr(pooch.get_logger(), "disabled", True)  # it holds on to an earlier test's stderr
    monkeypatch.setattr(local, "run", _here)
    return made


def _here(
    missing: Sequence[RunSpec], records: Records, _: Callable[[], None], execution: Execution
) -> dict[RunSpec, BaseException]:
    """In place of :func:`icstn.experiments.local.run`: without processes."""
    failures: dict[RunSpec, BaseException] = {}
    for spec in missing:
        try:
            train(spec, Records(records.folder), execution)
        except Exception as error:
            failures[spec] = error
    return failures


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """All files and folders with their sizes and times, but for the cache's locks."""
    found = {}
    for path in folder.rglob("*"):
        if folder / "cache" not in (path, *path.parents) or (path.is_file() and path.name != ".lock"):
            about = path.stat()
            found[str(path)] = (about.st_size, about.st_mtime_ns)
    return found


def refused(arguments: list[str], status: int, words: str, folder: Path) -> None:
    """The command says so in a sentence, ends with that status, and leaves everything as it was."""
    before = listing(folder)
    done = CliRunner().invoke(app, arguments)
    told = done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert (done.exit_code, done.stdout) == (status, ""), told
    assert "Traceback" not in told
    assert told.startswith("Usage: ") or told.count("icstn: ") == 1
    assert words in re.sub(r"[\s│╭╮╰╯─]+", " ", told)
    assert len(told) < 1500
    assert listing(folder) == before


#: Command, exit status, and what the sentence has to say: what is wrong and, where it can, what there is.
COMMANDS: list[tuple[str, int, str]] = [
    # usage
    ("nonsense", 2, "No such command 'nonsense'"),
    ("--nonsense", 2, "No such option: --nonsense"),
    ("train", 2, "Missing argument"),
    ("export", 2, "Missing argument"),
    ("trace", 2, "Missing argument"),
    ("fit", 2, "Missing argument"),
    ("align good.png", 2, "Missing argument"),
    ("track good.png", 2, "Missing argument"),
    (MODEL + "--nonsense", 2, "No such option: --nonsense"),
    (MODEL + "--workers two", 2, "Invalid value for '--workers'"),
    (MODEL + "--workers -1", 2, "Invalid value for '--workers'"),
    (MODEL + "--workers 1.5", 2, "Invalid value for '--workers'"),
    ("fit signs --size big", 2, "Invalid value for '--size'"),
    ("fit signs --sigma much", 2, "Invalid value for '--sigma'"),
    ("fit signs --iterations x", 2, "Invalid value for '--iterations'"),
    ("status extra", 2, "unexpected extra argument"),
    ("list extra", 2, "unexpected extra argument"),
    # train: which runs
    ("train table_4", 2, "unknown experiment 'table_4': choose from table_1"),
    ("train folder", 2, "unknown experiment 'folder': choose from table_1"),
    ("train ''", 2, "unknown experiment ''"),
    ("train table_1 -m IC-STN-5", 2, "unknown model 'IC-STN-5': choose from"),
    ("train table_2 -m CNN", 2, "unknown model 'CNN': choose from CNN(a)"),
    ("train table_1 -m ''", 2, "unknown model ''"),
    ("train table_1 --preset tiny", 2, "unknown preset 'tiny': choose from smoke"),
    ("train table_1 --preset ''", 2, "unknown preset ''"),
    (MODEL + "--seeds ''", 2, "seeds are numbers such as"),
    (MODEL + "--seeds 0-5x", 2, "seeds are numbers such as"),
    (MODEL + "--seeds=-1", 2, "seeds are numbers such as"),
    (MODEL + "--seeds 4-2", 2, "seeds are numbers such as"),
    (MODEL + "--seeds 0.5", 2, "seeds are numbers such as"),
    (MODEL + "--seeds 0-9999999999999", 2, "ask for at most 1000"),
    (MODEL + "--seeds 99999999999999999999999", 2, "seed is at most 9223372036854775807"),
    (MODEL + "--device tpu", 2, "unknown device 'tpu': choose auto, cpu, cuda or cuda:1"),
    (MODEL + "--device cuda:x", 2, "unknown device 'cuda:x'"),
    (MODEL + "--device cpu:1", 2, "unknown device 'cpu:1'"),
    (MODEL + "--device ''", 2, "unknown device ''"),
    # train: variations
    (MODEL + "--set iterations", 2, "a parameter is NAME=VALUE, not 'iterations'"),
    (MODEL + "--set =3", 2, "a parameter is NAME=VALUE, not '=3'"),
    (MODEL + "--set 1x=3", 2, "a parameter is NAME=VALUE, not '1x=3'"),
    (MODEL + "--set ''", 2, "a parameter is NAME=VALUE, not ''"),
    (MODEL + "--set nonsense=1", 2, "a spec has no field 'nonsense': it has experiment"),
    (MODEL + "--set experiment=table_2", 2, "experiment has an argument or an option of its own"),
    (MODEL + "--set model=Foo", 2, "model has an argument or an option of its own"),
    (MODEL + "--set models=Foo", 2, "models has an argument or an option of its own"),
    (MODEL + "--set preset=full", 2, "preset has an argument or an option of its own"),
    (MODEL + "--set seed=3", 2, "seed has an argument or an option of its own"),
    (MODEL + "--set seeds=3", 2, "seeds has an argument or an option of its own"),
    (MODEL + "--set iterations=0", 2, "iterations is at least 1, not 0"),
    (MODEL + "--set iterations=-5", 2, "iterations is at least 1, not -5"),
    (MODEL + "--set iterations=4.5", 2, "iterations is an int, not 4.5"),
    (MODEL + "--set iterations=many", 2, "iterations is an int, not 'many'"),
    (MODEL + "--set iterations=None", 2, "iterations is an int, not None"),
    (MODEL + "--set iterations=10000000000", 2, "iterations is at most 2147483647"),
    (MODEL + "--set batch=0", 2, "batch is at least 1, not 0"),
    (MODEL + "--set batch=True", 2, "batch is an int, not True"),
    (MODEL + "--set batch=10000000000", 2, "batch is at most 2147483647"),
    (MODEL + "--set test_items=-1", 2, "test_items is at least 0, not -1"),
    (MODEL + "--set test_draws=0", 2, "test_draws is at least 1, not 0"),
    (MODEL + "--set restarts=-1", 2, "restarts is at least 0, not -1"),
    (MODEL + "--set sigma=-1", 2, "sigma is at least 0, not -1.0"),
    (MODEL + "--set sigma=1e400", 2, "sigma is finite and at least 0, not inf"),
    (MODEL + "--set sigma=nan", 2, "sigma is a float, not 'nan'"),
    (MODEL + "--set sigma=[1]", 2, "sigma is a float, not [1]"),
    (MODEL + "--set clip=-1", 2, "clip is at least 0, not -1.0"),
    (MODEL + "--set rate_predictor=-1e-3", 2, "rate_predictor is at least 0"),
    (MODEL + "--set std_predictor=-1", 2, "std_predictor is at least 0"),
    (MODEL + "--set average=1", 2, "average is a decay below 1, not 1.0"),
    (MODEL + "--set weight_decay=-1", 2, "weight_decay is at least 0"),
    (MODEL + "--set optimizer=sgd --set weight_decay=0.1", 2, "weight_decay is Adam's"),
    (MODEL + "--set optimizer=lbfgs", 2, "unknown optimizer 'lbfgs': choose from adam, sgd"),
    (MODEL + "--set schedule=steps", 2, "unknown schedule 'steps': choose from constant, cosine"),
    (MODEL + "--set side=left", 2, "unknown side 'left': choose from image, template"),
    (MODEL + "--set invert=1", 2, "invert is a bool, not 1"),
    (MODEL + "--set warp=spline", 2, "unknown warp 'spline': choose from translation"),
    (MODEL + "--set tested_on=train", 2, "unknown tested_on 'train': choose from test, validation"),
    (MODEL + "--set architecture=junk", 2, "expected a layer: conv(h×w,filters), P or FC(units)"),
    (MODEL + "--set architecture=7", 2, "architecture is a str, not 7"),
    (MODEL + "--set 'architecture=FC(6)'", 2, "the architecture of IC-STN-2 has one, such as"),
    (MODEL + "--set 'architecture=[FC(7)]x2'", 2, "so the geometric predictor ends in FC(6), not in FC(7)"),
    (MODEL + "--set 'architecture=[FC(6)]x0'", 2, "expected a number of at least 1"),
    (MODEL + "--set 'architecture=[FC(6)x2'", 2, "closing ']'"),
    (MODEL + "--set 'architecture=[conv(99x99,3)-FC(6)]x2'", 2, "conv(99×99,3) does not fit its input"),
    (MODEL + "--set 'architecture=[FC(9)-conv(3x3,3)-FC(6)]x2'", 2, "follows a fully connected layer"),
    (MODEL + "--set warp=homography", 2, "a homography has 8 warp parameters"),
    (
        MODEL + "--set image=nofile.png",
        1,
        "there is no photograph 'nofile.png': name an image file or one of",
    ),
    (MODEL + "--set image=junk.png", 1, "junk.png is no picture that can be read"),
    (MODEL + "--set image=one.png", 1, "one.png has 1×1 pixels: a photograph has at least 16"),
    (MODEL + "--set image=nothing", 1, "there is no photograph 'nothing'"),
    ("train baselines -m LK --preset smoke --set steps=0", 2, "steps is at least 1, not 0"),
    ("train baselines -m SDM --preset smoke --set samples=-1", 2, "samples is at least 0, not -1"),
    ("train baselines -m LK --preset smoke --set iterations=5", 2, "a spec has no field 'iterations'"),
    # train: places
    (MODEL + "--records junk.png", 1, "cannot write Records to junk.png"),
    (MODEL + "--records junk.png/deep", 1, "junk.png is a file); choose another --records"),
    (MODEL + f"--records {'x' * 300}", 1, "File name too long"),
    (MODEL + "--log junk.png", 1, "junk.png is a file); choose another --log"),
    (MODEL + "--data nowhere", 1, "the data folder nowhere does not exist: name one that does"),
    (MODEL + "--data good.png", 1, "the data folder good.png is a file, not a folder"),
    (MODEL + "--scheduler nowhere", 1, "no dask scheduler answers at nowhere"),
    (MODEL + "--scheduler ftp://x:1", 1, "no dask scheduler answers at ftp://x:1"),
    ("train table_2 --preset smoke -m 'CNN(a)'", 1, "put the official files into a folder and name it"),
    ("train table_3 --preset smoke -m CNN", 1, "put the official archives into a folder and name it"),
    ("train table_2 --preset smoke -m 'CNN(a)' --data signs", 1, "no MNIST files there"),
    # reproduce, and the parameters of its notebooks
    ("reproduce figure_12", 2, "unknown exhibit 'figure_12': choose from table_1"),
    ("reproduce ''", 2, "unknown exhibit ''"),
    ("reproduce table_1 --preset tiny", 2, "unknown preset 'tiny'"),
    ("reproduce table_1 --seeds a", 2, "seeds are numbers such as"),
    ("reproduce table_1 --device tpu", 2, "unknown device 'tpu'"),
    ("reproduce table_1 --data nowhere", 1, "the data folder nowhere does not exist"),
    ("reproduce table_1 -p =3", 2, "a parameter is NAME=VALUE, not '=3'"),
    ("reproduce table_1 -p preset", 2, "a parameter is NAME=VALUE, not 'preset'"),
    ("reproduce table_1 -p preset=tiny", 2, "preset has an argument or an option of its own"),
    ("reproduce table_1 -p seeds=7", 2, "seeds has an argument or an option of its own"),
    ("reproduce table_1 -p device=cpu", 2, "device has an argument or an option of its own"),
    ("reproduce table_1 -p records=x", 2, "records has an argument or an option of its own"),
    ("reproduce table_1 -p data=x", 2, "data has an argument or an option of its own"),
    ("reproduce figure_3 -p output=3", 2, "output has an argument or an option of its own"),
    ("reproduce figure_3 -p nonsense=1", 2, "figure_3 has no parameter 'nonsense': it has output"),
    ("reproduce figure_3 --output junk.png", 1, "junk.png is a file); choose another --output"),
    ("reproduce figure_3 --output junk.png/x", 1, "junk.png is a file); choose another --output"),
    ("reproduce figure_3 --records junk.png", 1, "junk.png is a file); choose another --records"),
    ("reproduce table_2 --preset smoke", 1, "put the official files into a folder and name it"),
    # list, data, status
    ("list --preset tiny", 2, "unknown preset 'tiny'"),
    ("list --seeds x", 2, "seeds are numbers such as"),
    ("data nothing", 2, "unknown data set 'nothing': there are mnist, gtsrb"),
    ("data mnist", 1, "put the official files into a folder and name it"),
    ("data gtsrb", 1, "put the official archives into a folder and name it"),
    ("data caffe-cat", 1, "the Caffe cat could not be downloaded"),
    ("data --data nowhere", 1, "the data folder nowhere does not exist"),
    ("data --data junk.png", 1, "the data folder junk.png is a file"),
    ("status --records nowhere", 2, "the folder of Records nowhere does not exist"),
    ("status --records junk.png", 2, "the folder of Records junk.png is a file"),
    # trace, export
    ("trace '' --records runs", 2, "no Record has ''"),
    ("trace ' ' --records runs", 2, "no Record has ' '"),
    ("trace table_9 --records runs", 2, "ask for a cell such as 'table_2 IC-STN-4(a)'"),
    ("trace 1e999 --records runs", 2, "no Record has '1e999'"),
    ("trace 99.99 --records runs", 2, "no Record has '99.99'"),
    ("trace '6.0 kg' --records runs", 2, "no Record has '6.0 kg'"),
    ("trace 'CNN(a)' --records nowhere", 2, "the folder of Records nowhere does not exist"),
    ("trace 'CNN(a)' --records junk.png", 2, "the folder of Records junk.png is a file"),
    ("trace 'CNN(a)' --records nothing", 2, "no Record has 'CNN(a)'"),
    ("export nothing x.onnx --records runs", 2, "no Record has 'nothing'"),
    ("export 'CNN(a)' x.onnx --records runs", 2, "3 runs fit 'CNN(a)': name one of"),
    ("export 'CNN(b)' x.onnx --records runs", 2, "diverged, so it left no network"),
    (
        "export 'baselines LK sigma=5' x.onnx --records runs",
        2,
        "is a classical method, so it left no network",
    ),
    ("export 'CNN(a)' x.onnx --records nowhere", 2, "the folder of Records nowhere does not exist"),
    ("export table_2-cnn-a-smoke-seed0 nothing --records runs", 1, "cannot write nothing (it is a folder)"),
    (
        "export table_2-cnn-a-smoke-seed0 junk.png/x.onnx --records runs",
        1,
        "junk.png is a file); name another",
    ),
    # align, track
    ("align nofile.png good.png", 1, "there is no file nofile.png"),
    ("align junk.png good.png", 1, "junk.png cannot be read as a picture"),
    ("align cut.png good.png", 1, "cut.png cannot be read as a picture"),
    ("align empty.png good.png", 1, "empty.png cannot be read as a picture"),
    ("align nothing good.png", 1, "nothing is a folder, not a picture"),
    ("align good.png good.png --warp spline", 2, "unknown warp 'spline': the families are translation"),
    ("align good.png good.png --region 1,2,3", 2, "a region is LEFT,TOP,RIGHT,BOTTOM in whole pixels"),
    ("align good.png good.png --region a,b,c,d", 2, "a region is LEFT,TOP,RIGHT,BOTTOM in whole pixels"),
    ("align good.png good.png --region 0.5,0,9,9", 2, "a region is LEFT,TOP,RIGHT,BOTTOM in whole pixels"),
    ("align good.png good.png --region ''", 2, "a region is LEFT,TOP,RIGHT,BOTTOM in whole pixels"),
    ("align good.png good.png --region 0,0,0,0", 2, "is no box (left, top, right, bottom) of two pixels"),
    ("align good.png good.png --region 10,10,5,5", 2, "is no box (left, top, right, bottom)"),
    ("align good.png good.png --region=-5,0,50,50", 2, "inside the template of 120×160"),
    ("align good.png good.png --region 0,0,9999,9999", 2, "inside the template of 120×160"),
    ("align good.png good.png --mask nofile.png", 1, "there is no file nofile.png"),
    ("align good.png good.png --mask junk.png", 1, "junk.png cannot be read as a picture"),
    ("align good.png good.png --mask flat.png", 2, "the mask is 64×64 and the template 120×160"),
    ("align good.png good.png --mask black.png", 2, "the mask is zero everywhere"),
    ("align good.png good.png --out junk.png", 1, "junk.png is a file); choose another --out"),
    ("align good.png good.png --out junk.png/x", 1, "junk.png is a file); choose another --out"),
    ("align flat.png good.png", 2, "does not determine the homography warp"),
    ("align one.png good.png", 2, "less than 2 pixels wide"),
    ("track nofile.png good.png", 1, "there is no file nofile.png"),
    ("track junk.png good.png", 1, "junk.png cannot be read as a picture"),
    ("track good.png good.png --warp x", 2, "unknown warp 'x'"),
    ("track good.png good.png --region 1", 2, "a region is LEFT,TOP,RIGHT,BOTTOM in whole pixels"),
    ("track good.png good.png --mask flat.png", 2, "the mask is 64×64 and the template 120×160"),
    ("track good.png good.png --out junk.png", 1, "junk.png is a file); choose another --out"),
    ("track flat.png good.png", 2, "does not determine the affine warp"),
    # fit
    ("fit nowhere", 1, "the data folder nowhere does not exist"),
    ("fit junk.png", 1, "the data folder junk.png is a file"),
    ("fit nothing", 1, "nothing should have one subfolder a class, at least two, and has none"),
    ("fit one", 1, "at least two, and has only one, a"),
    ("fit few", 1, "the class a of few has 1 pictures and needs at least 2"),
    ("fit parts", 1, "are parts of a data set, not classes: name one of them"),
    ("fit broken", 1, "0.png is no picture that can be read"),
    ("fit signs --size 2", 2, "images are 8 to 2048 pixels wide, got size 2"),
    ("fit signs --size=-1", 2, "images are 8 to 2048 pixels wide, got size -1"),
    ("fit signs --size 100000", 2, "images are 8 to 2048 pixels wide, got size 100000"),
    ("fit signs --network tiny", 2, "unknown network 'tiny': choose small, medium"),
    ("fit signs --network ''", 2, "expected a layer"),
    ("fit signs --network 'conv(3x3'", 2, "expected a layer"),
    ("fit signs --network 'conv(99x99,3)-FC(2)'", 2, "conv(99×99,3) does not fit its input of 36×36"),
    ("fit signs --network 'FC(3)'", 2, "a network for 2 classes ends in FC(2), not in FC(3)"),
    ("fit signs --network '[FC(7)]x2->FC(2)'", 2, "ends in FC(8), not in FC(7)"),
    ("fit signs --network '[FC(8)]x2->FC(2)' --operations 3", 2, "has ×2, and 3 operations are asked for"),
    ("fit signs --network 'P-P-P-P-P-P-FC(2)'", 2, "P does not fit its input of 1×1"),
    ("fit signs --sigma=-1", 2, "sigma is at least 0, not -1.0"),
    ("fit signs --sigma nan", 2, "sigma is finite and at least 0, not nan"),
    ("fit signs --sigma inf", 2, "sigma is finite and at least 0, not inf"),
    ("fit signs --operations 0", 2, "an IC-STN has at least 1 warp operation, not 0"),
    ("fit signs --iterations 0", 2, "iterations is at least 1, not 0"),
    ("fit signs --seed=-1", 2, "seed is at least 0, not -1"),
    ("fit signs --out signs/out", 2, "lies inside signs, where it would be a class"),
    ("fit signs --out junk.png", 1, "junk.png is a file); choose another --out"),
    ("fit signs --records junk.png", 1, "junk.png is a file); choose another --records"),
    ("fit signs --device tpu", 2, "unknown device 'tpu'"),
    ("fit signs --set nonsense=1", 2, "a spec has no field nonsense"),
    ("fit signs --set warp=spline", 2, "unknown warp 'spline'"),
    ("fit signs --set optimizer=lbfgs", 2, "unknown optimizer 'lbfgs'"),
    ("fit signs --set size=99", 2, "size has an argument or an option of its own"),
    ("fit signs --set out=x", 2, "out has an argument or an option of its own"),
    ("fit signs --set folder=x", 2, "folder has an argument or an option of its own"),
    ("fit signs --set fingerprint=x", 2, "fingerprint can't be set: it follows from the images"),
    ("fit signs --set model=x", 2, "model can't be set: it follows from the images"),
    ("fit signs --set batch=x", 2, "batch is an int, not 'x'"),
]


@pytest.mark.parametrize(
    ("line", "status", "words"), COMMANDS, ids=[f"{i}-{c[0][:40]}" for i, c in enumerate(COMMANDS)]
)
def test_a_command(line: str, status: int, words: str, made: Path) -> None:
    refused(shlex.split(line), status, words, made)


@pytest.mark.parametrize("name", ["nofile.png", "junk.png", "cut.png", "one.png", "nothing"])
@pytest.mark.parametrize("command", ["align", "track"])
def test_a_picture_among_others(command: str, name: str, tmp_path: Path) -> None:
    """It is named, the exit status is 1, the others are done, and the tables have a row for it."""
    done = CliRunner().invoke(app, [command, "good.png", "good.png", name, "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert done.stderr.count("icstn: ") == 1
    assert f"icstn: {name}: " in done.stderr
    assert "1 of 2 pictures aligned" in done.stdout
    assert (tmp_path / "out" / "matrices.csv").read_text().count(name) >= 1
    assert [p.name for p in (tmp_path / "out" / "aligned").iterdir()] == ["good.png"]


#: Whatever can be typed in a shell.
TYPED = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
GENERATED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@GENERATED
@given(TYPED)
def test_generated_seeds(made: Path, text: str) -> None:
    assume(not re.fullmatch(r"\s*\d[\d\s_,-]*", text))
    refused(["list", f"--seeds={text}"], 2, "seeds are numbers such as", made)


@GENERATED
@given(TYPED)
def test_generated_regions(made: Path, text: str) -> None:
    assume(text.count(",") != 3)
    refused(
        ["align", "good.png", "good.png", f"--region={text}"], 2, "a region is LEFT,TOP,RIGHT,BOTTOM", made
    )


@GENERATED
@given(TYPED)
def test_generated_exhibits(made: Path, text: str) -> None:
    assume(not re.search(r"\d", text) and not text.startswith("-"))
    refused(["reproduce", "--", text], 2, "unknown exhibit", made)


@GENERATED
@given(TYPED)
def test_generated_networks(made: Path, text: str) -> None:
    assume("FC" not in text and "conv" not in text and text.strip() not in ("small", "medium", "P"))
    done = CliRunner().invoke(app, ["fit", "signs", f"--network={text}"])
    assert isinstance(done.exception, SystemExit)
    assert (done.exit_code, done.stdout, done.stderr.count("icstn: ")) == (2, "", 1)


@GENERATED
@given(
    st.sampled_from(["iterations", "batch", "sigma", "clip", "optimizer", "side", "invert", "warp"]), TYPED
)
def test_generated_variations(made: Path, name: str, text: str) -> None:
    """A text is no value of any of these, and a number none of those out of their range."""
    assume(not re.match(r"\s*[\d(+.]", text))
    refused([*shlex.split(MODEL), f"--set={name}={text}"], 2, name, made)


@GENERATED
@given(st.sampled_from(["iterations", "batch", "test_draws"]), st.integers(max_value=0) | st.floats())
def test_generated_numbers(made: Path, name: str, value: float) -> None:
    refused([*shlex.split(MODEL), f"--set={name}={value}"], 2, name, made)


@GENERATED
@given(TYPED)
def test_generated_questions(made: Path, text: str) -> None:
    assume(not re.search(r"[\dcltCLTbB]", text) and not text.startswith("-"))
    refused(["trace", "--records", "runs", "--", text], 2, "no Record has", made)
