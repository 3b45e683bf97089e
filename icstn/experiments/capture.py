"""The training step in one piece: a CUDA graph that is replayed, or a compiled model.

On a GPU a step of these small networks costs more in launching its kernels than in running them. A CUDA
graph launches all of them at once. Before one is used it is checked: from the same state, and on another
batch than the one it was captured with, a replay has to make the same change as a plain step. Where
capturing or the check fails, training goes on step by step and says so.

======== =============================================================================================
auto     ``graph`` on a CUDA device, ``eager`` elsewhere
eager    plain PyTorch, one kernel at a time
graph    capture the whole step (forward, backward, update) and replay it
compile  ``torch.compile`` of the model; compiling takes a minute or more, and the numbers differ from
         eager ones in rounding
======== =============================================================================================
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
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


def captured(step: Step, batch: Any, tensors: Callable[[], Iterable[Tensor]]) -> Step:
    """A step that replays a CUDA graph, or the step itself where that fails.

    Args:
        step: does a whole update from a batch (a named tuple of tensors) and returns a tensor.
        batch: any batch; later ones must have its shapes. The graph runs on its device.
        tensors: everything that a step changes, such as weights and optimizer state.
    """
    for _ in range(WARM_UP):
        before = snapshot(tensors())
        step(batch)
        restore(tensors(), before)
    try:
        replay = _graph(step, batch)
        check(step, replay, altered(batch), tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        warnings.warn(f"no CUDA graph ({reason}); training goes on step by step", stacklevel=2)
        return step
    return replay


def _graph(step: Step, batch: Any) -> Step:
    inputs = type(batch)(*(t.clone() for t in batch))
    graph = torch.cuda.CUDAGraph()
    with on_own_stream(batch[0].device), torch.cuda.graph(graph):
        output = step(inputs)

    def replay(batch: Any) -> Tensor:
        for static, new in zip(inputs, batch, strict=True):
            static.copy_(new, non_blocking=True)
        graph.replay()
        return output

    return replay


@contextlib.contextmanager
def on_own_stream(device: torch.device) -> Iterator[None]:
    """Make a device current, whose stream is put back even where a capture on it fails half way."""
    with torch.cuda.device(device):
        torch.cuda.synchronize(device)
        stream = torch.cuda.current_stream(device)
        try:
            yield
        finally:
            torch.cuda.set_stream(stream)


def altered(batch: Any) -> Any:
    """Another batch of the same shapes, which a graph that still reads the captured one gives away."""
    return type(batch)(*(t * 0.5 if t.is_floating_point() else t.roll(1, 0) for t in batch))


def check(
    step: Step, replay: Step, batch: Any, tensors: Callable[[], Iterable[Tensor]], tolerance: float = 0.2
) -> None:
    """From the same state and batch, both have to change the same tensors alike; the state is put back.

    What is compared is the whole change: by how much the two changes differ, relative to their size. A
    comparison weight by weight would refuse good graphs, since Adam's first step moves a weight whose
    gradient is rounding noise by the full rate, in a direction that the noise decides. The loss, the first
    number that a step returns, has to agree to 0.1 %.

    Raises:
        RuntimeError: they do not.
    """
    before = snapshot(tensors())
    loss = float(step(batch).flatten()[0])
    wanted = snapshot(tensors())
    restore(tensors(), before)
    replayed = float(replay(batch).flatten()[0])
    found = snapshot(tensors())
    restore(tensors(), before)
    begin = before + [torch.zeros_like(t) for t in wanted[len(before) :]]
    change = _norm(a.double() - b for a, b in zip(wanted, begin, strict=True))
    apart = _norm(a.double() - b for a, b in zip(wanted, found, strict=True))
    if not (apart <= tolerance * change and abs(loss - replayed) <= 1e-3 * abs(loss) + 1e-6):
        raise RuntimeError("a replayed step does not agree with a plain one")


def _norm(tensors: Iterable[Tensor]) -> float:
    return float(torch.stack([t.square().sum() for t in tensors]).sum().sqrt())


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
