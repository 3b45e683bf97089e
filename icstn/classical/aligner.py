"""Iterating the Lucas-Kanade family from coarse to fine, with a verdict on every item."""

# ruff: noqa: E741 -- I is the image, as in the equations

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from icstn.classical.descent import Best, State, join, slices
from icstn.classical.inputs import as_images, items, to_gray
from icstn.classical.lean import Lean, Scales
from icstn.classical.level import ALL, Image, Rows, Scale, Template, moments
from icstn.classical.lucas_kanade import ALGORITHMS, Algorithm, Fixed, hessian, solve, steepest_descent
from icstn.classical.prepared import NOISY, Outcome
from icstn.classical.pyramid import box, image_pyramid
from icstn.classical.result import AlignmentResult, Placed, better, replaced
from icstn.sampling import Frame
from icstn.warps import Warp, affine, family

if TYPE_CHECKING:
    from icstn.classical.inputs import Pictures

    Matrices = Tensor | np.ndarray | Sequence[Any]

#: Floats that one chunk of a batch may hold for each thread, so that they stay in its cache.
CHUNK = 2**19
#: A coarse level hands over when its last step was this fraction of one of its own pixels.
COARSE_TOL = 0.5
#: The same on the short way, whose coarse levels are small.
SHORT_TOL = 1.0
#: Frames whose prepared templates are kept.
KEPT = 4
#: A steepest descent image with less than this fraction of the largest one's energy is rounding.
FLAT = 1e-9
#: λ of the second attempt.
RETRY_DAMPING = 0.01


class Aligner:
    """Finds a template in images: the Lucas-Kanade family, coarse to fine, batched and differentiable.

    Everything that depends on the template alone is computed once, here. The settings are the recommended
    ones; ``levels=1, blur=1, normalize=False, retry=False`` is the textbook's algorithm.

    Args:
        template: an image of any kind that :func:`~icstn.classical.inputs.as_images` takes (tensor, NumPy,
            PIL; gray or color; bytes or floats), of any size and aspect. One serves all images; of several
            the i-th belongs to the i-th image.
        warp: family, by name or itself; a similarity is one in pixels, also where the template is not square
            (``found.placed.warp`` is the family of ``found.p``).
        frame: where the template lies in the image at p = 0; by default in the middle, at the image's
            own resolution.
        region: only this part of the template counts, a box in its pixels ``(left, top, right, bottom)``
            without the last column and row, as PIL crops; it is expected at the same pixels of the images.
        mask: of the template's size, where it counts (not zero) and where not.
        algorithm: short name from :data:`ALGORITHMS`, or several, the last for full size, the one before it
            for half size and so on; the first serves all coarser levels.
        levels: number of pyramid levels; by default the coarsest template has at least 12 samples a side,
            and there are at most four levels, more where the coarsest would have more than 48.
        iterations: most steps on a level, or several in the same order.
        tol: an item stops when no corner moves by this many pixels, or when its steps shrink so fast that all
            that would follow add up to no more; a coarse level hands over at one pixel of its own (without
            ``normalize`` at half of one). With 0 every step is taken.
        damping: initial λ of Levenberg-Marquardt; 0 is Gauss-Newton.
        blur: size in pixels of a light box blur (odd; 1 is none), or several in the same order.
        normalize: compare up to gain and offset (zero mean, unit variance): light does not matter.
        min_overlap: an item with a smaller fraction of its samples inside the image is given up.
        min_correlation: a result below it is flagged as a mismatch (0.15 below it where what does not fit is
            noise: without structure), and what a coarser level has handed over and is as far below after five
            steps at full size is given up; for very noisy images take less.
        retry: try an item that left the image or did not come to rest once more, with
            Levenberg-Marquardt, and a homography once again from where an affine alignment ends (not where a
            gradient or the trajectory is asked for).
        max_samples: a larger template is aligned on the first level that has at most this many samples, so
            that memory stays bounded: with the default, images of 12 megapixels take less than 1 GB beside
            themselves, and the accuracy is that of their quarter size.

    Raises:
        TypeError: the template is no image.
        ValueError: no finite template, one that does not determine the warp, or settings that
            do not fit each other; the message names the cause.

    Example:
        >>> y, x = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
        >>> photo = (torch.sin(x / 4) + torch.cos(y / 5 + x / 9)).view(1, 1, 40, 40)
        >>> found = Aligner(photo[..., 8:28, 10:30], warp="translation")(photo)
        >>> found.status, [round(v, 2) for v in Frame.crop(40, 40, 20, 20).to_pixels(found.p)[0].tolist()]
        (['converged'], [19.5, 17.5])
    """

    def __init__(
        self,
        template: Pictures,
        warp: Warp | str = "homography",
        *,
        frame: Frame | None = None,
        region: tuple[int, int, int, int] | None = None,
        mask: Pictures | None = None,
        algorithm: str | Sequence[str] = ("ESM", "IC", "IC"),
        levels: int | None = None,
        iterations: int | Sequence[int] = 15,
        tol: float = 0.01,
        damping: float = 0.0,
        blur: int | Sequence[int] = (3, 1),
        normalize: bool = True,
        min_overlap: float = 0.5,
        min_correlation: float = 0.9,
        retry: bool = True,
        max_samples: int = 2**20,
    ) -> None:
        self.warp = family(warp)
        self._place(as_images("template", template), region, frame, mask)
        self.warp = _in_pixels(self.warp, self.frame, self.size)
        if frame is not None and (frame.height, frame.width) != self.size:
            raise ValueError(
                f"the frame has {frame.height}×{frame.width} samples, "
                f"the template {self.size[0]}×{self.size[1]}"
            )
        finest = 0
        while (self.size[0] >> finest) * (self.size[1] >> finest) > max_samples:
            finest += 1
        self.finest = finest
        self.levels = _levels(self.size, finest) if levels is None else levels
        if self.levels <= finest or min(self.size) >> (self.levels - 1) < 2:
            raise ValueError(f"{self.levels} levels do not fit a template of {self.size[0]}×{self.size[1]}")
        names, steps, sizes = (_per_level(v, self.levels) for v in (algorithm, iterations, blur))
        self.algorithms = [_algorithm(name, self.warp) for name in names]
        self.iterations = [int(n) for n in steps]
        if min(self.iterations) < 0 or tol < 0 or damping < 0 or any(n < 1 or n % 2 == 0 for n in sizes):
            raise ValueError("iterations, tol and damping are at least 0, and blur is odd")
        self.tol, self.damping, self.blur, self.normalize = tol, damping, sizes, normalize
        self.min_overlap, self.min_correlation, self.retry = min_overlap, min_correlation, retry
        self._prepared: OrderedDict[Frame, list[tuple[Template, Fixed | None]]] = OrderedDict()
        self._simpler: Lean | None = None
        self.lean = self._lean()
        self._check_template()

    def _place(
        self,
        template: Tensor,
        region: tuple[int, int, int, int] | None,
        frame: Frame | None,
        mask: Pictures | None,
    ) -> None:
        """The part of the template that counts, and where it is expected."""
        self.whole = (template.shape[-2], template.shape[-1])
        self.origin = (0, 0)
        counts = None if mask is None else _mask(mask, self.whole, template.device)
        if region is not None:
            left, top, right, bottom = _region(region, self.whole)
            template = template[..., top:bottom, left:right].contiguous()
            counts = None if counts is None else counts[top:bottom, left:right]
            self.origin = (left, top)
            frame = frame or Frame.box(left, top, right - 1, bottom - 1, bottom - top, right - left)
        with torch.inference_mode(False):
            self.template = template.clone() if template.is_inference() else template
        self.frame, self.mask, self.size = frame, counts, (template.shape[-2], template.shape[-1])

    def to(self, device: torch.device | str) -> Aligner:
        """The same aligner on another device, prepared there; images are then expected there."""
        other = copy(self)
        other.template = self.template.detach().to(device)
        other.mask = None if self.mask is None else self.mask.to(device)
        other._prepared, other._simpler = OrderedDict(), None
        other.lean = other._lean()
        return other

    def __call__(
        self,
        image: Pictures,
        p: Tensor | None = None,
        *,
        start: Matrices | None = None,
        trajectory: bool = False,
    ) -> AlignmentResult:
        """Align images to the template.

        Differentiable in the image, the template and the initial warp where one of them requires a
        gradient (through the unrolled steps; which step is the last is a constant).

        Args:
            image: images of any kind that :func:`~icstn.classical.inputs.as_images` takes, as many as
                templates or any number for one; color ones are turned gray where the template is.
            p: initial warps, ``(batch, k)``; the identity by default.
            start: instead of them, 3×3 matrices from the template's pixels to the image's, one or a batch,
                of which the nearest warp of the family is taken.
            trajectory: keep every warp.

        Raises:
            TypeError: no image.
            ValueError: shapes that do not fit, an image smaller than the template, non-finite pixels.
        """
        image = self._read(image)
        frame = self.frame or Frame.crop(image.shape[-2], image.shape[-1], *self.size)
        placed = Placed(self.warp, frame, self.origin, self.whole)
        if start is not None:
            p = self._from_matrices(placed, start, p)
        batch = self._check_call(image, p)
        p = self._start(image, batch, p)
        unrolled = torch.is_grad_enabled() and any(t.requires_grad for t in (image, self.template, p))
        # what is prepared on the way is kept: an inference tensor among it would poison later training
        with torch.inference_mode(False), torch.set_grad_enabled(unrolled):
            if trajectory or unrolled:
                found = self._align(image, p, frame, keep=trajectory, whole=True)
            else:
                found = self._search(image, p, frame)
        return replace(found, placed=placed)

    def _read(self, image: Pictures) -> Tensor:
        x, T = as_images("image", image), self.template
        if x.device != T.device:
            raise ValueError(
                f"the image is on {x.device} and the template on {T.device}: move the image there, or the "
                f"aligner with .to({str(x.device)!r})"
            )
        if x.shape[1] == 3 and T.shape[1] == 1:
            x = to_gray(x)
        return x if x.dtype == T.dtype else x.to(T.dtype)

    def _from_matrices(self, placed: Placed, start: Matrices, p: Tensor | None) -> Tensor:
        matrices = torch.as_tensor(start, dtype=torch.float64, device=self.template.device)
        if p is not None:
            raise ValueError("give the initial warps as p or as start, not both")
        if (
            matrices.shape[-2:] != (3, 3)
            or matrices.dim() not in (2, 3)
            or not bool(matrices.isfinite().all())
        ):
            raise ValueError(
                "start is a finite 3×3 matrix from the template's pixels to the image's, or a batch of them, "
                f"got {tuple(matrices.shape)}"
            )
        return placed.params(matrices.view(-1, 3, 3)).to(self.template.dtype)

    def _search(self, image: Tensor, p: Tensor, frame: Frame) -> AlignmentResult:
        """The short way, further attempts for what went astray, and the general way where it ends outside."""
        lean = self._lean() if self.template.requires_grad else self.lean
        if lean is None:
            found = self._align(image, p, frame)
            return self._again(found, image, p, frame) if self.retry and not self.damping else found
        found = self._quick(lean, image, p, frame)
        given_up = ~(found.converged | found.left_image | found.singular)
        given_up = given_up & (found.correlation < self.min_correlation - NOISY)
        return replace(found, mismatch=found.mismatch | given_up)

    def _quick(self, lean: Lean, image: Tensor, p: Tensor, frame: Frame) -> AlignmentResult:
        scales = Scales(image, self.levels)
        found = self._verdict(lean(scales, p, frame))
        again = found.left_image if not self.retry else ~(found.converged | found.mismatch)
        if self.retry:
            found = self._damped(lean, found, scales, p, frame)
        settled = found.mismatch & (found.correlation >= self.min_correlation)
        rows = (again & ~(found.converged | settled)).nonzero().flatten()
        if not len(rows):
            return found
        images = image if image.shape[0] == 1 else image[rows]
        general = self._align(images, p[rows], frame, rows=rows)
        return better(found, general, rows) if self.retry else replaced(found, general, rows)

    def _damped(
        self, lean: Lean, found: AlignmentResult, image: Scales, p: Tensor, frame: Frame
    ) -> AlignmentResult:
        """Further attempts for what did not converge: Levenberg-Marquardt, and from an affine alignment."""
        for through_affine in (False, True)[: 1 + self.warp.projective]:
            astray = ~(found.converged | found.mismatch)
            rows = astray.nonzero().flatten()
            if not len(rows):
                break
            only, start = astray.cpu().numpy(), p
            if through_affine:
                start = self._affine(image, p, frame, only)
            out = lean(image, start, frame, RETRY_DAMPING, only)
            found = better(found, self._verdict(out).select(rows), rows)
        return found

    def _affine(self, image: Tensor | Scales, p: Tensor, frame: Frame, only: np.ndarray) -> Tensor:
        """The affine alignment as a homography: fewer parameters go astray less often on a coarse level."""
        if self._simpler is None:
            self._simpler = self._lean(affine)
        assert self._simpler is not None
        start = affine.params(self.warp.matrix(p), check=False)
        M = self._simpler(image, start, frame, RETRY_DAMPING, only).M
        return self.warp.params(torch.from_numpy(M), check=False).to(p)

    def _verdict(self, out: Outcome) -> AlignmentResult:
        assert self.lean is not None
        T, n = self.template, len(out.M)
        rho = np.clip(np.nan_to_num(out.correlation), -1, 1) * out.inside  # none where nothing varies
        done = out.done & out.inside
        least = self.min_correlation - NOISY * out.noisy
        mismatch = done & (out.doubtful | (rho < least))
        numbers = (self.lean.params(out.M), rho, np.ones(n))
        p, correlation, overlap = (torch.from_numpy(x).to(T.device, T.dtype) for x in numbers)
        flags = (done & ~mismatch, ~out.inside, np.zeros(n, bool), mismatch, out.iterations)
        converged, left, singular, misfit, iterations = (torch.from_numpy(x).to(T.device) for x in flags)
        residual = self.lean.std * (2 - 2 * correlation).sqrt()
        return AlignmentResult(
            p, converged, iterations, residual, correlation, overlap, left, singular, misfit
        )

    def _align(
        self,
        image: Tensor,
        p: Tensor,
        frame: Frame,
        *,
        keep: bool = False,
        whole: bool = False,
        damping: float | None = None,
        rows: Rows = ALL,
    ) -> AlignmentResult:
        """All levels, for the rows of the batch that image and p hold, in chunks or as a whole."""
        state, path = State.start(p), [p] if keep else None
        hopeless: Tensor | None = None
        results: list[AlignmentResult] = []
        images = image_pyramid(image, self.levels)
        for level, (T_all, fixed_all) in reversed(list(enumerate(self._templates(frame), self.finest))):
            T_rows, fixed_rows = T_all.select(rows), _select(fixed_all, rows)
            step = (
                p.shape[0]
                if whole
                else self._chunk(T_all, fixed_all is not None and fixed_all.sd.shape[0] == 1)
            )
            parts, alike = [], []
            for r in slices(p.shape[0], step):
                pixels = images[level] if image.shape[0] == 1 else images[level][r]
                T, fixed, s = T_rows.select(r), _select(fixed_rows, r), state.select(r)
                size = (image.shape[-2], image.shape[-1])
                I = Image(T.scale, box(pixels, self.blur[level]), size, T.counted)
                if hopeless is not None:
                    s.give_up(hopeless[r])
                self._descend(level, T, I, fixed, s, path, self.damping if damping is None else damping)
                parts.append(s)
                if level == self.finest:
                    results.append(self._judge(T, I, s))
                elif level == self.finest + 1 and self.lean is not None and not whole:
                    alike.append(_correlation(T, *I.warp(s.p)))
            state = join(parts)
            if alike:
                hopeless = torch.cat(alike) < self.min_correlation - NOISY
        found = join(results)
        return found if path is None else replace(found, trajectory=torch.stack(path))

    def _again(self, found: AlignmentResult, image: Tensor, p: Tensor, frame: Frame) -> AlignmentResult:
        """A further attempt for what did not converge, by Levenberg-Marquardt."""
        rows = (~found.converged).nonzero().flatten()
        if not len(rows):
            return found
        images = image if image.shape[0] == 1 else image[rows]
        second = self._align(images, p[rows], frame, damping=RETRY_DAMPING, rows=rows)
        return better(found, second, rows)

    def _descend(
        self,
        level: int,
        T: Template,
        I: Image,
        fixed: Fixed | None,
        s: State,
        path: list[Tensor] | None,
        damping: float,
    ) -> None:
        """Iterate on one level; a coarse level that failed leaves the warp as it found it."""
        algorithm, entry = self.algorithms[level], s.p
        best = Best(damping) if damping else None
        limit = self._limit(level) ** 2
        for _ in range(self.iterations[level] * s.busy):
            step = algorithm.step(T, I, s.p, fixed)
            lam = None
            if best is not None:
                s.p, step, lam = best.choose(s.p, step)
            dp, regular = solve(step.H, step.b, lam)
            new = algorithm.update(T.scale, s.p, dp)
            seen = None if step.overlap is None else step.overlap >= self.min_overlap * T.share
            s.advance(new, I.distance(s.p, new), limit, regular, seen)
            if path is not None:
                path.append(s.p)
            if not s.busy:
                break
        if best is not None:
            s.p, _, _ = best.choose(s.p, algorithm.step(T, I, s.p, fixed))
        if level > self.finest:
            s.next_level(entry)

    def _judge(self, T: Template, I: Image, s: State) -> AlignmentResult:
        """Look at where the warps ended."""
        IWxp, inside = I.warp(s.p)
        e, _ = T.match(IWxp, (), inside)
        one = torch.ones((), dtype=e.dtype, device=e.device)
        mask = one if inside is None else inside.to(e.dtype).unsqueeze(1)
        overlap = one.expand(e.shape[0]) if inside is None else mask.mean((1, 2))
        seen = overlap.clamp(min=1e-6)
        residual = (((e - T.T) * mask).square().mean((1, 2)) / seen).sqrt()
        correlation = _correlation(T, IWxp, inside)
        overlap = overlap / T.share
        left = s.left | (overlap < self.min_overlap)
        # of two signals of unit variance, (1 - correlation) is half the mean squared difference
        doubtful, noisy = self._doubts(e, T, mask)
        least = self.min_correlation - NOISY * noisy.to(e.dtype)
        most = (2 * (1 - least)).sqrt() * T.std
        mismatch = s.done & (doubtful | ~((correlation >= least) & (residual <= most)))
        converged = s.done & ~(left | s.singular | mismatch)
        return AlignmentResult(
            s.p, converged, s.iterations, residual, correlation, overlap, left, s.singular, mismatch
        )

    def _doubts(self, e: Tensor, T: Template, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The same doubts as on the short way, where that is open to this aligner."""
        level = None if self.lean is None else self.lean.levels[self.finest]
        if level is None or level.rows is None or len(level.T) > 1:
            none = torch.zeros(len(e), dtype=torch.bool, device=e.device)
            return none, none
        misfit = (e - T.T) * mask / (T.std * level.count**0.5).view(-1, 1, 1)
        own, misfit = (x.detach().cpu().numpy() for x in (level.T, misfit.flatten(1)))
        found = level.doubts(own + misfit, own, self.min_correlation)
        doubtful, noisy = (torch.from_numpy(x).to(e.device) for x in found)
        return doubtful, noisy

    def _templates(self, frame: Frame) -> list[tuple[Template, Fixed | None]]:
        """The template and what its algorithm precomputes, for each level from full size to coarse."""
        if self.template.requires_grad:  # it may change, and its graph is the caller's
            return self._prepare(frame)
        if frame not in self._prepared:
            with torch.inference_mode(False), torch.no_grad():
                self._prepared[frame] = self._prepare(frame)
        self._prepared.move_to_end(frame)
        while len(self._prepared) > KEPT:
            self._prepared.popitem(last=False)
        return self._prepared[frame]

    def _prepare(self, frame: Frame) -> list[tuple[Template, Fixed | None]]:
        made = []
        scales, masks = image_pyramid(self.template, self.levels), self._masks()
        for level in range(self.finest, self.levels):
            scale = Scale(frame, self.warp, level, self.template.detach())
            values = box(scales[level], self.blur[level])
            T = Template(scale, values, self.normalize, None if masks is None else masks[level])
            made.append((T, self.algorithms[level].precompute(T)))
        return made

    def _masks(self) -> list[Tensor] | None:
        """Which samples of each level are made of pixels that count alone."""
        if self.mask is None:
            return None
        scales = image_pyramid(self.mask.to(self.template.dtype)[None, None], self.levels)
        return [box(m, size)[0, 0] > 1 - 1e-4 for m, size in zip(scales, self.blur, strict=True)]

    def _lean(self, warp: Warp | None = None) -> Lean | None:
        """The short way, where the settings allow it, for this family or another."""
        names = [a.name for a in self.algorithms]
        usual = self.normalize and self.tol and not self.damping
        if not usual or not set(names) <= {"ESM", "IC"}:
            return None
        limits = [self._limit(level, SHORT_TOL) for level in range(self.levels)]
        with torch.inference_mode(False), torch.no_grad():
            scales = image_pyramid(self.template.detach().clone(), self.levels)
            values = [
                None if level < self.finest else box(v, size)
                for level, (v, size) in enumerate(zip(scales, self.blur, strict=True))
            ]
            return Lean(
                values,
                self.size,
                warp or self.warp,
                names,
                self.iterations,
                limits,
                self.blur,
                self._masks(),
                self.min_correlation,
            )

    def _limit(self, level: int, coarse: float = COARSE_TOL) -> float:
        return coarse * 2**level if level > self.finest and self.tol else self.tol * 2**self.finest

    def _check_template(self) -> None:
        with torch.no_grad():
            H = self._hessian()
            _, regular = solve(H, H.new_zeros(len(H), self.warp.dim))
            sizes = H.diagonal(dim1=-2, dim2=-1)
            regular = regular & (sizes.amin(-1) > FLAT * sizes.amax(-1))
        if not bool(regular.all()):
            raise ValueError(
                f"template {items(~regular)} does not determine the {self.warp.name} warp: "
                "its Hessian is singular (it is constant, or varies along one direction only); "
                "take a template with more texture or a smaller warp family"
            )

    def _hessian(self) -> Tensor:
        finest = None if self.lean is None else self.lean.levels[self.finest]
        if finest is not None and finest.H is not None:
            return finest.H
        scale = Scale(self.frame or Frame.full(*self.size), self.warp, self.finest, self.template)
        values = box(image_pyramid(self.template, self.finest + 1)[-1], self.blur[self.finest])
        T = Template(scale, values, self.normalize)
        return hessian(steepest_descent(T.dT, T.scale.dW_dp()), T)

    def _check_call(self, image: Tensor, p: Tensor | None) -> int:
        T = self.template
        if image.shape[1] != T.shape[1]:
            raise ValueError(
                f"the image has {image.shape[1]} channels and the template {T.shape[1]}: "
                "give both in color, or the template in gray"
            )
        if self.frame is None and (image.shape[-2] < self.size[0] or image.shape[-1] < self.size[1]):
            raise ValueError(
                f"the image ({image.shape[-2]}×{image.shape[-1]}) is smaller than the template "
                f"({self.size[0]}×{self.size[1]}): are they swapped? The template comes first. Otherwise "
                "give a frame that places the template in it"
            )
        if min(image.shape[-2:]) >> (self.levels - 1) < 2:
            raise ValueError(
                f"{self.levels} levels do not fit an image of {image.shape[-2]}×{image.shape[-1]}"
            )
        sizes = {len(image), len(T)} | (set() if p is None else {len(p)})
        if len(sizes - {1}) > 1:
            given = f"{len(image)} images, {len(T)} templates" + ("" if p is None else f", {len(p)} warps")
            raise ValueError(f"batches do not match: {given}; each is one for all, or as many as the others")
        return max(sizes)

    def _start(self, image: Tensor, batch: int, p: Tensor | None) -> Tensor:
        if p is None:
            return self.warp.identity(batch, dtype=image.dtype, device=image.device)
        if p.dim() != 2 or p.shape[1] != self.warp.dim or not bool(p.isfinite().all()):
            raise ValueError(
                f"initial warps are finite and of shape (batch, {self.warp.dim}), got {tuple(p.shape)}"
            )
        return p.to(image.dtype).expand(batch, -1).contiguous()

    def _chunk(self, T: Template, shared: bool) -> int:
        if T.T.device.type != "cpu":
            return 2**30
        floats = T.T.shape[1] * T.T.shape[2] * (4 if shared else 4 + 2 * self.warp.dim)
        return max(1, CHUNK * torch.get_num_threads() // floats)


def align(
    template: Pictures,
    image: Pictures,
    warp: Warp | str = "homography",
    *,
    p: Tensor | None = None,
    start: Matrices | None = None,
    **settings: Any,
) -> AlignmentResult:
    """Find the template in the image with the recommended settings; see :class:`Aligner` for all of them.

    To align many images to one template one after the other, make one :class:`Aligner` and keep it.

    Args:
        template: tensor, NumPy or PIL, see :class:`Aligner`; it comes first, as in OpenCV.
        image: one or several of the same kinds.
        warp: family, by name or itself.
        p: initial warps; the identity by default.
        start: instead of them, 3×3 matrices from the template's pixels to the image's.
        settings: keyword arguments of :class:`Aligner`.
    """
    return Aligner(template, warp, **settings)(image, p, start=start)


def _levels(size: tuple[int, int], finest: int = 0) -> int:
    """From the finest level used to one of 12 samples a side or more, and of at most 48 after the fourth."""
    levels, side = finest + 1, min(size)
    while side >> levels >= 12 and (levels < finest + 4 or side >> (levels - 1) > 48):
        levels += 1
    return levels


def _in_pixels(warp: Warp, frame: Frame | None, size: tuple[int, int]) -> Warp:
    """The family whose rotations are such in pixels, where the template is not square.

    Normalized units along x and y then differ, and a similarity in them would shear pixels. Each generator's
    entry (i, j) is multiplied by the ratio of the units of j and i; families with one entry a parameter stay.
    """
    ex, ey = frame.half_extent if frame is not None else ((size[1] - 1) / 2, (size[0] - 1) / 2)
    if ex == ey or all(len(entry) == 1 for entry in warp.entries):
        return warp
    unit = (ex, ey, 1.0)
    entries = tuple(
        tuple((i, j, f * unit[j] / unit[i] if len(entry) > 1 else f) for i, j, f in entry)
        for entry in warp.entries
    )
    return Warp(warp.name, entries)


def _region(region: Sequence[int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    left, top, right, bottom = (int(v) for v in region)
    if not (0 <= left < right - 1 < size[1] and 0 <= top < bottom - 1 < size[0]):
        raise ValueError(
            f"the region {tuple(region)} is no box (left, top, right, bottom) of two pixels or more inside "
            f"the template of {size[0]}×{size[1]}"
        )
    return left, top, right, bottom


def _mask(mask: Pictures, size: tuple[int, int], device: torch.device) -> Tensor:
    counts = (as_images("mask", mask) != 0).any(1)
    if len(counts) != 1 or tuple(counts.shape[1:]) != size:
        raise ValueError(
            f"the mask is {counts.shape[-2]}×{counts.shape[-1]} and the template {size[0]}×{size[1]}: "
            "it has the template's size"
        )
    if not bool(counts.any()):
        raise ValueError("the mask is zero everywhere: nothing of the template counts")
    return counts[0].to(device)


def _per_level(value: Any, levels: int) -> list[Any]:
    """One value for each level from full size to coarse; the first of a sequence serves all coarser ones."""
    if isinstance(value, (str, int)):
        return [value] * levels
    if not (given := list(value)[::-1][:levels]):
        raise ValueError("a setting of the levels is a value, or a list of at least one")
    return given + given[-1:] * (levels - len(given))


def _algorithm(name: str, warp: Warp) -> Algorithm:
    if name not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {name!r}: they are {', '.join(ALGORITHMS)}")
    ALGORITHMS[name].check(warp)
    return ALGORITHMS[name]


def _correlation(T: Template, IWxp: Tensor, inside: Tensor | None) -> Tensor:
    """Of warped images with the template, over the samples inside; 0 where nothing varies."""
    shared = IWxp * T.contrast(inside)
    if inside is None:
        product = shared.mean((1, 2))
    else:
        mask = inside.to(shared.dtype).unsqueeze(1)
        product = (shared * mask).mean((1, 2)) / mask.mean((1, 2)).clamp(min=1e-6)
    mean, std = (m.flatten() for m in moments(IWxp, inside))
    flat = std <= 50 * torch.finfo(std.dtype).eps * (mean.abs() + std)
    return (product / std).masked_fill(flat, 0).clamp(-1, 1)


def _select(fixed: Fixed | None, r: Rows) -> Fixed | None:
    if fixed is None or fixed.sd.shape[0] == 1 or r is ALL:
        return fixed
    return Fixed(fixed.sd[r], fixed.H[r])
