"""Two images in: loss, error and trials against plain code, classical methods, going on after a stop."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from golden.trial import interval
from torch import Tensor

from icstn.classical import Aligner
from icstn.datasets import pairs
from icstn.datasets.pairs import SPLITS
from icstn.evidence.success import errors, gains, mean_errors, rates, untouched
from icstn.exhibits import pairs as exhibits
from icstn.exhibits.theme import draw_once, plotted
from icstn.experiments import Execution, Record, Records, Spec, cells, make_task, train, two_images
from icstn.experiments.execution import DataOptions
from icstn.experiments.models import Model
from icstn.experiments.standalone import self_contained
from icstn.experiments.two_images import SIGMAS, TwoImages
from icstn.experiments.two_images_classical import METHODS, evaluate, template

pytestmark = pytest.mark.unchecked

SMALL = {"batch": 6, "test_items": 8}


def spec(model: str = "IC-STN-2", **changes) -> Spec:
    (found,) = cells("two_images", "smoke", models=[model], **SMALL | changes)
    assert isinstance(found, Spec)
    return found


def task(model: str = "IC-STN-2", **changes) -> TwoImages:
    found = make_task(spec(model, **changes), DataOptions(), "cpu")
    assert isinstance(found, TwoImages)
    return found


def test_the_interval_is_over_pairs_of_images() -> None:
    """Whose error is the mean over the sizes of the perturbation."""
    errors = torch.rand(3, len(SIGMAS), 40, generator=torch.Generator().manual_seed(0))
    told = task().evaluation(errors, 2).metrics
    low, high = interval(errors[2].double().mean(0).numpy())
    assert told["interval"] == pytest.approx([low, high], rel=1e-5)
    assert told["test_error"] == pytest.approx((low + high) / 2, rel=1e-5)


def test_a_batch_has_the_channels_that_it_says() -> None:
    own = task()
    batch = next(own.block(0))
    assert own.channels == batch.image.shape[1] == 2


def classical(model: str, **changes) -> TwoImages:
    found = make_task(
        cells("two_images_classical", "smoke", models=[model], **changes)[0], DataOptions(), "cpu"
    )
    assert isinstance(found, TwoImages)
    return found


def restless(t: TwoImages) -> Model:
    """A model whose predictors say something."""
    model, generator = t.model(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.02 * torch.randn(p.shape, generator=generator)
    return model


def pixels(p: Tensor, truth: Tensor) -> np.ndarray:
    """RMS distance of the corners in pixels of a 32×32 template, one warp at a time, at most 32."""
    out = []
    for warp, right in zip(p.detach().double().numpy(), truth.double().numpy(), strict=True):
        places = []
        for numbers in (warp, right):
            m = np.eye(3) + np.append(numbers, 0).reshape(3, 3)
            ends = [m @ (x, y, 1) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            places.append(np.array([e[:2] / e[2] for e in ends]) * 16)
        out.append(min(32, np.sqrt(((places[0] - places[1]) ** 2).sum(1).mean())))
    return np.array(out)


@pytest.mark.parametrize("model", ["one-shot", "IC-STN-4", "c-STN-4"])
@pytest.mark.parametrize("supervision", ["last", "each"])
def test_the_loss_is_the_corner_error(model: str, supervision: str) -> None:
    t = task(model, supervision=supervision)
    network, batch = restless(t), next(t.block(0))
    found = t.loss(network, batch)
    each = [pixels(w, batch.label).mean() for w in network.warps(batch.image, batch.p)[1:]]
    weights = [0.8**k for k in range(len(each))][::-1]
    expected = each[-1] if supervision == "last" else np.average(each, weights=weights)
    assert found.loss.item() == pytest.approx(expected, rel=1e-4)
    assert found.error.item() == pytest.approx(each[-1], rel=1e-4)
    assert pixels(batch.p, batch.label).mean() != pytest.approx(each[0], rel=1e-2)


def test_a_lost_trial_counts_as_far_as_the_template_is_wide() -> None:
    t = task()
    truth, p = torch.zeros(2, 8), torch.zeros(2, 8)
    p[0, 2], p[1, 2] = 1.0, 3.0  # shifted by 16 and by 48 pixels
    torch.testing.assert_close(t.pixels(p, truth), torch.tensor([16.0, 32.0]))
    assert t.pixels(torch.full((1, 8), torch.nan), truth[:1]).item() == 32


def test_gradients_end_at_the_step_before_where_each_has_a_loss() -> None:
    gradients = {}
    for supervision in ("last", "each"):
        t = task("IC-STN-2", supervision=supervision)
        model, batch = restless(t), next(t.block(0))
        t.loss(model, batch).loss.backward()
        gradients[supervision] = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    p = batch.p
    for weight in (0.8 / 1.8, 1 / 1.8):
        p = model.warps(batch.image, p.detach(), 1)[-1]
        (weight * t.pixels(p, batch.label).mean()).backward()
    by_hand = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(gradients["each"], by_hand)
    assert not gradients["last"].allclose(by_hand, rtol=0.1)


def test_a_box_starts_sigma_away_from_where_it_belongs() -> None:
    """Four corners with noise of σ each and σ together, about the true place."""
    t = task(test_items=400)
    trials = t.trials()
    batch = t.batch(trials.pairs, t.moved(3.0 * trials.noise))
    assert np.sqrt((pixels(batch.p, batch.label) ** 2).mean()) == pytest.approx(3 * 2, rel=0.05)
    shift = batch.label[:, [2, 5]] * 16
    torch.testing.assert_close(shift, trials.pairs.shift, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sigma", [2.0, 4.0])
def test_a_curve_begins_sigma_away(sigma: float) -> None:
    t = task(test_items=400)
    first = t.curve(t.model(), t.trials(), sigma, 1)[0].detach()
    assert first.square().mean().sqrt().item() == pytest.approx(2 * sigma, rel=0.05)


def test_training_meets_every_size_of_noise_up_to_the_largest() -> None:
    t = task()
    p = t.draws(0).p.flatten(0, 1)
    start = pixels(p, torch.zeros_like(p))
    assert start.max() > 10
    assert (start < 2).mean() > 0.1


def test_trials_are_the_same_for_all_and_others_than_those_of_validation() -> None:
    first = task("IC-STN-2", seed=0).trials()
    for other in (task("one-shot", seed=7).trials(), classical("ECC", test_items=8).trials()):
        assert torch.equal(first.pairs.image, other.pairs.image)
        assert torch.equal(first.noise, other.noise)
    validation = task(tested_on="validation").trials()
    assert not torch.equal(first.noise, validation.noise)
    assert {SPLITS["test"][k] for k in first.pairs.photograph.tolist()} <= set(SPLITS["test"])


def test_other_seeds_train_on_other_pairs() -> None:
    one, same, other = (next(task(seed=s).block(0)) for s in (0, 0, 1))
    assert torch.equal(one.image, same.image)
    assert not torch.equal(one.image, other.image)
    assert not torch.equal(one.p, other.p)


def test_no_tested_photograph_is_trained_on() -> None:
    t = task()
    assert t.windows is not None
    assert not set(t.windows.names) & {*SPLITS["test"], *SPLITS["validation"]}
    data = t.data
    assert data["notes"] == [f"{s}: {', '.join(SPLITS[s])}" for s in ("train", "test")]
    assert len(set(data["fingerprints"].values())) == 2


def test_a_test_says_what_plain_code_says() -> None:
    t = task("IC-STN-2")
    model = restless(t).eval()
    found = t.evaluate(model)
    trials = t.trials()
    for k, sigma in enumerate(SIGMAS):
        batch = t.batch(trials.pairs, t.moved(sigma * trials.noise))
        warps = model.warps(batch.image, batch.p, 5)
        expected = pixels(warps[2], batch.label)
        np.testing.assert_allclose(found.outcomes[k].numpy(), expected, rtol=1e-3, atol=1e-3)
        assert found.metrics["mean_px"][k] == pytest.approx(expected.mean(), rel=1e-3)
        assert found.metrics["aligned"][k] == (expected < 1).mean()
        assert found.metrics["found"][k] == (expected < 3).mean()
        later = found.metrics["by_operations"][5]["mean_px"][k]
        assert later == pytest.approx(pixels(warps[5], batch.label).mean(), rel=1e-3)
        before = found.metrics["by_operations"][0]["mean_px"][k]
        assert before == pytest.approx(pixels(batch.p, batch.label).mean(), rel=1e-3)
    assert found.metrics["test_error"] == pytest.approx(found.outcomes.mean().item(), rel=1e-5)
    assert len(found.metrics["by_operations"]) == 13


def test_a_cascade_is_tested_as_far_as_it_goes() -> None:
    t = task("c-STN-4")
    assert len(t.evaluate(t.model()).metrics["by_operations"]) == 5


class TestClassical:
    @pytest.fixture
    def clear(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Pairs in the same light, without noise and cover."""
        monkeypatch.setattr(pairs, "relit", lambda x, generator: x)
        monkeypatch.setattr(pairs, "noisy", lambda x, generator: x)
        monkeypatch.setattr(pairs, "covered_partly", lambda x, template, generator: (x, torch.zeros(len(x))))

    @pytest.mark.usefixtures("clear")
    @pytest.mark.parametrize("model", METHODS)
    def test_each_method_finds_what_is_near(self, model: str) -> None:
        t = classical(model, test_items=12)
        trials = t.trials()
        start = t.batch(trials.pairs, t.moved(0.5 * trials.noise)).p
        found = METHODS[model](t.spec, t).align(start)
        left = pixels(found.warps[-1], t.truth(trials.pairs))
        assert np.median(left) < 0.35 < np.median(pixels(start, t.truth(trials.pairs)))
        assert torch.equal(found.warps[0], start)

    def test_the_aligner_gets_the_template_and_the_start_that_networks_get(self) -> None:
        t = classical("coarse-to-fine", test_items=5)
        trials = t.trials()
        p = t.batch(trials.pairs, t.moved(2.0 * trials.noise)).p
        cut = trials.pairs.reference[..., 28:60, 28:60]
        torch.testing.assert_close(template(t, trials.pairs.reference), cut, atol=1e-5, rtol=0)
        plain = Aligner(template(t, trials.pairs.reference), frame=t.frame)(trials.pairs.image, p)
        ours = METHODS["coarse-to-fine"](t.spec, t).align(p)
        torch.testing.assert_close(ours.warps[-1], plain.p)
        assert ours.status == plain.status

    def test_ecc_alone_knows_one_scale(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cv2 = pytest.importorskip("cv2")
        asked: list[str] = []
        for name in ("findTransformECC", "findTransformECCMultiScale"):
            real = getattr(cv2, name)
            monkeypatch.setattr(cv2, name, lambda *a, name=name, real=real: (asked.append(name), real(*a))[1])
        for model, name in (("ECC", "findTransformECC"), ("multi-scale-ECC", "findTransformECCMultiScale")):
            t = classical(model, test_items=2)
            trials = t.trials()
            METHODS[model](t.spec, t).align(t.batch(trials.pairs, t.moved(trials.noise)).p)
            assert set(asked) == {name}
            asked.clear()

    def test_failures_are_counted_and_stay_where_they_began(self) -> None:
        t = classical("multi-scale-ECC", test_items=10)
        found = evaluate(METHODS["multi-scale-ECC"](t.spec, t), t)
        assert found.metrics["failed"] == found.metrics["status"]["failed"] > 0
        assert sum(found.metrics["status"].values()) == 10 * len(SIGMAS)
        start = np.array(found.metrics["by_operations"][0]["mean_px"])
        trials = t.trials()
        at_six = pixels(t.batch(trials.pairs, t.moved(6.0 * trials.noise)).p, t.truth(trials.pairs))
        assert start[-1] == pytest.approx(at_six.mean(), rel=1e-4)
        assert (np.abs(found.outcomes[-1].numpy() - at_six) < 1e-2).sum() >= 1


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path) -> None:
    wanted = spec("IC-STN-2", iterations=300, batch=2, test_items=2, average=0.9)
    whole = train(wanted, Records(tmp_path / "whole"), Execution(device="cpu"))

    def stop(progress) -> None:
        if progress.step == 200:
            raise KeyboardInterrupt

    stopped = Records(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        train(wanted, stopped, Execution(device="cpu"), report=stop, checkpoint_seconds=0)
    assert stopped.find(wanted) is None
    steps = []
    again = train(
        wanted, stopped, Execution(device="cpu"), report=lambda progress: steps.append(progress.step)
    )
    assert steps == [200, 300]
    assert again.curve == whole.curve
    assert torch.equal(again.outcomes, whole.outcomes)
    assert all(torch.equal(again.weights[name], w) for name, w in whole.weights.items())


def made(model: str, outcomes: Tensor, seed: int = 0) -> Record:
    name = "two_images_classical" if model in METHODS else "two_images"
    (found,) = cells(name, "full", (seed,), [model])
    summary = two_images.summary(outcomes)
    metrics = {
        "test_error": 1.0,
        "test_items": outcomes.shape[1],
        "test_draws": 6,
        "by_operations": [summary] * 2,
    }
    return Record(found, "finished", metrics | summary, {}, {"data": {}}, {"w": torch.zeros(3)}, outcomes)


def test_a_network_of_pairs_does_not_stand_alone() -> None:
    with pytest.raises(ValueError, match=r"two_images-ic-stn-4-.* aligns pairs of images"):
        self_contained(made("IC-STN-4", torch.rand(6, 3)))


class TestEvidence:
    def outcomes(self, scale: float, seed: int = 0) -> Tensor:
        return scale * torch.rand(6, 300, generator=torch.Generator().manual_seed(seed))

    def test_rates_are_shares_with_the_spread_of_a_share(self) -> None:
        found = rates([made("IC-STN-4", self.outcomes(4.0))], 1.0)
        share = (self.outcomes(4.0) < 1).double().mean(1)
        for rate, p in zip(found, share.tolist(), strict=True):
            assert rate.value == pytest.approx(100 * p)
            assert rate.error == pytest.approx(100 * (p * (1 - p) / 300) ** 0.5, rel=0.1)

    def test_mean_errors(self) -> None:
        e = self.outcomes(4.0)
        for found, row in zip(mean_errors([made("IC-STN-4", e)]), e.double(), strict=True):
            assert found.value == pytest.approx(row.mean().item())
            assert found.error == pytest.approx(row.std().item() / 300**0.5, rel=0.1)

    def test_gains_are_paired(self) -> None:
        """A method that is right where another is, and in ten trials more: the spread is that of those."""
        worse = self.outcomes(4.0)
        better = worse.clone()
        lost = (worse[2] >= 1).nonzero()[:10, 0]
        better[2, lost] = 0.5
        found = gains([made("IC-STN-4", better)], [made("ECC", worse)], 1.0)
        assert found[2].value == pytest.approx(1000 / 300)
        assert found[2].error == pytest.approx(100 * (1 / 30 * 29 / 30 / 300) ** 0.5, rel=0.1)
        assert found[0].value == found[0].error == 0

    def test_seeds_are_averaged(self) -> None:
        runs = [made("IC-STN-4", self.outcomes(4.0, seed), seed) for seed in (0, 1)]
        both = torch.stack([self.outcomes(4.0, seed) for seed in (0, 1)])
        assert errors(runs).shape == (2, 6, 300)
        assert rates(runs, 1.0)[3].value == pytest.approx(100 * (both[:, 3] < 1).double().mean().item())

    def test_other_trials_are_refused(self) -> None:
        a, b = made("IC-STN-4", self.outcomes(4.0)), made("IC-STN-4", self.outcomes(4.0)[:, :20])
        with pytest.raises(ValueError, match="on the same trials"):
            errors([a, b])
        with pytest.raises(ValueError, match="one or more"):
            errors([])

    def test_tables_and_curves_show_these_numbers(self) -> None:
        runs = [made("IC-STN-4", self.outcomes(4.0)), made("coarse-to-fine", self.outcomes(6.0))]
        table, success = exhibits.two_images(runs), exhibits.two_images_success(runs)
        assert list(table.text["Model"]) == ["no alignment", "coarse-to-fine", "IC-STN-4"]
        e = self.outcomes(4.0).double()
        mean, median = e[0].mean().item(), e[0].median().item()
        assert table.text["σ = 1"].iloc[2] == f"{mean:.2f} / {median:.2f}"
        assert table.text["Learned"].iloc[2] == "3"
        share = [100 * (e[5] < t).double().mean().item() for t in (1, 3)]
        assert success.text["σ = 6"].iloc[1] == f"{share[0]:.0f} / {share[1]:.0f}"
        assert untouched(runs[0])["mean_px"][0] == pytest.approx(mean)
        panels = {"within 1 px": {m: rates(of, 1.0) for m, of in exhibits.by_model(runs).items()}}
        shown = plotted(draw_once(lambda theme: exhibits.success_curves(theme, panels)))
        np.testing.assert_allclose(
            shown["within 1 px IC-STN-4"], np.stack([SIGMAS, 100 * (e < 1).double().mean(1).numpy()], 1)
        )

    def test_more_steps_have_a_curve_of_their_own(self) -> None:
        e = self.outcomes(4.0)
        run = made("IC-STN-4", e)
        curves = {"by_operations": [two_images.summary(e), *[two_images.summary(2 * e)] * 12]}
        run = replace(run, metrics=run.metrics | curves)
        found = exhibits.panels([run, made("c-STN-4", e)])["within 1 px"]
        assert list(found) == ["IC-STN-4", "IC-STN-4, 12 steps"]
        share = (2 * e.double() < 1).double().mean(1)
        for rate, p in zip(found["IC-STN-4, 12 steps"], share.tolist(), strict=True):
            assert rate.value == pytest.approx(100 * p)
            assert rate.error == pytest.approx(100 * (p * (1 - p) / 300) ** 0.5)

    def test_more_steps_of_several_seeds(self) -> None:
        """The mean over seeds, with their spread beside that of the trials, and Student's interval."""
        runs = []
        for seed, scale in enumerate((2.0, 4.0)):
            e = self.outcomes(scale)
            run = made("IC-STN-4", e, seed)
            runs.append(replace(run, metrics=run.metrics | {"by_operations": [two_images.summary(e)] * 13}))
        found = exhibits.panels(runs)["within 1 px"]["IC-STN-4, 12 steps"][2]
        a, b = ((self.outcomes(scale)[2] < 1).double().mean().item() for scale in (2.0, 4.0))
        of_items, of_seeds = sum((p * (1 - p) / 300) ** 0.5 / 2 for p in (a, b)) ** 2, (a - b) ** 2 / 4
        assert found.value == pytest.approx(100 * (a + b) / 2)
        assert found.error == pytest.approx(100 * (of_items + of_seeds) ** 0.5)
        assert found.freedom == pytest.approx((of_items + of_seeds) ** 2 / of_seeds**2)
        text = " ".join(exhibits.two_images(runs).notes)
        assert "Ours: mean over n seeds." in text
        assert "±" not in text

    def test_a_sentence_says_what_was_found(self) -> None:
        models = {"one-shot": 8.0, "IC-STN-4": 4.0, "coarse-to-fine": 6.0}
        runs = [made(model, self.outcomes(scale)) for model, scale in models.items()]
        text = exhibits.finding(runs)
        shares = [100 * (self.outcomes(s)[2] < 3).double().mean().item() for s in models.values()]
        assert [int(word) for word in re.findall(r"(\d+) %", text)] == [round(share) for share in shares]
        assert exhibits.finding(runs[1:]).endswith("no finished run of one-shot.")

    def test_pictures_show_boxes_where_they_are(self) -> None:
        square = np.array([[2.0, 3], [8, 3], [8, 9], [2, 9]])
        boxes = {"start": square + 1, "end": square + 0.5}
        trial = exhibits.Shown(np.zeros((6, 6)), np.ones((12, 12)), square, boxes, {"start": 1.4, "end": 0.7})
        shown = plotted(draw_once(lambda theme: exhibits.trial_pictures(theme, [trial, trial])))
        for name, box in {"truth": square, **boxes}.items():
            np.testing.assert_array_equal(shown[f"{name} 1"], np.concatenate([box, box[:1]]))
        np.testing.assert_array_equal(shown["image 0"], np.ones((12, 12)))

    def test_diverged_runs_are_left_out(self) -> None:
        runs = [
            made("IC-STN-4", self.outcomes(4.0)),
            replace(made("one-shot", self.outcomes(6.0)), status="diverged"),
        ]
        assert list(exhibits.by_model(runs)) == ["IC-STN-4"]
