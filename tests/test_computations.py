"""What computations settle of the paper, held against plain code: golden methods, sums, differences."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from golden import draws, methods
from golden.course import Problem
from golden.sight import Place, composed, corner_pixels, matrix, parameters, seen
from torch import Tensor

from icstn.evidence import computations
from icstn.evidence.collection import Evidence
from icstn.evidence.predicates import lucas_kanade, transformers

NONE = torch.zeros(1, 6).double()


@pytest.fixture(scope="module")
def plane() -> Problem:
    """The photograph as it is, and where its template lies."""
    s = computations.planar_trials()
    frame = s.frame
    place = Place(50, 50, frame.center, frame.half_extent)
    return Problem(s.image, None, place, 2.5, "affine")


@pytest.fixture(scope="module")
def starts() -> Tensor:
    """The hundred perturbations."""
    generator = torch.Generator().manual_seed(0)
    return torch.from_numpy(draws.warps(generator, 100, 2.5, 50, 50, "affine"))


def steps(n: int) -> SimpleNamespace:
    """What the golden methods read of a spec."""
    return SimpleNamespace(steps=n)


def aligned(p: Tensor) -> Tensor:
    return corner_pixels(p, 50) < 0.5


def test_the_trials_are_the_golden_draws(plane: Problem, starts: Tensor) -> None:
    s = computations.planar_trials()
    assert s.p.numpy() == pytest.approx(starts.numpy(), abs=1e-5)
    assert s.template.numpy() == pytest.approx(seen(plane.images, NONE, plane.place).numpy(), abs=1e-9)


def test_what_is_told_of_two_answers(starts: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of answers that are made up: shares within half a pixel, and quantiles where both are."""
    made_up = {"FA": starts / 12, "IC": starts.flip(0) / 14}

    class Aligner:
        def __init__(self, *_: object, algorithm: str, **__: object) -> None:
            self.p = made_up[algorithm]

        def __call__(self, *_: object) -> SimpleNamespace:
            return SimpleNamespace(p=self.p)

    monkeypatch.setattr(computations, "Aligner", Aligner)
    found = computations.lk_against_ic(2.5000001)  # a size of its own, which no other test asks for
    lk, ic = (aligned(p).numpy() for p in made_up.values())
    corners = torch.tensor([[-1.0, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]).double()
    apart = (corners @ (matrix(made_up["FA"]) - matrix(made_up["IC"])).mT)[..., :2].numpy() * 25
    apart = np.sqrt((apart**2).sum(-1).mean(-1))[lk & ic]
    assert 0.1 < (lk & ic).mean() < min(lk.mean(), ic.mean()) < 0.9
    shares = {"n": 100, "lk": lk.mean(), "ic": ic.mean(), "both": (lk & ic).mean()}
    quantiles = {"median": np.sort(apart)[(len(apart) - 1) // 2], "p95": np.quantile(apart, 0.95)}
    assert found == pytest.approx(shares | quantiles)


def test_one_regressor_replays_the_inverse_form_and_the_other_forms_moves(
    plane: Problem, starts: Tensor
) -> None:
    found, p, regressors = computations.constant_regressor(), starts[:1], []
    for _ in range(16):
        columns = []
        for k in range(6):
            change = torch.zeros(1, 6).double()
            change[0, k] = 1 / 50  # half a pixel of 2/50
            ahead, behind = (seen(plane.images, p + s * change, plane.place) for s in (1, -1))
            columns.append(((ahead - behind) / (2 / 50)).flatten().numpy())
        regressors.append(np.linalg.pinv(np.stack(columns, 1)))
        p = methods.forwards(plane, p, steps(1))
    moved = [np.linalg.norm(r - regressors[0]) / np.linalg.norm(regressors[0]) for r in regressors[1:]]
    assert found["replay"] < 1e-9
    assert found["steps"] == 15
    assert found["lk"] == pytest.approx(np.mean(moved), rel=0.02)


def test_a_c_stn_with_the_regressor_is_the_inverse_form(plane: Problem, starts: Tensor) -> None:
    found, start = computations.linear_c_stn(), starts[:40]
    same, other = methods.inverse(plane, start, steps(15)), start
    for _ in range(15):
        step = methods.inverse(plane, other, steps(1))  # M(p) M(Δp)⁻¹
        dp = torch.linalg.inv(matrix(step)) @ matrix(other)
        other = composed(other, -parameters(dp, 6), "image")
    assert found["n"] == 40
    assert found["difference"] < 1e-9
    assert found["aligned"] == pytest.approx(aligned(same).double().mean().item(), abs=0.026)
    assert found["other_side"] == pytest.approx(aligned(other).double().mean().item(), abs=0.026)


def test_an_stn_with_one_linear_layer_is_eq_6() -> None:
    assert computations.stn_with_a_linear_layer()["difference"] < 1e-12


def resampled(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Linear interpolation along one axis, zero one sample beyond the ends and further out."""
    n = len(values)
    return np.interp(at, np.arange(-1, n + 1), np.concatenate(([0.0], values, [0.0])))


def test_the_boundary_effect(plane: Problem) -> None:
    """All along one axis: a square zoomed again and again, and a window that grows over the photograph."""
    zoom, times, place = 1.5, 4, plane.place
    found = computations.boundary_effect(zoom, times)
    line, grid = np.ones(50), np.linspace(-1, 1, 50)
    for k in range(times):
        line = resampled(line, 24.5 + 24.5 * zoom * grid)
        lost = 1 - np.count_nonzero(line) ** 2 / 50**2
        size = plane.images.shape[:1:-1]
        inside = [
            np.count_nonzero(resampled(np.ones(n), c + h * zoom ** (k + 1) * grid))
            for n, c, h in zip(size, place.center, place.half, strict=True)
        ]
        assert found["stn"][k] == pytest.approx(lost)
        assert found["c_stn"][k] == pytest.approx(1 - inside[0] * inside[1] / 50**2)
    assert found["c_stn"][-1] > 0 == found["c_stn"][0] < found["stn"][0]


def test_the_gradient_of_the_first_predictor(plane: Problem, starts: Tensor) -> None:
    found = computations.gradient_by_depth((1, 3), size=0.05, trials=2)
    assert found["depth"] == [1, 3]
    for at, n in enumerate((1, 3)):
        norms = np.array([gradients(plane, starts[:4], n, trial) for trial in range(2)])
        assert (found["c_stn"][at], found["stn"][at]) == pytest.approx(tuple(norms.mean(0)), rel=1e-4)


def gradients(plane: Problem, start: Tensor, n: int, trial: int) -> tuple[float, float]:
    """Of n constant updates of the warp, and of n crops of crops."""
    generator = torch.Generator().manual_seed(1000 * n + trial)
    updates = 0.05 * torch.randn(n, 6, generator=generator, dtype=torch.float64) / np.sqrt(n)
    first = updates[:1].clone().requires_grad_()
    all_of_them = [first, *(dp[None] for dp in updates[1:])]
    template, p, crop = seen(plane.images, NONE, plane.place), start, seen(plane.images, start, plane.place)
    for dp in all_of_them:
        p = composed(p, dp.expand(4, -1), "image")
        crop = seen(crop, dp.expand(4, -1), plane.place.whole)
    losses = [((x - template) ** 2).mean() for x in (seen(plane.images, p, plane.place), crop)]
    return tuple(torch.autograd.grad(loss, first)[0].norm().item() for loss in losses)


def test_eq_11_as_printed_and_with_one_bracket() -> None:
    """∂p_out/∂p_in by differences of M(Δp) M(p), the bracket of Δp, and that of p too much beside it."""
    p, dp = 0.3 * torch.randn(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ahead, behind = (composed(p + s * torch.eye(6) / 8, dp.expand(6, -1), "image") for s in (1, -1))
    truth = ((ahead - behind) * 4).T.numpy()  # bilinear: exact
    a, b, _, c, d, _ = dp.tolist()
    bracket = np.kron(np.array([[a, b], [c, d]]), np.eye(3))
    extra = np.zeros((6, 6))
    for row in range(6):
        block, k = divmod(row, 3)
        extra[row, 3 * block : 3 * block + 2] = p[k], p[3 + k]
    found = computations.printed_eq_11()
    assert np.abs(np.eye(6) + bracket - truth).max() < 1e-12
    assert found["right"] < 1e-12
    assert found["printed"] == pytest.approx(np.abs(np.eye(6) + bracket + extra - truth).max())


#: Predicate → the numbers that it asks for, just inside its bounds, and for each what is just outside.
BOUNDS = [
    (
        lucas_kanade.regressor_is_constant,
        "constant_regressor",
        {"replay": 9e-10, "steps": 15.0, "lk": 0.011},
        {"replay": 2e-9, "lk": 0.009},
    ),
    (transformers.stn_is_linear, "stn_with_a_linear_layer", {"difference": 9e-10}, {"difference": 2e-9}),
    (
        transformers.boundary_effect,
        "boundary_effect",
        {"stn": [0.01], "c_stn": [0.0]},
        {"stn": [0.0], "c_stn": [0.001]},
    ),
    (
        transformers.boundary_accumulates,
        "boundary_effect",
        {"stn": [0.1, 0.2, 0.3], "c_stn": [0.1, 0.0]},
        {"stn": [0.1, 0.3, 0.3], "c_stn": [0.0, 0.01]},
    ),
    (
        transformers.derivative_as_printed,
        "printed_eq_11",
        {"printed": 9e-10, "right": 0.0},
        {"printed": 2e-9},
    ),
    (
        transformers.c_stn_is_compositional_lk,
        "linear_c_stn",
        {"difference": 9e-10, "aligned": 0.9, "other_side": 0.949, "n": 40},
        {"difference": 2e-9, "other_side": 0.951, "aligned": 1.0},
    ),
    (
        transformers.gradient_survives,
        "composition_jacobian",
        {"low": [1.0, 0.51], "high": [1.0, 1.99]},
        {"low": [1.0, 0.49], "high": [1.0, 2.01]},
    ),
    (
        transformers.gradient_survives,
        "gradient_by_depth",
        {"depth": [1, 32], "c_stn": [0.1, 0.051], "stn": [0.1, 0.01]},
        {"c_stn": [0.1, 0.049]},
    ),
]


@pytest.mark.parametrize(("predicate", "computation", "inside", "outside"), BOUNDS)
def test_where_a_computation_turns_a_finding(
    predicate: Callable, computation: str, inside: dict, outside: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verdicts(**changes: object) -> list[str]:
        monkeypatch.setattr(computations, computation, lambda: inside | changes)
        return [finding.verdict for finding in predicate(Evidence([]))]

    assert set(verdicts()) == {"holds"}
    for name, value in outside.items():
        assert verdicts(**{name: value}).count("does not hold") == 1, name


def test_rounding_errors_are_not_told_apart() -> None:
    assert [lucas_kanade.tiny(x) for x in (9.9e-10, 1e-9, 0.123)] == ["less than 1e-9", "1e-09", "0.12"]
