"""The training step in one piece: a CUDA graph that is replayed, or a compiled model.

On a GPU a step of these small networks costs more in launching its kernels than in running them. A CUDA
graph launches all of them at once. Before one is used it is checked: from the same state and batch, a
replay has to leave the same weights as a plain step. Where capturing or the check fails, training goes on
step by step and says so.

======== =============================================================================================
auto     ``graph`` on a CUDA device, ``eager`` elsewhere
eager    plain PyTorch, one kernel at a time
graph    capture the whole step (forward, backward, update) and replay it
compile  ``torch.compile`` of the model; compiling takes a minute or more, and the numbers differ from
         eager ones in rounding
======== =============================================================================================
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

#: Ways to run a step.
MODES = ("auto", "eager", "graph", "compile")

#: Plain steps before a capture, so that every library has set itself up.
WARM_UP = 3

Step = Callable[[Any], Tensor]


def pick_mode(mode: str, device: torch.device) -> str:
    """``auto`` → what is used on that device.

    Raises:
        ValueError: an unknown mode, or a graph is asked for without a CUDA device.
    """
    if mode not in MODES:
        raise ValueError(f"unknown way to run a step {mode!r}: choose from {', '.join(MODES)}")
    if mode == "graph" and device.type != "cuda":
        raise ValueError(f"a CUDA graph needs a CUDA device, not {device.type}; choose auto")
    if mode == "auto":
        return "graph" if device.type == "cuda" else "eager"
    return mode


def compiled(model: torch.nn.Module, **options: Any) -> torch.nn.Module:
    """The model compiled, each layer for its own size; it shares its parameters with the one given."""
    return torch.compile(model, dynamic=False, **options)  # type: ignore[return-value]


def capture(step: Step, batch: Any, tensors: Callable[[], Iterable[Tensor]]) -> Step:
    """A step that replays a CUDA graph, or the step itself where that fails.

    Args:
        step: does a whole update from a batch (a named tuple of tensors) and returns a tensor.
        batch: any batch; later ones must have its shapes.
        tensors: everything that a step changes, such as weights and optimizer state.
    """
    for _ in range(WARM_UP):
        before = snapshot(tensors())
        step(batch)
        restore(tensors(), before)
    try:
        replay = _graph(step, batch)
        check(step, replay, batch, tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        warnings.warn(f"no CUDA graph ({reason}); training goes on step by step", stacklevel=2)
        return step
    return replay


def _graph(step: Step, batch: Any) -> Step:
    inputs = type(batch)(*(t.clone() for t in batch))
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        output = step(inputs)

    def replay(batch: Any) -> Tensor:
        for static, new in zip(inputs, batch, strict=True):
            static.copy_(new, non_blocking=True)
        graph.replay()
        return output

    return replay


def check(
    step: Step, replay: Step, batch: Any, tensors: Callable[[], Iterable[Tensor]], tolerance: float = 1e-4
) -> None:
    """From the same state and batch, both have to leave the same tensors; the state is put back.

    Raises:
        RuntimeError: they do not.
    """
    before = snapshot(tensors())
    step(batch)
    wanted = snapshot(tensors())
    restore(tensors(), before)
    replay(batch)
    found = snapshot(tensors())
    restore(tensors(), before)
    for a, b in zip(wanted, found, strict=True):
        if not torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance * 1e-2):
            raise RuntimeError("a replayed step does not agree with a plain one")


def snapshot(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Copies."""
    return [t.detach().clone() for t in tensors]


def restore(tensors: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    """Copy back in place, so that a graph goes on with the same memory.

    Optimizer state that the first step created has no earlier value: it is set to zero, as it began.
    """
    values = list(values)
    with torch.no_grad():
        for i, tensor in enumerate(tensors):
            if i < len(values):
                tensor.copy_(values[i])
            else:
                tensor.zero_()
