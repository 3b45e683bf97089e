"""The aligner as a tool: images of any kind, matrices for other libraries, regions, masks, big pictures."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from icstn.classical import Aligner, align
from icstn.classical.inputs import as_images, as_kind
from icstn.classical.result import AlignmentResult
from icstn.classical.trials import Trials, make_trials
from icstn.datasets import photograph
from icstn.sampling import Frame, sample
from icstn.warps import FAMILIES, homography

cv2 = pytest.importorskip("cv2")
pytest.importorskip("skimage.data")


@pytest.fixture(scope="module")
def trials() -> Trials:
    """Three homographies of a face, 64×80 wide apart from the photograph's borders."""
    photo = photograph("astronaut", gray=True)
    generator = torch.Generator().manual_seed(0)
    return make_trials(photo, 3, 3.0, "homography", generator=generator, size=90, center=(170, 60))


@pytest.fixture(scope="module")
def found(trials: Trials) -> AlignmentResult:
    return Aligner(trials.template)(trials.images)


def as_bytes(x: torch.Tensor) -> np.ndarray:
    return (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def inner(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, dtype=float)[..., 4:-4, 4:-4]


class TestMatrix:
    """One warp, as each library reads it: they all make the aligned image of it that ours does."""

    def test_opencv_warps_with_it(self, trials: Trials, found: AlignmentResult) -> None:
        ours = found.aligned(trials.images)[:, 0].numpy()
        for image, M, mine in zip(trials.images[:, 0].numpy(), found.matrix(), ours, strict=True):
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            theirs = cv2.warpPerspective(image, M, (90, 90), flags=flags)
            assert np.abs(inner(theirs) - inner(mine)).max() < 0.02

    def test_opencvs_alignment_returns_it(self, trials: Trials, found: AlignmentResult) -> None:
        template = as_bytes(trials.template)[0, ..., 0]
        start = np.array([[1.0, 0, 50], [0, 1, 50], [0, 0, 1]], np.float32)
        for image, M in zip(as_bytes(trials.images)[..., 0], found.matrix("opencv"), strict=True):
            _, theirs = cv2.findTransformECC(template, image, start.copy(), cv2.MOTION_HOMOGRAPHY)
            corners = np.array([[0.0, 0, 1], [89, 0, 1], [89, 89, 1], [0, 89, 1]])
            a, b = (corners @ m.T for m in (theirs, M))
            assert np.abs(a[:, :2] / a[:, 2:] - b[:, :2] / b[:, 2:]).max() < 0.5

    def test_scikit_image_warps_with_it(self, trials: Trials, found: AlignmentResult) -> None:
        transform = pytest.importorskip("skimage.transform")
        ours = found.aligned(trials.images)[:, 0].numpy()
        for image, M, mine in zip(trials.images[:, 0].numpy(), found.matrix("skimage"), ours, strict=True):
            theirs = transform.warp(image, M, output_shape=(90, 90), order=1)
            assert np.abs(inner(theirs) - inner(mine)).max() < 1e-3

    def test_kornia_warps_with_it(self, trials: Trials, found: AlignmentResult) -> None:
        ours, M = found.aligned(trials.images), found.matrix("kornia")
        theirs = kornia_warp(trials.images, M, (90, 90))
        assert (ours - theirs)[..., 4:-4, 4:-4].abs().max() < 1e-3

    def test_it_goes_forth_and_back(self, found: AlignmentResult) -> None:
        frame = found.placed.frame
        p = frame.params("homography", frame.matrix("homography", found.p))
        assert torch.allclose(p.float(), found.p, atol=1e-5)

    def test_an_unknown_library_is_named(self, found: AlignmentResult) -> None:
        with pytest.raises(ValueError, match="'opencv', 'skimage' or 'kornia', not 'pil'"):
            found.matrix("pil")


def kornia_warp(image: torch.Tensor, M: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """kornia's, or where it is missing its documented formula, dst(x, y) = src(M⁻¹ (x, y))."""
    try:
        from kornia.geometry import warp_perspective
    except ImportError:
        frame = Frame.full(*size)
        p = frame.params(homography, torch.linalg.inv(M.double()))
        return sample(image, p.to(image), frame, homography)
    return warp_perspective(image, M, size, align_corners=True)


@pytest.mark.parametrize("warp", list(FAMILIES))
def test_the_pixel_matrix_of_a_known_shift(warp: str) -> None:
    photo = photograph("camera", gray=True)
    template, image = photo[..., 200:290, 100:220], photo[..., 197:297, 95:225]
    found = align(template, image, warp, start=[[1, 0, 3], [0, 1, 5], [0, 0, 1]])
    assert found.status == ["converged"]
    assert np.abs(found.matrix()[0] - [[1, 0, 5], [0, 1, 3], [0, 0, 1]]).max() < 0.05


def test_a_similarity_keeps_angles_in_pixels() -> None:
    """A picture that turns, and a template that is not square: the matrix is a rotation all the same."""
    photo = photograph("coffee", gray=True)
    a = 0.06
    M = torch.tensor([[np.cos(a), -np.sin(a), 9.0], [np.sin(a), np.cos(a), -12.0], [0, 0, 1]])
    frame = Frame.full(*photo.shape[-2:])
    turned = sample(photo, frame.params(homography, torch.linalg.inv(M)[None]).float(), frame, homography)
    found = align(photo, turned, "similarity", region=(200, 120, 360, 200))
    assert found.status == ["converged"]
    m = found.matrix()[0]
    assert np.abs(m[:2, :2] - M[:2, :2].numpy()).max() < 1e-3
    assert np.abs(m[:2, :2] @ m[:2, :2].T - np.eye(2) * (m[0, 0] ** 2 + m[0, 1] ** 2)).max() < 1e-9


class TestKinds:
    """Whatever images are, the same warp is found, and they come back as what they were."""

    @pytest.fixture
    def color(self) -> tuple[np.ndarray, np.ndarray]:
        """A template of 120×90 pixels and an image of 200×220, in color."""
        x = as_bytes(photograph("astronaut"))[0]
        return x[90:210, 180:270], x[52:252, 118:338]

    def kinds(self, x: np.ndarray) -> dict[str, object]:
        floats = x.astype(np.float32) / 255
        return {
            "array": x,
            "floats": floats,
            "double": floats.astype(float),
            "sixteen": x.astype(np.uint16) * 257,
            "pil": Image.fromarray(x),
            "tensor": torch.from_numpy(floats).permute(2, 0, 1)[None],
            "bytes": torch.from_numpy(x.copy()).permute(2, 0, 1),
            "half": torch.from_numpy(floats).permute(2, 0, 1).half(),
            "alpha": Image.fromarray(x).convert("RGBA"),
            "list": [x],
        }

    def test_every_kind_gives_the_same_matrix(self, color: tuple[np.ndarray, np.ndarray]) -> None:
        template, image = color
        wanted = align(template, image, "affine").matrix()
        assert np.abs(wanted[0, :2, 2] - [62, 38]).max() < 0.05
        for name, (t, i) in {
            k: (t, i)
            for (k, t), i in zip(self.kinds(template).items(), self.kinds(image).values(), strict=True)
        }.items():
            found = align(t, i, "affine")
            assert np.abs(found.matrix() - wanted).max() < 0.02, name
            back = found.aligned(i)
            assert type(back) is type(i), name
            if isinstance(i, np.ndarray):
                assert back.dtype == i.dtype
                assert back.shape == t.shape
                scale = np.iinfo(i.dtype).max if i.dtype.kind == "u" else 1
                assert np.abs(inner(back.T) - inner(t.T)).mean() < 0.01 * scale

    def test_pictures_of_every_mode(self, color: tuple[np.ndarray, np.ndarray]) -> None:
        """Colors of a palette are colors; what is gray has one channel."""
        picture = Image.fromarray(color[1])
        gray, palette = picture.convert("L"), picture.convert("P", palette=Image.Palette.ADAPTIVE)
        assert as_images("image", gray).shape[1] == 1
        back = as_kind(as_images("image", gray), gray)
        assert (back.mode, back.tobytes()) == ("L", gray.tobytes())
        assert as_images("image", picture.convert("1")).unique().tolist() == [0.0, 1.0]
        found = as_images("image", palette)
        assert found.shape[1] == 3
        assert (found - as_images("image", picture)).abs().mean() < 0.05
        assert torch.equal(as_images("image", gray.convert("I;16")), as_images("image", gray) * 255 / 65535)

    def test_several_come_back_as_several(self, color: tuple[np.ndarray, np.ndarray]) -> None:
        template, image = color
        back = align(template, [image, image[:, ::-1].copy()], "affine").aligned([image, image])
        assert [b.shape for b in back] == [template.shape] * 2

    def test_a_gray_template_and_a_color_image(self, color: tuple[np.ndarray, np.ndarray]) -> None:
        template, image = color
        gray = cv2.cvtColor(template, cv2.COLOR_RGB2GRAY)
        assert np.abs(align(gray, image, "affine").matrix()[0, :2, 2] - [62, 38]).max() < 0.05
        with pytest.raises(ValueError, match="give both in color, or the template in gray"):
            align(template, cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            ("photo.png", "is a tensor, a NumPy array or a PIL image, not a str"),
            (np.zeros((3, 40, 50)), r"with 1, 3 or 4 channels, got \(3, 40, 50\)"),
            (torch.zeros(5), r"tensor .* got \(5,\)"),
            ([], "list of the image is empty"),
            ([np.zeros((9, 9)), np.zeros((9, 8))], "image 1 is 9×8 with 1 channels and image 0 9×9 with 1"),
            (np.full((9, 9), np.nan), "NaN or infinite"),
            (np.zeros((1, 9)), "less than 2 pixels wide"),
        ],
    )
    def test_what_is_no_image_is_named(self, image: object, message: str) -> None:
        with pytest.raises((ValueError, TypeError), match=message):
            as_images("image", image)

    def test_bytes_go_forth_and_back(self) -> None:
        x = np.arange(256, dtype=np.uint8).reshape(16, 16)
        assert np.array_equal(as_kind(as_images("image", x), x), x)


class TestPlaces:
    """A region, a mask, a starting matrix, and what is given in the wrong order."""

    def test_a_region_is_sought_at_its_own_place(self) -> None:
        photo = photograph("coffee", gray=True)
        moved = photo[..., 4:, 6:]
        aligner = Aligner(photo, "affine", region=(150, 80, 330, 230))
        found = aligner(moved)
        assert found.status == ["converged"]
        assert np.abs(found.matrix()[0, :2, 2] - [-6, -4]).max() < 0.05
        whole = found.aligned(moved)
        assert whole.shape == photo.shape
        assert (whole - photo)[..., 6:, 8:].abs().max() < 0.02

    def test_a_region_may_be_two_pixels_high(self) -> None:
        photo = photograph("coffee", gray=True)
        assert Aligner(photo, "translation", region=(10, 30, 60, 32), levels=1).size == (2, 50)

    def test_a_start_far_away(self, trials: Trials) -> None:
        photo = photograph("astronaut", gray=True)
        aligner = Aligner(trials.template, "affine")
        assert aligner(photo).status != ["converged"]
        found = aligner(photo, start=[[1, 0, 168], [0, 1, 63], [0, 0, 1]])
        assert found.status == ["converged"]
        assert np.abs(found.matrix()[0, :2, 2] - [170, 60]).max() < 0.05

    @pytest.mark.parametrize("settings", [{}, {"algorithm": "FA"}])
    def test_what_the_mask_hides_may_be_anything(self, settings: dict[str, str]) -> None:
        photo = photograph("coffee", gray=True)
        t = make_trials(photo, 4, 3.0, "affine", generator=torch.Generator().manual_seed(3))
        template = t.template.clone()
        template[..., :40, :] = torch.rand(40, 100, generator=torch.Generator().manual_seed(0))
        mask = np.ones((100, 100), bool)
        mask[:40] = False
        found = Aligner(template, "affine", mask=mask, **settings)(t.images)
        assert found.converged.all()
        assert t.error(found.p).max() < 0.3
        without = Aligner(template, "affine", **settings)(t.images)
        assert not without.converged.any()

    def test_a_painted_mask_counts_where_it_has_any_color(self) -> None:
        """As somebody paints it: red here, blue there."""
        photo = photograph("coffee", gray=True)
        t = make_trials(photo, 1, 3.0, "affine", generator=torch.Generator().manual_seed(3))
        painted = np.zeros((100, 100, 3), np.uint8)
        painted[:50, :, 0], painted[50:90, :, 2] = 255, 255
        found = Aligner(t.template, "affine", mask=painted)
        assert found.mask is not None
        assert torch.equal(found.mask, torch.from_numpy(painted.any(-1)))

    def test_a_cover_is_masked_or_noticed(self) -> None:
        """A fourth of the template is covered in the images: what is called converged is right."""
        for name in ("coffee", "camera", "rocket"):
            photo = photograph(name, gray=True)
            t = make_trials(photo, 8, 3.0, "affine", generator=torch.Generator().manual_seed(3))
            covered = t.images.clone()
            covered[..., 40:100, 40:100] = 0.9
            plain = Aligner(t.template, "affine")(covered)
            assert not (plain.converged & (t.error(plain.p) > 1)).any()
            mask = torch.ones(100, 100)
            mask[:60, :60] = 0
            masked = Aligner(t.template, "affine", mask=mask)(covered)
            assert (t.error(masked.p) < 1).float().mean() > 0.8
            assert not (masked.converged & (t.error(masked.p) > 1)).any()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"region": (50, 50, 40, 90)}, "is no box"),
            ({"region": (50, 50, 90, 51)}, "of two pixels or more"),
            ({"region": (50, 50, 51, 90)}, "of two pixels or more"),
            ({"region": (0, 0, 91, 90)}, "inside the template of 90×90"),
            ({"mask": np.zeros((90, 90), bool)}, "nothing of the template counts"),
            ({"mask": np.ones((80, 90), bool)}, "the mask is 80×90 and the template 90×90"),
            ({"start": np.eye(2)}, r"3×3 matrix .* got \(2, 2\)"),
            ({"start": np.eye(3), "p": torch.zeros(1, 8)}, "as p or as start, not both"),
        ],
    )
    def test_bad_places_are_named(self, trials: Trials, change: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            align(trials.template, trials.images, **change)

    def test_swapped_arguments_are_noticed(self, trials: Trials) -> None:
        with pytest.raises(ValueError, match="are they swapped"):
            align(trials.images[:1], trials.template)


def test_on_another_device_it_is_prepared_there(trials: Trials) -> None:
    aligner = Aligner(trials.template, "affine")
    meta = aligner.to("meta")
    assert meta.template.device.type == "meta"
    with pytest.raises(ValueError, match=r"the image is on cpu and the template on meta: .* \.to\('cpu'\)"):
        meta(trials.images)
    again = aligner.to("cpu")(trials.images)
    assert torch.equal(again.p, aligner(trials.images).p)


BIG = """
import resource, numpy as np
from icstn.classical import Aligner
y, x = np.mgrid[0:3000, 0:4000].astype(np.float32)
photo = lambda dx: (np.sin((x + dx) / 90) + np.cos(y / 70 + (x + dx) / 200) + np.sin((x + dx) * y / 4e5))
def picture(dx):
    return np.clip(photo(dx) * 40 + 128, 0, 255).astype(np.uint8)
template, image = picture(0), picture(12)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = Aligner(template, "homography")(image)
more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(found.status[0], found.matrix()[0, 0, 2], more / 2**20)
"""


def test_twelve_megapixels_take_less_than_a_gigabyte() -> None:
    out = subprocess.run([sys.executable, "-c", BIG], capture_output=True, text=True, check=True).stdout
    status, shift, gigabytes = out.split()
    assert status == "converged"
    assert float(shift) == pytest.approx(-12, abs=0.3)
    assert float(gigabytes) < 1
