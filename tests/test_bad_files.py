"""Bad files and values: archives, Records, checkpoints, models, images and warps, fuzzed and by hand.

Whatever is wrong with them, it is said in the error that the function documents, in words that name the file,
and nothing is left behind.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from test_bad_input import listing
from test_datasets_gtsrb import HEADER, TEST, TRAIN, TRUTH, make_tree, pack
from test_datasets_mnist import Files, cache_folder, files, put  # noqa: F401 -- two fixtures
from test_records import SPEC, a_record

from icstn.classical import Aligner, SupervisedDescent
from icstn.classical.inputs import as_images
from icstn.datasets import DataError, _gtsrb, archives, gtsrb, image_folder, mnist, photograph
from icstn.experiments import Records, StorageError, cells
from icstn.experiments.checkpoints import load_checkpoint, save_checkpoint
from icstn.experiments.classifiers import load_classifier, save_classifier
from icstn.experiments.folders import folder_specs
from icstn.experiments.models import build_model
from icstn.experiments.records import Record
from icstn.experiments.spec import spec_from_dict
from icstn.experiments.status import run_status
from icstn.networks import Architecture, NotationError, build
from icstn.photos import PhotoError, read
from icstn.sampling import Frame
from icstn.transformers import ICSTN, STN
from icstn.warps import FAMILIES, SingularWarpError, Warp, affine, family, homography, translation

pytestmark = pytest.mark.usefixtures("unchecked")

NO_TENSORS = safetensors.torch.save({})

#: Ways to damage a file: where it is cut (a share of it), or how many of its bits are flipped.
CUTS = [0.0, 0.001, 0.1, 0.5, 0.9, 0.999]
FLIPS = [1, 2, 5, 20]


def damaged(data: bytes, how: float | int, seed: int) -> bytes:
    """The bytes cut or with bits flipped."""
    if isinstance(how, float):
        return data[: int(len(data) * how)]
    chance, changed = random.Random(seed), bytearray(data)
    for at in chance.sample(range(len(data)), min(how, len(data))):
        changed[at] ^= 1 << chance.randrange(8)
    return bytes(changed)


def tried(call: Callable[[], Any], *kinds: type[Exception]) -> tuple[Any, str]:
    """What the call returns, or what it says where it raises one of these errors; others pass."""
    try:
        return call(), ""
    except kinds as error:
        return None, str(error)


class TestDigits:
    """IDX files, gzipped or not."""

    @pytest.mark.parametrize("how", [*CUTS, *FLIPS], ids=str)
    @pytest.mark.parametrize("gz", [True, False], ids=["gz", "plain"])
    @pytest.mark.parametrize("part", ["images", "labels"])
    def test_damage(self, files: Files, tmp_path: Path, part: str, gz: bool, how: float | int) -> None:  # noqa: F811
        """Never a wrong digit: it is refused by name, or the damage is in what gzip ignores."""
        folder = put(tmp_path / "own", files, gz)
        whole = mnist("train", folder)
        path = next(p for p in folder.iterdir() if p.name.startswith(f"train-{part}"))
        intact = path.read_bytes()
        for seed in range(4):
            path.write_bytes(damaged(intact, how, seed))
            before = listing(tmp_path)
            found, words = tried(lambda: mnist("train", folder), DataError)
            if found is None:
                assert path.name in words
                assert "replace it" in words
            else:
                assert found.fingerprint == whole.fingerprint
            assert listing(tmp_path) == before

    @pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"PK\x03\x04", b"<html>not found</html>"])
    def test_something_else(self, files: Files, tmp_path: Path, content: bytes) -> None:  # noqa: F811
        folder = put(tmp_path / "own", files)
        path = folder / "train-images-idx3-ubyte"
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"train-images-idx3-ubyte is not the official"):
            mnist("train", folder)


@pytest.fixture(scope="module")
def signs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three archives with one sign of each class."""
    folder = tmp_path_factory.mktemp("signs")
    make_tree(folder / "tree")
    return pack(folder / "tree", folder / "own")


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and counts that suit the archives."""
    monkeypatch.setenv("ICSTN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_gtsrb, "COUNTS", {"train": 43, "test": 43})


def copied(signs: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name in (TRAIN, TEST, TRUTH):
        (folder / name).write_bytes((signs / name).read_bytes())
    return folder


def left_behind(folder: Path) -> list[str]:
    """Files that are no locks."""
    return [p.name for p in folder.rglob("*") if p.is_file() and p.name != ".lock"]


@pytest.mark.usefixtures("few")
class TestSigns:
    """Zip archives."""

    @pytest.mark.parametrize("how", [*CUTS, *FLIPS], ids=str)
    @pytest.mark.parametrize("name", [TRAIN, TEST, TRUTH])
    def test_damage(self, signs: Path, tmp_path: Path, name: str, how: float | int) -> None:
        """Never a wrong pixel: it is refused by name, or the damage is where nobody looks (times, flags)."""
        split = "train" if name == TRAIN else "test"
        whole = gtsrb(split, signs, size=8)
        seeds = range(1 if isinstance(how, float) else 4)
        for seed in seeds:
            folder = copied(signs, tmp_path / f"{seed}")
            (folder / name).write_bytes(damaged((signs / name).read_bytes(), how, seed))
            kept = left_behind(tmp_path / "cache")
            found, words = tried(lambda: gtsrb(split, folder, size=8), DataError)  # noqa: B023
            if found is None:
                assert name in words
                assert left_behind(tmp_path / "cache") == kept
            else:
                assert found.fingerprint == whole.fingerprint

    @pytest.mark.parametrize(
        ("member", "content", "words"),
        [
            ("../outside.ppm", b"", "leaves its folder"),
            ("/etc/passwd", b"", "leaves its folder"),
            ("a/../../b.ppm", b"", "leaves its folder"),
            ("C:/windows/x.ppm", b"", "leaves its folder"),
            ("a\\..\\..\\b.ppm", b"", "leaves its folder"),
            ("bomb.ppm", b"\0" * 50_000_000, "is not safe to read: bomb.ppm says 50,000,000 bytes"),
            ("bomb2.ppm", b"\0" * 4_000_000, "is not safe to read: 1 members of 4,000,000 bytes"),
        ],
        ids=["up", "absolute", "through", "drive", "backslash", "bomb", "ratio"],
    )
    def test_an_unsafe_archive(self, tmp_path: Path, member: str, content: bytes, words: str) -> None:
        (folder := tmp_path / "own").mkdir()
        with zipfile.ZipFile(folder / TRAIN, "w", zipfile.ZIP_DEFLATED) as file:
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = member, zipfile.ZIP_DEFLATED
            file.writestr(info, content)
        before = listing(tmp_path)
        with pytest.raises(DataError) as raised:
            gtsrb("train", folder)
        assert words in str(raised.value)
        assert left_behind(tmp_path / "cache") == []
        assert {k: v for k, v in listing(tmp_path).items() if "cache" not in k} == before

    def test_nested_bombs_are_not_opened(self, tmp_path: Path) -> None:
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("zeros", b"\0" * 3_000_000)
        (folder := tmp_path / "own").mkdir()
        with zipfile.ZipFile(folder / TRAIN, "w") as file:
            file.writestr("inner.zip", inner.getvalue())
        with pytest.raises(DataError, match="holds 0 annotated images of 0 classes"):
            gtsrb("train", folder)

    @pytest.mark.parametrize("declared", [0, 10, 2**31])
    def test_a_member_that_lies_about_its_size(
        self, tmp_path: Path, declared: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "lies.zip"
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a.ppm", b"x" * 1000)
        tree_of = archives.ZipTree
        data = bytearray(path.read_bytes())
        at = data.rindex(b"PK\x01\x02") + 24
        data[at : at + 4] = declared.to_bytes(4, "little")
        path.write_bytes(bytes(data))
        with pytest.raises(DataError, match=r"lies\.zip"):
            tree_of(path).read("a.ppm") and pytest.fail("it was read")

    @pytest.mark.parametrize(
        "line",
        [
            "",
            "x",
            "a.ppm;1;1;0;0;0;0",
            "a.ppm;x;1;0;0;0;0;0",
            "a.ppm;0;1;0;0;0;0;0",
            "a.ppm;9e9;1;0;0;0;0;0",
            "../a.ppm;9;9;0;0;0;0;0",
            "a.ppm;9;9;0;0;0;0;" + "9" * 5000,
            "\0;9;9;0;0;0;0;0",
            "a.ppm;9;9;0;0;0;0;-1",
        ],
        ids=range(10),
    )
    def test_annotations(self, signs: Path, tmp_path: Path, line: str) -> None:
        folder = copied(signs, tmp_path / "own")
        with zipfile.ZipFile(folder / TRUTH, "w") as file:
            file.writestr("GT-final_test.csv", ";".join(HEADER) + "\r\n" + line + "\r\n")
        with pytest.raises(
            DataError, match=r"line 2: not an annotation|the copy is not complete|is no readable"
        ):
            gtsrb("test", folder)


def sealed(content: dict[str, Any]) -> str:
    """The JSON of a Record with the checksum that it has to have, written down once more."""
    body = json.dumps(content, sort_keys=True, ensure_ascii=False, indent=1)
    return json.dumps({**content, "sha256": hashlib.sha256(body.encode()).hexdigest()})


#: Whatever JSON can hold.
JSON = st.recursive(
    st.none() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


class TestRecords:
    """``record.json``, and what lies beside it."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return Records(tmp_path).save(a_record())

    @pytest.mark.parametrize("how", [*CUTS, *FLIPS], ids=str)
    @pytest.mark.parametrize("name", ["record.json", "weights.safetensors", "outcomes.safetensors"])
    def test_damage(self, folder: Path, name: str, how: float | int) -> None:
        intact = (folder / name).read_bytes()
        for seed in range(4):
            (folder / name).write_bytes(damaged(intact, how, seed))
            with pytest.raises(StorageError, match=str(folder)):
                Records(folder.parent).find(SPEC)
            run_status(Records(folder.parent))

    @pytest.mark.parametrize(
        "change",
        [
            {"status": None}, {"status": 5}, {"metrics": []}, {"metrics": None}, {"curve": "x"},
            {"curve": []},
            {"provenance": 1}, {"provenance": []}, {"spec": None}, {"spec": []}, {"spec": "table_2"},
            {"spec": {}}, {"spec": {"experiment": "table_2"}}, {"spec": {"experiment": "nonsense"}},
            {"spec": {"experiment": None}}, {"spec": {"experiment": ["table_2"]}}, {"schema": 99},
            {"schema": None}, {"weights_sha256": None}, {"outcomes_sha256": "0"},
        ],
        ids=str,
    )  # fmt: skip
    def test_a_checksum_that_is_right_does_not_make_a_record(self, folder: Path, change: dict) -> None:
        content = json.loads((folder / "record.json").read_text())
        del content["sha256"]
        (folder / "record.json").write_text(sealed({**content, **change}))
        with pytest.raises(StorageError, match=str(folder)):
            Records(folder.parent).find(SPEC)
        run_status(Records(folder.parent))

    @pytest.mark.parametrize(
        "name",
        ["schema", "spec", "status", "metrics", "curve", "provenance", "weights_sha256", "outcomes_sha256"],
    )
    def test_nor_does_one_that_lacks_something(self, folder: Path, name: str) -> None:
        content = json.loads((folder / "record.json").read_text())
        for key in ("sha256", name):
            del content[key]
        (folder / "record.json").write_text(sealed(content))
        with pytest.raises(StorageError, match=str(folder)):
            Records(folder.parent).find(SPEC)

    @pytest.mark.parametrize("name", ["weights", "outcomes"])
    @pytest.mark.parametrize(
        "content", [b"", b"junk", b"\xff" * 40, safetensors.torch.save({})], ids=range(4)
    )
    def test_files_whose_checksum_is_right(self, folder: Path, name: str, content: bytes) -> None:
        about = json.loads((folder / "record.json").read_text())
        del about["sha256"]
        about[f"{name}_sha256"] = hashlib.sha256(content).hexdigest()
        (folder / "record.json").write_text(sealed(about))
        (folder / f"{name}.safetensors").write_bytes(content)
        if name == "weights" and content == NO_TENSORS:
            assert Records(folder.parent).find(SPEC).weights == {}
        else:
            with pytest.raises(StorageError, match="is damaged"):
                Records(folder.parent).find(SPEC)

    @pytest.mark.parametrize(
        "text", ["", "{}", "[]", "null", "7", '"x"', "[" * 100_000, "\0", '{"sha256": []}'], ids=range(9)
    )
    def test_json_of_something_else(self, folder: Path, text: str) -> None:
        (folder / "record.json").write_text(text)
        with pytest.raises(StorageError, match=r"record\.json (is truncated|does not match)"):
            Records(folder.parent).find(SPEC)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{}",
            "[]",
            "null",
            "7",
            '{"step": 1}',
            '{"spec": {}}',
            '{"spec": 5, "step": "x"}',
            "[" * 100_000,
        ],
        ids=range(9),
    )
    def test_the_state_of_a_run_under_way(self, tmp_path: Path, text: str) -> None:
        """It only tells how far a run is: whoever asks for the state of all runs is not kept from it."""
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "state.json").write_text(text)
        Records(tmp_path).save(a_record())
        assert [row.state for row in run_status(Records(tmp_path))] == ["finished"]

    @given(JSON)
    def test_generated_specs(self, values: Any) -> None:
        with pytest.raises(ValueError, match=r"spec|experiment"):
            spec_from_dict(values)

    @given(st.sampled_from([f for f in SPEC.__dataclass_fields__ if f != "image"]),
           st.none() | st.binary(max_size=3) | st.lists(st.integers(), max_size=2) | st.text(max_size=3)
           )  # fmt: skip
    def test_generated_fields(self, name: str, value: Any) -> None:
        if name in ("model", "architecture") and isinstance(value, str):
            return
        with pytest.raises(ValueError, match=name):
            spec_from_dict(asdict(SPEC) | {name: value})


class TestCheckpoints:
    """One sealed file."""

    @pytest.mark.parametrize("how", [*CUTS, *FLIPS], ids=str)
    def test_damage(self, tmp_path: Path, how: float | int) -> None:
        path = tmp_path / "checkpoint.safetensors"
        save_checkpoint(path, a_record().weights, {"spec": SPEC.digest, "step": 7})
        intact = path.read_bytes()
        for seed in range(8):
            path.write_bytes(damaged(intact, how, seed))
            with pytest.raises(StorageError, match=r"delete it to start afresh|has schema"):
                load_checkpoint(path, SPEC)

    @pytest.mark.parametrize(
        ("tensors", "meta"),
        [({}, {}), ({"model.x": torch.ones(2)}, {"step": 1, "restarts": 0, "seconds": 0.0, "curve": {}})],
        ids=["empty", "another network"],
    )
    def test_what_is_whole_but_none_of_this_run(self, tmp_path: Path, tensors: dict, meta: dict) -> None:
        import runs

        spec = runs.small_spec(iterations=100)
        path = Records(tmp_path).path(spec) / "checkpoint.safetensors"
        save_checkpoint(path, tensors, {"spec": spec.digest, **meta})
        with pytest.raises(StorageError, match="is none of this run; delete it to start afresh"):
            runs.train(spec, tmp_path)
        assert path.is_file(), "what is there is left to its owner"


@pytest.fixture(scope="module")
def cascade() -> SupervisedDescent:
    """A cascade, learned on noise."""
    torch.manual_seed(0)
    model = SupervisedDescent(Frame.full(12, 12), "translation", stages=1, samples=30, sigma=0.5)
    return model.fit(torch.rand(1, 1, 12, 12))


class TestModels:
    """Learned cascades and fitted classifiers on disk."""

    @pytest.mark.parametrize("how", [*CUTS, 1, 3], ids=str)
    def test_a_damaged_cascade(self, cascade: SupervisedDescent, tmp_path: Path, how: float | int) -> None:
        """Refused by name, unless the bit is of a number."""
        cascade.save(path := tmp_path / "model")
        intact = path.read_bytes()
        for seed in range(8):
            path.write_bytes(damaged(intact, how, seed))
            found, words = tried(lambda: SupervisedDescent.load(path), ValueError)
            assert words or not isinstance(how, float)
            assert (found is None) == bool(words)

    @pytest.mark.parametrize(
        "header",
        [
            "null", "5", "[]", "{}", "{", '{"version": "x"}', '{"version": 1}',
            '{"version": 99, "kind": "x"}',
            '{"version": 1, "kind": "Other", "params": {}}',
            '{"version": 1, "kind": "SupervisedDescent", "params": {}}',
            '{"version": 1, "kind": "SupervisedDescent", "params": null}',
            '{"version": 1, "kind": "SupervisedDescent", "params": {"frame": {}, "warp": {}}}',
        ],
        ids=range(12),
    )  # fmt: skip
    def test_the_header_of_a_cascade(self, tmp_path: Path, header: str) -> None:
        path = tmp_path / "model"
        path.write_bytes(safetensors.torch.save({"x": torch.ones(1)}, {"icstn.classical.regression": header}))
        with pytest.raises(ValueError, match=r"^/"):
            SupervisedDescent.load(path)

    @pytest.mark.parametrize("suffix", ["npz", "pt", "zip", "txt"])
    def test_files_of_other_kinds(self, tmp_path: Path, suffix: str) -> None:
        """A pickle among them, which is not loaded."""
        path = tmp_path / f"model.{suffix}"
        if suffix == "npz":
            np.savez(path, x=np.ones(3))
        elif suffix == "pt":
            torch.save({"x": torch.ones(3), "harm": Harm()}, path)
        else:
            path.write_bytes(b"PK\x03\x04" if suffix == "zip" else b"hello")
        with pytest.raises(ValueError, match="is no model file"):
            SupervisedDescent.load(path)
        with pytest.raises(StorageError, match="is no network that icstn fit has written"):
            load_classifier(path)
        with pytest.raises(StorageError, match="truncated or no checkpoint"):
            load_checkpoint(path, SPEC)

    def test_a_folder_that_can_not_be_written(self, cascade: SupervisedDescent, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StorageError, match="what was there before is untouched"):
            cascade.save(tmp_path / "file" / "model")

    @pytest.mark.parametrize("how", CUTS, ids=str)
    def test_a_cut_classifier(self, classifier: bytes, tmp_path: Path, how: float) -> None:
        (tmp_path / "net").write_bytes(damaged(classifier, how, 0))
        with pytest.raises(StorageError, match="is no network that icstn fit has written"):
            load_classifier(tmp_path / "net")

    @pytest.mark.parametrize(
        "about",
        ["", "null", "[]", "{}", '{"spec": {}}', '{"spec": 5, "classes": []}', "[" * 100_000],
        ids=range(7),
    )
    def test_a_classifier_about_something_else(self, tmp_path: Path, about: str) -> None:
        path = tmp_path / "net"
        path.write_bytes(safetensors.torch.save({"x": torch.ones(1)}, {"icstn": about}))
        with pytest.raises(StorageError, match="is no network that icstn fit has written"):
            load_classifier(path)


class Harm:
    """What nobody unpickles."""

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return pytest.fail, ("a pickle was loaded",)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of an untrained network."""
    folder = tmp_path_factory.mktemp("classes")
    for n in range(4):
        (folder / "ab"[n % 2]).mkdir(exist_ok=True)
        Image.effect_noise((20, 20), 60 + n).save(folder / "ab"[n % 2] / f"{n}.png")
    data = image_folder(folder, 16)
    spec = folder_specs(data, "FC(2)")[0]
    weights = build_model(spec, Frame.full(16, 16), 1).state_dict()
    record = Record(spec, "finished", {}, {}, {}, weights)
    save_classifier(folder / "net", record, data.classes)
    assert load_classifier(folder / "net").classes == ("a", "b")
    return (folder / "net").read_bytes()


def encoded(kind: str) -> bytes:
    """A picture of 40×30."""
    out = io.BytesIO()
    Image.effect_noise((40, 30), 60).convert("RGB").save(out, kind)
    return out.getvalue()


class TestPictures:
    """Picture files."""

    @pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm"])
    @pytest.mark.parametrize("how", [0.0, 0.01, 0.1, 0.5, 1, 5, 20], ids=str)
    def test_damage(self, tmp_path: Path, kind: str, how: float | int) -> None:
        """Read or refused by name, by both readers; nothing else is raised."""
        path, intact = tmp_path / f"a.{kind}", encoded(kind)
        for seed in range(5):
            path.write_bytes(damaged(intact, how, seed))
            for reader, kind_of_error in ((photograph, DataError), (read, PhotoError)):
                found, words = tried(lambda: reader(path), kind_of_error)  # noqa: B023
                assert found is not None or path.name in words

    @pytest.mark.parametrize("size", [(1, 1), (15, 100), (100, 15)])
    def test_too_small(self, tmp_path: Path, size: tuple[int, int]) -> None:
        Image.new("L", size).save(tmp_path / "a.png")
        with pytest.raises(DataError, match="a photograph has at least 16 on each side"):
            photograph(tmp_path / "a.png")

    def test_too_large_by_its_header(self, tmp_path: Path) -> None:
        """A header of 23 bytes that asks for terabytes."""
        (tmp_path / "a.ppm").write_bytes(b"P6 2000000 2000000 255 ")
        for reader, kind in ((photograph, DataError), (read, PhotoError)):
            with pytest.raises(kind, match=r"a\.ppm"):
                reader(tmp_path / "a.ppm")

    @pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
    def test_scales(self, tmp_path: Path, scale: float) -> None:
        Image.new("L", (20, 20)).save(tmp_path / "a.png")
        with pytest.raises(ValueError, match="scale is a factor"):
            photograph(tmp_path / "a.png", scale=scale)


DTYPES = ["f4", ">f4", "f8", "f2", "u1", "i2", ">u2", "u4", "i8", "?", "c8", "U3", "M8[s]", "O"]


class TestImages:
    """Images as arrays, tensors and lists."""

    @given(hnp.arrays(
        st.sampled_from(DTYPES),
        hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
        elements=None, fill=st.nothing(),
    ))  # fmt: skip
    def test_generated_arrays(self, array: np.ndarray) -> None:
        """A finite float tensor with four axes, or an error that says which image."""
        x, words = tried(lambda: as_images("picture", array), ValueError, TypeError)
        if x is None:
            assert "picture" in words
        else:
            assert x.dim() == 4
            assert x.is_floating_point()
            assert bool(x.isfinite().all())

    def test_the_bytes_of_another_machine(self) -> None:
        big = np.arange(12, dtype=">f4").reshape(3, 4)
        assert as_images("picture", big).view(3, 4).tolist() == big.tolist()

    @pytest.mark.parametrize(
        ("image", "error", "words"),
        [
            (None, TypeError, "not a NoneType"),
            ("good.png", TypeError, "not a str"),
            (7, TypeError, "not a int"),
            ([], ValueError, "is empty"),
            ([np.ones((4, 4)), np.ones((5, 4))], ValueError, "a list holds images of one size"),
            (np.ones((4, 4, 2)), ValueError, "with 1, 3 or 4 channels"),
            (np.ones((4, 4), complex), ValueError, "complex pixels"),
            (np.full((4, 4), np.nan), ValueError, "NaN or infinite"),
            (np.array([["a"]]), TypeError, "which are no pixels"),
            (np.ones((4, 4), object), TypeError, "which are no pixels"),
            (torch.ones(3), ValueError, "got (3,)"),
            (torch.ones(1, 1, 1, 9), ValueError, "less than 2 pixels wide"),
            (torch.ones(0, 1, 9, 9), ValueError, "is empty"),
        ],
        ids=range(13),
    )
    def test_by_hand(self, image: Any, error: type[Exception], words: str) -> None:
        with pytest.raises(error) as raised:
            as_images("picture", image)
        assert words in str(raised.value)

    @pytest.mark.parametrize(
        "settings",
        [
            {"warp": "spline"}, {"levels": 0}, {"levels": 99}, {"levels": -1}, {"iterations": -1},
            {"tol": -1.0},
            {"damping": -0.1}, {"blur": 2}, {"blur": 0}, {"algorithm": "Newton"}, {"algorithm": ()},
            {"region": (0, 0, 1, 1)}, {"region": (5, 5, 2, 2)}, {"region": (0, 0, 99, 99)},
            {"mask": np.zeros((24, 24), bool)}, {"mask": np.ones((5, 5), bool)}, {"frame": Frame.full(9, 9)},
        ],
        ids=str,
    )  # fmt: skip
    def test_settings_of_an_aligner(self, settings: dict) -> None:
        template = torch.rand(24, 24, generator=torch.Generator().manual_seed(0))
        with pytest.raises(ValueError, match=r"\w{4}"):
            Aligner(template, **{"warp": "translation", **settings})

    @pytest.mark.parametrize(
        "call",
        [
            {"image": torch.rand(5, 5)}, {"image": torch.full((24, 24), torch.nan)}, {"p": torch.zeros(1, 3)},
            {"p": torch.full((1, 2), torch.nan)}, {"start": torch.eye(2)},
            {"start": torch.full((3, 3), torch.inf)},
            {"start": torch.eye(3), "p": torch.zeros(1, 2)},
        ],
        ids=range(7),
    )  # fmt: skip
    def test_calls_of_an_aligner(self, call: dict) -> None:
        template = torch.rand(24, 24, generator=torch.Generator().manual_seed(0))
        with pytest.raises(ValueError, match=r"\w{4}"):
            Aligner(template, "translation")(**{"image": template, **call})


class TestWarps:
    """Families, frames, networks and transformers."""

    @pytest.mark.parametrize("name", ["", "Affine", "affine ", "spline", "projective"])
    def test_names(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"unknown warp {name!r}: the families are translation"):
            family(name)

    @pytest.mark.parametrize(
        "entries",
        [
            (((2, 2, 1.0),),), (((0, 2, 1.0),), ((0, 2, 2.0),)), (((0, 2, 0.0),),), (((3, 0, 1.0),),),
            (((0, -1, 1.0),),), (((0, 0, 1.0),), ((1, 1, 1.0),), ((0, 0, 1.0), (1, 1, 1.0))),
        ],
        ids=range(6),
    )  # fmt: skip
    def test_generators(self, entries: Any) -> None:
        with pytest.raises(ValueError, match="generator"):
            Warp("own", entries)

    @pytest.mark.parametrize("name", list(FAMILIES))
    def test_parameters(self, name: str) -> None:
        warp = FAMILIES[name]
        wrong = torch.zeros(2, warp.dim + 1)
        points = torch.zeros(4, 2)
        for call in (
            lambda: warp.matrix(wrong),
            lambda: warp.apply(wrong, points),
            lambda: warp.compose(wrong, wrong, side="image"),
            lambda: warp.inverse(wrong),
            lambda: warp.jacobian(points, wrong),
        ):
            with pytest.raises(ValueError, match=f"a {name} has {warp.dim} warp parameters"):
                call()

    @pytest.mark.parametrize("side", ["left", "", "Image", None])
    def test_sides(self, side: Any) -> None:
        with pytest.raises(ValueError, match="side is 'image'"):
            affine.compose(torch.zeros(1, 6), torch.zeros(1, 6), side=side)

    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    @pytest.mark.parametrize("name", list(FAMILIES))
    def test_numbers_that_are_none_have_no_inverse(self, name: str, value: float) -> None:
        p = torch.zeros(3, FAMILIES[name].dim)
        p[1, 0] = value
        with pytest.raises(SingularWarpError, match="has no inverse in its family: item 1 of 3"):
            FAMILIES[name].inverse(p)

    @pytest.mark.parametrize("warp", [affine, homography], ids=lambda w: w.name)
    def test_points_on_a_line(self, warp: Warp) -> None:
        x = torch.linspace(-1, 1, 5)
        line = torch.stack((x, 0.37 * x + 0.11), -1)
        with pytest.raises(SingularWarpError, match="is not determined by its points"):
            warp.fit(line, line)

    @pytest.mark.parametrize(("warp", "n"), [(translation, 0), (affine, 2), (homography, 3)], ids=str)
    def test_too_few_points(self, warp: Warp, n: int) -> None:
        with pytest.raises(ValueError, match=f"a {warp.name} needs at least"):
            warp.fit(torch.zeros(n, 2), torch.zeros(n, 2))

    @pytest.mark.parametrize("frame", [(1, 9), (9, 1), (0, 0), (-3, 9)], ids=str)
    def test_frames(self, frame: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match="a frame needs at least 2×2 samples"):
            Frame(*frame, (0.0, 0.0), (1.0, 1.0))

    @pytest.mark.parametrize("half", [(0.0, 1.0), (1.0, -1.0), (float("nan"), 1.0)], ids=str)
    def test_extents(self, half: tuple[float, float]) -> None:
        with pytest.raises(ValueError, match="half extent must be positive"):
            Frame(9, 9, (0.0, 0.0), half)

    @pytest.mark.parametrize("kind", [ICSTN, STN])
    def test_operations(self, kind: type) -> None:
        with pytest.raises(ValueError, match="at least"):
            kind(build("FC(8)", 1, 9, 9), -1, warp="homography")

    @given(st.text(st.sampled_from("conv(3×x,)-FCP[]→> 0129"), max_size=25))
    def test_generated_notation(self, text: str) -> None:
        """Read and written again, or refused with the place; never anything else."""
        found, words = tried(lambda: Architecture.parse(text), NotationError)
        if found is None:
            assert "at character" in words
        else:
            assert Architecture.parse(str(found)) == found


@pytest.mark.parametrize("preset", ["", "Quick", "tiny", "full "])
def test_presets(preset: str) -> None:
    with pytest.raises(ValueError, match=f"unknown preset {preset!r}: choose from"):
        cells("table_1", preset)
