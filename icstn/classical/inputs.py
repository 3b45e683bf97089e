"""Checks of the images that come in, with errors that name the item."""

from __future__ import annotations

from torch import Tensor


def check_images(what: str, x: Tensor) -> None:
    """Refuse what is no batch of finite images.

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
