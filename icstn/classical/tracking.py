"""Following a template through the frames of a film: the last warp is the next frame's start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from icstn.classical.aligner import Aligner
from icstn.classical.result import AlignmentResult
from icstn.warps import Warp, translation

if TYPE_CHECKING:
    from icstn.classical.aligner import Matrices
    from icstn.classical.inputs import Pictures


@dataclass(frozen=True)
class Tracked:
    """Where the template is in one frame.

    Attributes:
        result: the alignment; of a lost frame, the last warp that was found, and why it is not this one's.
        lost: the template was not found; the warp is the last one that was.
        event: ``"lost"`` or ``"regained"`` where that changed with this frame, else an empty word.
    """

    result: AlignmentResult
    lost: bool
    event: str

    @property
    def status(self) -> str:
        """``tracked``, or ``lost`` and why."""
        return f"lost ({self.result.status[0]})" if self.lost else "tracked"

    def matrix(self, library: str = "opencv") -> Any:
        """3×3, pixels of the template → pixels of the frame, see :meth:`AlignmentResult.matrix`."""
        return self.result.matrix(library)[0]

    def aligned(self, frame: Pictures) -> Any:
        """The frame as the template sees it."""
        return self.result.aligned(frame)


class Tracker:
    """Follows a template from frame to frame.

    Each frame is first searched from the last warp that was found, then from where the motion of the last two
    would lead, then, once the template is lost, from around there and from the beginning.

    Args:
        template: an image, or the first frame with a ``region`` of it.
        warp: family, by name or itself.
        start: 3×3 matrix from the template's pixels to the first frame's; by default as :class:`Aligner`.
        reach: how far around the last place a lost template is sought, in units of the template's size.
        settings: keyword arguments of :class:`Aligner`.

    Example:
        >>> y, x = torch.meshgrid(torch.arange(90.0), torch.arange(90.0), indexing="ij")
        >>> photo = torch.sin(x / 4) + torch.cos(y / 5 + x / 9) + torch.sin(x * y / 300)
        >>> tracker = Tracker(photo, "translation", region=(30, 30, 60, 60))
        >>> [round(float(tracker(photo.roll(n, 1)).matrix()[0, 2])) for n in (0, 2, 4, 7)]
        [0, 2, 4, 7]
    """

    def __init__(
        self,
        template: Pictures,
        warp: Warp | str = "affine",
        *,
        start: Matrices | None = None,
        reach: float = 0.25,
        **settings: Any,
    ) -> None:
        self.aligner = Aligner(template, warp, **settings)
        if len(self.aligner.template) != 1:
            raise ValueError("a tracker follows one template")
        self.reach, self.lost = reach, False
        self._start = None if start is None else torch.as_tensor(start, dtype=torch.float64).view(1, 3, 3)
        self._last: AlignmentResult | None = None
        self._step: Tensor | None = None

    def __call__(self, frame: Pictures) -> Tracked:
        """The template in the next frame.

        Raises:
            ValueError: see :meth:`Aligner.__call__`.
        """
        result = self._search(frame)
        found, was = bool(result.converged[0]), self.lost
        self.lost = not found
        if found:
            self._moved(result)
        elif self._last is not None:
            result = self._held(result)
        event = "" if self.lost == was else "lost" if self.lost else "regained"
        return Tracked(result, self.lost, event)

    def _search(self, frame: Pictures) -> AlignmentResult:
        if self._last is None:
            return self.aligner(frame, start=self._start)
        last, warp = self._last.p, self.aligner.warp
        result = self.aligner(frame, last)
        if not result.converged[0] and self._step is not None and not self.lost:
            ahead = warp.compose(last, self._step, side="image", check=False)
            result = self.aligner(frame, ahead)
        if not result.converged[0] and self.lost:
            result = self._around(frame, result)
        return result

    def _around(self, frame: Pictures, result: AlignmentResult) -> AlignmentResult:
        """From eight places around the last, and from the beginning, all at once: the best of them."""
        assert self._last is not None
        steps = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 2) * 2 * self.reach
        shifts = translation.matrix(steps.to(self._last.p))
        warp = self.aligner.warp
        starts = warp.params(shifts @ warp.matrix(self._last.p), check=False)
        starts = torch.cat((starts, warp.identity(1).to(starts)))
        many = self.aligner(frame, starts)
        best = int(torch.where(many.converged, many.correlation, -1.0).argmax())
        return many.item(best) if bool(many.converged[best]) else result

    def _moved(self, result: AlignmentResult) -> None:
        warp = self.aligner.warp
        self._step = None
        if self._last is not None and not bool(warp.singular(self._last.p)):
            back = warp.inverse(self._last.p, check=False)
            self._step = warp.compose(back, result.p, side="image", check=False)
        self._last = result

    def _held(self, result: AlignmentResult) -> AlignmentResult:
        assert self._last is not None
        return replace(result, p=self._last.p)


def track(
    template: Pictures, frames: Iterable[Pictures], warp: Warp | str = "affine", **settings: Any
) -> Iterator[Tracked]:
    """Follow a template through frames, one after the other; see :class:`Tracker` for the settings.

    Args:
        template: an image, or the first frame with a ``region`` of it.
        frames: images of one size, in their order; they are taken one at a time.
        warp: family, by name or itself.
        settings: keyword arguments of :class:`Tracker`.
    """
    tracker = Tracker(template, warp, **settings)
    for frame in frames:
        yield tracker(frame)
