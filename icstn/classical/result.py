"""What an alignment found, what can be said about it, and what is made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icstn.classical.inputs import as_images, as_kind
from icstn.sampling import Frame, sample
from icstn.warps import Warp, homography

if TYPE_CHECKING:
    from icstn.classical.inputs import Pictures

FLAGS = ("left_image", "singular", "mismatch")


@dataclass(frozen=True)
class Placed:
    """What a warp's parameters mean in pixels.

    Attributes:
        warp: the family.
        frame: where the template lies in the image at p = 0.
        origin: pixel ``(left, top)`` of the template in the picture that it is a region of.
        size: height and width of that picture.
    """

    warp: Warp
    frame: Frame
    origin: tuple[int, int]
    size: tuple[int, int]

    def matrices(self, p: Tensor) -> Tensor:
        """From the picture's pixels to the image's, ``(batch, 3, 3)``, float64."""
        back = torch.eye(3, dtype=torch.float64, device=p.device)
        back[0, 2], back[1, 2] = -self.origin[0], -self.origin[1]
        m = self.frame.matrix(self.warp, p) @ back
        return m / m[..., 2:, 2:]

    def params(self, matrices: Tensor) -> Tensor:
        """The inverse: warp parameters of pixel matrices, the nearest at the template's corners."""
        there = torch.eye(3, dtype=torch.float64, device=matrices.device)
        there[0, 2], there[1, 2] = self.origin
        return self.frame.params(self.warp, matrices.double() @ there)


@dataclass(frozen=True)
class AlignmentResult:
    """The warps, and what can be said about each.

    Attributes:
        p: warp parameters, ``(batch, k)``: the template point x lies at W(x; p) in the image.
        converged: the last step was shorter than the tolerance, and none of the flags below is set.
        iterations: steps taken, over all levels.
        residual: root mean square of I(W(x; p)) − T(x) over the samples inside the image.
        correlation: of the aligned image with the template, in [-1, 1].
        overlap: fraction of the template's samples that lie inside the image (of those that the mask leaves).
        left_image: the overlap fell below the aligner's minimum, or the warp folded over.
        singular: the Hessian could not be solved on the finest level.
        mismatch: it stopped, or was given up, where it does not look like the template: the correlation is
            too low, or the residual too large for it (a change of light, say, without ``normalize``), or so
            little determines the place that it may be a pixel off.
        trajectory: every warp from the initial to the last, ``(steps + 1, batch, k)``, if asked for.
        placed: what p means in pixels.
    """

    p: Float[Tensor, "batch k"]
    converged: Bool[Tensor, " batch"]
    iterations: Int[Tensor, " batch"]
    residual: Float[Tensor, " batch"]
    correlation: Float[Tensor, " batch"]
    overlap: Float[Tensor, " batch"]
    left_image: Bool[Tensor, " batch"]
    singular: Bool[Tensor, " batch"]
    mismatch: Bool[Tensor, " batch"]
    trajectory: Float[Tensor, "steps batch k"] | None = field(default=None, repr=False)
    placed: Placed | None = field(default=None, repr=False)

    @property
    def status(self) -> list[str]:
        """One word for each item: converged, left the image, singular, mismatch or unfinished."""
        flags = zip(*(getattr(self, name).tolist() for name in (*FLAGS, "converged")), strict=True)
        words = ("left the image", "singular", "mismatch", "converged")
        return [next((w for w, f in zip(words, item, strict=True) if f), "unfinished") for item in flags]

    def matrix(self, library: str = "opencv") -> Any:
        """3×3 matrices in pixels, ``(batch, 3, 3)``, pixel (0, 0) being the center of the first.

        Convention:
            * ``"opencv"``: from the template's pixels to the image's, a float64 array: what
              ``cv2.findTransformECC`` returns, and ``cv2.warpPerspective`` takes with the flag
              ``WARP_INVERSE_MAP``.
            * ``"skimage"``: the same array: what ``skimage.transform.warp`` takes as ``inverse_map``.
            * ``"kornia"``: from the image's pixels to the template's, a float32 tensor: what
              ``kornia.geometry.warp_perspective(image, M, dsize)`` takes.

        Raises:
            ValueError: none of these libraries.
        """
        m = self._placed().matrices(self.p.detach())
        if library in ("opencv", "skimage"):
            return m.cpu().numpy()
        if library == "kornia":
            return torch.linalg.inv(m).float()
        raise ValueError(f"the matrix is for 'opencv', 'skimage' or 'kornia', not {library!r}")

    def item(self, i: int) -> AlignmentResult:
        """The i-th alignment alone."""
        return self.select(slice(i, i + 1))

    def select(self, rows: Tensor | slice) -> AlignmentResult:
        """Those alignments alone."""
        parts = {
            name: getattr(self, name)[rows]
            for name in ("p", "converged", "iterations", "residual", "correlation", "overlap", *FLAGS)
        }
        path = None if self.trajectory is None else self.trajectory[:, rows]
        return AlignmentResult(**parts, trajectory=path, placed=self.placed)

    def aligned(self, image: Pictures) -> Any:
        """The image as the template sees it: of the template's size, black where it does not reach.

        Args:
            image: that was aligned, or another of the same scene and size (a color version of it, say).

        Returns:
            the same kind of image (tensor, array, PIL, or a list of them) with the same type of pixels;
            tensors are floats.

        Raises:
            ValueError: as many images as alignments are needed, or one.
        """
        x = as_images("image", image)
        placed, n = self._placed(), len(self.p)
        if len(x) not in (1, n):
            raise ValueError(f"there are {n} alignments and {len(x)} images")
        full = Frame.full(*placed.size)
        p = full.params(homography, placed.matrices(self.p)).to(x)
        out = sample(x, p, full, homography)
        return as_kind(out, image) if len(x) == n or isinstance(image, Tensor) else out

    def _placed(self) -> Placed:
        if self.placed is None:
            raise ValueError("this result does not know its frame: take that of an Aligner's call")
        return self.placed


def better(found: AlignmentResult, second: AlignmentResult, rows: Tensor) -> AlignmentResult:
    """The first result, with those items of the second (the rows of the first) that are better."""
    choice = second.converged | (second.correlation > found.correlation[rows])
    return replaced(found, second, rows, choice)


def replaced(
    found: AlignmentResult, second: AlignmentResult, rows: Tensor, choice: Tensor | None = None
) -> AlignmentResult:
    """The first result with the items of the second in the given rows, all or those chosen; steps add up."""
    merged = {}
    for name in ("p", "converged", "residual", "correlation", "overlap", *FLAGS):
        old, new = getattr(found, name), getattr(second, name)
        if choice is not None:
            new = torch.where(choice.view(-1, *[1] * (new.dim() - 1)), new, old[rows])
        merged[name] = old.index_copy(0, rows, new)
    iterations = found.iterations.index_add(0, rows, second.iterations)
    return AlignmentResult(**merged, iterations=iterations)
