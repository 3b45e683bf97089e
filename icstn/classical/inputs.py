"""What images come in as, NumPy, PIL or tensors, and go out as again; errors that name the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

    Picture = Tensor | np.ndarray | Image
    Pictures = Picture | Sequence[Picture]

#: Weights of red, green and blue in a gray value (ITU-R BT.601, as OpenCV and PIL have it).
LUMA = (0.299, 0.587, 0.114)


def as_images(what: str, images: Pictures) -> Tensor:
    """Images of any kind as a float tensor ``(batch, channels, height, width)``.

    Args:
        what: the word for them in messages.
        images: one, or a list of several of one size:
            a tensor ``(batch, channels, height, width)``, ``(channels, height, width)`` or
            ``(height, width)``; a NumPy array ``(height, width)``, ``(height, width, channels)`` or
            ``(batch, height, width, channels)`` as OpenCV, scikit-image and imageio have them; a PIL image
            (turned upright as its EXIF tag says). Integers and booleans are scaled to [0, 1] by their type's
            largest value; floats are taken as they are (half precision as float32).

    Raises:
        TypeError: it is no image.
        ValueError: the shape is none of these, it is empty or less than two pixels wide, the sizes in a list
            differ, or pixels are not finite; the message says which image.
    """
    if isinstance(images, (list, tuple)):
        x = _stack(what, [as_images(f"{what} {i}", image) for i, image in enumerate(images)])
    else:
        x = _tensor(what, images)  # type: ignore[arg-type]
    check_images(what, x)
    return x


def as_kind(x: Tensor, like: Any) -> Any:
    """A tensor ``(batch, channels, height, width)`` as the kind of image that ``like`` is.

    Arrays and PIL images come back with the pixel type of ``like``, tensors as floats; a single image comes
    back as one.
    """
    if isinstance(like, (list, tuple)):
        return [as_kind(part, one) for part, one in zip(x.split(1), like, strict=True)]
    if isinstance(like, Tensor):
        return x if like.dim() == 4 else x[0] if like.dim() == 3 else x[0, 0]
    if isinstance(like, np.ndarray):
        out = _array(x, like.dtype)
        return out if like.ndim == 4 else out[0] if like.ndim == 3 else out[0, ..., 0]
    from PIL import Image

    array = _array(x, np.dtype(np.uint8))[0]
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def to_gray(x: Tensor) -> Tensor:
    """Red, green and blue → gray, ``(batch, 1, height, width)``."""
    return (x * x.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def check_images(what: str, x: Tensor) -> None:
    """Refuse what is no batch of finite float images.

    Raises:
        ValueError: the message says what it is and which item.
    """
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(
            f"the {what} is a float tensor (batch, channels, height, width), got {x.dtype} {tuple(x.shape)}"
        )
    if min(x.shape) < 1 or min(x.shape[-2:]) < 2:
        raise ValueError(f"the {what} is empty or less than 2 pixels wide: {tuple(x.shape)}")
    # a sum is finite only if every pixel is, and is cheaper to look at than each of them
    if not bool(x.detach().sum().isfinite()) and not bool(x.isfinite().all()):
        raise ValueError(f"the {what} {items(~x.isfinite().flatten(1).all(1))} has NaN or infinite pixels")


def items(flags: Tensor) -> str:
    """The numbers of the items that are flagged, at most eight of them."""
    numbers = flags.nonzero().flatten().tolist()
    return ", ".join(map(str, numbers[:8])) + (", …" if len(numbers) > 8 else "")


def check_finite_images(images: Tensor) -> None:
    """The same for the images of a regression."""
    if images.dim() != 4 or not images.is_floating_point():
        raise ValueError(
            f"images are float tensors (batch, channels, height, width), got {images.dtype} "
            f"{tuple(images.shape)}"
        )
    bad = (~images.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"image {', '.join(map(str, bad[:8]))} has pixels that are not finite")


def _tensor(what: str, image: Picture) -> Tensor:
    if isinstance(image, Tensor):
        return _float(what, _batched(what, image))
    if isinstance(image, np.ndarray):
        return _float(what, _from_array(what, image))
    if hasattr(image, "convert"):
        return _float(what, _from_array(what, _upright(image)))
    raise TypeError(f"the {what} is a tensor, a NumPy array or a PIL image, not a {type(image).__name__}")


def _batched(what: str, x: Tensor) -> Tensor:
    if not 2 <= x.dim() <= 4:
        raise ValueError(
            f"the {what} is a tensor (batch, channels, height, width), (channels, height, width) or "
            f"(height, width), got {tuple(x.shape)}"
        )
    return x[(None,) * (4 - x.dim())] if x.dim() < 4 else x


def _from_array(what: str, image: np.ndarray) -> Tensor:
    if image.ndim not in (2, 3, 4) or (image.ndim > 2 and image.shape[-1] not in (1, 3, 4)):
        raise ValueError(
            f"the {what} is an array (height, width), (height, width, channels) or (batch, height, width, "
            f"channels) with 1, 3 or 4 channels, got {image.shape}"
        )
    if image.ndim == 2:
        image = image[..., None]
    image = image[..., :3] if image.shape[-1] == 4 else image
    native = np.ascontiguousarray(image, image.dtype.newbyteorder("="))
    try:
        x = torch.from_numpy(native)
    except TypeError:
        raise TypeError(f"the {what} is an array of {image.dtype}, which are no pixels") from None
    return (x if x.dim() == 4 else x[None]).permute(0, 3, 1, 2)


def _upright(image: Image) -> np.ndarray:
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    gray = image.mode in ("1", "L", "I", "I;16", "I;16B", "I;16L", "F")
    return np.array(image.convert("L") if image.mode == "1" else image if gray else image.convert("RGB"))


def _float(what: str, x: Tensor) -> Tensor:
    """Floats of single or double precision, contiguous."""
    if x.is_complex():
        raise ValueError(f"the {what} has complex pixels")
    if x.dtype == torch.bool:
        return x.float()
    if not x.is_floating_point():
        return x.to(torch.float32, memory_format=torch.contiguous_format).div_(torch.iinfo(x.dtype).max)
    return (x.float() if torch.finfo(x.dtype).bits < 32 else x).contiguous()


def _stack(what: str, images: list[Tensor]) -> Tensor:
    if not images:
        raise ValueError(f"the list of the {what} is empty")
    shapes = [tuple(x.shape[1:]) for x in images]
    for i, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
                f"{what} {i} is {shape[1]}×{shape[2]} with {shape[0]} channels and {what} 0 "
                f"{shapes[0][1]}×{shapes[0][2]} with {shapes[0][0]}: a list holds images of one size"
            )
    return torch.cat(images)


def _array(x: Tensor, dtype: np.dtype) -> np.ndarray:
    x = x.detach().cpu().permute(0, 2, 3, 1)
    if np.issubdtype(dtype, np.floating):
        return x.numpy().astype(dtype)
    if dtype == np.bool_:
        return (x > 0.5).numpy()
    largest = np.iinfo(dtype).max
    return (x.double().clamp(0, 1) * largest).round().numpy().astype(dtype)
