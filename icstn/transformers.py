"""Spatial transformers: STN, compositional STN and inverse compositional STN, as plain modules.

All three take images ``(batch, channels, H, W)`` and optionally initial warps p ``(batch, k)`` (the
identity by default) and return the aligned template-sized images. They differ in what they hand from
one warp operation to the next: an :class:`STN` the warped *image*, the other two the warp *parameters*.
A geometric predictor is any module from the template-sized images ``(batch, channels, h, w)`` to warp
updates ``(batch, k)``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, overload

from jaxtyping import Float
from torch import Tensor, nn

from icstn.sampling import Frame, sample
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
    """What the three transformers share: family, frame, and the checks of their input."""

    def __init__(self, warp: Warp | str, frame: Frame | None) -> None:
        super().__init__()
        self.warp = family(warp)
        self.frame = frame

    def predictor(self, step: int) -> nn.Module:
        """The geometric predictor of that warp operation, counted from 0."""
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
            image: float images, one for each warp or one for all.
            p: initial warps, in normalised units of the frame; the identity by default.
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
            p = self.warp.identity(len(image), dtype=image.dtype, device=image.device)
        n = self.operations if n is None else n
        self._check_operations(n)
        frame = self.frame or Frame.full(image.shape[-2], image.shape[-1])
        result = self.run(image, p, frame, n)
        return result if return_warps else result.image

    def update(self, step: int, crop: Tensor) -> Tensor:
        """Δp = f(I(p)), with the shape of the prediction checked."""
        dp = self.predictor(step)(crop)
        if dp.shape != (len(crop), self.warp.dim):
            raise ValueError(
                f"the geometric predictor returned shape {tuple(dp.shape)}; "
                f"a {self.warp.name} on {len(crop)} images wants ({len(crop)}, {self.warp.dim})"
            )
        return dp

    def _check_operations(self, n: int) -> None:
        if n < 0:
            raise ValueError(f"the number of warp operations is at least 0, got {n}")


class STN(Transformer):
    """Spatial Transformer (Jaderberg et al., 2015), eq. (8): I_out(0) = I_in(p), p = f(I_in(0)).

    Each operation resamples the *output image* of the one before it, so whatever left that image is
    lost: the boundary effect. With initial warps p, its input is the crop I(p).

    Args:
        predictor: the geometric predictor.
        warp: family of its prediction.
        frame: where the template lies in the image; the whole image by default.
        n: number of warp operations (the paper uses 1).
    """

    def __init__(
        self, predictor: nn.Module, warp: Warp | str = "homography", frame: Frame | None = None, n: int = 1
    ) -> None:
        super().__init__(warp, frame)
        self.geometric_predictor = predictor
        self.n = n

    @property
    def operations(self) -> int:
        """Number of warp operations by default."""
        return self.n

    def predictor(self, step: int) -> nn.Module:
        """The geometric predictor."""
        return self.geometric_predictor

    def run(self, image: Tensor, p: Tensor, frame: Frame, n: int) -> Alignment:
        """Resample the crop I(p) n times; the listed warps are those of the original image."""
        crop, warps = sample(image, p, frame, self.warp), [p]
        whole = Frame.full(frame.height, frame.width)
        for step in range(n):
            dp = self.update(step, crop)
            crop = sample(crop, dp, whole, self.warp)
            warps.append(self.warp.compose(warps[-1], dp, side="template", check=False))
        return Alignment(crop, warps)


class Compositional(Transformer):
    """What c-STN and IC-STN share, the loop of Fig. 4: sample the source image at p, predict Δp, compose."""

    def __init__(self, warp: Warp | str, frame: Frame | None, side: Side) -> None:
        super().__init__(warp, frame)
        if side not in ("image", "template"):
            raise ValueError(f"side is 'image' (M(Δp) M(p)) or 'template' (M(p) M(Δp)), not {side!r}")
        self.side: Side = side

    def run(self, image: Tensor, p: Tensor, frame: Frame, n: int) -> Alignment:
        """Compose n predicted updates onto p, then sample the source image once more."""
        warps = self.warps(image, p, frame, n)
        return Alignment(sample(image, warps[-1], frame, self.warp), warps)

    def warps(self, image: Tensor, p: Tensor, frame: Frame, n: int) -> list[Tensor]:
        """The warps alone, without the last sampling: what pure alignment needs."""
        warps = [p]
        for step in range(n):
            crop = sample(image, warps[-1], frame, self.warp)
            warps.append(self.compose(warps[-1], self.update(step, crop)))
        return warps

    def compose(self, p: Tensor, dp: Tensor) -> Tensor:
        """The new warp; unchecked, since a check would wait for the GPU at each step."""
        return self.warp.compose(p, dp, side=self.side, check=False)


class CompositionalSTN(Compositional):
    """c-STN (Sec. 4.1): N geometric predictors, each with its own parameters; warp parameters are passed on.

    Args:
        predictors: one geometric predictor for each warp operation.
        warp: family of their predictions.
        frame: where the template lies in the image; the whole image by default.
        side: ``"image"`` composes as eq. (10), M(Δp) M(p); ``"template"`` as Lucas-Kanade, M(p) M(Δp).
    """

    def __init__(
        self,
        predictors: Iterable[nn.Module],
        warp: Warp | str = "homography",
        frame: Frame | None = None,
        side: Side = "image",
    ) -> None:
        super().__init__(warp, frame, side)
        self.geometric_predictors = nn.ModuleList(predictors)

    @property
    def operations(self) -> int:
        """Number of warp operations by default."""
        return len(self.geometric_predictors)

    def predictor(self, step: int) -> nn.Module:
        """The geometric predictor of that operation."""
        return self.geometric_predictors[step]

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
        side: ``"image"`` composes as eq. (10), M(Δp) M(p); ``"template"`` as Lucas-Kanade, M(p) M(Δp).
        invert: compose with the explicit inverse Δp⁻¹ of the prediction, as IC-LK does (Sec. 4.2 finds
            the difference negligible).

    Example:
        >>> predictor = nn.Sequential(nn.Flatten(), nn.Linear(16 * 16, 6))
        >>> ICSTN(predictor, n=4, warp="affine")(torch.rand(2, 1, 16, 16)).shape
        torch.Size([2, 1, 16, 16])
    """

    def __init__(
        self,
        predictor: nn.Module,
        n: int,
        warp: Warp | str = "homography",
        frame: Frame | None = None,
        side: Side = "image",
        invert: bool = False,
    ) -> None:
        super().__init__(warp, frame, side)
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

    def compose(self, p: Tensor, dp: Tensor) -> Tensor:
        """The new warp."""
        return super().compose(p, self.warp.inverse(dp, check=False) if self.invert else dp)
