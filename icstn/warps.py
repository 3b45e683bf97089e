"""Warp families: parameters, matrices, composition, inverse, Jacobian and fitting.

Every family in this module is *linear in its parameters as a matrix*,

    M(p) = I + p_1 G_1 + … + p_k G_k,

where the 3×3 generators G_1 … G_k define the family (the affine case is eq. (9) of Lin & Lucey,
CVPR 2017). A family is therefore nothing but its generators, and each operation below is written
once for all of them.

Convention:
    * points are ``(…, 2)`` as ``(x, y)``, x to the right and y down;
    * a warp maps normalized template coordinates to normalized image coordinates;
    * ``p = 0`` is the identity, and a homography keeps ``M[2, 2] = 1``;
    * coordinates are float32 or better: half-precision parameters are widened, and autocast has no say.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from icstn.constants import constant

Side = Literal["image", "template"]
Entries = tuple[tuple[tuple[int, int, float], ...], ...]
Rows = tuple[tuple[float, ...], ...]

#: The four corners of the template square, in the order top-left, top-right, bottom-right, bottom-left.
CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))


#: Least size of a homogeneous denominator, see :func:`off_horizon`.
HORIZON = 1e-6


_AS_IT_IS = nullcontext()


class SingularWarpError(ValueError):
    """A warp that has no inverse (or no representation with M[2, 2] = 1) in its family."""


@dataclass(frozen=True)
class Warp:
    """A warp family given by its generators.

    Args:
        name: the name used in specs, messages and on the command line.
        entries: for each parameter, the matrix entries it adds to, as ``(row, column, factor)``.

    Attributes:
        generators: G_1 … G_k, one a row of nine numbers.
        dual: what reads p off M − I, nine rows of k numbers: Gᵀ(GGᵀ)⁻¹, for orthogonal generators G/‖G‖².

    Raises:
        ValueError: the generators depend on each other, or one changes M[2, 2] or is not 3×3.

    Example:
        >>> p = torch.tensor([[0.1, 0.0, 0.5, 0.0, 0.1, 0.0]])
        >>> affine.apply(p, torch.tensor([[[1.0, 1.0]]]))
        tensor([[[1.6000, 1.1000]]])
    """

    name: str
    entries: Entries
    generators: Rows = field(init=False, repr=False, compare=False)
    dual: Rows = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        g = np.zeros((self.dim, 9))
        for k, entry in enumerate(self.entries):
            for i, j, factor in entry:
                if not (0 <= i < 3 and 0 <= j < 3):
                    raise ValueError(f"a generator of {self.name!r} has no row {i}, column {j}: it is 3×3")
                g[k, 3 * i + j] = factor
        if g[:, 8].any() or np.linalg.matrix_rank(g) < self.dim:
            raise ValueError(f"the generators of {self.name!r} must be independent and leave M[2, 2] alone")
        object.__setattr__(self, "generators", tuple(map(tuple, g.tolist())))
        object.__setattr__(self, "dual", tuple(map(tuple, np.linalg.solve(g @ g.T, g).T.tolist())))

    @property
    def dim(self) -> int:
        """Number of warp parameters k."""
        return len(self.entries)

    @property
    def projective(self) -> bool:
        """Whether the third row of M(p) depends on p."""
        return any(row == 2 for entry in self.entries for row, _, _ in entry)

    def identity(
        self, *batch: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Parameters of the identity warp, zeros of shape ``(*batch, k)``."""
        return torch.zeros(*batch, self.dim, dtype=dtype, device=device)

    def matrix(self, p: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch 3 3"]:
        """M(p), eq. (9): warp parameters → 3×3 matrices.

        Raises:
            ValueError: the last axis of ``p`` is not k.
        """
        self._check_params(p)
        p = at_least_float32(p)
        eye, generators, _ = _tables(p, self)
        with full_precision(p):
            flat = torch.addmm(eye, p.reshape(-1, self.dim), generators)
        return flat.view(*p.shape[:-1], 3, 3)

    def params(self, matrix: Float[Tensor, "*batch 3 3"], *, check: bool = True) -> Float[Tensor, "*batch k"]:
        """The inverse of :meth:`matrix`: 3×3 matrices of the family, up to scale → parameters.

        Args:
            matrix: a member of the family; only projective families use its scale.
            check: raise when M[2, 2] is too small to divide by (one host synchronisation on a GPU).

        Raises:
            SingularWarpError: M[2, 2] is (almost) zero, so that no representation with M[2, 2] = 1 exists.
        """
        matrix = at_least_float32(matrix)
        if self.projective:
            if check:
                _raise_if(_too_small(matrix[..., 2, 2], matrix), "has M[2, 2] = 0, which p cannot express")
            matrix = matrix / matrix[..., 2:, 2:]
        eye, _, dual = _tables(matrix, self)
        flat = matrix.reshape(*matrix.shape[:-2], 9) - eye
        with full_precision(matrix):
            return flat @ dual

    def compose(
        self, p: Float[Tensor, "*batch k"], dp: Float[Tensor, "*batch k"], *, side: Side, check: bool = True
    ) -> Float[Tensor, "*batch k"]:
        """Apply the update Δp to the warp p on the named side.

        Args:
            p: current warp parameters.
            dp: the update Δp.
            side: ``"image"`` is eq. (10), ``M(Δp) M(p)``: the update acts in image coordinates.
                ``"template"`` is the Lucas-Kanade order, ``M(p) M(Δp)``: it acts in template coordinates.
            check: see :meth:`params`.

        Raises:
            ValueError: ``side`` is neither of the two.
            SingularWarpError: the product cannot be scaled to M[2, 2] = 1.
        """
        if side not in ("image", "template"):
            raise ValueError(f"side is 'image' (M(Δp) M(p)) or 'template' (M(p) M(Δp)), not {side!r}")
        left, right = (dp, p) if side == "image" else (p, dp)
        return self.params(_matmul3(self.matrix(left), self.matrix(right)), check=check)

    def inverse(self, p: Float[Tensor, "*batch k"], *, check: bool = True) -> Float[Tensor, "*batch k"]:
        """Parameters of the inverse warp, through the adjugate of M(p).

        Args:
            p: warp parameters.
            check: raise on a singular warp; with ``False`` look at :meth:`singular` yourself
                (items flagged there come back non-finite or meaningless).

        Raises:
            SingularWarpError: names the batch items that have no inverse in the family.
        """
        m = self.matrix(p)
        if check:
            _raise_if(self.singular(p), "has no inverse in its family")
        adjugate = _adjugate(m)
        if not self.projective:
            adjugate = adjugate / adjugate[..., 2:, 2:]
        return self.params(adjugate, check=False)

    def singular(self, p: Float[Tensor, "*batch k"]) -> Bool[Tensor, "*batch"]:
        """Flags the warps that have no inverse in the family (or hold a non-finite number)."""
        m = self.matrix(p)
        adjugate = _adjugate(m)
        determinant = (m[..., 0, :] * adjugate[..., :, 0]).sum(-1)
        size = m.abs().amax((-2, -1))
        eps = 64 * torch.finfo(m.dtype).eps
        bad = (determinant.abs() <= eps * size**3) | (adjugate[..., 2, 2].abs() <= eps * size**2)
        return bad | ~m.isfinite().flatten(-2).all(-1)

    def apply(self, p: Float[Tensor, "*batch k"], x: Float[Tensor, ...]) -> Float[Tensor, ...]:
        """W(x; p): warp points.

        Args:
            p: warp parameters, ``(*batch, k)``.
            x: points ``(*batch, N, 2)``, or ``(N, 2)`` shared by the batch.

        Returns:
            points ``(*batch, N, 2)``. A point on the horizon line of a homography is pushed off it by
            1e-6, so that the result is finite.
        """
        u, v, w = self._homogeneous(p, x)
        if not self.projective:
            return torch.stack((u, v), -1)
        return torch.stack((u, v), -1) / off_horizon(w).unsqueeze(-1)

    def jacobian(
        self, x: Float[Tensor, ...], p: Float[Tensor, "*batch k"] | None = None
    ) -> Float[Tensor, ...]:
        """∂W(x; p)/∂p, at the identity unless ``p`` is given.

        Args:
            x: points ``(…, N, 2)``.
            p: warp parameters ``(*batch, k)``; the Jacobian is then ``(*batch, N, 2, k)``.

        Returns:
            ``(…, N, 2, k)``, row 0 for the x and row 1 for the y coordinate.
        """
        x = at_least_float32(x)
        if p is None:
            p = self.identity(*x.shape[:-2], dtype=x.dtype, device=x.device)
        u, v, w = self._homogeneous(p, x)
        moved = self._moved(x)
        w = off_horizon(w)[..., None, None]
        warped = torch.stack((u, v), -1)[..., None] / w
        return (moved[..., :2, :] - warped * moved[..., 2:, :]) / w

    def fit(
        self, source: Float[Tensor, ...], target: Float[Tensor, ...], *, check: bool = True
    ) -> Float[Tensor, "*batch k"]:
        """Warp that takes ``source`` to ``target``, in the least-squares sense.

        Multiplying W(x; p) = x' by its denominator leaves one linear equation a coordinate,
        Σ_k p_k [(G_k x̃)_xy − x' (G_k x̃)_z] = x' − x. That is exact for as many points as the family
        needs (a homography: 4), ordinary least squares for the affine families, and the algebraic
        error (the direct linear transform) for a homography on more points.

        Args:
            source: points ``(*batch, N, 2)`` or ``(N, 2)``, with 2N ≥ k.
            target: points ``(*batch, N, 2)``.
            check: raise on a degenerate configuration (one host synchronisation on a GPU).

        Raises:
            ValueError: too few points.
            SingularWarpError: the points do not determine the warp within their precision (for example, when
                three lie on one line), or are not finite.
        """
        if 2 * source.shape[-2] < self.dim:
            need = -(-self.dim // 2)
            raise ValueError(f"a {self.name} needs at least {need} points, got {source.shape[-2]}")
        a, b = self._linear_system(at_least_float32(source), at_least_float32(target))
        if check:
            _raise_if(_undetermined(a, b), "is not determined by its points")
        if a.shape[-2] == self.dim:
            return torch.linalg.solve_ex(a, b).result.squeeze(-1)
        q, r = torch.linalg.qr(a)  # lstsq differs in its last bits from call to call, and fails on a NaN
        with full_precision(b):
            return torch.linalg.solve_triangular(r, q.mT @ b, upper=True).squeeze(-1)

    def _linear_system(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        source, target = torch.broadcast_tensors(source, target)
        moved = self._moved(source)
        a = moved[..., :2, :] - target.unsqueeze(-1) * moved[..., 2:, :]
        return a.flatten(-3, -2), (target - source).flatten(-2).unsqueeze(-1)

    def _moved(self, x: Tensor) -> Tensor:
        """G_k x̃ for each generator: ``(…, N, 3, k)``."""
        g = _tables(x, self)[1].view(self.dim, 3, 3)
        with full_precision(x):
            return torch.einsum("kij,...nj->...nik", g, _lift(x))

    def _homogeneous(self, p: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m = self.matrix(p).unsqueeze(-3)  # (*batch, 1, 3, 3) against points (…, N)
        px, py = x[..., 0], x[..., 1]
        rows = tuple(m[..., i, 0] * px + m[..., i, 1] * py + m[..., i, 2] for i in range(3))
        return rows[0], rows[1], rows[2]

    def _check_params(self, p: Tensor) -> None:
        if p.shape[-1] != self.dim:
            raise ValueError(
                f"a {self.name} has {self.dim} warp parameters on its last axis, got shape {tuple(p.shape)}"
            )

    def __repr__(self) -> str:
        return f"<{self.name} warp, {self.dim} parameters>"


translation = Warp("translation", (((0, 2, 1.0),), ((1, 2, 1.0),)))
similarity = Warp(
    "similarity",
    (((0, 0, 1.0), (1, 1, 1.0)), ((1, 0, 1.0), (0, 1, -1.0)), ((0, 2, 1.0),), ((1, 2, 1.0),)),
)
affine = Warp("affine", tuple(((i, j, 1.0),) for i in range(2) for j in range(3)))
homography = Warp("homography", tuple(((i, j, 1.0),) for i in range(3) for j in range(3))[:8])

FAMILIES: dict[str, Warp] = {w.name: w for w in (translation, similarity, affine, homography)}


def family(warp: str | Warp) -> Warp:
    """The warp family of that name (a :class:`Warp` is passed through).

    Raises:
        ValueError: no family has that name; the message lists those that exist.
    """
    if isinstance(warp, Warp):
        return warp
    if warp not in FAMILIES:
        raise ValueError(f"unknown warp {warp!r}: the families are {', '.join(FAMILIES)}")
    return FAMILIES[warp]


def corners(
    dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Float[Tensor, "4 2"]:
    """The four corners of the template square [-1, 1]², top-left first and clockwise on the screen."""
    return _corners(torch.empty(0, dtype=dtype, device=device)).clone()


def corner_error(
    warp: Warp, p: Float[Tensor, "*batch k"], q: Float[Tensor, "*batch k"] | None = None
) -> Float[Tensor, "*batch"]:
    """RMS distance between the corners of two warps (``q`` defaults to the identity), normalized units.

    Divide by :attr:`icstn.sampling.Frame.pixel` for pixels. Where the warps agree its gradient is 0.
    """
    c = _corners(at_least_float32(p))
    target = c if q is None else warp.apply(q, c)
    return torch.linalg.vector_norm(warp.apply(p, c) - target, dim=(-2, -1)) / len(CORNERS) ** 0.5


def off_horizon(w: Tensor, margin: float = HORIZON) -> Tensor:
    """Keep a homogeneous denominator at least ``margin`` away from zero, with its sign."""
    away = torch.full_like(w, margin)
    return torch.where(w.abs() < margin, torch.where(w < 0, -away, away), w)


def at_least_float32(x: Tensor) -> Tensor:
    """Numbers of half precision, in which a coordinate would be off by pixels, as float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Where autocast has no say: it would put coordinates into half precision."""
    kind = like.device.type
    if kind != "meta" and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return _AS_IT_IS


@constant
def _tables(warp: Warp, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """The identity matrix ``(9,)``, a family's generators ``(k, 9)`` and their dual ``(9, k)``."""
    rows = (torch.tensor(r, dtype=dtype, device=device) for r in (warp.generators, warp.dual))
    return (torch.eye(3, dtype=dtype, device=device).view(9), *rows)


@constant
def _corners(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(CORNERS, dtype=dtype, device=device)


def _lift(x: Tensor) -> Tensor:
    return torch.cat((x, torch.ones_like(x[..., :1])), -1)


def _matmul3(a: Tensor, b: Tensor) -> Tensor:
    """Product of 3×3 matrices as a broadcast sum: several times faster than a batched matmul on a CPU."""
    return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2)


def _adjugate(m: Tensor) -> Tensor:
    r0, r1, r2 = m.unbind(-2)
    cross = torch.linalg.cross
    return torch.stack((cross(r1, r2), cross(r2, r0), cross(r0, r1)), -1)


def _undetermined(a: Tensor, b: Tensor) -> Tensor:
    """Flags the systems ``a p = b`` whose columns depend on each other within rounding, or not finite.

    A column's length says nothing of that: coordinates may be large and their products larger.
    """
    finite = a.isfinite().flatten(-2).all(-1) & b.isfinite().flatten(-2).all(-1)
    a = torch.where(finite[..., None, None], a, 0.0).detach().double()
    length = torch.linalg.vector_norm(a, dim=-2, keepdim=True)
    values = torch.linalg.svdvals(a / length.clamp_min(torch.finfo(torch.float32).tiny))
    return ~finite | ~(values[..., -1] > 16 * torch.finfo(b.dtype).eps * values[..., 0])


def _too_small(value: Tensor, matrix: Tensor) -> Tensor:
    return ~(value.abs() > 64 * torch.finfo(value.dtype).eps * matrix.abs().amax((-2, -1)))


def _raise_if(flags: Tensor, reason: str) -> None:
    if bool(flags.any()):
        items = flags.reshape(-1).nonzero().flatten().tolist()
        shown = ", ".join(map(str, items[:8])) + (", …" if len(items) > 8 else "")
        raise SingularWarpError(f"the warp {reason}: item {shown} of {flags.numel()}")
