"""Augmentation of appearance: other light, less sharpness and some noise, while the geometry stays.

For traffic signs, whose training set shows each physical sign thirty times in nearly the same light. The
paper does not do it, so its table says where it was done.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

#: Standard deviations at strength 1, in units of a standardized image: of the logarithm of a channel's gain,
#: of its offset, of the light's slope from the middle to an edge, and the largest of the noise.
GAIN, OFFSET, SLOPE, NOISE = 0.2, 0.2, 0.3, 0.1


def varied_appearance(
    images: Float[Tensor, "batch channels height width"], strength: float, generator: torch.Generator
) -> Float[Tensor, "batch channels height width"]:
    """Standardized images under other light.

    Each image gets a gain and an offset a channel, a slope of light across it, a blur (a share, up to all, of
    the 3×3 mean in its place) and noise of a random size.

    Args:
        images: zero mean and unit variance each.
        strength: factor on all of these, 0 leaves the images as they are; about 1 is plausible light.
        generator: source of randomness, on the CPU.
    """
    if strength == 0:
        return images
    b, c, h, w = images.shape

    def normal(*shape: int) -> Tensor:
        return strength * torch.randn(*shape, generator=generator)

    def uniform() -> Tensor:
        return min(strength, 1.0) * torch.rand(b, 1, 1, 1, generator=generator)

    gain, offset = (GAIN * normal(b, c, 1, 1)).exp(), OFFSET * normal(b, c, 1, 1)
    x, y = torch.linspace(-1, 1, w), torch.linspace(-1, 1, h).unsqueeze(1)
    slope = SLOPE * (normal(b, 1, 1, 1) * x + normal(b, 1, 1, 1) * y)
    noise = NOISE * uniform() * normal(b, c, h, w)
    blur, light = uniform().to(images.device), (slope + offset + noise).to(images.device)
    smooth = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), "replicate"), 3, 1)
    return torch.lerp(images, smooth, blur) * gain.to(images.device) + light
