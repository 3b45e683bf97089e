"""Spatial transformers: STN, compositional STN and inverse compositional STN, as plain modules.

All three take images ``(batch, channels, H, W)`` and optionally initial warps p ``(batch, k)`` (the
identity by default) and return the aligned template-sized images. They differ in what they hand from
one warp operation to the next: an :class:`STN` the warped *image*, the other two the warp *parameters*.
A geometric predictor is any module from the template-sized images ``(batch, channels, h, w)`` to warp
updates ``(batch, k)``; see :mod:`icstn.start` for how it begins and at which rate it learns.

Warps are float32 or better, whatever the images and the predictor compute in. Under autocast, a compiler, an
exporter or ``torch.func``, and for empty batches, the modules behave as PyTorch's own do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from icstn.sampling import Frame, Padding, check_padding, sample
from icstn.warps import Side, Warp, family


class Alignment(NamedTuple):
    """What a transformer did.

    Attributes:
        image: aligned images ``(batch, channels, height, width)``.
        warps: warp parameters ``(batch, k)`` before the first and after each warp operation.
    """

    image: Tensor
    warps: list[Tensor]


class Transformer(nn.Module):
    """What the three transformers share: family, frame, padding, and the checks of their input."""

    def __init__(self, warp: Warp | str, frame: Frame | None, padding: Padding) -> None:
        super().__init__()
        check_padding(padding)
        self.warp = family(warp)
        self.frame = frame
        self.padding: Padding = padding

    def predictor(self, step: int) -> nn.Module:
        """The geometric predictor of that warp operation, counted from 0."""
        raise NotImplementedError

    def predictors(self) -> list[nn.Module]:
        """All its geometric predictors."""
        raise NotImplementedError

    @property
    def operations(self) -> int:
        """Number of warp operations by default."""
        raise NotImplementedError

    def run(self, image: Tensor, p: Tensor, frame: Frame, n: int) -> Alignment:
        """Apply n warp operations from p."""
        raise NotImplementedError

    @overload
    def forward(
        self,
        image: Tensor,
        p: Tensor | None = ...,
        *,
        n: int | None = ...,
        return_warps: Literal[False] = ...,
    ) -> Tensor: ...
    @overload
    def forward(
        self, image: Tensor, p: Tensor | None = ..., *, n: int | None = ..., return_warps: Literal[True]
    ) -> Alignment: ...
    def forward(
        self,
        image: Float[Tensor, "images channels H W"],
        p: Float[Tensor, "batch k"] | None = None,
        *,
        n: int | None = None,
        return_warps: bool = False,
    ) -> Tensor | Alignment:
        """Align images.

        Args:
            image: floating-point images, one for each warp or one for all.
            p: initial warps, in normalized units of the frame; the identity by default.
            n: number of warp operations, if not the trained one.
            return_warps: return an :class:`Alignment` with every intermediate warp.

        Returns:
            aligned images ``(batch, channels, height, width)``, of the frame's size.

        Raises:
            ValueError: a shape does not fit, or n is out of range; the message says which.
        """
        if image.dim() != 4:
            raise ValueError(f"images are (batch, channels, height, width), got shape {tuple(image.shape)}")
        if p is None:
            dtype = torch.promote_types(image.dtype, torch.float32)
            p = self.warp.identity(image.shape[0], dtype=dtype, device=image.device)
        n = self.operations if n is None else n
        self._check_operations(n)
        frame = self.frame or Frame.full(image.shape[-2], image.shape[-1])
        result = self.run(image, p, frame, n)
        return result if return_warps else result.image

    def update(self, step: int, crop: Tensor) -> Tensor:
        """Δp = f(I(p)), with the shape of the prediction checked."""
        dp = self.predictor(step)(crop)
        batch = crop.shape[0]
        if dp.shape != (batch, self.warp.dim):
            raise ValueError(
                f"the geometric predictor returned shape {tuple(dp.shape)}; "
                f"a {self.warp.name} on {batch} images wants ({batch}, {self.warp.dim})"
            )
        return dp

    def sample(self, image: Tensor, p: Tensor, frame: Frame) -> Tensor:
        """I(p), with this transformer's family and padding."""
        return sample(image, p, frame, self.warp, padding=self.padding)

    def extra_repr(self) -> str:
        """What it does, for ``print``."""
        return f"n={self.operations}, warp={self.warp.name}, frame={self.frame}, padding={self.padding}"

    def _check_operations(self, n: int) -> None:
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise ValueError(f"the number of warp operations is a whole number, at least 0, got {n!r}")


class STN(Transformer):
    """Spatial Transformer (Jaderberg et al., 2015), eq. (8): I_out(0) = I_in(p), p = f(I_in(0)).

    Each operation resamples the *output image* of the one before it, so whatever left that image is
    lost: the boundary effect. With initial warps p, its input is the crop I(p).

    Args:
        predictor: the geometric predictor.
        n: number of warp operations (the paper uses 1).
        warp: family of its prediction.
        frame: where the template lies in the image; the whole image by default.
        padding: what lies outside an image, see :func:`icstn.sampling.sample`.
    """

    def __init__(
        self,
        predictor: nn.Module,
        n: int = 1,
        *,
        warp: Warp | str = "homography",
        frame: Frame | None = None,
        padding: Padding = "zeros",
    ) -> None:
        super().__init__(warp, frame, padding)
        self._check_operations(n)
        self.geometric_predictor = predictor
        self.n = n

    @property
    def operations(self) -> int:
        """Number of warp operations by default."""
        return self.n

    def predictor(self, step: int) -> nn.Module:
        """The geometric predictor."""
        return self.geometric_predictor

    def predictors(self) -> list[nn.Module]:
        """The geometric predictor alone."""
        return [self.geometric_predictor]

    def run(self, image: Tensor, p: Tensor, frame: Frame, n: int) -> Alignment:
        """Resample the crop I(p) n times; the listed warps are those of the original image."""
        crop, warps = self.sample(image, p, frame), [p]
        whole = Frame.full(frame.height, frame.width)
        for step in range(n):
            dp = self.update(step, crop)
            crop = self.sample(crop, dp, whole)
            warps.append(self.warp.compose(warps[-1], dp, side="template", check=False))
        return Alignment(crop, warps)


class Compositional(Transformer):
    """What c-STN and IC-STN share, the loop of Fig. 4: sample the source image at p, predict Δp, compose."""

    def __init__(self, warp: Warp | str, frame: Frame | None, side: Side, padding: Padding) -> None:
        super().__init__(warp, frame, padding)
        if side not in ("image", "template"):
            raise ValueError(f"side is 'image' (M(Δp) M(p)) or 'template' (M(p) M(Δp)), not {side!r}")
        self.side: Side = side

    def run(self, image: Tensor, p: Tensor, frame: Frame, n: int) -> Alignment:
        """Compose n predicted updates onto p, then sample the source image once more."""
        warps = self.warps(image, p, frame, n)
        return Alignment(self.sample(image, warps[-1], frame), warps)

    def warps(self, image: Tensor, p: Tensor, frame: Frame, n: int) -> list[Tensor]:
        """The warps alone, without the last sampling: what pure alignment needs."""
        warps = [p]
        for step in range(n):
            crop = self.sample(image, warps[-1], frame)
            warps.append(self.compose(warps[-1], self.update(step, crop)))
        return warps

    def compose(self, p: Tensor, dp: Tensor) -> Tensor:
        """The new warp; unchecked, since a check would wait for the GPU at each step."""
        return self.warp.compose(p, dp, side=self.side, check=False)

    def extra_repr(self) -> str:
        """What it does, for ``print``."""
        return f"{super().extra_repr()}, side={self.side}"


class CompositionalSTN(Compositional):
    """c-STN (Sec. 4.1): N geometric predictors, each with its own parameters; warp parameters are passed on.

    Args:
        predictors: one geometric predictor for each warp operation.
        warp: family of their predictions.
        frame: where the template lies in the image; the whole image by default.
        side: ``"template"`` composes as Lucas-Kanade, M(p) M(Δp); ``"image"`` as the
            paper's eq. (10), M(Δp) M(p).
        padding: what lies outside the image, see :func:`icstn.sampling.sample`.
    """

    def __init__(
        self,
        predictors: Iterable[nn.Module],
        *,
        warp: Warp | str = "homography",
        frame: Frame | None = None,
        side: Side = "template",
        padding: Padding = "zeros",
    ) -> None:
        super().__init__(warp, frame, side, padding)
        self.geometric_predictors = nn.ModuleList(predictors)

    @property
    def operations(self) -> int:
        """Number of warp operations by default."""
        return len(self.geometric_predictors)

    def predictor(self, step: int) -> nn.Module:
        """The geometric predictor of that operation."""
        return self.geometric_predictors[step]

    def predictors(self) -> list[nn.Module]:
        """All its geometric predictors, in order."""
        return list(self.geometric_predictors)

    def _check_operations(self, n: int) -> None:
        super()._check_operations(n)
        if n > self.operations:
            raise ValueError(f"a c-STN with {self.operations} predictors cannot apply {n} warp operations")


class ICSTN(Compositional):
    """IC-STN (Sec. 4.2): one geometric predictor, applied N times; N may differ from training.

    Args:
        predictor: the geometric predictor.
        n: number of warp operations.
        warp: family of its prediction.
        frame: where the template lies in the image; the whole image by default.
        side: ``"template"`` composes as Lucas-Kanade, M(p) M(Δp); ``"image"`` as the
            paper's eq. (10), M(Δp) M(p).
        invert: compose with the explicit inverse Δp⁻¹ of the prediction, as IC-LK does (Sec. 4.2 finds
            the difference negligible).
        padding: what lies outside the image, see :func:`icstn.sampling.sample`.

    Example:
        >>> predictor = nn.Sequential(nn.Flatten(), nn.Linear(16 * 16, 6))
        >>> ICSTN(predictor, n=4, warp="affine")(torch.rand(2, 1, 16, 16)).shape
        torch.Size([2, 1, 16, 16])
    """

    def __init__(
        self,
        predictor: nn.Module,
        n: int = 4,
        *,
        warp: Warp | str = "homography",
        frame: Frame | None = None,
        side: Side = "template",
        invert: bool = False,
        padding: Padding = "zeros",
    ) -> None:
        super().__init__(warp, frame, side, padding)
        self._check_operations(n)
        self.geometric_predictor = predictor
        self.n = n
        self.invert = invert

    @property
    def operations(self) -> int:
        """Number of warp operations by default."""
        return self.n

    def predictor(self, step: int) -> nn.Module:
        """The one geometric predictor."""
        return self.geometric_predictor

    def predictors(self) -> list[nn.Module]:
        """The one geometric predictor."""
        return [self.geometric_predictor]

    def compose(self, p: Tensor, dp: Tensor) -> Tensor:
        """The new warp."""
        return super().compose(p, self.warp.inverse(dp, check=False) if self.invert else dp)
