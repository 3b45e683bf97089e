"""What stands beside the tables: the best linear step, cascades, a recurrent network, plain networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import pictures
from golden.draws import affine_to, moved_corners
from judged import PAPER, made, table
from test_claims import measured

from icstn.evidence.claims import claim, judge
from icstn.evidence.collection import Evidence
from icstn.experiments import (
    BASELINES,
    EXPERIMENTS,
    BaselineSpec,
    DataOptions,
    Execution,
    Record,
    Records,
    Spec,
    SpecError,
    cells,
    ensure,
    make_task,
    paper,
)
from icstn.experiments.linear_step import best_linear_step, drawn, stepped
from icstn.experiments.planar import Planar, reapplied
from icstn.experiments.spec import SIDES
from icstn.experiments.tasks import planar_task
from icstn.perturb import perturbations
from icstn.sampling import Frame, sample
from icstn.warps import Side

pytestmark = pytest.mark.unchecked

pytest.importorskip("skimage.data")

HERE = Execution(device="cpu", workers=1, progress=False)


class TestBestLinearStep:
    SPEC = replace(cells("baselines", "smoke", models=["best linear step"])[-1], samples=4000)

    @pytest.fixture
    def task(self) -> Planar:
        """Table 1's photograph, through a template of 7×9 samples, so that 4000 samples are many."""
        whole = planar_task(self.SPEC, "cpu")
        (x, y), (ex, ey) = whole.frame.center, whole.frame.half_extent
        frame = Frame.box(x - ex, y - ey, x + ex, y + ey, 7, 9)
        return Planar(self.SPEC, whole.photograph, frame, torch.device("cpu"))

    @pytest.mark.parametrize("side", ["template", "image"])
    def test_is_the_least_squares_solution(self, task: Planar, side: Side) -> None:
        """Against plain least squares, an equation a sample and entry, on draws of the test's own."""
        generator = torch.Generator().manual_seed(7)
        p = perturbations(4000, self.SPEC.sigma, task.frame, task.warp, generator=generator)
        x = torch.nn.functional.pad(
            sample(task.photograph, p, task.frame, task.warp).flatten(1), (0, 1), value=1
        )
        x, moved = x.double().numpy(), p.double().numpy().reshape(-1, 2, 3)
        whole = moved + np.eye(3)[:2]
        last = np.broadcast_to(np.array([0.0, 0.0, 1.0]), (len(p), 1, 3))
        whole = np.concatenate([whole, last], 1)
        w = np.zeros((2, 3, x.shape[1]))
        if side == "template":  # M(p) M(Δp): column c of the update alone decides column c
            rows = np.concatenate([np.hstack([whole[:, i, c, None] * x for c in range(2)]) for i in range(2)])
            for c in range(3):
                right = -np.concatenate([moved[:, 0, c], moved[:, 1, c]])
                w[:, c] = np.linalg.lstsq(rows, right, rcond=None)[0].reshape(2, -1)
        else:  # M(Δp) M(p): row r alone decides row r
            rows = np.concatenate(
                [np.hstack([whole[:, c, i : i + 1] * x for c in range(3)]) for i in range(3)]
            )
            for r in range(2):
                right = -np.concatenate([moved[:, r, i] for i in range(3)])
                w[r] = np.linalg.lstsq(rows, right, rcond=None)[0].reshape(3, -1)
        plain = torch.from_numpy(w.reshape(6, -1))
        found = best_linear_step(replace(self.SPEC, side=side), task)
        new = perturbations(4000, self.SPEC.sigma, task.frame, task.warp, generator=generator)
        losses = [float(stepped(task, m, new, side).square().sum(1).mean()) for m in (found, plain)]
        assert losses[0] == pytest.approx(losses[1], rel=0.02)
        assert losses[0] < 0.8 * float(new.square().sum(1).mean())
        assert found.shape == (6, task.frame.height * task.frame.width + 1)

    @pytest.mark.parametrize("side", ["template", "image"])
    def test_no_direction_leads_further_down(self, task: Planar, side: Side) -> None:
        """On the samples that it was solved on, but for what its ridge gives away."""
        w = best_linear_step(replace(self.SPEC, side=side), task)
        p = drawn(self.SPEC, task, self.SPEC.samples, "learn")

        def loss(w: torch.Tensor) -> torch.Tensor:
            return stepped(task, w, p, side).double().square().sum(1).mean()

        w.requires_grad_()
        (slope,) = torch.autograd.grad(loss(w), w)
        least = loss(w).item()
        for size in (1e-5, 1e-4, 1e-3):
            assert loss(w.detach() - size * slope / slope.norm()).item() > 0.999 * least

    def test_each_side_has_its_own(self, task: Planar) -> None:
        p = drawn(self.SPEC, task, self.SPEC.samples, "learn")
        best = {s: best_linear_step(replace(self.SPEC, side=s), task) for s in SIDES}
        for side, other in (("template", "image"), ("image", "template")):
            left = [float(stepped(task, best[s], p, side).square().sum(1).mean()) for s in (side, other)]
            assert left[0] < 0.99 * left[1]

    def test_only_the_best_linear_step_has_a_side(self) -> None:
        with pytest.raises(SpecError, match="only the best linear step has a side 'image', not LK"):
            cells("baselines", "smoke", models=["LK"], side="image")
        with pytest.raises(SpecError, match="unknown side 'left'"):
            cells("baselines", "smoke", models=["best linear step"], side="left")

    def test_its_samples_are_not_those_it_is_tested_on(self, task: Planar) -> None:
        parts = [drawn(self.SPEC, task, 50, what) for what in ("learn", "ridge")]
        seen = {tuple(row) for part in (*parts, task.test_warps(50, 0)) for row in part.tolist()}
        assert len(seen) == 150

    def test_only_affine(self, task: Planar) -> None:
        other = Planar(
            replace(self.SPEC, warp="similarity"), task.photograph, task.frame, torch.device("cpu")
        )
        with pytest.raises(ValueError, match="affine"):
            best_linear_step(self.SPEC, other)

    def test_draws_ten_times_what_the_others_do(self) -> None:
        found = {s.model: s.samples for s in cells("baselines", "full") if isinstance(s, BaselineSpec)}
        assert found["best linear step"] == 10 * found["SDM"] == 200_000
        assert set(found) == set(BASELINES)


class TestRecurrentNetwork:
    @staticmethod
    def spec(**changes) -> Spec:
        found = cells("cascades", "smoke", models=["RNN-4"], test_items=20, **changes)[0]
        assert isinstance(found, Spec)
        return found

    def test_is_elmans(self) -> None:
        """Against its equations in NumPy, beyond the trained number of steps, from weights that are not 0."""
        spec = self.spec(iterations=5, seed=3)
        task = make_task(spec, DataOptions(), "cpu")
        model = task.model()
        with torch.no_grad():
            for weights in model.parameters():
                weights.add_(0.01 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)))
        p = task.test_warps(5, 0)
        found = reapplied(model, task.photograph, p)
        cell, out = model.transformer.cell, model.transformer.output
        v, u = cell.weight_ih.detach().double().numpy(), cell.weight_hh.detach().double().numpy()
        c = (cell.bias_ih + cell.bias_hh).detach().double().numpy()
        x = sample(task.photograph, p, task.frame, task.warp).flatten(1).double().numpy()
        state = np.zeros((5, 6))
        start = np.tile(np.eye(3), (5, 1, 1))
        start[:, :2] += p.double().numpy().reshape(-1, 2, 3)
        assert len(found) == 13
        for warps in found[1:]:
            state = np.tanh(x @ v.T + state @ u.T + c)
            dp = state @ out.weight.detach().double().numpy().T + out.bias.detach().double().numpy()
            step = np.tile(np.eye(3), (5, 1, 1))
            step[:, :2] += dp.reshape(-1, 2, 3)
            expected = (start @ step)[:, :2] - np.eye(3)[:2]
            assert warps.detach().numpy().reshape(-1, 2, 3) == pytest.approx(expected, abs=2e-5)

    def test_no_state_is_saturated_at_the_start(self) -> None:
        """Thousands of pixels on weights of the cell's own spread leave every tanh at −1 or 1."""
        task = make_task(self.spec(), DataOptions(), "cpu")
        model = task.model()
        cell = model.transformer.cell
        x = sample(task.photograph, task.test_warps(50, 0), task.frame, task.warp).flatten(1)
        with torch.no_grad():
            state = cell(x, torch.zeros(50, 6))
        assert float(cell.weight_ih.abs().max().detach()) == pytest.approx(50**-1, rel=0.01)  # 50 × 50 pixels
        assert float(cell.weight_hh.abs().max().detach()) > 0.3
        assert (state.abs() > 0.95).double().mean() < 0.1

    def test_begins_at_the_perturbation_and_by_its_seed(self) -> None:
        models = [make_task(self.spec(seed=s), DataOptions(), "cpu").model() for s in (0, 0, 1)]
        weights = [m.transformer.cell.weight_ih for m in models]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])
        task = make_task(self.spec(), DataOptions(), "cpu")
        p = task.test_warps(3, 0)
        torch.testing.assert_close(models[0](task.photograph, p).detach(), p, atol=1e-6, rtol=0)

    def test_has_the_size_of_an_ic_stn(self) -> None:
        sizes = []
        for spec in (self.spec(), cells("table_1", "smoke", models=["IC-STN-4"])[0]):
            model = make_task(spec, DataOptions(), "cpu").model()
            sizes.append(sum(w.numel() for w in model.parameters()))
        assert sizes[0] == pytest.approx(sizes[1], rel=0.01)

    def test_learns(self, tmp_path: Path) -> None:
        spec = self.spec(iterations=300, batch=25, rate_predictor=3e-4)
        (record,) = ensure([spec], Records(tmp_path), HERE)
        errors = [step["corner_px"] for step in record.metrics["by_operations"]]
        assert len(errors) == 13
        assert errors[4] < 0.8 * errors[0]


class TestDistortions:
    def test_of_training_may_differ_from_those_of_the_test(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pictures.hand_out(monkeypatch)
        made = {s.model: s for s in cells("tolerance", "smoke")}
        plain = made["CNN-undistorted"]
        assert isinstance(plain, Spec)
        usual = replace(plain, sigma_trained=-1.0)
        data = DataOptions("a folder")
        found = [make_task(s, data, "cpu") for s in (plain, usual)]
        assert found[0].draws(0).p.abs().max() < 1e-6
        assert found[1].draws(0).p.abs().max() > 0.1
        table_2 = make_task(cells("table_2", "smoke", models=["CNN(a)"])[0], data, "cpu")
        for task in found:
            assert torch.equal(task.test_warps(50, 0), table_2.test_warps(50, 0))

    def test_of_training_have_the_size_that_is_asked_for(self) -> None:
        spec = cells("cascades", "smoke", models=["c-STN-4"], sigma_trained=7.5)[0]
        task = make_task(spec, DataOptions(), "cpu")
        own = task.draws(0).p.view(-1, 6)
        generator = torch.Generator().manual_seed(0)
        expected = np.stack([affine_to(c) for c in moved_corners(generator, 5000, 7.5, 50, 50)])
        assert own.std(0).numpy() == pytest.approx(expected.std(0), rel=0.05)

    @pytest.mark.parametrize("value", [-0.5, float("nan"), float("inf")])
    def test_refuses_what_is_no_size(self, value: float) -> None:
        with pytest.raises(ValueError, match=r"sigma_trained is .*at least 0"):
            cells("tolerance", "smoke", sigma_trained=value)


class TestClaims:
    BEST = PAPER["IC-STN-4(a)"]

    def plain(self, **errors: float) -> list[Record]:
        found = dict.fromkeys(EXPERIMENTS["tolerance"].rows, 9.0) | errors
        return table("table_2", PAPER, half=0.05) + table("tolerance", found, half=0.05)

    def test_tolerance(self) -> None:
        found = claim("tolerance-inefficient")
        assert judge(found, Evidence(self.plain())).verdict == "holds"
        beaten = judge(found, Evidence(self.plain(**{"CNN-16x": self.BEST - 0.5})))
        assert beaten.verdict == "holds in part"
        assert [f.text[:6] for f in beaten.findings if f.verdict == "does not hold"] == ["CNN-16"]
        assert judge(found, Evidence(table("table_2", PAPER))).missing

    def test_tolerance_shows_seeds_that_differ_by_factors(self) -> None:
        """One run that ends at chance leaves a mean as wide as itself, and each run far above the other."""
        seeds = [made("tolerance", "CNN-unpooled", e, seed=k) for k, e in enumerate((24.8, 12.2, 88.7, 11.4))]
        runs = [r for r in self.plain() if r.spec.model != "CNN-unpooled"] + seeds
        judged = judge(claim("tolerance-inefficient"), Evidence(runs))
        shown = [f.text for f in judged.findings if "seed by seed" in f.text]
        assert judged.verdict == "holds"
        assert len(shown) == 1
        assert "CNN-unpooled over IC-STN-4(a)" in shown[0]
        assert "(seed by seed 24.8, 12.2, 88.7, 11.4 %)" in shown[0]

    @pytest.mark.parametrize(
        ("joint", "verdict"), [(1.0, "holds"), (3.0, "does not hold"), (2.0, "undecided")]
    )
    def test_greedy(self, joint: float, verdict: str) -> None:
        runs = [made("baselines", "SDM", 2.0, sigma=s) for s in paper.SIGMAS]
        runs += [made("cascades", "c-STN-6", joint, sigma=s) for s in paper.SIGMAS]
        assert judge(claim("greedy-not-optimal"), Evidence(runs)).verdict == verdict

    @pytest.mark.parametrize(
        ("last", "verdict"),
        [(2.0, "holds"), (1.0, "holds"), (0.96, "holds"), (0.95, "undecided"), (0.5, "does not hold")],
    )
    def test_recurrent(self, last: float, verdict: str) -> None:
        """To lose as much as a twentieth of the error is to go on improving."""
        pairs = (("cascades", "RNN-4"), ("table_1", "IC-STN-4"))
        runs = {name: [made(name, m, 1.0, sigma=s) for s in paper.SIGMAS] for name, m in pairs}
        found = {r.spec.key: measured(r, error_trained=1.0, error_last=last) for r in runs["cascades"]}
        found |= {r.spec.key: measured(r, error_trained=1.0, error_last=0.1) for r in runs["table_1"]}
        judged = judge(claim("recurrent-network-stops"), Evidence(runs["cascades"] + runs["table_1"], found))
        assert judged.verdict == verdict
        assert all("'s: 90.0 %)" in f.text for f in judged.findings)
