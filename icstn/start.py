"""How a network with a spatial transformer begins to learn: at the identity, its predictor at its own rate.

::

    model = identity_start(nn.Sequential(ICSTN(predictor), classifier))
    optimizer = torch.optim.Adam(parameter_groups(model, rate=2e-3))

A geometric predictor with random weights throws the first images far from where they were, and a step that
suits the classifier is too long for it: a warp acts on every pixel, N times over.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from icstn.transformers import Transformer

Module = TypeVar("Module", bound=nn.Module)

#: Layers that can be a predictor's last.
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def identity_start(model: Module) -> Module:
    """Set the last layer of each geometric predictor to zero, in place: all warps start at the identity.

    Args:
        model: a transformer, or any module that contains some.

    Returns:
        the model itself.

    Raises:
        ValueError: there is no transformer in it, a predictor has no linear or convolutional layer to begin
            from, or that layer does not know its size yet.
    """
    for predictor in _predictors(model):
        layers = [m for m in predictor.modules() if isinstance(m, _LAYERS)]
        if not layers:
            raise ValueError(
                "a geometric predictor ends in no linear or convolutional layer that could be set to zero: "
                "let it predict 0 by other means"
            )
        _zero(layers[-1])
    return model


def parameter_groups(
    model: nn.Module, rate: float, predictor_rate: float | None = None
) -> list[dict[str, Any]]:
    """Groups for any optimizer of ``torch.optim``: the geometric predictors, and everything else.

    Args:
        model: a network with one or more transformers in it.
        rate: learning rate of everything else.
        predictor_rate: that of the geometric predictors; a tenth by default, as in this project's recipes
            with Adam. The paper, with plain gradient descent, takes a hundredth (1e-4 and 1e-2 on MNIST).

    Returns:
        up to two groups ``{"params": …, "lr": …}``, each learnable parameter in one of them.

    Raises:
        ValueError: there is no transformer in the model.
    """
    slow = {id(p) for predictor in _predictors(model) for p in predictor.parameters()}
    learnable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learnable if id(p) not in slow], "lr": rate},
        {
            "params": [p for p in learnable if id(p) in slow],
            "lr": rate / 10 if predictor_rate is None else predictor_rate,
        },
    ]
    return [group for group in groups if group["params"]]


def _predictors(model: nn.Module) -> list[nn.Module]:
    transformers = [m for m in model.modules() if isinstance(m, Transformer)]
    if not transformers:
        raise ValueError("the model contains no spatial transformer: an STN, a CompositionalSTN or an ICSTN")
    return [predictor for transformer in transformers for predictor in transformer.predictors()]


def _zero(layer: nn.Module) -> None:
    if any(is_lazy(p) for p in layer.parameters()):
        raise ValueError("the predictor's last layer does not know its size yet: run it on some images first")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
