"""Tensors that never change: made once for each dtype and device, and never kept from inside a trace."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import wraps

import torch
from torch import Tensor

from icstn.tracing import plain

#: How many tensors a function remembers; the oldest goes first.
SIZE = 64


def constant(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Remember the tensors that ``make(*key, dtype, device)`` returns; call the result as ``(like, *key)``.

    What a step needs is then on its device before it begins: no step copies numbers from the host, which a
    CUDA graph could not capture. In a trace (of a compiler, exporter or ``torch.func``) they are made anew,
    and stay in it.

    Args:
        make: a pure function of hashable arguments, without random numbers.

    Returns:
        the function of a tensor ``like``, which gives dtype and device, and ``make``'s other arguments.
        Its results are shared: change none of them.
    """
    made: dict[tuple[Hashable, ...], Tensor] = {}

    @wraps(make)
    def like_that(like: Tensor, *key: Hashable) -> Tensor:
        where = (*key, like.dtype, like.device)
        if not plain(like):
            return make(*where)
        if where not in made:
            with torch.inference_mode(False):  # an inference tensor would poison later training
                value = make(*where)
            if not plain(value):
                return value
            if len(made) >= SIZE:
                made.pop(next(iter(made)))
            made[where] = value
        return made[where]

    return like_that
