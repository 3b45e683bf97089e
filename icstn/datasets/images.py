"""Single photographs for planar alignment, and where the template lies in them."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from icstn.datasets.cache import cache_dir, download, locked
from icstn.datasets.dataset import DataError, UnavailableError
from icstn.sampling import Frame

if TYPE_CHECKING:
    from PIL.Image import Image

#: The photographs that come inside scikit-image's wheel: file, attribution and license.
PHOTOGRAPHS = {
    "chelsea": ("chelsea.png", "Chelsea the cat, Stéfan van der Walt, CC0"),
    "astronaut": ("astronaut.png", "Eileen Collins, NASA, public domain"),
    "camera": ("camera.png", "Photographer, Lav Varshney, CC0"),
    "coffee": ("coffee.png", "Coffee cup, Rachel Michetti, CC0"),
    "rocket": ("rocket.jpg", "Falcon 9, SpaceX, public domain"),
    "brick": ("brick.png", "Brick wall, CC0Textures, CC0"),
    "coins": ("coins.png", "Greek coins, Brooklyn Museum, no known restrictions"),
    "grass": ("grass.png", "Grass, linolafett, CC0"),
    "gravel": ("gravel.png", "Gravel, CC0Textures, CC0"),
    "hubble": ("hubble_deep_field.jpg", "eXtreme Deep Field, NASA, public domain"),
    "ihc": ("ihc.png", "Stained tissue, CMMI, no known restrictions"),
    "moon": ("moon.png", "Surface of the moon, no known restrictions"),
    "motorcycle": ("motorcycle_left.png", "Middlebury stereo 2014, Scharstein et al."),
    "retina": ("retina.jpg", "Retina, Mikael Häggström, CC0"),
}
CAFFE_CAT = "caffe-cat"
CAFFE_CAT_FILE = "caffe-cat.jpg"
CAFFE_CAT_URL = "https://raw.githubusercontent.com/BVLC/caffe/master/examples/images/cat.jpg"

#: Hand-labeled squares (left, top, right, bottom) in pixels of the photograph at its own size.
#: Chelsea: from pupil to pupil, and from above the eyes down to the nose.
BOXES = {"chelsea": (161.0, 82.0, 325.0, 246.0)}
#: Side of the centered square of every other image, in units of its shorter side.
CENTERED = 0.52
MIN_SIDE, MAX_PIXELS = 16, 100_000_000


@dataclass(frozen=True)
class Scene:
    """A photograph and where the planar experiment's template lies in it.

    Args:
        image: ``(1, C, H, W)`` float32 in [0, 1].
        frame: the ground-truth box; p = 0 is the true warp.
        name: of the photograph, or the file's name.
    """

    image: Float[Tensor, "1 c h w"]
    frame: Frame
    name: str


def photograph(
    name_or_path: str | os.PathLike[str] = "chelsea", *, gray: bool = False, scale: float = 1.0
) -> Float[Tensor, "1 c h w"]:
    """A photograph as ``(1, 3, H, W)`` float32 in [0, 1], or ``(1, 1, H, W)`` in gray.

    Args:
        name_or_path: ``"chelsea"``, ``"astronaut"`` or another name of :data:`PHOTOGRAPHS`, which come
            inside scikit-image; ``"caffe-cat"``, the image of the paper, downloaded
            once from Caffe's repository; or the path of an image file (upright as its EXIF tag says,
            transparent pixels on black).
        gray: luma instead of color.
        scale: factor on width and height, with antialiasing.

    Raises:
        DataError: no such name or file, or the file is no readable picture of a sensible size.
        UnavailableError: the download failed.
    """
    from PIL import Image

    image = _opened(name_or_path)
    if scale != 1.0:
        size, region = _scaled_size(image.size, scale)
        image = image.resize(size, Image.Resampling.LANCZOS, box=region)
    if gray:
        image = image.convert("L")
    pixels = torch.from_numpy(np.array(image)).float().div(255)
    return (pixels[None, None] if gray else pixels.permute(2, 0, 1)[None]).contiguous()


def planar_frame(
    name_or_path: str | os.PathLike[str] = "chelsea", *, samples: int = 50, scale: float = 1.0
) -> Frame:
    """The ground-truth box of the planar experiment in a photograph, as ``samples × samples``.

    For ``"chelsea"`` it is hand-labeled on the face; for any other image it is a centered square of 52 %
    of the shorter side. That leaves room: with the paper's noise at σ = 10 most boxes stay inside.

    Args:
        name_or_path: see :func:`photograph`.
        samples: side of the template.
        scale: the scale that the photograph is loaded at.
    """
    width, height = _opened(name_or_path).size
    return _frame(BOXES.get(os.fspath(name_or_path)), (width, height), samples, scale)


def planar_scene(
    name_or_path: str | os.PathLike[str] = "chelsea", *, samples: int = 50, gray: bool = False
) -> Scene:
    """Photograph and frame at the scale where one sample of the template is one pixel.

    Shrinking the photograph first, with antialiasing, is what makes bilinear sampling of it faithful;
    the paper's σ "in pixels" are then pixels of image and template alike.
    """
    frame = planar_frame(name_or_path, samples=samples)
    scale = (samples - 1) / (2 * frame.half_extent[0])
    image = photograph(name_or_path, gray=gray, scale=scale)
    return Scene(image, planar_frame(name_or_path, samples=samples, scale=scale), Path(name_or_path).name)


#: Every name that :func:`photograph` knows.
NAMES = (*PHOTOGRAPHS, CAFFE_CAT)


def _frame(
    box: tuple[float, float, float, float] | None, size: tuple[int, int], samples: int, scale: float
) -> Frame:
    if box is None:
        half, x, y = CENTERED * min(size) / 2, (size[0] - 1) / 2, (size[1] - 1) / 2
        box = (x - half, y - half, x + half, y + half)
    left, top, right, bottom = ((value + 0.5) * scale - 0.5 for value in box)
    return Frame.box(left, top, right, bottom, samples, samples)


def _scaled_size(
    size: tuple[int, int], scale: float
) -> tuple[tuple[int, int], tuple[float, float, float, float]]:
    """The whole pixels that fit at that scale, and the region of the photograph that they cover."""
    if not scale > 0:
        raise ValueError(f"scale is a factor on the photograph's size, above 0; got {scale}")
    width, height = (max(1, int(side * scale + 1e-6)) for side in size)
    return (width, height), (0, 0, min(width / scale, size[0]), min(height / scale, size[1]))


def _opened(name_or_path: str | os.PathLike[str]) -> Image:
    """The photograph in RGB."""
    return picture(path_of(name_or_path))


def picture(path: Path, least: int = MIN_SIDE) -> Image:
    """An image file in RGB, upright as its EXIF tag says, transparent pixels on black.

    Args:
        path: of the file.
        least: smallest side in pixels.

    Raises:
        DataError: it is no readable picture of 8 bits a channel and of a sensible size.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            _check_size(path, image.size, least)
            _check_depth(image)
            upright = ImageOps.exif_transpose(image)
            return _on_black(upright)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is no picture that can be read ({error}): name another file") from None


def _on_black(image: Image) -> Image:
    from PIL import Image

    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image).convert("RGB")
    return image.convert("RGB")


def _check_size(path: Path, size: tuple[int, int], least: int) -> None:
    if min(size) < least or size[0] * size[1] > MAX_PIXELS:
        raise DataError(
            f"{path} has {size[0]}×{size[1]} pixels: a photograph has at least {least} on each side and "
            f"at most {MAX_PIXELS:,} in all"
        )


def _check_depth(image: Image) -> None:
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"its pixels are of mode {image.mode}, not 8 bits a channel")


def path_of(name_or_path: str | os.PathLike[str]) -> Path:
    """The file behind a name of :func:`photograph`, downloaded if need be."""
    name = os.fspath(name_or_path)
    if name in PHOTOGRAPHS:
        return _scikit_image_folder() / PHOTOGRAPHS[name][0]
    if name == CAFFE_CAT:
        return _caffe_cat()
    path = Path(name).expanduser()
    if not path.is_file():
        raise DataError(f"there is no photograph {name!r}: name an image file or one of {', '.join(NAMES)}")
    return path


def _scikit_image_folder() -> Path:
    try:
        import skimage.data
    except ImportError:
        raise UnavailableError(
            "this photograph comes inside scikit-image: install that, or name an image file of your own"
        ) from None
    return Path(skimage.data.__file__).parent


def _caffe_cat() -> Path:
    folder = cache_dir("images")
    if not (folder / CAFFE_CAT_FILE).is_file():
        with locked(folder):
            try:
                download(folder, CAFFE_CAT_FILE, CAFFE_CAT_URL, None)
            except DataError as error:
                raise UnavailableError(
                    f"the Caffe cat could not be downloaded from {CAFFE_CAT_URL}: {error}"
                ) from None
    return folder / CAFFE_CAT_FILE
