"""Claims of the paper that a computation settles in a second, without any training.

Everything is measured on the photograph of the planar experiment, with fixed seeds, in float64.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from icstn import datasets
from icstn.classical import Aligner, LinearRegressor, descend, ic_lk
from icstn.perturb import perturbations
from icstn.sampling import Frame, sample
from icstn.transformers import ICSTN, STN, CompositionalSTN
from icstn.warps import affine, corner_error

ITERATIONS = 15


class PlanarTrials(NamedTuple):
    """Photograph ``(1, 1, H, W)``, frame, template ``(1, 1, 50, 50)`` and perturbations ``(n, 6)``."""

    image: Tensor
    frame: Frame
    template: Tensor
    p: Tensor


@lru_cache(maxsize=4)
def planar_trials(sigma: float = 2.5, n: int = 100) -> PlanarTrials:
    """The planar experiment in float64, σ in pixels."""
    scene = datasets.planar_scene("chelsea", gray=True)
    image, frame = scene.image.double(), scene.frame
    p = perturbations(n, sigma, frame, "affine", generator=torch.Generator().manual_seed(0)).double()
    return PlanarTrials(image, frame, sample(image, affine.identity(1).double(), frame, affine), p)


@lru_cache(maxsize=1)
def lk_against_ic(sigma: float = 2.5) -> dict[str, float]:
    """Lucas-Kanade and its inverse compositional form from the same starts.

    Returns:
        ``n``; shares aligned to within half a pixel, ``lk`` and ``ic``; ``both``; and the median and the
        95th percentile of the distance between the two answers in pixels, where both are aligned.
    """
    s = planar_trials(sigma)
    found = {name: _aligned(s, name) for name in ("FA", "IC")}
    ok = {name: corner_error(affine, p) / s.frame.pixel < 0.5 for name, p in found.items()}
    both = ok["FA"] & ok["IC"]
    apart = (corner_error(affine, found["FA"], found["IC"]) / s.frame.pixel)[both]
    return {
        "n": len(s.p),
        "lk": float(ok["FA"].double().mean()),
        "ic": float(ok["IC"].double().mean()),
        "both": float(both.double().mean()),
        "median": float(apart.median()),
        "p95": float(apart.quantile(0.95)),
    }


def _aligned(s: PlanarTrials, algorithm: str) -> Tensor:
    aligner = Aligner(
        s.template,
        affine,
        frame=s.frame,
        algorithm=algorithm,
        levels=1,
        iterations=2 * ITERATIONS,
        blur=1,
        normalize=False,
    )
    return aligner(s.image, s.p).p


@lru_cache(maxsize=1)
def constant_regressor() -> dict[str, float]:
    """Whether one R replays IC-LK, and how far Lucas-Kanade's R moves along its own iterations.

    Returns:
        ``replay``: largest difference in a warp parameter between the library's IC-LK and a loop that uses
        one (R, b) throughout; ``lk``: mean relative change ‖R_i − R_0‖ / ‖R_0‖ of Lucas-Kanade's regressor.
    """
    s = planar_trials()
    inside = s.p[:10]
    one = ic_lk(s.template, affine)
    looped = descend([one] * ITERATIONS, s.image, inside, s.frame, affine, trajectory=True).trajectory
    path = _trajectory(s, inside, "IC")
    steps = min(len(path), len(looped)) if looped is not None else 0
    assert looped is not None
    along = _trajectory(s, inside[:1], "FA")
    regressors = [_lucas_kanade_regressor(s, p) for p in along[:, 0]]
    moved = [float((r - regressors[0]).norm() / regressors[0].norm()) for r in regressors[1:]]
    return {
        "replay": float((path[:steps] - looped[:steps]).abs().max()),
        "steps": float(steps - 1),
        "lk": sum(moved) / len(moved),
    }


def _trajectory(s: PlanarTrials, p: Tensor, algorithm: str) -> Tensor:
    aligner = Aligner(
        s.template,
        affine,
        frame=s.frame,
        algorithm=algorithm,
        levels=1,
        iterations=ITERATIONS,
        blur=1,
        tol=0,
        normalize=False,
    )
    path = aligner(s.image, p, trajectory=True).trajectory
    assert path is not None
    return path


def _lucas_kanade_regressor(s: PlanarTrials, p: Tensor) -> Tensor:
    """R of eq. (2) at p: the pseudo-inverse of ∂I(p)/∂p, by central differences of half a pixel."""
    h = 0.5 * s.frame.pixel
    ahead, behind = (sample(s.image, p + sign * h * torch.eye(6), s.frame, affine) for sign in (1, -1))
    return torch.linalg.pinv(((ahead - behind) / (2 * h)).flatten(1).mT)


@lru_cache(maxsize=1)
def linear_c_stn() -> dict[str, float]:
    """A c-STN whose predictors are IC-LK's regressor, against IC-LK itself.

    Returns:
        ``difference``: largest difference of a warp parameter over all operations, with the update inverted
        and composed on the template's side; ``aligned`` and ``other_side``: shares of the trials within half
        a pixel on that side, and on that of eq. (10) with the sign of Δp turned round.
    """
    s = planar_trials()
    start = s.p[:40]
    regressor = ic_lk(s.template, affine)
    module = ICSTN(_predictor(regressor), ITERATIONS, warp=affine, frame=s.frame, invert=True)
    with torch.no_grad():
        warps = torch.stack(module(s.image, start, return_warps=True).warps)
        other = ICSTN(_predictor(regressor, -1.0), ITERATIONS, warp=affine, frame=s.frame, side="image")
        last = other(s.image, start, return_warps=True).warps[-1]
    path = _trajectory(s, start, "IC")
    steps = min(len(path), len(warps))
    return {
        "difference": float((path[:steps] - warps[:steps]).abs().max()),
        "aligned": _share_aligned(warps[-1], s.frame),
        "other_side": _share_aligned(last, s.frame),
        "n": len(start),
    }


def _share_aligned(p: Tensor, frame: Frame) -> float:
    return float((corner_error(affine, p) / frame.pixel < 0.5).double().mean())


def _predictor(regressor: LinearRegressor, sign: float = 1.0) -> nn.Sequential:
    k, d = regressor.R.shape
    layer = nn.Linear(d, k, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(sign * regressor.R)
        layer.bias.copy_(sign * regressor.b)
    return nn.Sequential(nn.Flatten(), layer)


@lru_cache(maxsize=1)
def stn_with_a_linear_layer() -> dict[str, float]:
    """Eq. (8) with one linear layer against eq. (6): largest difference between p and R · I + b."""
    s = planar_trials()
    predictor = _predictor(ic_lk(s.template, affine))
    with torch.no_grad():
        crops = sample(s.image, s.p[:50], s.frame, affine)
        p = STN(predictor, warp=affine)(crops, return_warps=True).warps[-1]
        wanted = ic_lk(s.template, affine).predict(crops.flatten(1))
    return {"difference": float((p - wanted).abs().max())}


@lru_cache(maxsize=1)
def boundary_effect(zoom: float = 1.1, times: int = 4) -> dict[str, list[float]]:
    """Zoom out again and again by the same factor: share of the output's samples that see nothing.

    Returns:
        ``stn`` and ``c_stn``, after 1, 2, … operations: the image that an STN resamples is the crop before,
        a c-STN's is the photograph.
    """
    s = planar_trials()
    step = affine.identity(1).double()
    step[:, [0, 4]] = zoom - 1
    whole, p = Frame.full(s.frame.height, s.frame.width), affine.identity(1).double()
    seen = torch.ones_like(s.template)
    shares: dict[str, list[float]] = {"stn": [], "c_stn": []}
    for _ in range(times):
        seen = sample(seen, step, whole, affine)
        p = affine.compose(p, step, side="template")
        through = sample(torch.ones_like(s.image), p, s.frame, affine)
        shares["stn"].append(float((seen == 0).double().mean()))
        shares["c_stn"].append(float((through == 0).double().mean()))
    return shares


@lru_cache(maxsize=1)
def composition_jacobian(size: float = 0.05, depth: int = 32, trials: int = 100) -> dict[str, list[float]]:
    """Singular values of ∂p_N/∂p_0 through N compositions with random updates of that norm.

    Returns:
        for N = 1 … depth: ``low`` and ``high``, the extremes over trials and directions; ``bound``, the
        guarantee (1 − ‖Δp‖)^N below.
    """
    generator = torch.Generator().manual_seed(0)
    dp = torch.randn(trials, depth, 6, generator=generator, dtype=torch.float64)
    steps = affine.matrix(dp / dp.norm(dim=-1, keepdim=True) * size)[..., :2, :2]
    total, low, high = torch.eye(2, dtype=torch.float64).expand(trials, 2, 2), [], []
    for n in range(depth):
        total = steps[:, n] @ total  # the Jacobian is this block, Kronecker the 3×3 identity
        values = torch.linalg.svdvals(total)
        low.append(float(values.min()))
        high.append(float(values.max()))
    return {"low": low, "high": high, "bound": [(1 - size) ** n for n in range(1, depth + 1)]}


@lru_cache(maxsize=1)
def gradient_by_depth(
    depths: tuple[int, ...] = (1, 4, 16, 32), size: float = 0.03, trials: int = 4
) -> dict[str, list[float]]:
    """Size of the loss's gradient with respect to the *first* predictor's bias, c-STN and stacked STN.

    The predictors ignore their input (their weights are zero, as at the start of training) and predict small
    random warps, which add up to the same size at every depth. The loss is the squared difference of the
    output from the template.

    Returns:
        ``depth``, and for each the norms ``c_stn`` and ``stn``, averaged over trials.
    """
    s = planar_trials()
    out: dict[str, list[float]] = {"depth": [float(n) for n in depths], "c_stn": [], "stn": []}
    for n in depths:
        for kind in ("c_stn", "stn"):
            norms = [_first_gradient(s, kind, n, size, trial) for trial in range(trials)]
            out[kind].append(sum(norms) / trials)
    return out


def _first_gradient(s: PlanarTrials, kind: str, n: int, size: float, trial: int) -> float:
    generator = torch.Generator().manual_seed(1000 * n + trial)
    steps = size * torch.randn(n, 6, generator=generator, dtype=torch.float64) / n**0.5
    predictors = [_Constant(dp) for dp in steps]
    start = s.p[:4]
    if kind == "c_stn":
        out = CompositionalSTN(predictors, warp=affine, frame=s.frame, side="image")(s.image, start)
    else:
        out = sample(s.image, start, s.frame, affine)
        for predictor in predictors:
            out = STN(predictor, warp=affine)(out)
    (out - s.template).square().mean().backward()
    gradient = predictors[0].dp.grad
    assert gradient is not None
    return float(gradient.norm())


class _Constant(nn.Module):
    """A geometric predictor at the start of training: its bias and nothing else."""

    def __init__(self, dp: Tensor) -> None:
        super().__init__()
        self.dp = nn.Parameter(dp.clone())

    def forward(self, image: Tensor) -> Tensor:
        return self.dp.expand(len(image), -1)


@lru_cache(maxsize=1)
def printed_eq_11() -> dict[str, float]:
    """Largest deviation from autograd of eq. (11) as printed, and of the form with one bracket."""
    p, dp = 0.3 * torch.randn(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = torch.autograd.functional.jacobian(lambda q: affine.compose(q, dp, side="image"), p)
    eye = torch.eye(3, dtype=torch.float64)
    left = torch.kron(dp[[0, 1, 3, 4]].view(2, 2), eye)
    block = torch.zeros(3, 3, dtype=torch.float64)
    block[:, 0], block[:, 1] = p[:3], p[3:]
    right = torch.kron(torch.eye(2, dtype=torch.float64), block)
    one = torch.eye(6, dtype=torch.float64) + left
    return {"printed": float((one + right - truth).abs().max()), "right": float((one - truth).abs().max())}
