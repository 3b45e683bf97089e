"""Two images in: compositional transformers whose predictor sees the warped image beside the template.

    compare = Correlation()
    predictor = nn.Sequential(compare, build("FC(96)-FC(8)", 83, 3, 3), FourPoint())
    aligner = PairICSTN(predictor, n=4, frame=Frame.crop(88, 88, 32, 32))
    warps = aligner(torch.cat((image, reference), 1), return_warps=True).warps

The template T is the part of a second image, the reference, that lies in the frame. Where the predictor of
an IC-STN has to know by heart what an aligned image looks like, this one compares: Δp = f(I(p), T). That is
what Lucas-Kanade does, and what the networks that came after the paper do. :class:`Correlation` is a way to
compare: each part of the template with what lies around it in the image, at several scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from icstn.sampling import Frame, sample
from icstn.transformers import ICSTN, Compositional, CompositionalSTN
from icstn.warps import corners, homography, off_horizon


class _Paired(Compositional):
    """Samples the image at p and the reference at the identity.

    Pairs are ``(batch, 2·channels, H, W)``, the image's channels before the reference's; so are the aligned
    images, ``(batch, 2·channels, height, width)``.
    """

    def sample(
        self, image: Float[Tensor, "pairs channels H W"], p: Float[Tensor, "batch k"], frame: Frame
    ) -> Float[Tensor, "batch channels height width"]:
        """I(p) and T, one after the other."""
        if image.shape[1] % 2:
            raise ValueError(
                f"a pair has as many channels of the reference as of the image, got {image.shape[1]} in all"
            )
        moving, reference = image.chunk(2, 1)
        still = self.warp.identity(len(p), dtype=p.dtype, device=p.device)
        both = ((moving, p), (reference, still))
        seen = [sample(x, at, frame, self.warp, padding=self.padding) for x, at in both]
        return torch.cat(seen, 1)


class PairICSTN(_Paired, ICSTN):
    """An IC-STN on pairs: one predictor Δp = f(I(p), T), applied n times.

    Takes what :class:`icstn.transformers.ICSTN` takes; its images are pairs, two images one after the other
    in their channels.

    Example:
        >>> predictor = nn.Sequential(nn.Flatten(), nn.Linear(2 * 16 * 16, 8))
        >>> PairICSTN(predictor, n=4)(torch.rand(3, 2, 16, 16)).shape
        torch.Size([3, 2, 16, 16])
    """


class PairCSTN(_Paired, CompositionalSTN):
    """A c-STN on pairs: as many predictors as steps, each with its own weights."""


class Standardized(nn.Module):
    """Each channel of each image with zero mean and unit variance: gain and offset are gone."""

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        """A flat channel becomes zeros."""
        x = x - x.mean((2, 3), keepdim=True)
        return x / (x.square().mean((2, 3), keepdim=True) + 1e-6).sqrt()


class Reach(NamedTuple):
    """One scale of a :class:`Correlation`.

    Attributes:
        shrink: factor by which crop and template are shrunk.
        reach: largest displacement that is tried, in pixels of the shrunk crop.
    """

    shrink: int
    reach: int


class Correlation(nn.Module):
    """Where the parts of the template lie in the crop: correlation, as probabilities of displacements.

    At each scale crop and template are shrunk, freed of what is smooth over five pixels, and standardized.
    The template then has nine overlapping parts, each half as wide as itself. Their correlation with the crop
    is taken under every displacement up to the scale's reach; a softmax, whose sharpness is learned, turns
    the correlations of a part into probabilities. (RAFT looks up a pyramid of correlations, too; of learned
    features.)

    Args:
        size: side of crop and template in pixels.
        scales: by default three, from displacements of 12 pixels in steps of 4 to those of a single one.

    Attributes:
        shape: of an item of the result, ``(displacements of all scales, 3, 3)``.

    Raises:
        ValueError: at some scale the template has less than four pixels a side.
    """

    def __init__(
        self, size: int = 32, scales: Sequence[Reach] = (Reach(4, 3), Reach(2, 2), Reach(1, 1))
    ) -> None:
        super().__init__()
        if any(size % (4 * scale.shrink) for scale in scales):
            raise ValueError(f"a template of {size} pixels can't be cut into quarters at each of {scales}")
        self.size, self.scales = size, tuple(scales)
        self.shape = (sum((2 * scale.reach + 1) ** 2 for scale in scales), 3, 3)
        self.sharpness = nn.Parameter(torch.full((len(self.scales),), 15.0).log())
        self.standardized = Standardized()

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch displacements 3 3"]:
        """Of crops and templates one after the other in their channels, as a predictor gets them."""
        if x.shape[2:] != (self.size, self.size):
            raise ValueError(f"crops are {self.size}×{self.size} pixels, got shape {tuple(x.shape)}")
        parts = zip(self.scales, self.sharpness.exp(), strict=True)
        return torch.cat([(sharp * self.correlations(x, scale)).softmax(1) for scale, sharp in parts], 1)

    def correlations(self, x: Tensor, scale: Reach) -> Tensor:
        """At one scale, ``(batch, (2·reach + 1)², 3, 3)``, displacements row by row."""
        x = F.avg_pool2d(x, scale.shrink)
        x = self.standardized(x - F.avg_pool2d(x, 5, 1, 2, count_include_pad=False))
        crop, template = x.chunk(2, 1)
        batch, channels, h, w = crop.shape
        near = F.unfold(crop, 2 * scale.reach + 1, padding=scale.reach).view(batch, channels, -1, h, w)
        return F.avg_pool2d((near * template[:, :, None]).mean(1), h // 2, h // 4)


class FourPoint(nn.Module):
    """Eight numbers → Δp: how far each corner of the template moves, in half sides (DeTone et al., 2016).

    Δp is the homography that takes the template's corners to the moved ones, in closed form: the one from the
    unit square of Heckbert (1989), after the map from [-1, 1]² to that.
    """

    def forward(self, x: Float[Tensor, "batch 8"]) -> Float[Tensor, "batch 8"]:
        """Corners clockwise from the top left, x before y; 1 is half the template's side."""
        q = corners(x.dtype, x.device) + x.view(-1, 4, 2)
        q0, q1, q2, q3 = q.unbind(1)
        d1, d2, s = q1 - q2, q3 - q2, q0 - q1 + q2 - q3
        w = off_horizon(_cross(d1, d2))
        g, h = (_cross(s, d2) / w).unsqueeze(-1), (_cross(d1, s) / w).unsqueeze(-1)
        across, down = (torch.cat(c, -1) / 2 for c in ((q1 - q0 + g * q1, g), (q3 - q0 + h * q3, h)))
        middle = torch.cat((q0, torch.ones_like(g)), -1) + across + down
        matrix = torch.stack((across, down, middle), -1)
        return homography.params(matrix / off_horizon(matrix[:, 2:, 2:]), check=False)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
