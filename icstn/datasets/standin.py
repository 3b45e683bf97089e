"""A rendered stand-in for GTSRB: 43 sign-like classes in clutter, blur and changing light."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from icstn.datasets.cache import cache_dir, cached_dataset
from icstn.datasets.dataset import Dataset, check_split, fingerprint
from icstn.datasets.signs import RADIUS, SIGNS, draw_sign

if TYPE_CHECKING:
    from PIL.Image import Image

#: Images of a split unless told otherwise: 100 and 30 of each class.
COUNTS = {"train": 4300, "test": 1290}
NOTE = (
    "the images are a rendered stand-in: sign-like drawings in made-up clutter, not photographs of GTSRB; "
    "no number obtained on them says anything about GTSRB"
)
_PLATE_SIDE = 128


def gtsrb_stand_in(
    split: Literal["train", "test"], seed: int = 0, count: int | None = None, size: int = 50
) -> Dataset:
    """Rendered images of the shape and the classes of GTSRB, for where GTSRB can't be had.

    Each image is a plate (``icstn.datasets.signs``) seen slightly from the side, on a cluttered
    background, under random light, out of focus or in motion, at a random resolution. The same
    arguments give the same images (with the same version of Pillow); the two splits share none.

    Args:
        split: ``"train"`` or ``"test"``.
        seed: of the generator.
        count: number of images, 4,300 and 1,290 by default; the classes take turns.
        size: side of the images in pixels; the plate takes up about 80 % of it.

    Returns:
        images ``(count, 3, size, size)``, labels 0 to 42, boxes around the plates; ``stand_in`` is set
        and ``notes`` says it in words.
    """
    import PIL

    check_split(split)
    count = COUNTS[split] if count is None else count
    if count < 1 or size < 8:
        raise ValueError(f"a stand-in needs at least one image of 8×8 pixels, got {count} of {size}×{size}")
    name = f"{split}-{size}-{count}-seed{seed}-v2-pillow{PIL.__version__}.safetensors"
    return cached_dataset(cache_dir("gtsrb-stand-in") / name, lambda: _render(split, seed, count, size))


def _render(split: str, seed: int, count: int, size: int) -> Dataset:
    random = np.random.default_rng([seed, ("train", "test").index(split)])
    labels = np.arange(count) % len(SIGNS)
    random.shuffle(labels)
    scenes = [_scene(label, size, random) for label in labels.tolist()]
    images = torch.from_numpy(np.stack([image for image, _ in scenes]))
    boxes = torch.tensor([box for _, box in scenes], dtype=torch.float32)
    target = torch.from_numpy(labels.astype(np.int64))
    digest = fingerprint(images, target)
    return Dataset(images, target, "gtsrb-stand-in", split, digest, (NOTE,), stand_in=True, boxes=boxes)


@lru_cache(maxsize=len(SIGNS))
def _plate(label: int) -> Image:
    from PIL import Image

    return draw_sign(SIGNS[label], 4 * _PLATE_SIDE).resize((_PLATE_SIDE,) * 2, Image.Resampling.BOX)


def _scene(label: int, size: int, random: np.random.Generator) -> tuple[np.ndarray, list[float]]:
    """One image ``(3, size, size)`` uint8 and the plate's box, drawn at twice the size."""
    from PIL import Image

    side = 2 * size
    matrix, box = _view(size, random)
    plate = _plate(label).transform(
        (side, side), Image.Transform.PERSPECTIVE, matrix, Image.Resampling.BILINEAR
    )
    scene = _clutter(side, random)
    scene.paste(plate, (0, 0), plate)
    sharp = scene.resize((_resolution(size, random),) * 2, Image.Resampling.BOX)
    picture = np.asarray(sharp.resize((size, size), Image.Resampling.BILINEAR), np.float32)
    picture = _light(_motion(picture, random), random)
    return picture.clip(0, 255).astype(np.uint8).transpose(2, 0, 1), box


def _view(size: int, random: np.random.Generator) -> tuple[list[float], list[float]]:
    """Pillow's eight numbers from scene to plate pixels, and the plate's box in image pixels."""
    half = 0.5 * size * random.uniform(0.8, 0.95)
    center = size / 2 + random.normal(0, 0.02 * size, 2)
    turn = math.radians(random.normal(0, 4))
    squeeze = random.uniform(0.88, 1.0)
    tilt = random.normal(0, 0.05, 2)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    forward = np.eye(3)
    forward[:2, :2] = half * rotation @ np.diag([squeeze, 1])
    forward[:2, 2], forward[2, :2] = center, tilt
    r = RADIUS
    corners = forward @ np.array([[-r, r, r, -r], [-r, -r, r, r], [1, 1, 1, 1]])
    x, y = corners[:2] / corners[2] - 0.5
    to_plate = np.array([[1, 0, 1], [0, 1, 1], [0, 0, 2 / _PLATE_SIDE]]) / (2 / _PLATE_SIDE)
    m = to_plate @ np.linalg.inv(np.diag([2.0, 2.0, 1.0]) @ forward)
    return (m / m[2, 2]).ravel()[:8].tolist(), [x.min(), y.min(), x.max(), y.max()]


def _clutter(side: int, random: np.random.Generator) -> Image:
    """A background: two scales of colored noise, then a few poles, walls and leaves."""
    from PIL import Image, ImageDraw

    tone = random.uniform(40, 200) + random.normal(0, 20, 3)
    scene = Image.new("RGB", (side, side))
    for cells, contrast in ((3, 45), (int(random.integers(8, 24)), 25)):
        noise = tone + random.normal(0, contrast, (cells, cells, 1)) + random.normal(0, 12, (cells, cells, 3))
        layer = Image.fromarray(noise.clip(0, 255).astype(np.uint8)).resize(
            (side, side), Image.Resampling.BILINEAR
        )
        scene = layer if cells == 3 else Image.blend(scene, layer, 0.5)
    pen = ImageDraw.Draw(scene)
    for _ in range(random.integers(2, 9)):
        x, y, dx, dy = random.uniform(0, side, 2).tolist() + (side * random.normal(0, 0.35, 2)).tolist()
        color = tuple(
            (tone + random.normal(0, 50) + random.normal(0, 20, 3)).clip(0, 255).astype(int).tolist()
        )
        if random.random() < 0.5:
            pen.line((x, y, x + dx, y + dy), color, int(random.integers(1, max(2, side // 8))))
        else:
            pen.polygon([(x, y), (x + dx, y + dy), (x - dy, y + dx)], fill=color)
    return scene


def _resolution(size: int, random: np.random.Generator) -> int:
    """Pixels that the camera had for the side of the image, between 30 % and all of them."""
    return round(size * math.exp(random.uniform(math.log(0.3), 0)))


def _motion(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Half of the images are averaged along a line of up to 4 pixels."""
    if random.random() < 0.5:
        return picture
    length, angle = random.uniform(1, 4), random.uniform(0, math.pi)
    steps = {
        (round(t * math.sin(angle)), round(t * math.cos(angle))) for t in np.linspace(-0.5, 0.5, 5) * length
    }
    padded = np.pad(picture, ((2, 2), (2, 2), (0, 0)), "edge")
    h, w = picture.shape[:2]
    return np.mean([padded[2 + y : 2 + y + h, 2 + x : 2 + x + w] for y, x in sorted(steps)], 0)


def _light(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Exposure, color cast, haze, a gradient across the image, and sensor noise."""
    h, w = picture.shape[:2]
    gain = math.exp(random.uniform(math.log(0.18), math.log(1.4))) * random.uniform(0.9, 1.1, 3)
    slope = 1 + random.normal(0, 0.15, 2) @ np.stack(
        np.meshgrid(*[np.linspace(-1, 1, n) for n in (w, h)])
    ).reshape(2, -1)
    haze = random.uniform(0, 0.35)
    flat = picture * (1 - haze) + picture.mean() * haze
    return flat * gain * slope.reshape(h, w, 1).clip(0.2) + random.normal(
        0, random.uniform(1, 6), picture.shape
    )
