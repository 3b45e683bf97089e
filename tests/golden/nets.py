"""Nets: the rows' architectures, their initial weights, and what they compute, in plain float64."""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from golden.sight import Place, composed, seen

Layers = list[tuple[str, tuple[int, ...]]]

_DEEP = "conv(7×7,4)-conv(7×7,8)-P-FC(48)-FC(8)"
_SIGNS = "conv(7×7,6)-conv(7×7,24)-FC(8)"
_DIGIT_CLASSIFIER = "conv(9×9,3)-FC(10)"
_SIGN_CLASSIFIER = "conv(7×7,6)-conv(7×7,12)-P-FC(43)"


class Row(NamedTuple):
    """A row of the paper's tables: kind, operations, copies of the predictor, and the two stacks."""

    kind: str
    operations: int
    copies: int
    predictor: str
    classifier: str


#: All that the paper prints (Sec. 5.1, Tables 2 and 3).
ROWS = {
    "table_1": {
        "c-STN-1": Row("c-STN", 1, 1, "FC(6)", ""),
        "IC-STN-2": Row("IC-STN", 2, 1, "FC(6)", ""),
        "IC-STN-6": Row("IC-STN", 6, 1, "FC(6)", ""),
        "IC-STN-3": Row("IC-STN", 3, 1, "FC(6)", ""),
        "IC-STN-4": Row("IC-STN", 4, 1, "FC(6)", ""),
    },
    "table_2": {
        "CNN(a)": Row("CNN", 0, 0, "", "conv(3×3,3)-conv(3×3,6)-P-conv(3×3,9)-conv(3×3,12)-FC(48)-FC(10)"),
        "STN(b)": Row("STN", 1, 1, "FC(8)", _DIGIT_CLASSIFIER),
        "c-STN-2(a)": Row("c-STN", 2, 2, "conv(9×9,4)-FC(8)", _DIGIT_CLASSIFIER),
        "IC-STN-2(a)": Row("IC-STN", 2, 1, _DEEP, _DIGIT_CLASSIFIER),
        "CNN(b)": Row("CNN", 0, 0, "", "conv(9×9,2)-conv(9×9,4)-FC(32)-FC(10)"),
        "IC-STN-2(b)": Row("IC-STN", 2, 1, "FC(8)", _DIGIT_CLASSIFIER),
        "IC-STN-4(b)": Row("IC-STN", 4, 1, "FC(8)", _DIGIT_CLASSIFIER),
        "STN(a)": Row("STN", 1, 1, _DEEP, _DIGIT_CLASSIFIER),
        "c-STN-1(a)": Row("c-STN", 1, 1, _DEEP, _DIGIT_CLASSIFIER),
        "c-STN-4(a)": Row("c-STN", 4, 4, "FC(8)", _DIGIT_CLASSIFIER),
        "IC-STN-4(a)": Row("IC-STN", 4, 1, _DEEP, _DIGIT_CLASSIFIER),
        "c-STN-1(b)": Row("c-STN", 1, 1, "FC(8)", _DIGIT_CLASSIFIER),
    },
    "table_3": {
        "CNN": Row("CNN", 0, 0, "", "conv(7×7,6)-conv(7×7,12)-P-conv(7×7,24)-FC(200)-FC(43)"),
        "STN": Row("STN", 1, 1, _SIGNS, _SIGN_CLASSIFIER),
        "c-STN-1": Row("c-STN", 1, 1, _SIGNS, _SIGN_CLASSIFIER),
        "IC-STN-2": Row("IC-STN", 2, 1, _SIGNS, _SIGN_CLASSIFIER),
        "IC-STN-4": Row("IC-STN", 4, 1, _SIGNS, _SIGN_CLASSIFIER),
    },
}


def layers(stack: str) -> Layers:
    """``conv(7×7,4)-P-FC(8)`` → [("conv", (7, 7, 4)), ("P", ()), ("FC", (8,))]."""
    parts = stack.split("-") if stack else []
    return [(re.match("[A-Za-z]+", part)[0], tuple(map(int, re.findall(r"\d+", part)))) for part in parts]


def shapes(stack: str, channels: int, height: int, width: int) -> list[tuple[int, ...]]:
    """Shapes of a stack's weights and biases, in order."""
    found: list[tuple[int, ...]] = []
    for kind, numbers in layers(stack):
        if kind == "conv":
            kh, kw, out = numbers
            found += [(out, channels, kh, kw), (out,)]
            channels, height, width = out, height - kh + 1, width - kw + 1
        elif kind == "P":
            height, width = height // 2, width // 2
        else:
            found += [(numbers[0], channels * height * width), (numbers[0],)]
            channels, height, width = numbers[0], 1, 1
    return found


class Weights(NamedTuple):
    """Of each copy of the predictor, and of the classifier."""

    predictors: list[list[Tensor]]
    classifier: list[Tensor]

    @property
    def geometric(self) -> list[Tensor]:
        """All of the predictors', one after the other."""
        return [w for predictor in self.predictors for w in predictor]

    @property
    def flat(self) -> list[Tensor]:
        """All, the predictors' first."""
        return [*self.geometric, *self.classifier]


def initial(
    row: Row, channels: int, place: Place, seed: int, std_predictor: float, std_classifier: float
) -> Weights:
    """Normal weights and biases from the seed: predictor by predictor, then the classifier; a predictor's
    last layer is drawn like the others and then set to zero."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(stack: str, std: float) -> list[Tensor]:
        wanted = shapes(stack, channels, place.height, place.width)
        return [torch.randn(shape, generator=generator).double() * std for shape in wanted]

    predictors = [drawn(row.predictor, std_predictor) for _ in range(row.copies)]
    for predictor in predictors:
        predictor[-1], predictor[-2] = torch.zeros_like(predictor[-1]), torch.zeros_like(predictor[-2])
    return Weights(predictors, drawn(row.classifier, std_classifier))


def like(row: Row, tensors: list[Tensor]) -> Weights:
    """Weights from a flat list of them."""
    each = 2 * sum(kind != "P" for kind, _ in layers(row.predictor))
    flat = [t.detach().double() for t in tensors]
    predictors = [flat[i * each : (i + 1) * each] for i in range(row.copies)]
    return Weights(predictors, flat[row.copies * each :])


def through(x: Tensor, stack: str, weights: list[Tensor]) -> Tensor:
    """A stack's output; a ReLU follows every layer with weights but the last."""
    rest, made = list(weights), layers(stack)
    for i, (kind, _) in enumerate(made):
        if kind == "P":
            x = F.max_pool2d(x, 2)
            continue
        weight, bias, rest = rest[0], rest[1], rest[2:]
        x = F.conv2d(x, weight, bias) if kind == "conv" else x.flatten(1) @ weight.T + bias
        if i < len(made) - 1:
            x = x.clamp_min(0)
    return x


def trajectory(
    row: Row,
    weights: Weights,
    image: Tensor,
    p: Tensor,
    place: Place,
    side: str,
    operations: int | None = None,
) -> list[Tensor]:
    """The warps of a c-STN or IC-STN, before the first and after each operation."""
    found = [p]
    for step in range(row.operations if operations is None else operations):
        predictor = weights.predictors[step if row.copies > 1 else 0]
        dp = through(seen(image, found[-1], place), row.predictor, predictor)
        found.append(composed(found[-1], dp, side))
    return found


def output(row: Row, weights: Weights, image: Tensor, p: Tensor, place: Place, side: str) -> Tensor:
    """Logits, or the final warps of a row without a classifier."""
    if row.kind == "STN":
        crop = seen(image, p, place)
        for _ in range(row.operations):  # each one resamples what the one before it has left
            crop = seen(crop, through(crop, row.predictor, weights.predictors[0]), place.whole)
    else:
        last = trajectory(row, weights, image, p, place, side)[-1]
        if not row.classifier:
            return last
        crop = seen(image, last, place)
    return through(crop, row.classifier, weights.classifier)
