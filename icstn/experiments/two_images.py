"""Two images in: homographies between pairs cut from photographs, by networks that see both.

A template of 32×32 pixels in the middle of one image is looked for in another one of the same place, in other
light, with noise, and every second time partly covered (:mod:`icstn.datasets.pairs`). Alignment starts from
corners that are off by the paper's noise. Training draws its σ evenly up to the Spec's; tests are at each of
:data:`SIGMAS`, on photographs that are in no training image, the same trials for all methods.

An error is the corner error in template pixels, at most the template's side: whoever is that far off is lost,
and how far it flew says nothing. The same error is the loss: of the last warp, with a gradient through all
steps, as the paper has it; or, as RAFT does (Teed & Deng, 2020), of each warp with a weight of 0.8 for each
step that it is earlier, and a gradient that ends at the warp before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from icstn import networks
from icstn.datasets.pairs import SPLITS, Pairs, Windows
from icstn.experiments.models import Model
from icstn.experiments.spec import RunSpec, Spec
from icstn.experiments.task import BLOCK, Batch, Draws, Evaluation, Loss, Task, seeded
from icstn.networks import Architecture
from icstn.pairs import Correlation, FourPoint, PairCSTN, PairICSTN
from icstn.perturb import corner_noise
from icstn.sampling import Frame
from icstn.transformers import Compositional
from icstn.warps import corner_error, corners

#: Sides of the images and of the template in pixels.
SIZE, TEMPLATE = 88, 32
#: Noise of the tests in template pixels.
SIGMAS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
#: A trial is aligned below the first of these errors, and found below the second, in pixels.
ALIGNED, FOUND = 1.0, 3.0
#: Weight of an earlier warp's error, for each step that it is earlier.
DISCOUNT = 0.8
#: Perturbations that a pair of a training batch meets: cutting it costs as much as two steps of alignment.
SHARED = 2
#: Warp operations that a test of one predictor goes on to, at least.
BEYOND = 12
#: Pairs that are aligned at once.
CHUNK = 250


class PairTrials(NamedTuple):
    """What every method of the experiment meets.

    Attributes:
        pairs: of images.
        noise: ``(n, 4, 2)``: of the corners at σ = 1 pixel.
    """

    pairs: Pairs
    noise: Tensor


class TwoImages(Task):
    """Alignment of pairs of images: mean corner error in pixels.

    Args:
        spec: a network or a classical method of the experiment.
        device: where it computes; pairs are cut on the CPU.
    """

    def __init__(self, spec: RunSpec, device: torch.device) -> None:
        super().__init__(spec, Frame.crop(SIZE, SIZE, TEMPLATE, TEMPLATE), 2, device)
        self.tested_on = getattr(spec, "tested_on", "test")
        self.windows = Windows("train", SIZE, TEMPLATE) if isinstance(spec, Spec) else None

    @property
    def data(self) -> dict[str, Any]:
        """Provenance of the photographs."""
        splits = ["train", self.tested_on] if self.windows else [self.tested_on]
        prints = {s: _fingerprint(Windows(s, SIZE, TEMPLATE)) for s in splits}
        notes = [f"{s}: {', '.join(SPLITS[s])}" for s in splits]
        return {"name": "photographs", "stand_in": False, "fingerprints": prints, "notes": notes}

    def model(self) -> Model:
        """The spec's network with its initial weights, on the device."""
        assert isinstance(self.spec, Spec)
        architecture = Architecture.parse(self.spec.architecture)
        tied = self.spec.kind != "c-STN"
        generator = torch.Generator().manual_seed(self.spec.seed)
        predictors = [self._predictor(generator) for _ in range(1 if tied else architecture.warps)]
        placed: dict[str, Any] = {"warp": self.warp, "frame": self.frame, "side": self.spec.side}
        transformer = (
            PairICSTN(predictors[0], architecture.warps, invert=self.spec.invert, **placed)
            if tied
            else PairCSTN(predictors, **placed)
        )
        return Model(transformer, None, self.frame, self.warp).to(self.device)

    def _predictor(self, generator: torch.Generator) -> nn.Sequential:
        assert isinstance(self.spec, Spec)
        stack = Architecture.parse(self.spec.architecture).predictor
        compare = Correlation(TEMPLATE)
        network = networks.build(stack, *compare.shape)
        networks.initialize(network, self.spec.std_predictor, generator=generator, zero_last=True)
        return nn.Sequential(compare, network, FourPoint())

    def draws(self, block: int, restart: int = 0) -> Draws:
        """Perturbations of σ between 0 and the Spec's, and a seed for pairs."""
        assert isinstance(self.spec, Spec)
        generator = seeded("train", self.spec.seed, restart, block)
        n = BLOCK * self.spec.batch
        sigma = self.spec.sigma * torch.rand(n, 1, 1, generator=generator)
        p = self.moved(sigma * corner_noise(n, 1.0, generator=generator))
        seed = int(torch.randint(2**62, (), generator=generator))
        p = p.view(BLOCK, self.spec.batch, -1)
        return Draws(p, torch.zeros(p.shape[:2], dtype=torch.long), seed)

    def batches(self, draws: Draws) -> Iterator[Batch]:
        """New pairs for each step, each of which meets :data:`SHARED` perturbations."""
        assert self.windows is not None
        generator = torch.Generator().manual_seed(draws.seed)
        for p in draws.p:
            n = max(2, -(-len(p) // SHARED))
            pairs = self.windows.pairs(n, generator=generator)
            again = torch.arange(len(p)) % n
            yield self.batch(Pairs(*(x[again] for x in pairs)), p)

    def batch(self, pairs: Pairs, p: Tensor) -> Batch:
        """Pairs with perturbations p of their true warps."""
        truth = self.truth(pairs).to(self.device)
        start = self.warp.compose(truth, p.to(self.device), side="template", check=False)
        return Batch(torch.cat((pairs.image, pairs.reference), 1).to(self.device), start, truth)

    def moved(self, noise: Tensor) -> Tensor:
        """Corner noise in pixels ``(n, 4, 2)`` → warps ``(n, 8)``."""
        square = corners()
        return self.warp.fit(square, square + noise * noise.new_tensor(self.frame.pixels), check=False)

    def truth(self, pairs: Pairs) -> Tensor:
        """Where the template lies, ``(n, 8)``: moved by the shift of each pair."""
        return self.moved(pairs.shift[:, None].expand(-1, 4, -1))

    def loss(self, model: Model, batch: Batch) -> Loss:
        """Mean corner error, of the last warp or of each, and that of the last; both in pixels."""
        assert isinstance(self.spec, Spec)
        if self.spec.supervision == "last":
            last = self.pixels(model.warps(batch.image, batch.p)[-1], batch.label).mean()
            return Loss(last, last.detach())
        errors = [self.pixels(w, batch.label).mean() for w in self.steps(model, batch)]
        last = errors[-1]
        weights = [DISCOUNT**k for k in reversed(range(len(errors)))]
        each = sum((w * e for w, e in zip(weights, errors, strict=True)), last.new_zeros(())) / sum(weights)
        return Loss(each, last.detach())

    def steps(self, model: Model, batch: Batch) -> Iterator[Tensor]:
        """The warp after each operation, differentiable in that operation alone."""
        t, p = model.transformer, batch.p
        assert isinstance(t, Compositional)
        for step in range(t.operations):
            p = p.detach()
            p = t.compose(p, t.update(step, t.sample(batch.image, p, self.frame)))
            yield p

    def pixels(self, p: Tensor, truth: Tensor) -> Tensor:
        """RMS distance of the corners from their true places in pixels, at most the template's side."""
        error = corner_error(self.warp, p, truth) / self.frame.pixel
        return torch.where(error < TEMPLATE, error, TEMPLATE)

    def trials(self) -> PairTrials:
        """The test's pairs and noise: they depend on the split alone."""
        n = self.spec.test_items or 1000
        generator = seeded(self.tested_on, self.spec.about.trials)
        pairs = Windows(self.tested_on, SIZE, TEMPLATE).pairs(n, generator=generator)
        return PairTrials(pairs, corner_noise(n, 1.0, generator=generator))

    @torch.no_grad()
    def evaluate(self, model: Model) -> Evaluation:
        """Corner errors at each of :data:`SIGMAS`, after each number of warp operations."""
        assert model.transformer is not None
        trials, n = self.trials(), model.transformer.operations
        most = n if self.spec.kind == "c-STN" else max(BEYOND, 2 * n)
        errors = torch.stack([self.curve(model, trials, sigma, most) for sigma in SIGMAS], 1)
        return self.evaluation(errors, n)

    def curve(self, model: Model, trials: PairTrials, sigma: float, most: int) -> Tensor:
        """Errors before the first and after each warp operation, ``(most + 1, items)``."""
        batch = self.batch(trials.pairs, self.moved(sigma * trials.noise))
        parts = []
        for image, p, truth in zip(*(t.split(CHUNK) for t in batch), strict=True):
            warps = model.warps(image, p, most)
            parts.append(torch.stack([self.pixels(w, truth) for w in warps]))
        return torch.cat(parts, 1).float().cpu()

    def evaluation(self, errors: Tensor, n: int) -> Evaluation:
        """From the errors after 0, 1, … operations, ``(operations + 1, σ, items)``; the nth counts."""
        curve, found = [summary(e) for e in errors], errors[n].double()
        mean, items = found.mean().item(), found.mean(0)
        half = 1.96 * items.std().item() / len(items) ** 0.5
        metrics = {
            "test_error": mean,
            "unit": self.spec.about.unit,
            "interval": [mean - half, mean + half],
            "sigmas": list(SIGMAS),
            "by_operations": curve,
            **curve[n],
            "test_items": len(items),
            "test_draws": len(SIGMAS),
        }
        before = errors[0].double().mean().item()
        remark = f"leaves more error than the {before:.2f} px it starts from" if mean > before else ""
        return Evaluation(metrics, errors[n].float(), remark, bool(remark))


def summary(errors: Tensor) -> dict[str, list[float]]:
    """Of errors ``(σ, items)``, at each σ: mean, median, and shares that are aligned and found."""
    e = errors.double()
    return {
        "mean_px": e.mean(1).tolist(),
        "median_px": e.median(1).values.tolist(),
        "aligned": (e < ALIGNED).double().mean(1).tolist(),
        "found": (e < FOUND).double().mean(1).tolist(),
    }


def _fingerprint(windows: Windows) -> str:
    digest = hashlib.sha256()
    for level in windows.levels:
        digest.update(level.pixels.contiguous().numpy().tobytes())
    return digest.hexdigest()
