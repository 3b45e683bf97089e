"""The paper's geometric noise (Sec. 5): corner noise plus a translation, fitted to a warp family."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from icstn.sampling import Frame
from icstn.warps import Warp, corners, family


def corner_noise(
    n: int, sigma: float, *, generator: torch.Generator, translation_sigma: float | None = None
) -> Float[Tensor, "n 4 2"]:
    """Displacements of the four corners, in pixels.

    Args:
        n: how many draws.
        sigma: standard deviation in pixels of the i.i.d. noise on each corner coordinate.
        generator: source of randomness.
        translation_sigma: that of the translation shared by the four corners (the same by default).
    """
    if sigma < 0 or (translation_sigma or 0) < 0:
        raise ValueError(f"sigma is a standard deviation in pixels, at least 0; got {sigma}")
    own = torch.randn(n, 4, 2, generator=generator, device=generator.device)
    shared = torch.randn(n, 1, 2, generator=generator, device=generator.device)
    return own * sigma + shared * (sigma if translation_sigma is None else translation_sigma)


def perturbations(
    n: int,
    sigma: float,
    frame: Frame,
    warp: Warp | str,
    *,
    generator: torch.Generator,
    translation_sigma: float | None = None,
) -> Float[Tensor, "n k"]:
    """Random initial warps: noisy corners (:func:`corner_noise`) fitted to the family (Sec. 5.1 and 5.2).

    A pixel is the frame's (:attr:`icstn.sampling.Frame.pixel`): the paper's σ = 3.5 px on 28 px is 0.25.

    Args:
        n: how many warps.
        sigma: noise in template pixels.
        frame: gives the size of a pixel.
        warp: family to fit; for fewer parameters than eight the fit is least squares.
        generator: source of randomness; its device is the result's.

    Returns:
        ``(n, k)`` float32 warp parameters.
    """
    warp = family(warp)
    noise = corner_noise(n, sigma, generator=generator, translation_sigma=translation_sigma)
    square = corners(device=generator.device)
    scale = noise.new_tensor(frame.pixels)
    return warp.fit(square, square + noise * scale, check=False)
