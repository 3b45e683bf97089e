"""Iterating the Lucas-Kanade family from coarse to fine, with a verdict on every item."""

# ruff: noqa: E741 -- I is the image, as in the equations

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icstn.classical.lucas_kanade import ALGORITHMS, Algorithm, Fixed, Step, hessian, solve, steepest_descent
from icstn.classical.pyramid import ALL, Image, Rows, Scale, Template, box, moments, pyramid
from icstn.sampling import Frame
from icstn.warps import Warp, affine, family

#: Floats that one chunk of a batch may hold for each thread, so that they stay in its cache.
CHUNK = 2**19
#: A coarse level hands over when its last step was this fraction of one of its own pixels.
COARSE_TOL = 0.5
#: λ of the second attempt.
RETRY_DAMPING = 0.01

Part = TypeVar("Part")
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


@dataclass
class _State:
    """A chunk of a batch on its way: the flags are of the current level, the counts of all."""

    p: Tensor
    iterations: Tensor
    active: Tensor
    done: Tensor
    left: Tensor
    singular: Tensor
    busy: bool = True
    whole: bool = True

    @classmethod
    def start(cls, p: Tensor) -> _State:
        no = torch.zeros(p.shape[0], dtype=torch.bool, device=p.device)
        return cls(p, torch.zeros(p.shape[0], dtype=torch.long, device=p.device), ~no, no, no, no)

    def select(self, r: Rows) -> _State:
        if r is ALL:
            return self
        return _State(
            self.p[r], self.iterations[r], self.active[r], self.done[r], self.left[r], self.singular[r]
        )

    def advance(self, new: Tensor, moved: Tensor, limit: float, regular: Tensor, seen: Tensor | None) -> None:
        """Take the step for the items that are still active, and see which of them stop.

        Args:
            new: the warps after the step.
            moved: its length, squared.
            limit: at most this is converged.
            regular: items whose normal equations could be solved.
            seen: items of which enough lies inside the image; None for all.
        """
        self.iterations = self.iterations + self.active
        fine = regular & (moved < 1e12)
        fine = fine if seen is None else fine & seen
        if not bool(fine.all()):
            self.singular = self.singular | (self.active & ~regular)
            self.left = self.left | (self.active & regular & ~fine)
            self.active, self.whole = self.active & fine, False
        self.p = new if self.whole else torch.where(self.active.unsqueeze(-1), new, self.p)
        short = moved <= limit
        if bool(short.any()):
            self.done = self.done | (self.active & short)
            self.active, self.whole = self.active & ~short, False
        self.busy = self.whole or bool(self.active.any())

    def next_level(self, entry: Tensor) -> None:
        """Everything is active again, from ``entry`` where this level failed."""
        failed = self.left | self.singular
        if bool(failed.any()):
            self.p = torch.where(failed.unsqueeze(-1), entry, self.p)
        self.done = self.left = self.singular = torch.zeros_like(failed)
        self.active, self.busy, self.whole = ~self.done, True, True


class Aligner:
    """Finds a template in images: the Lucas-Kanade family, coarse to fine, batched and differentiable.

    Everything that depends on the template alone is computed once, here.

    Args:
        template: ``(1 or batch, C, height, width)``, float, finite. One serves all images; otherwise
            the i-th template belongs to the i-th image.
        warp: family, by name or itself.
        frame: where the template lies in the image at p = 0; by default in the middle, at the image's
            own resolution.
        algorithm: short name from :data:`ALGORITHMS`, or several, the last for full size, the one before it
            for half size and so on; the first serves all coarser levels.
        levels: number of pyramid levels; by default the coarsest template has at least 12 samples a side,
            and there are at most four levels.
        iterations: most steps on a level, or several in the same order.
        tol: an item stops when no corner moves by this many pixels; a coarse level hands over at half
            of one of its own. With 0 every step is taken.
        damping: initial λ of Levenberg-Marquardt; 0 is Gauss-Newton.
        blur: size in pixels of a light box blur on every level (odd; 1 is none).
        normalize: compare up to gain and offset (zero mean, unit variance).
        min_overlap: an item with a smaller fraction of its samples inside the image is given up.
        min_correlation: a result below it is flagged as a mismatch; for very noisy images take less.
        retry: try an item that did not converge once more, with Levenberg-Marquardt, and a homography
            once again from where an affine alignment ends (not where a gradient or the trajectory is
            asked for).

    Raises:
        ValueError: no finite float template, one that does not determine the warp, or settings that
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
        template: Tensor,
        warp: Warp | str = "homography",
        *,
        frame: Frame | None = None,
        algorithm: str | Sequence[str] = ("ESM", "IC"),
        levels: int | None = None,
        iterations: int | Sequence[int] = 15,
        tol: float = 0.01,
        damping: float = 0.0,
        blur: int = 3,
        normalize: bool = False,
        min_overlap: float = 0.5,
        min_correlation: float = 0.9,
        retry: bool = True,
    ) -> None:
        _check_images("template", template)
        self.warp = family(warp)
        self.template = template
        self.frame = frame
        self.size = (template.shape[-2], template.shape[-1])
        if frame is not None and (frame.height, frame.width) != self.size:
            raise ValueError(
                f"the frame has {frame.height}×{frame.width} samples, "
                f"the template {self.size[0]}×{self.size[1]}"
            )
        self.levels = _levels(self.size) if levels is None else levels
        if self.levels < 1 or min(self.size) >> (self.levels - 1) < 2:
            raise ValueError(f"{self.levels} levels do not fit a template of {self.size[0]}×{self.size[1]}")
        names, steps = (_per_level(v, self.levels) for v in (algorithm, iterations))
        self.algorithms = [_algorithm(name, self.warp) for name in names]
        self.iterations = [int(n) for n in steps]
        if min(self.iterations) < 0 or tol < 0 or damping < 0 or blur < 1 or blur % 2 == 0:
            raise ValueError("iterations, tol and damping are at least 0, and blur is odd")
        self.tol, self.damping, self.blur, self.normalize = tol, damping, blur, normalize
        self.min_overlap, self.min_correlation, self.retry = min_overlap, min_correlation, retry
        self._prepared: dict[Frame, list[tuple[Template, Fixed | None]]] = {}
        self._simpler: Aligner | None = None
        self._check_template()

    def __call__(
        self,
        image: Tensor,
        p: Tensor | None = None,
        *,
        trajectory: bool = False,
    ) -> AlignmentResult:
        """Align images to the template.

        Differentiable in the image, the template and the initial warp where one of them requires a
        gradient (through the unrolled steps; which step is the last is a constant).

        Args:
            image: ``(batch or 1, C, H, W)``, of the template's dtype and device.
            p: initial warps, ``(batch, k)``; the identity by default.
            trajectory: keep every warp.

        Raises:
            ValueError: shapes that do not fit, an image smaller than the template, non-finite pixels.
        """
        batch = self._check_call(image, p)
        frame = self.frame or Frame.crop(image.shape[-2], image.shape[-1], *self.size)
        p = self._start(image, batch, p)
        unrolled = torch.is_grad_enabled() and any(t.requires_grad for t in (image, self.template, p))
        with torch.set_grad_enabled(unrolled):
            if trajectory or unrolled:
                return self._align(image, p, frame, keep=trajectory, whole=True)
            found = self._align(image, p, frame)
            if self.retry and not self.damping:
                found = self._again(found, image, p, frame)
        return found

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
        state, path = _State.start(p), [p] if keep else None
        images = pyramid(image, self.levels)
        for level, (T_all, fixed_all) in reversed(list(enumerate(self._templates(frame)))):
            T_rows, fixed_rows = T_all.select(rows), _select(fixed_all, rows)
            step = (
                p.shape[0]
                if whole
                else self._chunk(T_all, fixed_all is not None and fixed_all.sd.shape[0] == 1)
            )
            parts, results = [], []
            for r in _slices(p.shape[0], step):
                pixels = images[level] if image.shape[0] == 1 else images[level][r]
                T, fixed, s = T_rows.select(r), _select(fixed_rows, r), state.select(r)
                I = Image(T.scale, box(pixels, self.blur), (image.shape[-2], image.shape[-1]))
                self._descend(level, T, I, fixed, s, path, self.damping if damping is None else damping)
                parts.append(s)
                if not level:
                    results.append(self._judge(T, I, s))
            state = _join(parts)
        found = _join(results)
        return found if path is None else replace(found, trajectory=torch.stack(path))

    def _again(self, found: AlignmentResult, image: Tensor, p: Tensor, frame: Frame) -> AlignmentResult:
        """Further attempts for what did not converge: Levenberg-Marquardt, and from an affine alignment."""
        for through_affine in (False, True)[: 1 + self.warp.projective]:
            rows = (~found.converged).nonzero().flatten()
            if not len(rows):
                break
            images, start = image if image.shape[0] == 1 else image[rows], p[rows]
            if through_affine:
                start = self._affine(images, start, frame, rows)
            second = self._align(images, start, frame, damping=RETRY_DAMPING, rows=rows)
            found = _better(found, second, rows)
        return found

    def _affine(self, image: Tensor, p: Tensor, frame: Frame, rows: Tensor) -> Tensor:
        """The affine alignment as a homography: fewer parameters go astray less often on a coarse level."""
        if self._simpler is None:
            self._simpler = copy(self)
            self._simpler.warp, self._simpler._prepared = affine, {}
        start = affine.params(self.warp.matrix(p), check=False)
        found = self._simpler._align(image, start, frame, damping=RETRY_DAMPING, rows=rows)
        return self.warp.params(affine.matrix(found.p), check=False)

    def _descend(
        self,
        level: int,
        T: Template,
        I: Image,
        fixed: Fixed | None,
        s: _State,
        path: list[Tensor] | None,
        damping: float,
    ) -> None:
        """Iterate on one level; a coarse level that failed leaves the warp as it found it."""
        algorithm, entry = self.algorithms[level], s.p
        best = _Best(damping) if damping else None
        limit = (COARSE_TOL * 2**level if level and self.tol else self.tol) ** 2
        for _ in range(self.iterations[level]):
            step = algorithm.step(T, I, s.p, fixed)
            lam = None
            if best is not None:
                s.p, step, lam = best.choose(s.p, step)
            dp, regular = solve(step.H, step.b, lam)
            new = algorithm.update(T.scale, s.p, dp)
            seen = None if step.overlap is None else step.overlap >= self.min_overlap
            s.advance(new, I.distance(s.p, new), limit, regular, seen)
            if path is not None:
                path.append(s.p)
            if not s.busy:
                break
        if best is not None:
            s.p, _, _ = best.choose(s.p, algorithm.step(T, I, s.p, fixed))
        if level:
            s.next_level(entry)

    def _judge(self, T: Template, I: Image, s: _State) -> AlignmentResult:
        """Look at where the warps ended."""
        IWxp, inside = I.warp(s.p)
        e, _ = T.match(IWxp, (), inside)
        one = torch.ones((), dtype=e.dtype, device=e.device)
        mask = one if inside is None else inside.to(e.dtype).unsqueeze(1)
        overlap = one.expand(e.shape[0]) if inside is None else mask.mean((1, 2))
        seen = overlap.clamp(min=1e-6)
        residual = (((e - T.T) * mask).square().mean((1, 2)) / seen).sqrt()
        mean, std = (m.flatten() for m in moments(IWxp, inside))
        flat = std <= 50 * torch.finfo(e.dtype).eps * (mean.abs() + std)
        correlation = (IWxp * T.contrast(inside) * mask).mean((1, 2)) / (seen * std)
        correlation = correlation.masked_fill(flat, 0).clamp(-1, 1)
        left = s.left | (overlap < self.min_overlap)
        # of two signals of unit variance, (1 - correlation) is half the mean squared difference
        most = (2 * (1 - self.min_correlation)) ** 0.5 * T.std
        mismatch = s.done & ~((correlation >= self.min_correlation) & (residual <= most))
        converged = s.done & ~(left | s.singular | mismatch)
        return AlignmentResult(
            s.p, converged, s.iterations, residual, correlation, overlap, left, s.singular, mismatch
        )

    def _templates(self, frame: Frame) -> list[tuple[Template, Fixed | None]]:
        """The template and what its algorithm precomputes, for each level from full size to coarse."""
        if frame in self._prepared and not self.template.requires_grad:
            return self._prepared[frame]
        made = []
        for level, values in enumerate(pyramid(self.template, self.levels)):
            scale = Scale(frame, self.warp, level, self.template.detach())
            T = Template(scale, box(values, self.blur), self.normalize)
            made.append((T, self.algorithms[level].precompute(T)))
        self._prepared[frame] = made
        return made

    def _check_template(self) -> None:
        with torch.no_grad():
            T = self._templates(self.frame or Frame.full(*self.size))[0][0]
            sd = steepest_descent(T.dT, T.scale.dW_dp())
            H = hessian(sd, T)
            _, regular = solve(H, H.new_zeros(len(H), self.warp.dim))
        self._prepared.clear()
        if not bool(regular.all()):
            raise ValueError(
                f"template {_items(~regular)} does not determine the {self.warp.name} warp: "
                "its Hessian is singular (it is constant, or varies along one direction only); "
                "take a template with more texture or a smaller warp family"
            )

    def _check_call(self, image: Tensor, p: Tensor | None) -> int:
        _check_images("image", image)
        T = self.template
        if image.dtype != T.dtype or image.device != T.device:
            raise ValueError(
                f"image and template differ: {image.dtype} on {image.device}, {T.dtype} on {T.device}"
            )
        if image.shape[1] != T.shape[1]:
            raise ValueError(f"the image has {image.shape[1]} channels and the template {T.shape[1]}")
        if self.frame is None and (image.shape[-2] < self.size[0] or image.shape[-1] < self.size[1]):
            raise ValueError(
                f"the image ({image.shape[-2]}×{image.shape[-1]}) is smaller than the template "
                f"({self.size[0]}×{self.size[1]}); give a frame that places the template in it"
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


class _Best:
    """Levenberg-Marquardt: the best warp so far, its normal equations, and λ, for each item.

    A step that made the residual larger costs one iteration: λ grows tenfold and the next step starts
    again from the best warp, whose normal equations are still here.
    """

    def __init__(self, damping: float) -> None:
        self._initial = damping
        self._kept: tuple[tuple[Tensor, ...], Tensor] | None = None

    def choose(self, p: Tensor, step: Step) -> tuple[Tensor, Step, Tensor]:
        """The better of the new warp and the best so far, its step, and λ."""
        cost, H = step.cost(), step.H.expand(p.shape[0], -1, -1)
        overlap = torch.ones_like(cost) if step.overlap is None else step.overlap
        new = (p, H, step.b, cost, overlap)
        damping = torch.full_like(cost, self._initial)
        if self._kept is not None:
            old, damping = self._kept
            worse = ~(cost <= old[3]) | (overlap < old[4] / 2)
            damping = torch.where(worse, damping * 10, damping / 10).clamp(1e-8, 1e8)
            new = tuple(  # type: ignore[assignment]
                torch.where(worse.view(-1, *[1] * (n.dim() - 1)), o, n) for o, n in zip(old, new, strict=True)
            )
        self._kept = (new, damping)
        return new[0], step._replace(H=new[1], b=new[2], overlap=new[4]), damping


def align(
    image: Tensor,
    template: Tensor,
    warp: Warp | str = "homography",
    *,
    p: Tensor | None = None,
    **settings: Any,
) -> AlignmentResult:
    """Find the template in the image with the recommended settings; see :class:`Aligner` for all of them.

    To align many images to one template one after the other, make one :class:`Aligner` and keep it.

    Args:
        image: ``(batch or 1, C, H, W)``.
        template: ``(batch or 1, C, height, width)``.
        warp: family, by name or itself.
        p: initial warps; the identity by default.
        settings: keyword arguments of :class:`Aligner`.
    """
    return Aligner(template, warp, **settings)(image, p)


def _better(found: AlignmentResult, second: AlignmentResult, rows: Tensor) -> AlignmentResult:
    """The first result, with those items of the second (the rows of the first) that are better."""
    better = second.converged | (second.correlation > found.correlation[rows])
    merged = {}
    for name in ("p", "converged", "residual", "correlation", "overlap", *FLAGS):
        old, new = getattr(found, name), getattr(second, name)
        choice = better.view(-1, *[1] * (new.dim() - 1))
        merged[name] = old.index_copy(0, rows, torch.where(choice, new, old[rows]))
    iterations = found.iterations.index_add(0, rows, second.iterations)
    return AlignmentResult(**merged, iterations=iterations)


def _check_images(what: str, x: Tensor) -> None:
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(
            f"the {what} is a float tensor (batch, channels, height, width), got {x.dtype} {tuple(x.shape)}"
        )
    if min(x.shape) < 1 or min(x.shape[-2:]) < 2:
        raise ValueError(f"the {what} is empty or less than 2 pixels wide: {tuple(x.shape)}")
    # a sum is finite only if every pixel is, and is cheaper to look at than each of them
    if not bool(x.detach().sum().isfinite()) and not bool(x.isfinite().all()):
        raise ValueError(f"the {what} {_items(~x.isfinite().flatten(1).all(1))} has NaN or infinite pixels")


def _items(flags: Tensor) -> str:
    items = flags.nonzero().flatten().tolist()
    return ", ".join(map(str, items[:8])) + (", …" if len(items) > 8 else "")


def _levels(size: tuple[int, int]) -> int:
    levels = 1
    while levels < 4 and min(size) >> levels >= 12:
        levels += 1
    return levels


def _per_level(value: Any, levels: int) -> list[Any]:
    """One value for each level from full size to coarse; the first of a sequence serves all coarser ones."""
    if isinstance(value, (str, int)):
        return [value] * levels
    given = list(value)[::-1][:levels]
    return given + given[-1:] * (levels - len(given))


def _algorithm(name: str, warp: Warp) -> Algorithm:
    if name not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {name!r}: they are {', '.join(ALGORITHMS)}")
    ALGORITHMS[name].check(warp)
    return ALGORITHMS[name]


def _select(fixed: Fixed | None, r: Rows) -> Fixed | None:
    if fixed is None or fixed.sd.shape[0] == 1 or r is ALL:
        return fixed
    return Fixed(fixed.sd[r], fixed.H[r])


def _slices(n: int, step: int) -> list[slice]:
    """Chunks of a batch; a single one is everything, which needs no indexing."""
    return [ALL] if step >= n else [slice(i, i + step) for i in range(0, n, step)]


def _join(parts: list[Part]) -> Part:
    """Chunks of states or of results, put together again."""
    if len(parts) == 1:
        return parts[0]
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return type(parts[0])(*(torch.cat(c) if isinstance(c[0], Tensor) else c[0] for c in columns))
