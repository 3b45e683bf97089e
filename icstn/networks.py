"""The paper's architecture notation, its modules, their capacity and initialization.

::

    CNN(a)       conv(3×3,3)-conv(3×3,6)-P-conv(3×3,9)-conv(3×3,12)-FC(48)-FC(10)
    IC-STN-4(a)  [conv(7×7,4)-conv(7×7,8)-P-FC(48)-FC(8)]×4 → conv(9×9,3)-FC(10)

A layer is ``conv(height×width, filters)`` (stride 1, no padding), ``P`` (2×2 max-pooling) or ``FC(units)``;
a ReLU follows each layer with parameters but the last of its stack. The bracket holds the geometric
predictor, ``×N`` the number of warp operations, and the classification network follows the arrow.
``x`` and ``->`` may be written for ``×`` and ``→``, and spaces are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from icstn.layers import Conv2d, MaxPool2x2


class NotationError(ValueError):
    """A malformed architecture string; the message points at the place."""

    def __init__(self, text: str, at: int, problem: str) -> None:
        super().__init__(f"{problem}, at character {at + 1}:\n  {text}\n  {' ' * at}^")


@dataclass(frozen=True)
class Conv:
    """``conv(h×w,filters)``: stride 1, no padding."""

    height: int
    width: int
    filters: int

    def __str__(self) -> str:
        return f"conv({self.height}×{self.width},{self.filters})"


@dataclass(frozen=True)
class Pool:
    """``P``: 2×2 max-pooling."""

    def __str__(self) -> str:
        return "P"


@dataclass(frozen=True)
class FC:
    """``FC(units)``: a fully connected layer."""

    units: int

    def __str__(self) -> str:
        return f"FC({self.units})"


Layer = Conv | Pool | FC
Stack = tuple[Layer, ...]


@dataclass(frozen=True)
class Architecture:
    """A whole row of Table 2 or 3.

    Args:
        predictor: layers of the geometric predictor, empty for a plain CNN.
        warps: number of warp operations, 0 for a plain CNN.
        classifier: layers of the classification network, empty for pure alignment.
    """

    predictor: Stack
    warps: int
    classifier: Stack

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Read the notation.

        Raises:
            NotationError: says what was expected and where.

        Example:
            >>> Architecture.parse("[FC(8)]x4 -> conv(9x9,3)-FC(10)").warps
            4
        """
        return _Parser(text).architecture()

    def __str__(self) -> str:
        parts = [f"[{join(self.predictor)}]×{self.warps}"] if self.warps else []
        return " → ".join(parts + ([join(self.classifier)] if self.classifier else []))


def join(stack: Iterable[Layer]) -> str:
    """Layers → notation."""
    return "-".join(map(str, stack))


def parse_stack(text: str) -> Stack:
    """Read a single stack, such as ``"conv(9×9,3)-FC(10)"``."""
    parser = _Parser(text)
    stack = parser.stack()
    parser.end()
    return stack


def build(stack: str | Stack, channels: int, height: int, width: int) -> nn.Sequential:
    """Modules of a stack for inputs ``(batch, channels, height, width)``.

    Pooling is placed before the ReLU that it follows in the notation: the two commute, and so the ReLU
    has a quarter of the work.

    Raises:
        NotationError: the text is malformed.
        ValueError: a kernel does not fit its input, or a convolution follows an FC layer.
    """
    layers = parse_stack(stack) if isinstance(stack, str) else stack
    shape, modules = (channels, height, width), nn.Sequential()
    for i, layer in enumerate(layers):
        relu = i + 1 < len(layers)
        shape = _append(modules, layer, shape, relu)
    if not isinstance(layers[-1], FC) and shape[1:] != (1, 1):
        modules.append(nn.Flatten())
    return modules


def _append(
    modules: nn.Sequential, layer: Layer, shape: tuple[int, int, int], relu: bool
) -> tuple[int, int, int]:
    c, h, w = shape
    if isinstance(layer, FC):
        if not any(isinstance(m, nn.Flatten) for m in modules):
            modules.append(nn.Flatten())
        modules.append(nn.Linear(c * h * w, layer.units))
        shape = (layer.units, 1, 1)
    elif any(isinstance(m, nn.Flatten) for m in modules):
        raise ValueError(f"{layer} follows a fully connected layer, which leaves no image to work on")
    elif isinstance(layer, Pool):
        if min(h, w) < 2:
            raise ValueError(f"P does not fit its input of {h}×{w}")
        at = len(modules) - 1 if modules and isinstance(modules[-1], nn.ReLU) else len(modules)
        modules.insert(at, MaxPool2x2())
        return (c, h // 2, w // 2)
    else:
        if layer.height > h or layer.width > w:
            raise ValueError(f"{layer} does not fit its input of {h}×{w}")
        modules.append(Conv2d(c, layer.filters, (layer.height, layer.width)))
        shape = (layer.filters, h - layer.height + 1, w - layer.width + 1)
    if relu:
        modules.append(nn.ReLU())
    return shape


def capacity(module: nn.Module) -> int:
    """Number of learnable parameters, each counted once (the paper's "capacity")."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def initialize(
    module: nn.Module, std: float, *, generator: torch.Generator, zero_last: bool = False
) -> nn.Module:
    """Normal weights *and* biases of that standard deviation, in place.

    Args:
        module: its ``Linear`` and ``Conv2d`` layers are initialized, in order.
        std: 0.1 on MNIST; 0.01 (classifier) and 0.001 (predictor) on GTSRB.
        generator: source of randomness.
        zero_last: set the last such layer to zero, so that a geometric predictor starts at the identity.
    """
    layers = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        for layer in layers:
            for tensor in layer.parameters():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * std)
        if zero_last and layers:
            for tensor in layers[-1].parameters():
                tensor.zero_()
    return module


class _Parser:
    """Recursive descent over the notation, remembering where it is."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def fail(self, problem: str) -> NotationError:
        return NotationError(self.text, self.at, problem)

    def take(self, pattern: str) -> re.Match[str] | None:
        match = re.compile(r"\s*" + pattern).match(self.text, self.at)
        if match:
            self.at = match.end()
        return match

    def expect(self, pattern: str, what: str) -> re.Match[str]:
        match = self.take(pattern)
        if match is None:
            self.take("")
            raise self.fail(f"expected {what}")
        return match

    def end(self) -> None:
        self.expect(r"$", "a '-' and another layer, or the end")

    def architecture(self) -> Architecture:
        if not self.take(r"\["):
            stack = self.stack()
            self.end()
            return Architecture((), 0, stack)
        predictor = self.stack()
        self.expect(r"\]", "'-' and another layer, or the closing ']'")
        warps = self.number(self.expect(r"[×xX]\s*(\d+)", "'×' and the number of warp operations"))
        classifier = self.stack() if self.take(r"(?:→|->)") else ()
        self.end()
        return Architecture(predictor, warps, classifier)

    def stack(self) -> Stack:
        layers = [self.layer()]
        while self.take(r"-(?!>)"):
            layers.append(self.layer())
        return tuple(layers)

    def layer(self) -> Layer:
        if match := self.take(r"conv\(\s*(\d+)\s*[×xX]\s*(\d+)\s*,\s*(\d+)\s*\)"):
            return Conv(*(self.number(match, i) for i in (1, 2, 3)))
        if match := self.take(r"FC\(\s*(\d+)\s*\)"):
            return FC(self.number(match))
        if self.take(r"P(?![A-Za-z(])"):
            return Pool()
        self.take("")
        raise self.fail("expected a layer: conv(h×w,filters), P or FC(units)")

    def number(self, match: re.Match[str], group: int = 1) -> int:
        if int(match[group]) < 1:
            self.at = match.start(group)
            raise self.fail("expected a number of at least 1")
        return int(match[group])
