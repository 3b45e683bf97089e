"""Alignment as regression: eqs. (5)-(7), the cascades, their files, and their errors."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from icstn.classical import (
    Aligner,
    ConditionalLK,
    LinearRegressor,
    SupervisedDescent,
    descend,
    ic_lk,
    linear_predictor,
    ridge_regression,
    steepest_descent_images,
    template_gradients,
)
from icstn.classical.features import hog
from icstn.perturb import perturbations
from icstn.sampling import Frame, sample
from icstn.warps import FAMILIES, affine, corner_error, family, homography

FRAME = Frame.box(100, 60, 220, 180, 20, 20)


@pytest.fixture(scope="module")
def gray(photograph: torch.Tensor) -> torch.Tensor:
    """The photograph, blurred to the sampling of FRAME (six pixels a sample)."""
    return torch.nn.functional.avg_pool2d(photograph.mean(1, keepdim=True).float(), 7, stride=1, padding=3)


@pytest.fixture(scope="module")
def template(gray: torch.Tensor) -> torch.Tensor:
    return sample(gray, torch.zeros(1, 6), FRAME, "affine")


@pytest.fixture(scope="module")
def sdm(gray: torch.Tensor) -> SupervisedDescent:
    return SupervisedDescent(FRAME, "affine", sigma=2.0, samples=300, stages=4).fit(gray)


@pytest.fixture(scope="module")
def clk(gray: torch.Tensor) -> ConditionalLK:
    return ConditionalLK(FRAME, "affine", sigma=2.0, samples=300, stages=4).fit(gray)


def noise(n: int, sigma: float, warp: str = "affine", seed: int = 99) -> torch.Tensor:
    return perturbations(n, sigma, FRAME, warp, generator=torch.Generator().manual_seed(seed))


def pixels_off(p: torch.Tensor, warp: str = "affine") -> torch.Tensor:
    return corner_error(family(warp), p) * FRAME.width / 2


def normal_equations_gap(X: torch.Tensor, Y: torch.Tensor, fitted: LinearRegressor, penalty: float) -> float:
    """Gradient of the penalized objective at the solution, relative to its size at zero."""
    residual = X @ fitted.R.mT + fitted.b - Y
    gap = torch.cat(((X.mT @ residual + penalty * fitted.R.mT).flatten(), residual.sum(0)))
    return float(gap.abs().max() / (1 + (X.mT @ Y).abs().max() + Y.sum(0).abs().max()))


@settings(max_examples=40, deadline=None)
@given(n=st.integers(3, 30), d=st.integers(1, 40), penalty=st.floats(1e-3, 1e3), seed=st.integers(0, 10_000))
def test_ridge_solves_its_normal_equations(n: int, d: int, penalty: float, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(n, d, generator=g, dtype=torch.float64) + 3
    Y = torch.randn(n, 4, generator=g, dtype=torch.float64)
    assert normal_equations_gap(X, Y, ridge_regression(X, Y, penalty), penalty) < 1e-9


@settings(max_examples=40, deadline=None)
@given(d=st.integers(1, 12), k=st.integers(1, 8), seed=st.integers(0, 10_000))
def test_ridge_without_penalty_recovers_a_linear_relation(d: int, k: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(4 * d + 4, d, generator=g, dtype=torch.float64)
    R = torch.randn(k, d, generator=g, dtype=torch.float64)
    b = torch.randn(k, generator=g, dtype=torch.float64)
    fitted = ridge_regression(X, X @ R.mT + b, 0.0)
    torch.testing.assert_close(fitted.R, R, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(fitted.b, b, rtol=1e-7, atol=1e-8)


def test_ridge_shrinks_with_its_penalty(generator: torch.Generator) -> None:
    X, Y = torch.randn(20, 5, generator=generator), torch.randn(20, 2, generator=generator)
    sizes = [float(ridge_regression(X, Y, penalty).R.norm()) for penalty in (0.0, 1.0, 100.0)]
    assert sizes[0] > sizes[1] > sizes[2] > 0


@pytest.mark.parametrize("warp", sorted(FAMILIES))
def test_ic_regressor_is_eq_5(warp: str, template: torch.Tensor) -> None:
    T, half = template.double(), 19 / 2
    R, b = ic_lk(T, warp)
    J = torch.zeros(400, family(warp).dim, dtype=torch.float64)
    x = FRAME.grid(torch.float64)
    for i in range(20):
        for j in range(20):  # central differences, the border repeated
            dx = T[0, 0, i, min(j + 1, 19)] - T[0, 0, i, max(j - 1, 0)]
            dy = T[0, 0, min(i + 1, 19), j] - T[0, 0, max(i - 1, 0), j]
            n = 20 * i + j
            J[n] = torch.stack((dx, dy)) / 2 * half @ family(warp).jacobian(x[n : n + 1])[0]
    torch.testing.assert_close(R, torch.linalg.pinv(J), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(b, -R @ T.flatten())


@pytest.mark.parametrize("warp", sorted(FAMILIES))
def test_ic_cascade_returns_to_the_template(warp: str, gray: torch.Tensor, template: torch.Tensor) -> None:
    p0 = noise(20, 0.3, warp)
    run = descend([ic_lk(template, warp)] * 20, gray, p0, FRAME, warp, trajectory=True)
    assert pixels_off(run.p, warp).median() < 0.01
    assert run.trajectory is not None
    torch.testing.assert_close(run.trajectory[0], p0)
    torch.testing.assert_close(run.trajectory[-1], run.p)
    assert not run.failed.any()
    assert run.last_step.median() < 0.01


def test_gradients_flow_through_a_cascade(gray: torch.Tensor, template: torch.Tensor) -> None:
    regressors = [ic_lk(template.double(), "affine")] * 2
    image, p0 = gray.double(), noise(1, 0.5).double().requires_grad_()

    def run(p: torch.Tensor) -> torch.Tensor:
        return descend(regressors, image, p, FRAME, "affine").p

    assert torch.autograd.gradcheck(run, p0, eps=1e-7, atol=1e-4)


@pytest.mark.parametrize("kind", ["sdm", "clk"])
def test_learned_cascades_align(kind: str, gray: torch.Tensor, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(kind)
    p0 = noise(100, 2.0)
    run = model.align(gray, p0, trajectory=True)
    assert pixels_off(run.p).median() < 0.15
    medians = [float(pixels_off(p).median()) for p in run.trajectory]
    assert medians == sorted(medians, reverse=True)
    torch.testing.assert_close(model.align(gray, p0, stages=2).p, run.trajectory[2])
    torch.testing.assert_close(model.align(gray, p0[3:4]).p, run.p[3:4], rtol=1e-4, atol=1e-5)


def test_supervised_descent_beats_plain_ic_on_the_planar_task(photograph: torch.Tensor) -> None:
    """50×50 samples, affine, σ = 7.5 px (Sec. 5.1), the same initial noise for both."""
    gray = photograph.mean(1, keepdim=True).float()
    frame = Frame.box(100, 60, 220, 180, 50, 50)
    p0 = perturbations(300, 7.5, frame, "affine", generator=torch.Generator().manual_seed(999))
    T = sample(gray, torch.zeros(1, 6), frame, "affine")
    ic = descend([ic_lk(T, "affine")] * 30, gray, p0, frame, "affine")
    sdm = SupervisedDescent(frame, "affine", sigma=7.5).fit(gray).align(gray, p0)
    aligned = [(corner_error(affine, run.p) * 25 < 1).float().mean() for run in (ic, sdm)]
    assert aligned[0] < 0.5
    assert aligned[1] > 0.9


def test_ground_truth_moves_the_whole_problem(gray: torch.Tensor, sdm: SupervisedDescent) -> None:
    """Two copies of the image with two truths: the cascade finds the one that it starts near."""
    truth = noise(2, 1.0, seed=5)
    model = SupervisedDescent(FRAME, "affine", sigma=1.0, samples=200, stages=3)
    model.fit(torch.cat((gray, gray)), torch.stack((truth[0], truth[0])))
    delta = noise(50, 1.0, seed=6)
    start = affine.compose(truth[:1].expand(50, -1), delta, side="template")
    found = model.align(gray, start).p
    assert (corner_error(affine, found, truth[:1].expand(50, -1)) * 10).median() < 0.1
    assert (corner_error(affine, found) * 10).median() > 0.5


def test_features_other_than_pixels(gray: torch.Tensor) -> None:
    small = partial(hog, cell=5)
    for features in ("sift", small, lambda x: torch.cat((x.flatten(1), x.square().flatten(1)), 1)):
        model = SupervisedDescent(FRAME, "affine", sigma=1.5, features=features, samples=150, stages=2).fit(
            gray
        )
        p0 = noise(30, 1.5)
        assert pixels_off(model.align(gray, p0).p).median() < 0.5 * pixels_off(p0).median()


def test_color_and_double_precision(photograph: torch.Tensor) -> None:
    model = SupervisedDescent(FRAME, "homography", sigma=1.0, samples=100, stages=2).fit(photograph)
    run = model.align(photograph, noise(10, 1.0, "homography").double())
    assert run.p.dtype == torch.float64
    assert model.regressor().images(3, 20, 20).shape == (8, 3, 20, 20)


def test_fits_are_reproducible_and_seeds_matter(gray: torch.Tensor) -> None:
    def fitted(seed: int) -> torch.Tensor:
        options = {"sigma": 1.0, "samples": 50, "stages": 1}
        return SupervisedDescent(FRAME, "affine", **options, seed=seed).fit(gray).regressor().R

    torch.testing.assert_close(fitted(0), fitted(0), rtol=0, atol=0)
    assert (fitted(0) - fitted(1)).abs().max() > 0


def test_given_displacements_replace_the_noise(gray: torch.Tensor) -> None:
    delta = noise(60, 1.5)[None]
    a = SupervisedDescent(FRAME, "affine", sigma=1.0, stages=1, seed=1).fit(gray, displacements=delta)
    b = SupervisedDescent(FRAME, "affine", sigma=9.0, stages=1, seed=2).fit(gray, displacements=delta)
    torch.testing.assert_close(a.regressor(), b.regressor(), rtol=0, atol=0)
    patches = sample(gray, delta[0], FRAME, "affine").flatten(1)
    penalty = 10 * 60 * float(patches.double().var(0, correction=0).mean())
    torch.testing.assert_close(a.regressor(), ridge_regression(patches, delta[0], penalty))


def test_conditional_regressor_is_a_pseudo_inverse(clk: ConditionalLK) -> None:
    for g, (R, b) in zip(clk.gradients_, clk.regressors_, strict=True):
        J = steepest_descent_images(g, "affine")
        torch.testing.assert_close(R @ J, torch.eye(6), rtol=0, atol=1e-3)
        torch.testing.assert_close(b, -R @ clk.template_.flatten())


def test_conditional_objective_is_lower_than_that_of_lucas_kanade(gray: torch.Tensor) -> None:
    """On the very samples it learns from, and already by its scale alone."""
    delta = noise(100, 2.0)
    losses = []
    for iterations in (0, 20):
        model = ConditionalLK(FRAME, "affine", sigma=1.0, stages=1, ridge=0.0, iterations=iterations)
        R, b = model.fit(gray, displacements=delta[None]).regressor()
        phi = sample(gray, delta, FRAME, "affine").flatten(1)
        losses.append(float((delta - phi @ R.mT - b).square().sum()))
    R, b = ic_lk(model.template_, "affine")
    lk = float((delta - phi @ R.mT - b).square().sum())
    assert lk > losses[0] > 1.2 * losses[1]


def test_conditional_lk_swaps_warps(gray: torch.Tensor, clk: ConditionalLK) -> None:
    swapped = clk.for_warp("homography")
    assert swapped.regressor().R.shape == (8, 400)
    p0 = noise(100, 1.0, "homography")
    before, after = (pixels_off(p, "homography").median() for p in (p0, swapped.align(gray, p0).p))
    assert after < 0.3 * before
    assert clk.regressor().R.shape == (6, 400)  # the original is as it was
    torch.testing.assert_close(clk.for_warp("affine").regressor(3), clk.regressor(3))


def test_linear_predictor_speaks_the_same_language(gray: torch.Tensor, template: torch.Tensor) -> None:
    """Its Δp composed on the image side undoes a small displacement as IC's does on the template side."""
    R, b = ic_lk(template, "affine")
    layer = torch.nn.Linear(400, 6)
    with torch.no_grad():
        layer.weight.copy_(-R)
        layer.bias.copy_(-b)
    torch.testing.assert_close(linear_predictor(layer.weight, layer.bias), LinearRegressor(R, b))
    p0 = noise(1, 0.05)
    dp = layer(sample(gray, p0, FRAME, "affine").flatten(1))
    image_side = affine.compose(p0, dp, side="image")
    template_side = descend([LinearRegressor(R, b)], gray, p0, FRAME, "affine").p
    assert (image_side - template_side).abs().max() < 0.05 * p0.abs().max()
    raw = linear_predictor(layer.weight, layer.bias, negate=False)
    torch.testing.assert_close(raw.R, layer.weight.detach())


def test_rows_of_R_are_template_shaped(template: torch.Tensor) -> None:
    regressor = ic_lk(template, "translation")
    rows = regressor.images(1, 20, 20)
    torch.testing.assert_close(rows[1, 0, 2, 3], regressor.R[1, 43])
    with pytest.raises(ValueError, match="R has 400 columns, not 3·20·20: only a regressor on pixels"):
        regressor.images(3, 20, 20)


def test_items_that_leave_the_image_or_become_singular_are_flagged(
    gray: torch.Tensor, sdm: SupervisedDescent, template: torch.Tensor
) -> None:
    far = torch.tensor([[0, 0, 0.0, 0, 0, 0], [0, 0, 6.0, 0, 0, 0]])
    run = descend([], gray, far, FRAME, "affine")
    assert run.left_image.tolist() == [False, True]
    crush = LinearRegressor(torch.zeros(6, 400), torch.tensor([-1.0, 0, 0, 0, -1.0, 0]))
    run = descend([ic_lk(template, "affine"), crush], gray, far[:1], FRAME, "affine", trajectory=True)
    assert run.singular.tolist() == [True]
    assert run.failed.tolist() == [True]
    assert run.trajectory is not None
    torch.testing.assert_close(run.p, run.trajectory[1])  # the last invertible warp
    assert run.p.isfinite().all()


@pytest.mark.parametrize("kind", ["sdm", "clk"])
def test_saved_models_align_the_same(
    kind: str, gray: torch.Tensor, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(kind)
    path = tmp_path / "model.safetensors"
    model.save(path)
    model.save(path)
    again = type(model).load(path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    p0 = noise(5, 2.0)
    torch.testing.assert_close(again.align(gray, p0).p, model.align(gray, p0).p, rtol=0, atol=0)
    assert repr(again) == repr(model)
    assert again.get_params()["frame"] == FRAME


def test_a_callable_must_be_given_again(gray: torch.Tensor, tmp_path: Path) -> None:
    path, small = tmp_path / "model.safetensors", partial(hog, cell=5)
    model = SupervisedDescent(FRAME, "affine", sigma=1.0, features=small, samples=30, stages=1).fit(gray)
    model.save(path)
    with pytest.raises(ValueError, match=r"learned with the callable 'hog\(cell=5\)': pass it again"):
        SupervisedDescent.load(path)
    with pytest.raises(ValueError, match=r"learned with features 'hog\(cell=5\)', not 'hog\(cell=8\)'"):
        SupervisedDescent.load(path, features=partial(hog, cell=8))
    again = SupervisedDescent.load(path, features=partial(hog, cell=5))
    torch.testing.assert_close(again.align(gray).p, model.align(gray).p)


def test_files_that_are_no_models(sdm: SupervisedDescent, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match="there is no model file"):
        SupervisedDescent.load(path)
    sdm.save(path)
    whole = path.read_bytes()
    for content in (whole[:-100], whole[:50], b"", b"PK\x03\x04 not a model"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no model file, or a truncated one"):
            SupervisedDescent.load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="but not one that a SupervisedDescent has written"):
        SupervisedDescent.load(path)
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="holds a SupervisedDescent, not a ConditionalLK"):
        ConditionalLK.load(path)


def test_files_from_the_future_and_files_with_holes(sdm: SupervisedDescent, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    sdm.save(path)
    whole = path.read_bytes()
    newer = whole.replace(rb"\"version\": 1", rb"\"version\": 9")
    assert newer != whole
    path.write_bytes(newer)
    with pytest.raises(ValueError, match=r"newer version of icstn \(format 9\)"):
        SupervisedDescent.load(path)
    path.write_bytes(whole.replace(b'"R.2"', b'"Q.2"'))
    with pytest.raises(ValueError, match="lacks arrays of a SupervisedDescent"):
        SupervisedDescent.load(path)


def test_hyperparameters_the_scikit_learn_way() -> None:
    model = SupervisedDescent(FRAME, "homography", sigma=2.0, features=hog)
    params = model.get_params()
    assert list(params)[:3] == ["frame", "warp", "sigma"]
    assert SupervisedDescent(**params).get_params() == params
    assert repr(model).startswith("SupervisedDescent(frame=Frame(height=20, width=20")
    assert "warp='homography', sigma=2.0, features=hog, stages=6" in repr(model)
    assert model.set_params(sigma=3.0).sigma == 3.0
    with pytest.raises(ValueError, match="SupervisedDescent has no 'alpha', only frame, warp"):
        model.set_params(alpha=1)


BAD_FITS = [
    ({"features": "surf"}, "unknown features 'surf'"),
    ({"warp": "bent"}, "unknown warp 'bent'"),
    ({"stages": 0}, "stages must be at least 1, got 0"),
    ({"samples": 0}, "samples must be at least 1, got 0"),
    ({"samples": 6}, "too few samples for stage 1: 6 of 6 displaced samples are usable.*needs more than 6"),
    ({"sigma": 0.0}, "sigma is a positive standard deviation in template pixels, got 0.0"),
    ({"sigma": float("nan")}, "sigma is a positive standard deviation"),
    ({"ridge": -1.0}, "ridge must be at least 0"),
    ({"ridge": 0.0}, "the regression is singular.*use a positive ridge"),
    ({"features": lambda x: x.flatten(1) * float("nan")}, "are not finite"),
]


@pytest.mark.parametrize(("params", "message"), BAD_FITS)
def test_bad_hyperparameters(params: dict, message: str, gray: torch.Tensor) -> None:
    model = SupervisedDescent(FRAME, **{"warp": "affine", "sigma": 1.0, "samples": 30, "stages": 1} | params)
    with pytest.raises(ValueError, match=message):
        model.fit(gray)


def test_bad_images_and_batches(gray: torch.Tensor, sdm: SupervisedDescent, unchecked: None) -> None:
    model = SupervisedDescent(FRAME, "affine", sigma=1.0, samples=30, stages=1)
    hole = torch.cat((gray, gray.clone()))
    hole[1, 0, 5, 5] = float("nan")
    with pytest.raises(ValueError, match="image 1 has pixels that are not finite"):
        model.fit(hole)
    with pytest.raises(ValueError, match=r"images are float tensors .*got torch.uint8"):
        model.fit(gray.byte())
    with pytest.raises(ValueError, match=r"one ground-truth warp for each image, \(1, 6\).*got \(2, 6\)"):
        model.fit(gray, torch.zeros(2, 6))
    with pytest.raises(ValueError, match=r"displacements are \(1, m, 6\) for these images, got \(1, 9, 8\)"):
        model.fit(gray, displacements=torch.zeros(1, 9, 8))
    with pytest.raises(ValueError, match="this SupervisedDescent has learned nothing yet: call fit first"):
        model.align(gray)
    with pytest.raises(ValueError, match=r"got warps \(5, 6\) and 2 images"):
        sdm.align(torch.cat((gray, gray)), torch.zeros(5, 6))
    with pytest.raises(ValueError, match=r"initial warps \(batch, 6\).*got warps \(1, 8\)"):
        sdm.align(gray, torch.zeros(1, 8))
    with pytest.raises(ValueError, match=r"made for 400 features and these images have 1200 \(pixels\)"):
        sdm.align(gray.expand(-1, 3, -1, -1))


def test_constant_templates_have_a_singular_hessian(gray: torch.Tensor) -> None:
    flat = torch.full((1, 1, 300, 451), 0.5)
    with pytest.raises(ValueError, match="singular Hessian"):
        ic_lk(flat[..., :20, :20], "affine")
    with pytest.raises(ValueError, match="singular Hessian"):
        ConditionalLK(FRAME, "affine", sigma=1.0, samples=30).fit(flat)
    with pytest.raises(ValueError, match="features 'pixels' are constant"):
        SupervisedDescent(FRAME, "affine", sigma=1.0, samples=30).fit(flat)
    ramp = torch.linspace(0, 1, 20).expand(1, 1, 20, 20).contiguous()
    with pytest.raises(ValueError, match="vary in too few directions"):
        ic_lk(ramp, "translation")


def test_noise_that_leaves_the_image_leaves_too_few_samples() -> None:
    image = torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    model = SupervisedDescent(Frame.full(20, 20), "affine", sigma=200.0, samples=20)
    with pytest.raises(ValueError, match=r"the others left the image.*raise `samples` or lower `sigma`"):
        model.fit(image)


def test_template_gradients_of_a_plane() -> None:
    x, y = torch.meshgrid(torch.linspace(-1, 1, 9), torch.linspace(-1, 1, 7), indexing="xy")
    g = template_gradients((2 * x - 3 * y)[None, None])
    inner = g[0, 1:-1, 1:-1]
    torch.testing.assert_close(inner, torch.tensor([2.0, -3.0]).expand_as(inner))


def test_homographies_converge_too(gray: torch.Tensor) -> None:
    model = SupervisedDescent(FRAME, homography, sigma=1.5, samples=300, stages=4).fit(gray)
    assert pixels_off(model.align(gray, noise(100, 1.5, "homography")).p, "homography").median() < 0.15


def test_stages_after_perfect_alignment_have_nothing_to_do(gray: torch.Tensor) -> None:
    delta = torch.zeros(1, 30, 6)
    for model in (
        SupervisedDescent(FRAME, "affine", sigma=1.0, stages=2),
        ConditionalLK(FRAME, "affine", sigma=1.0, stages=2),
    ):
        model.fit(gray, displacements=delta)
        assert model.align(gray).p.abs().max() < 1e-5


@pytest.mark.parametrize("warp", sorted(FAMILIES))
def test_ic_cascade_is_the_inverse_compositional_algorithm(
    warp: str, gray: torch.Tensor, template: torch.Tensor
) -> None:
    """Written as eq. (6), and written as Lucas-Kanade: the same warps after every step."""
    image, T, p0 = gray.double(), template.double(), noise(10, 0.5, warp).double()
    aligner = Aligner(
        T, warp, frame=FRAME, algorithm="IC", levels=1, iterations=5, tol=0.0, blur=1, normalize=False
    )
    ours = descend([ic_lk(T, warp)] * 5, image, p0, FRAME, warp, trajectory=True)
    torch.testing.assert_close(
        ours.trajectory, aligner(image, p0, trajectory=True).trajectory, atol=1e-9, rtol=0
    )
