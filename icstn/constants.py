"""Tensors that never change: made once for each dtype and device, and never kept from inside a trace."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import wraps

import torch
from torch import Tensor, nn

#: How many tensors a function remembers; the oldest goes first.
SIZE = 64


def constant(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Remember the tensors that ``make(*key, dtype, device)`` returns; call the result as ``(like, *key)``.

    What a step needs is then on its device before it begins: no step copies numbers from the host, which a
    CUDA graph could not capture. A compiler takes the tensor as the constant it is. Tensors that belong to a
    trace (an exporter's, a faking or functorch mode's) are made anew each time and stay in it.

    Args:
        make: a pure function of hashable arguments, without random numbers.

    Returns:
        the function of a tensor ``like``, which gives dtype and device, and ``make``'s other arguments.
        Its results are shared: change none of them.
    """
    made: dict[tuple[Hashable, ...], Tensor] = {}

    @torch.compiler.assume_constant_result
    def remembered(*key: Hashable) -> Tensor:
        if key not in made:
            with torch.inference_mode(False):  # an inference tensor would poison later training
                value = torch.func.debug_unwrap(make(*key))
            if type(value) is not Tensor:
                return value
            if len(made) >= SIZE:
                made.pop(next(iter(made)))
            made[key] = value
        return made[key]

    @wraps(make)
    def like_that(like: Tensor, *key: Hashable) -> Tensor:
        traced = type(like) not in (Tensor, nn.Parameter) or torch.jit.is_tracing()
        return (make if traced else remembered)(*key, like.dtype, like.device)

    return like_that
