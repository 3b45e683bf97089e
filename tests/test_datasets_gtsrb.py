"""GTSRB: archives and trees, boxes, notes, the cache, and what is refused. All on made-up files."""

import csv
import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from icstn import datasets
from icstn.datasets import DataError, Dataset, UnavailableError, _gtsrb, standin
from icstn.datasets.cache import md5_of

TRAIN, TEST, TRUTH = (name for files in _gtsrb.ARCHIVES.values() for name, _ in files)
HEADER = ("Filename", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId")
Edit = Callable[[str], str]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no network, and counts that suit a tiny set: one image of each class."""
    monkeypatch.setenv("ICSTN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_gtsrb, "COUNTS", {"train": 43, "test": 43})
    monkeypatch.setattr(_gtsrb, "download", refuse)
    return tmp_path / "cache" / "gtsrb"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The set unpacked as the official archives unpack, with the annotations beside the test images."""
    root = tmp_path / "tree"
    make_tree(root)
    return root


@pytest.fixture
def own(tmp_path: Path, tree: Path) -> Path:
    """The set as its three archives."""
    return pack(tree, tmp_path / "own")


def refuse(*_: object, **__: object) -> None:
    raise DataError("no network")


def shape_of(label: int) -> tuple[int, int]:
    return 20 + label, 60 - label


def pixels_of(label: int, seed: int) -> np.ndarray:
    width, height = shape_of(label)
    return np.random.default_rng([label, seed]).integers(0, 256, (height, width, 3), dtype=np.uint8)


def make_tree(root: Path) -> None:
    training, test = root / "GTSRB/Final_Training/Images", root / "GTSRB/Final_Test/Images"
    test.mkdir(parents=True)
    lines = []
    for label in range(43):
        folder = training / f"{label:05}"
        folder.mkdir(parents=True)
        Image.fromarray(pixels_of(label, 0)).save(folder / "00000_00000.ppm")
        write_csv(folder / f"GT-{label:05}.csv", [row("00000_00000.ppm", label)])
        number = 42 - label
        Image.fromarray(pixels_of(label, 1)).save(test / f"{number:05}.ppm")
        lines.append(row(f"{number:05}.ppm", label))
    write_csv(test / "GT-final_test.csv", lines[::-1])


def row(name: str, label: int) -> list[object]:
    width, height = shape_of(label)
    return [name, width, height, 5, 6, width - 6, height - 7, label]


def write_csv(path: Path, rows: list[list[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=";", lineterminator="\r\n").writerows([HEADER, *rows])
    path.write_text(text.getvalue(), newline="")


def pack(tree: Path, folder: Path) -> Path:
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / TRAIN, "w") as train, zipfile.ZipFile(folder / TEST, "w") as test:
        for path in sorted((tree / "GTSRB").rglob("*.*")):
            if path.name != "GT-final_test.csv":
                archive = train if "Training" in str(path) else test
                archive.write(path, path.relative_to(tree))
    with zipfile.ZipFile(folder / TRUTH, "w") as truth:
        truth.write(tree / "GTSRB/Final_Test/Images/GT-final_test.csv", "GT-final_test.csv")
    return folder


def edit(path: Path, change: Edit) -> None:
    path.write_text(change(path.read_text()))


def make_official(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        split: tuple((name, md5_of(own / name)) for name, _ in files)
        for split, files in _gtsrb.ARCHIVES.items()
    }
    monkeypatch.setattr(_gtsrb, "ARCHIVES", known)


@pytest.mark.parametrize(
    ("split", "archive", "folder"),
    [
        ("train", "GTSRB_Final_Training_Images.zip", "Final_Training/Images"),
        ("test", "GTSRB_Final_Test_Images.zip", "Final_Test/Images"),
    ],
)
def test_what_was_looked_for(split: str, archive: str, folder: str, tmp_path: Path) -> None:
    tried: list[str] = []
    assert _gtsrb.users_copy(split, tmp_path, tried) is None
    assert tried == [f"{tmp_path}: no {archive} and no {folder} there"]


def test_the_status_of_test_images_without_their_annotations(tmp_path: Path) -> None:
    (tmp_path / "GTSRB" / "Final_Test" / "Images").mkdir(parents=True)
    (row,) = (row for row in datasets.status(tmp_path) if row.dataset == "gtsrb")
    assert (row.found, row.verified[:4], row.size) == (None, "no: ", 0)


def same(a: Dataset, b: Dataset) -> bool:
    assert a.boxes is not None
    assert b.boxes is not None
    return a.fingerprint == b.fingerprint and torch.equal(a.boxes, b.boxes)


class TestReading:
    @pytest.mark.parametrize("split", ["train", "test"])
    def test_images_labels_and_boxes(self, own: Path, split: str) -> None:
        data = datasets.gtsrb(split, own, size=24)
        assert data.images.shape == (43, 3, 24, 24)
        assert (data.name, data.split, data.stand_in) == ("gtsrb", split, False)
        order = list(range(43)) if split == "train" else list(range(42, -1, -1))
        assert data.labels.tolist() == order
        for i, label in enumerate(order):
            picture = Image.fromarray(pixels_of(label, int(split == "test"))).resize((24, 24), Image.BILINEAR)
            assert np.array_equal(data.images[i].numpy(), np.asarray(picture).transpose(2, 0, 1))

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_archives_and_tree_are_alike(self, own: Path, tree: Path, tmp_path: Path, split: str) -> None:
        packed = datasets.gtsrb(split, own)
        for sub in ("x/gtsrb", "y/GTSRB"):
            shutil.copytree(own, tmp_path / sub)
            assert same(packed, datasets.gtsrb(split, (tmp_path / sub).parent))
        assert same(packed, datasets.gtsrb(split, tree))
        assert same(packed, datasets.gtsrb(split, tree / "GTSRB"))
        shutil.copytree(tree, tmp_path / "z" / "gtsrb")
        assert same(packed, datasets.gtsrb(split, tmp_path / "z"))

    @pytest.mark.parametrize("place", ["", "GTSRB", "GTSRB/Final_Test"])
    def test_annotations_may_lie_where_people_unpack_them(self, tree: Path, place: str) -> None:
        (tree / "GTSRB/Final_Test/Images/GT-final_test.csv").rename(tree / place / "GT-final_test.csv")
        assert len(datasets.gtsrb("test", tree)) == 43

    def test_an_unlabeled_list_beside_the_images_is_no_annotation(self, tree: Path) -> None:
        path = tree / "GTSRB/Final_Test/Images/GT-final_test.csv"
        path.rename(path.with_name("GT-final_test.test.csv"))
        with pytest.raises(DataError, match="no annotations"):
            datasets.gtsrb("test", tree)

    def test_png_files_are_read_too(self, tree: Path) -> None:
        before = datasets.gtsrb("train", tree)
        folder = tree / "GTSRB/Final_Training/Images/00007"
        Image.open(folder / "00000_00000.ppm").save(folder / "00000_00000.png")
        (folder / "00000_00000.ppm").unlink()
        edit(folder / "GT-00007.csv", lambda text: text.replace(".ppm", ".png"))
        assert same(before, datasets.gtsrb("train", tree))

    @given(
        st.tuples(st.integers(15, 250), st.integers(15, 250)),
        st.lists(st.integers(0, 14), min_size=4, max_size=4),
        st.integers(2, 64),
    )
    def test_boxes_scale_between_the_images_borders(
        self, size: tuple[int, int], box: list[int], side: int
    ) -> None:
        made = _gtsrb.Annotation("", *size, (box[0], box[1], box[2], box[3]), 0)
        scaled = np.array(_gtsrb._scaled_box(made, side))
        assert (scaled + 0.5) / side == pytest.approx((np.array(box) + 0.5) / np.tile(size, 2))

    def test_tracks_of_training_images(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two images of one sign, and the first track of another class, which is another sign."""
        folder = tree / "GTSRB/Final_Training/Images/00002"
        shutil.copy(folder / "00000_00000.ppm", folder / "00000_00001.ppm")
        shutil.copy(folder / "00000_00000.ppm", folder / "00007_00000.ppm")
        names = ["00000_00000.ppm", "00000_00001.ppm", "00007_00000.ppm"]
        write_csv(folder / "GT-00002.csv", [row(name, 2) for name in names])
        monkeypatch.setattr(_gtsrb, "COUNTS", {"train": 45, "test": 43})
        for _ in range(2):  # decoded, then from the cache
            groups = datasets.gtsrb("train", tree, size=8).groups
            assert groups is not None
            assert groups[2:5].tolist() == [200_000, 200_000, 200_007]
            assert len(groups.unique()) == 44
        assert datasets.gtsrb("test", tree, size=8).groups is None

    def test_only_two_splits_and_real_sizes(self, own: Path, unchecked: None) -> None:
        with pytest.raises(ValueError, match="not 'valid'"):
            datasets.gtsrb("valid", own)
        with pytest.raises(ValueError, match="at least 2"):
            datasets.gtsrb("train", own, size=1)


class TestNotes:
    def test_the_official_archives_have_none(self, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_official(own, monkeypatch)
        assert datasets.gtsrb("train", own).notes == datasets.gtsrb("test", own).notes == ()

    def test_other_archives_are_named_with_both_hashes(self, own: Path) -> None:
        (note,) = datasets.gtsrb("train", own).notes
        assert TRAIN in note
        assert md5_of(own / TRAIN) in note
        assert _gtsrb.ARCHIVES["train"][0][1] in note
        assert [TRUTH in n for n in datasets.gtsrb("test", own).notes] == [False, True]

    def test_a_tree_can_not_be_checked(self, tree: Path) -> None:
        (note,) = datasets.gtsrb("train", tree).notes
        assert "could not be checked" in note

    def test_images_of_another_size_are_counted_and_boxes_stay_right(self, tree: Path) -> None:
        before = datasets.gtsrb("train", tree)
        for label in (3, 5):
            path = tree / f"GTSRB/Final_Training/Images/{label:05}/00000_00000.ppm"
            Image.open(path).resize((32, 32)).save(path)
        after = datasets.gtsrb("train", tree)
        assert "2 of 43 images" in after.notes[-1]
        assert "32×32" in after.notes[-1]
        assert after.boxes is not None
        assert torch.equal(after.boxes, before.boxes)


class TestRefusals:
    def test_wrong_counts(self, tree: Path) -> None:
        edit(tree / "GTSRB/Final_Training/Images/00004/GT-00004.csv", lambda text: text.splitlines()[0])
        with pytest.raises(DataError, match="holds 42 annotated images of 42 classes"):
            datasets.gtsrb("train", tree)

    def test_the_right_count_of_the_wrong_classes(self, tree: Path) -> None:
        edit(tree / "GTSRB/Final_Test/Images/GT-final_test.csv", lambda text: text.replace(";42\n", ";41\n"))
        with pytest.raises(DataError, match="43 annotated images of 42 classes"):
            datasets.gtsrb("test", tree)

    @pytest.mark.parametrize("name", [TRAIN, TEST, TRUTH])
    def test_a_truncated_archive(self, own: Path, name: str) -> None:
        (own / name).write_bytes((own / name).read_bytes()[:-50])
        with pytest.raises(DataError, match=name):
            datasets.gtsrb("train" if name == TRAIN else "test", own)

    @pytest.mark.parametrize("name", ["../", "sub/", "/"])
    def test_a_file_name_that_leads_elsewhere(self, tree: Path, name: str) -> None:
        path = tree / "GTSRB/Final_Training/Images/00000/GT-00000.csv"
        edit(path, lambda text: text.replace("00000_00000.ppm", f"{name}00000_00000.ppm"))
        with pytest.raises(DataError, match="line 2: not an annotation"):
            datasets.gtsrb("train", tree)

    @pytest.mark.parametrize(
        ("old", "new"), [("ClassId", "Class"), (";20;", ";wide;"), (";20;", ";0;"), (";0\n", "\n")]
    )
    def test_a_malformed_annotation_names_its_line(self, tree: Path, old: str, new: str) -> None:
        edit(tree / "GTSRB/Final_Training/Images/00000/GT-00000.csv", lambda text: text.replace(old, new))
        with pytest.raises(DataError, match=r"GT-00000\.csv, line 2"):
            datasets.gtsrb("train", tree)

    def test_a_class_in_another_class_folder(self, tree: Path) -> None:
        edit(
            tree / "GTSRB/Final_Training/Images/00004/GT-00004.csv", lambda text: text.replace(";4\n", ";3\n")
        )
        with pytest.raises(DataError, match="another class"):
            datasets.gtsrb("train", tree)

    def test_a_training_image_without_a_track(self, tree: Path) -> None:
        folder = tree / "GTSRB/Final_Training/Images/00003"
        (folder / "00000_00000.ppm").rename(folder / "00000.ppm")
        edit(folder / "GT-00003.csv", lambda text: text.replace("00000_00000.ppm", "00000.ppm"))
        with pytest.raises(DataError, match="does not name its track"):
            datasets.gtsrb("train", tree, size=8)

    def test_a_missing_image(self, tree: Path) -> None:
        (tree / "GTSRB/Final_Training/Images/00004/00000_00000.ppm").unlink()
        with pytest.raises(DataError, match=r"lacks 00004/00000_00000\.ppm"):
            datasets.gtsrb("train", tree)

    @pytest.mark.parametrize("kind", ["text", "cut", "gif", "huge"])
    def test_no_picture(self, tree: Path, kind: str) -> None:
        path = tree / "GTSRB/Final_Training/Images/00004/00000_00000.ppm"
        if kind == "text":
            path.write_text("hello")
        elif kind == "cut":
            path.write_bytes(path.read_bytes()[:200])
        elif kind == "gif":
            Image.new("P", (24, 56)).save(path, "GIF")
        else:
            Image.new("L", (_gtsrb.MAX_SIDE + 1, 2)).save(path)
        with pytest.raises(DataError, match=r"00004/00000_00000\.ppm is no readable picture"):
            datasets.gtsrb("train", tree)

    def test_a_folder_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="does not exist"):
            datasets.gtsrb("train", tmp_path / "none")


class TestCaching:
    def test_the_second_time_nothing_is_decoded(self, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = datasets.gtsrb("train", own)
        monkeypatch.setattr(_gtsrb, "read", lambda *a: pytest.fail("decoded twice"))
        second = datasets.gtsrb("train", own)
        assert same(first, second)
        assert second.notes == first.notes

    def test_another_size_and_another_copy_are_others(
        self, own: Path, tree: Path, cache_folder: Path
    ) -> None:
        datasets.gtsrb("train", own)
        datasets.gtsrb("train", own, size=20)
        datasets.gtsrb("train", tree)
        assert len(list(cache_folder.glob("train-*.safetensors"))) == 3

    def test_a_changed_archive_is_read_anew(self, own: Path, tree: Path, tmp_path: Path) -> None:
        before = datasets.gtsrb("train", own)
        path = tree / "GTSRB/Final_Training/Images/00004/00000_00000.ppm"
        Image.fromarray(255 - pixels_of(4, 0)).save(path)
        shutil.rmtree(own)
        pack(tree, own)
        assert datasets.gtsrb("train", own).fingerprint != before.fingerprint


class TestDownload:
    @pytest.fixture
    def server(self, own: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The official server, holding the tiny archives; returns the list of requests."""
        make_official(own, monkeypatch)
        asked: list[str] = []

        def download(folder: Path, name: str, url: str, known_hash: str, *, progress: bool) -> None:
            """As pooch does: nothing where the right file is, nothing left of a wrong one."""
            if (folder / name).is_file() and f"md5:{md5_of(folder / name)}" == known_hash:
                return
            asked.append(url)
            if f"md5:{md5_of(own / name)}" != known_hash:
                raise DataError("MD5 hash of downloaded file does not match")
            shutil.copy(own / name, folder / name)

        monkeypatch.setattr(_gtsrb, "download", download)
        return asked

    def test_it_is_downloaded_once(self, server: list[str], own: Path) -> None:
        assert same(datasets.gtsrb("test"), datasets.gtsrb("test", own))
        datasets.gtsrb("test")
        assert server == [_gtsrb.URL + TEST, _gtsrb.URL + TRUTH]

    def test_the_archives_may_be_deleted_afterwards(self, server: list[str], cache_folder: Path) -> None:
        datasets.fetch("gtsrb")
        for name in (TRAIN, TEST, TRUTH):
            (cache_folder / name).unlink()
        assert len(datasets.gtsrb("train")) == len(datasets.gtsrb("test")) == 43
        assert len(server) == 3
        (row,) = (row for row in datasets.status() if row.dataset == "gtsrb")
        assert (row.found, row.verified) == (cache_folder, "yes")

    def test_a_damaged_archive_in_the_cache_is_fetched_again(
        self, server: list[str], cache_folder: Path
    ) -> None:
        cache_folder.mkdir(parents=True)
        (cache_folder / TRAIN).write_bytes(b"half")
        assert len(datasets.gtsrb("train")) == 43
        assert len(server) == 1

    def test_other_bytes_than_the_official_are_refused(
        self, server: list[str], own: Path, cache_folder: Path
    ) -> None:
        (own / TRAIN).write_bytes(b"something else")
        with pytest.raises(UnavailableError, match="MD5 hash of downloaded file"):
            datasets.gtsrb("train")
        assert not (cache_folder / TRAIN).exists()

    def test_a_folder_of_other_data_is_passed_over(self, server: list[str], tmp_path: Path) -> None:
        (tmp_path / "other" / "mnist").mkdir(parents=True)
        assert len(datasets.gtsrb("train", tmp_path / "other")) == 43
        assert len(server) == 1

    def test_when_all_fail_each_is_listed(self, tmp_path: Path) -> None:
        with pytest.raises(UnavailableError) as caught:
            datasets.gtsrb("test", tmp_path)
        for place in (str(tmp_path), "the cache", _gtsrb.URL + TEST, "no network"):
            assert place in str(caught.value)

    def test_the_catalogue_tells_the_official_from_an_own_copy(self, server: list[str], own: Path) -> None:
        assert datasets.fetch("gtsrb").verified == "yes"
        with zipfile.ZipFile(own / TRUTH, "a") as archive:
            archive.writestr("readme", "changed")
        row = datasets.fetch("gtsrb", own)
        assert (row.verified, row.found) == ("own copy", own)
        assert row.size == sum((own / name).stat().st_size for name in (TRAIN, TEST, TRUTH))


class TestStandInInstead:
    def test_both_splits_are_rendered_when_one_is_missing(
        self, own: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(standin, "COUNTS", {"train": 43, "test": 43})
        (own / TEST).unlink()
        data = datasets.gtsrb_or_stand_in("train", own, size=8)
        assert data.stand_in
        assert "neither found nor downloaded" in data.notes[-1]

    def test_the_real_one_where_it_is(self, own: Path) -> None:
        assert not datasets.gtsrb_or_stand_in("train", own).stand_in

    def test_a_damaged_copy_is_no_reason(self, own: Path) -> None:
        (own / TRAIN).write_bytes(b"half")
        with pytest.raises(DataError, match="no readable zip"):
            datasets.gtsrb_or_stand_in("train", own)
