"""What all data sets share (Dataset, cache, archives), the photographs, the stand-in, and the catalogue."""

import hashlib
import json
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from platformdirs import windows
from safetensors.torch import save_file

from icstn import datasets
from icstn.datasets import (
    DataError,
    Dataset,
    UnavailableError,
    archives,
    cache,
    catalog,
    images,
    signs,
    standin,
)
from icstn.perturb import perturbations
from icstn.sampling import sample
from icstn.warps import affine, corners


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ICSTN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tiny(value: int = 0) -> Dataset:
    pixels = torch.full((2, 1, 3, 3), value, dtype=torch.uint8)
    labels = torch.tensor([0, 1])
    return Dataset(pixels, labels, "tiny", "test", datasets.fingerprint(pixels, labels), ("a note",))


class TestDataset:
    def test_images_and_labels_must_match(self, unchecked: None) -> None:
        with pytest.raises(DataError, match="do not match"):
            Dataset(torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.tensor([0]), "tiny", "test", "")

    def test_the_fingerprint_sees_a_pixel_a_label_and_the_shape(self) -> None:
        pixels, labels = torch.zeros(2, 1, 2, 8, dtype=torch.uint8), torch.tensor([0, 1])
        changed = pixels.clone()
        changed[0, 0, 0, 0] = 1
        variants = [
            (pixels, labels),
            (changed, labels),
            (pixels, labels.flip(0)),
            (pixels.view(2, 1, 4, 4), labels),
        ]
        assert len({datasets.fingerprint(*v) for v in variants}) == 4

    def test_the_fingerprint_does_not_see_the_memory_layout(self) -> None:
        pixels = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)
        strided = pixels.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        labels = torch.tensor([0, 1])
        assert datasets.fingerprint(strided, labels) == datasets.fingerprint(pixels, labels)

    def test_repr_says_stand_in(self) -> None:
        assert "stand-in" in repr(datasets.gtsrb_stand_in("test", count=2, size=16))
        assert "stand-in" not in repr(tiny())


class TestCache:
    def test_a_stored_data_set_comes_back(self, tmp_path: Path) -> None:
        path, data = tmp_path / "a.safetensors", tiny()
        assert cache.load_dataset(path) is None
        cache.cached_dataset(path, lambda: data)
        back = cache.cached_dataset(path, lambda: pytest.fail("built twice"))
        assert torch.equal(back.images, data.images)
        assert torch.equal(back.labels, data.labels)
        assert (back.fingerprint, back.notes, back.boxes) == (data.fingerprint, data.notes, None)

    @pytest.mark.parametrize("damage", ["truncated", "garbage", "flipped", "unlabeled"])
    def test_a_damaged_file_is_built_again(self, tmp_path: Path, damage: str) -> None:
        path = tmp_path / "a.safetensors"
        cache.cached_dataset(path, lambda: tiny(7))
        raw = bytearray(path.read_bytes())
        if damage == "truncated":
            raw = raw[:-5]
        elif damage == "garbage":
            raw = bytearray(b"x" * 50)
        elif damage == "flipped":
            raw[-1] ^= 1
        path.write_bytes(raw)
        if damage == "unlabeled":
            save_file({"images": tiny().images}, path, {"name": "tiny", "notes": json.dumps([])})
        assert cache.cached_dataset(path, lambda: tiny(7)).fingerprint == tiny(7).fingerprint
        assert cache.load_dataset(path) is not None

    def test_writers_at_once_build_once(self, tmp_path: Path) -> None:
        built, got, barrier = [], [], threading.Barrier(4)

        def build() -> Dataset:
            built.append(1)
            return tiny()

        def work() -> None:
            barrier.wait()
            got.append(cache.cached_dataset(tmp_path / "c" / "a.safetensors", build).fingerprint)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(built) == 1
        assert got == [tiny().fingerprint] * 4

    def test_where_the_cache_cannot_be_written_the_data_still_come(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("no folder")
        with pytest.warns(UserWarning, match="set ICSTN_CACHE"):
            assert cache.cached_dataset(tmp_path / "file" / "a.safetensors", tiny).name == "tiny"

    def test_a_held_lock_is_reported(self, tmp_path: Path) -> None:
        second = cache.locked(tmp_path, timeout=0)
        with cache.locked(tmp_path), pytest.raises(DataError, match="another process has held"):
            second.__enter__()

    def test_the_variable_moves_the_cache(self, cache_folder: Path) -> None:
        assert cache.cache_dir("mnist") == cache_folder / "mnist"

    def test_on_windows_its_folder_has_no_company(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("ICSTN_CACHE")
        monkeypatch.setattr(windows, "get_win_folder", lambda _: "local")
        monkeypatch.setattr(
            platformdirs, "user_cache_dir", lambda *a, **k: windows.Windows(*a, **k).user_cache_dir
        )
        assert cache.cache_dir().parts[:2] == ("local", "icstn")


class Server:
    """A server of one file on this machine, which refuses the first requests as often as it is told to."""

    CONTENT = b"content" * 1000

    def __init__(self) -> None:
        self.asked = self.failures = 0
        self.hash = f"md5:{hashlib.md5(self.CONTENT).hexdigest()}"
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.url = f"http://127.0.0.1:{self.http.server_port}/a"

    def handler(server) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked += 1
                refused = server.asked <= server.failures
                self.send_response(503 if refused else 200)
                self.end_headers()
                self.wfile.write(b"" if refused else server.CONTENT)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def __enter__(self) -> "Server":
        self.thread = threading.Thread(target=self.http.serve_forever)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


class TestDownload:
    """From a server of our own, through pooch."""

    @pytest.fixture
    def server(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
        monkeypatch.setattr("time.sleep", lambda _: None)
        with Server() as server:
            yield server

    def test_what_has_the_hash_is_fetched_once(self, server: Server, tmp_path: Path) -> None:
        for _ in range(2):
            path = cache.download(tmp_path, "a", server.url, server.hash)
            assert path.read_bytes() == Server.CONTENT
        assert server.asked == 1

    def test_a_damaged_file_is_fetched_again(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"half")
        assert cache.download(tmp_path, "a", server.url, server.hash).read_bytes() == Server.CONTENT

    def test_an_attempt_that_fails_is_repeated(self, server: Server, tmp_path: Path) -> None:
        server.failures = 2
        assert cache.download(tmp_path, "a", server.url, server.hash).read_bytes() == Server.CONTENT
        assert server.asked == 3

    def test_other_bytes_are_refused_and_nothing_is_left(self, server: Server, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="does not match the known hash"):
            cache.download(tmp_path, "a", server.url, "md5:" + "0" * 32)
        assert not list(tmp_path.iterdir())

    def test_a_failed_download_says_why_and_leaves_nothing(self, server: Server, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"127\.0\.0\.1"):
            cache.download(tmp_path, "x", "http://127.0.0.1:9/nothing", None)
        assert not list(tmp_path.iterdir())


NAMES = ["../evil.ppm", "/etc/passwd", "a/../../b", "..", "C:\\x.ppm", "a\\b.ppm", "C:x.ppm"]


class TestArchives:
    @staticmethod
    def zipped(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return path

    @pytest.mark.parametrize("name", NAMES)
    def test_a_name_that_leaves_its_folder_is_refused(self, tmp_path: Path, name: str) -> None:
        path = self.zipped(tmp_path / "a.zip", {"good.ppm": b"x", name: b"x"})
        with pytest.raises(DataError, match="leaves its folder"):
            archives.ZipTree(path)

    @given(st.lists(st.sampled_from(["a", "b.ppm", "..", ".", "", "c:", "\\"]), min_size=1, max_size=4))
    def test_a_plain_name_stays_below_its_folder(self, parts: list[str]) -> None:
        name, root = "/".join(parts), Path("/root/folder")
        if archives.plain_name(name):
            assert Path(root, name).resolve().is_relative_to(root)

    def test_a_large_member_is_refused(self, tmp_path: Path) -> None:
        path = self.zipped(tmp_path / "a.zip", {"a.ppm": bytes(archives.MAX_MEMBER_BYTES + 1)})
        with pytest.raises(DataError, match=r"a\.ppm says"):
            archives.ZipTree(path)

    def test_a_high_ratio_is_refused(self, tmp_path: Path) -> None:
        path = self.zipped(tmp_path / "a.zip", {f"{i}.ppm": bytes(1 << 20) for i in range(3)})
        with pytest.raises(DataError, match="not safe to read"):
            archives.ZipTree(path)

    def test_too_many_members_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
        path = self.zipped(tmp_path / "a.zip", {f"{i}": b"x" for i in range(3)}, zipfile.ZIP_STORED)
        with pytest.raises(DataError, match="not safe to read"):
            archives.ZipTree(path)

    def test_a_member_that_is_larger_than_it_says_is_refused(self, tmp_path: Path) -> None:
        path = self.zipped(tmp_path / "a.zip", {"a.ppm": bytes(range(256)) * 40})
        raw = path.read_bytes()
        said = (10240).to_bytes(4, "little")
        path.write_bytes(raw.replace(said, (10).to_bytes(4, "little")))
        with pytest.raises(DataError, match="can't be read"):
            archives.ZipTree(path).read("a.ppm")

    def test_a_damaged_or_missing_member_is_named(self, tmp_path: Path) -> None:
        path = self.zipped(tmp_path / "a.zip", {"a.ppm": b"0123456789"}, zipfile.ZIP_STORED)
        path.write_bytes(path.read_bytes().replace(b"01234", b"01x34"))
        with pytest.raises(DataError, match=r"a\.ppm can't be read"):
            archives.ZipTree(path).read("a.ppm")
        with pytest.raises(DataError, match=r"lacks b\.ppm"):
            archives.ZipTree(path).read("b.ppm")

    def test_a_truncated_archive_is_refused(self, tmp_path: Path) -> None:
        path = self.zipped(tmp_path / "a.zip", {"a.ppm": bytes(100)})
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(DataError, match="no readable zip"):
            archives.open_tree(path)

    def test_a_folder_is_read_alike(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "t" / "sub").mkdir(parents=True)
        (tmp_path / "t" / "sub" / "a.ppm").write_bytes(b"abc")
        tree = archives.open_tree(tmp_path / "t")
        assert (tree.names, tree.read("sub/a.ppm")) == (["sub/a.ppm"], b"abc")
        with pytest.raises(DataError, match="lacks"):
            tree.read("../a.ppm")
        monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 2)
        with pytest.raises(DataError, match="larger than"):
            tree.read("sub/a.ppm")

    def test_a_folder_is_another_once_a_file_changed(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"abc")
        before = archives.FolderTree(tmp_path).identity()
        assert archives.FolderTree(tmp_path).identity() == before
        (tmp_path / "a").write_bytes(b"abcd")
        assert archives.FolderTree(tmp_path).identity() != before


class TestPhotographs:
    @pytest.mark.parametrize("name", images.PHOTOGRAPHS)
    def test_those_of_scikit_image(self, name: str) -> None:
        image = datasets.photograph(name)
        assert image.shape[:2] == (1, 3)
        assert image.dtype == torch.float32
        assert 0 <= image.min() < 0.25 < 0.8 < image.max() <= 1

    def test_the_default_is_chelsea_untouched(self) -> None:
        data = pytest.importorskip("skimage.data")
        expected = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None].float() / 255
        assert torch.equal(datasets.photograph(), expected)

    def test_gray_is_luma(self) -> None:
        weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        luma = (datasets.photograph() * weights).sum(1, keepdim=True)
        assert (datasets.photograph(gray=True) - luma).abs().max() < 1.01 / 255

    def test_a_file_keeps_its_pixels(self, tmp_path: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        image = datasets.photograph(tmp_path / "a.png")
        assert torch.equal((image[0] * 255).round().byte(), torch.from_numpy(pixels).permute(2, 0, 1))

    def test_exif_turns_it_upright(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
        assert datasets.photograph(tmp_path / "a.jpg").shape == (1, 3, 40, 20)

    def test_transparent_pixels_are_black(self, tmp_path: Path) -> None:
        Image.new("RGBA", (20, 20), (255, 255, 255, 0)).save(tmp_path / "a.png")
        assert datasets.photograph(tmp_path / "a.png").max() == 0

    @pytest.mark.parametrize("size", [(4, 100), (100, 4)])
    def test_too_small(self, tmp_path: Path, size: tuple[int, int]) -> None:
        Image.new("L", size).save(tmp_path / "a.png")
        with pytest.raises(DataError, match=f"{size[0]}×{size[1]} pixels"):
            datasets.photograph(tmp_path / "a.png")

    def test_too_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(images, "MAX_PIXELS", 399)
        Image.new("L", (20, 20)).save(tmp_path / "a.png")
        with pytest.raises(DataError, match="20×20 pixels"):
            datasets.photograph(tmp_path / "a.png")

    def test_sixteen_bits_are_refused(self, tmp_path: Path) -> None:
        Image.fromarray(np.full((20, 20), 40000, np.uint16)).save(tmp_path / "a.png")
        with pytest.raises(DataError, match="8 bits"):
            datasets.photograph(tmp_path / "a.png")

    def test_no_picture(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_text("hello")
        with pytest.raises(DataError, match="no picture"):
            datasets.photograph(tmp_path / "a.png")
        Image.new("RGB", (64, 64), "red").save(tmp_path / "b.png")
        (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:60])
        with pytest.raises(DataError, match="no picture"):
            datasets.photograph(tmp_path / "b.png")

    def test_an_unknown_name_lists_the_known(self) -> None:
        with pytest.raises(DataError, match="chelsea, astronaut"):
            datasets.photograph("chelsey")

    def test_without_scikit_image_a_file_still_works(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "skimage.data", None)
        with pytest.raises(UnavailableError, match="or name an image file"):
            datasets.photograph()
        assert not any(row.found for row in datasets.status())
        Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
        assert datasets.photograph(tmp_path / "a.png").shape == (1, 3, 20, 20)

    def test_the_caffe_cat_is_downloaded_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        urls = []

        def download(folder: Path, name: str, url: str, known_hash: None) -> None:
            urls.append(url)
            Image.new("RGB", (48, 36), "red").save(folder / name)

        monkeypatch.setattr(images, "download", download)
        for _ in range(2):
            assert datasets.photograph("caffe-cat").shape == (1, 3, 36, 48)
        assert urls == [images.CAFFE_CAT_URL]
        assert {row.dataset: row.found is not None for row in datasets.status()}["caffe-cat"]

    def test_a_failed_download_names_the_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("time.sleep", lambda _: None)
        monkeypatch.setattr(images, "CAFFE_CAT_URL", "http://127.0.0.1:9/cat.jpg")
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9/cat\.jpg"):
            datasets.photograph("caffe-cat")


class TestPlanarScene:
    @pytest.mark.parametrize("name", ["chelsea", "astronaut", "coffee"])
    def test_one_sample_is_one_pixel(self, name: str) -> None:
        frame = datasets.planar_scene(name).frame
        assert frame.half_extent == pytest.approx((24.5, 24.5))
        assert (frame.height, frame.width) == (50, 50)

    def test_the_scene_shows_what_the_photograph_shows(self) -> None:
        scene, image = datasets.planar_scene(), datasets.photograph()
        ours = sample(scene.image, torch.zeros(1, 6), scene.frame, affine)
        fine = datasets.planar_frame(samples=200)
        shrunk = torch.nn.functional.interpolate(
            sample(image, torch.zeros(1, 6), fine, affine), (50, 50), mode="bilinear", antialias=True
        )
        shifted = ours.roll(1, -1)
        assert (ours - shrunk).abs().mean() < 0.02 < (shifted - shrunk).abs().mean()

    def test_the_box_scales_with_the_photograph(self) -> None:
        full, half = datasets.planar_frame(), datasets.planar_frame(scale=0.5)
        box = torch.tensor(images.BOXES["chelsea"]).view(2, 2)
        assert torch.allclose(full.to_pixels(corners())[[0, 2]], box)
        assert torch.allclose(half.to_pixels(corners())[[0, 2]], (box + 0.5) / 2 - 0.5)

    def test_other_images_have_a_centered_square(self, tmp_path: Path) -> None:
        Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
        frame = datasets.planar_frame(tmp_path / "a.png", samples=10)
        assert (frame.center, frame.half_extent) == ((29.5, 19.5), pytest.approx((10.4, 10.4)))

    @pytest.mark.parametrize("name", images.PHOTOGRAPHS)
    def test_most_boxes_stay_inside_at_the_largest_noise(self, name: str, generator: torch.Generator) -> None:
        scene = datasets.planar_scene(name)
        height, width = scene.image.shape[-2:]
        p = perturbations(2000, 10.0, scene.frame, affine, generator=generator)
        points = scene.frame.to_pixels(affine.apply(p, corners()))
        inside = (points >= 0) & (points <= points.new_tensor([width - 1, height - 1]))
        assert inside.flatten(1).all(1).float().mean() > 0.7

    @pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
    def test_a_scale_is_positive(self, scale: float) -> None:
        with pytest.raises(ValueError, match="above 0"):
            datasets.photograph(scale=scale)


#: What each of the 43 plates weighs, see below.
PLATES = np.fromstring(
    """
    1.8114 1.8079 1.8046 1.8024 1.8319 1.8008 2.1000 1.8025 1.8048 1.8190 1.8285
    1.4863 1.6953 1.4089 1.6334 1.9594 1.7574 1.6048 1.5027 1.4953 1.4950 1.4974
    1.4734 1.4636 1.4735 1.4834 1.4684 1.4976 1.4752 1.4739 1.4965 1.4900 2.1723
    1.6177 1.6145 1.5963 1.6339 1.6328 1.6093 1.6009 1.6595 2.1064 2.1083
    """,
    sep=" ",
)


@pytest.mark.parametrize(
    ("whole", "name"),
    [
        (signs.Sign("stop", "octagon"), "shape"),
        (signs.Mark("line", ((0.0, 0.0),)), "kind"),
        (catalog.CREDITS["mnist"], "license"),
        (catalog.DataStatus("mnist", None, "–", 0, catalog.CREDITS["mnist"]), "size"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_all_share_can_not_be_changed(whole: object, name: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(whole, name, None)


class TestStandIn:
    def test_it_says_what_it_is(self) -> None:
        data = datasets.gtsrb_stand_in("train", count=43, size=20)
        assert data.stand_in
        assert data.name != "gtsrb"
        assert any("rendered stand-in" in note for note in data.notes)

    def test_the_seed_decides(self) -> None:
        def made(split: str, seed: int) -> str:
            return standin._render(split, seed, 20, 24).fingerprint

        assert made("train", 0) == made("train", 0)
        assert len({made("train", 0), made("train", 1), made("test", 0)}) == 3

    def test_all_classes_evenly(self) -> None:
        labels = datasets.gtsrb_stand_in("test", count=86, size=16).labels
        assert labels.bincount().tolist() == [2] * 43
        assert not torch.equal(labels, labels.sort().values)

    def test_boxes_hold_the_plates(self) -> None:
        boxes = datasets.gtsrb_stand_in("train", count=86, size=50).boxes
        assert boxes is not None
        sides = boxes[:, 2:] - boxes[:, :2]
        assert (boxes > -6).all()
        assert (boxes < 56).all()
        assert 37 < sides.mean() < 44
        assert (boxes[:, 2:] + boxes[:, :2]).mean(0) / 2 == pytest.approx([25, 25], abs=0.5)

    def test_an_arc_ends_where_it_says(self) -> None:
        """The roundabout has three of 75 degrees, each 45 degrees from the next."""
        arcs = [mark.points for mark in signs.SIGNS[40].marks if mark.kind == "line"]
        for around in arcs:
            x, y = np.array(around).T
            turned = np.diff(np.degrees(np.unwrap(np.arctan2(y, x))))
            assert turned == pytest.approx([7.5] * 10)
            assert np.hypot(x, y) == pytest.approx([0.55] * 11)
        assert len(arcs) == 3

    def test_the_version_in_its_name_is_of_these_images(self) -> None:
        """Quarters of the first images; who draws others counts the version up, so that no cache is stale."""
        drawn = standin._render("train", 0, 8, 24).images.double().mean(1).numpy()
        quarters = drawn.reshape(8, 2, 12, 2, 12).mean((2, 4)).reshape(8, 4)
        assert quarters[:5] == pytest.approx(
            np.array(
                [
                    [116.5, 139.7, 127.4, 173.0],
                    [142.3, 116.9, 155.1, 128.5],
                    [168.8, 145.8, 191.4, 160.4],
                    [146.9, 140.5, 128.1, 110.0],
                    [127.6, 127.1, 154.7, 107.1],
                ]
            ),
            abs=0.15,
        )
        assert quarters[5:] == pytest.approx(
            np.array([[185.2, 166.2, 194.3, 176.0], [39.6, 36.0, 36.9, 36.6], [28.4, 26.5, 30.2, 30.1]]),
            abs=0.15,
        )

    def test_the_plates_are_43_different_ones(self) -> None:
        plates = torch.stack([self.plate(sign, 32).flatten() for sign in signs.SIGNS])
        distance = torch.cdist(plates, plates) / plates.shape[1] ** 0.5
        assert len(plates) == 43
        assert distance.fill_diagonal_(9).min() > 0.03

    def test_each_plate_is_the_one_of_that_version(self) -> None:
        """Mean brightness of each, weighted so that a mark that moves is noticed."""
        y, x = np.mgrid[-1:1:64j, -1:1:64j]
        found = []
        for sign in signs.SIGNS:
            plate = np.asarray(signs.draw_sign(sign, 64).convert("RGBA"), np.float64).mean(2) / 255
            found.append((plate * (3 + x + 2 * y)).mean())
        assert found == pytest.approx(PLATES, abs=4e-4)

    @pytest.mark.parametrize(("left", "right"), [(34, 33), (37, 36), (39, 38), (19, 20)])
    def test_left_is_right_mirrored(self, left: int, right: int) -> None:
        a, b = (self.plate(signs.SIGNS[i], 64) for i in (left, right))
        assert (a.flip(-1) - b).abs().mean() < 0.02 < (a - b).abs().mean()

    def test_light_and_sharpness_vary(self) -> None:
        data = datasets.gtsrb_stand_in("train", count=86, size=32).images.float()
        brightness = data.mean((1, 2, 3))
        assert brightness.max() > 4 * brightness.min()

    @pytest.mark.parametrize(("count", "size"), [(0, 50), (10, 4)])
    def test_it_needs_an_image(self, count: int, size: int) -> None:
        with pytest.raises(ValueError, match="at least one image"):
            datasets.gtsrb_stand_in("train", count=count, size=size)

    @staticmethod
    def plate(sign: signs.Sign, side: int) -> torch.Tensor:
        picture = signs.draw_sign(sign, 4 * side).resize((side, side), Image.Resampling.BOX)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


class TestCatalogue:
    def test_nothing_is_found_in_an_empty_cache(self) -> None:
        rows = {row.dataset: row for row in datasets.status()}
        assert set(rows) == set(datasets.CREDITS)
        assert [name for name, row in rows.items() if row.found] == ["chelsea"]
        assert all(row.credit.attribution and row.credit.license for row in rows.values())

    def test_a_damaged_own_copy_is_shown_as_such(self, tmp_path: Path) -> None:
        for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
            (tmp_path / f"{name}-ubyte").write_bytes(b"nothing")
        (row,) = (row for row in datasets.status(tmp_path) if row.dataset == "mnist")
        assert row.found == tmp_path
        assert row.verified.startswith("no: ")
        assert row.size == 28

    def test_the_folder_must_exist(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="does not exist"):
            datasets.status(tmp_path / "none")

    def test_fetch_knows_its_names(self) -> None:
        assert datasets.fetch("chelsea").found is not None
        with pytest.raises(ValueError, match="mnist, gtsrb, chelsea"):
            datasets.fetch("cifar")


def test_an_arc_ends_where_it_is_said_to() -> None:
    points = np.array(signs._arc(-30, 60, 2.0)).reshape(-1, 2)
    assert points[0] == pytest.approx([3**0.5, -1.0])
    assert points[-1] == pytest.approx([1.0, 3**0.5])
    assert np.hypot(*points.T) == pytest.approx(2.0)
