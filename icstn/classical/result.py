"""What an alignment found, and what can be said about it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

FLAGS = ("left_image", "singular", "mismatch")


@dataclass(frozen=True)
class AlignmentResult:
    """The warps, and what can be said about each.

    Attributes:
        p: warp parameters, ``(batch, k)``: the template point x lies at W(x; p) in the image.
        converged: the last step was shorter than the tolerance, and none of the flags below is set.
        iterations: steps taken, over all levels.
        residual: root mean square of I(W(x; p)) − T(x) over the samples inside the image.
        correlation: of the aligned image with the template, in [-1, 1].
        overlap: fraction of the template's samples that lie inside the image.
        left_image: the overlap fell below the aligner's minimum, or the warp folded over.
        singular: the Hessian could not be solved on the finest level.
        mismatch: it stopped at a place that does not look like the template: the correlation is too low, or
            the residual too large for it (a change of light, say, without ``normalize``).
        trajectory: every warp from the initial to the last, ``(steps + 1, batch, k)``, if asked for.
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

    @property
    def status(self) -> list[str]:
        """One word for each item: converged, left the image, singular, mismatch or unfinished."""
        flags = zip(*(getattr(self, name).tolist() for name in (*FLAGS, "converged")), strict=True)
        words = ("left the image", "singular", "mismatch", "converged")
        return [next((w for w, f in zip(words, item, strict=True) if f), "unfinished") for item in flags]


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
