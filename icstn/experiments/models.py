"""A Spec's model: the geometric transformer, if any, and the classification network, if any."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from icstn import networks, warps
from icstn.experiments.recurrent import ElmanAlignment
from icstn.experiments.spec import Spec
from icstn.networks import Architecture
from icstn.sampling import Frame, sample
from icstn.transformers import ICSTN, STN, Alignment, Compositional, CompositionalSTN, Side, Transformer


class Model(nn.Module):
    """One row of the paper: images and initial warps in, logits (or final warps) out.

    Args:
        transformer: STN, c-STN or IC-STN; none for a plain CNN.
        classifier: classification network; none for pure alignment.
        frame: where the template lies.
        warp: family of the warps.
    """

    def __init__(
        self, transformer: Transformer | None, classifier: nn.Module | None, frame: Frame, warp: warps.Warp
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.classifier = classifier
        self.frame = frame
        self.warp = warp

    def align(self, image: Tensor, p: Tensor, n: int | None = None) -> Alignment:
        """The aligned images and all warps; a plain CNN leaves the perturbation as it is."""
        if self.transformer is None:
            return Alignment(sample(image, p, self.frame, self.warp), [p])
        return self.transformer(image, p, n=n, return_warps=True)

    def forward(self, image: Tensor, p: Tensor) -> Tensor:
        """Logits ``(batch, classes)``, or without a classifier the final warps ``(batch, k)``."""
        if self.classifier is not None:
            return self.classifier(self.align(image, p).image)
        return self.warps(image, p)[-1]

    def warps(self, image: Tensor, p: Tensor, n: int | None = None) -> list[Tensor]:
        """The warps before the first and after each warp operation."""
        t = self.transformer
        if isinstance(t, Compositional):
            return t.warps(image, p, self.frame, t.operations if n is None else n)
        return self.align(image, p, n).warps


def build_model(spec: Spec, frame: Frame, channels: int) -> Model:
    """The spec's model with its initial weights (they depend on ``spec.seed`` alone)."""
    architecture = Architecture.parse(spec.architecture)
    if spec.kind == "RNN":
        return _recurrent(spec, architecture.warps, frame, channels)
    shape = (channels, frame.height, frame.width)
    generator = torch.Generator().manual_seed(spec.seed)
    copies = architecture.warps if spec.kind == "c-STN" else min(1, architecture.warps)
    predictors = [networks.build(architecture.predictor, *shape) for _ in range(copies)]
    for predictor in predictors:
        networks.initialize(predictor, spec.std_predictor, generator=generator, zero_last=True)
    classifier = networks.build(architecture.classifier, *shape) if architecture.classifier else None
    if classifier is not None:
        networks.initialize(classifier, spec.std_classifier, generator=generator)
    transformer = _transformer(spec, predictors, architecture.warps, frame)
    return Model(transformer, classifier, frame, warps.family(spec.warp))


def _recurrent(spec: Spec, n: int, frame: Frame, channels: int) -> Model:
    side = cast(Side, spec.side)
    network = ElmanAlignment(n, channels, warp=spec.warp, frame=frame, side=side, seed=spec.seed)
    return Model(network, None, frame, warps.family(spec.warp))


def _transformer(spec: Spec, predictors: list[nn.Sequential], n: int, frame: Frame) -> Transformer | None:
    placed: dict[str, Any] = {"warp": spec.warp, "frame": frame}
    composed: dict[str, Any] = {"side": spec.side, **placed}
    if spec.kind == "STN":
        return STN(predictors[0], n, **placed)
    if spec.kind == "c-STN":
        return CompositionalSTN(predictors, **composed)
    if spec.kind == "IC-STN":
        return ICSTN(predictors[0], n, invert=spec.invert, **composed)
    return None
