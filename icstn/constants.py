"""Tensors that never change: made once for each dtype and device, and never kept from inside a trace."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import wraps
from typing import TypeVar

import torch
from torch import Tensor

from icstn.tracing import plain

#: How many results a function remembers; the oldest goes first.
SIZE = 64

Made = TypeVar("Made", Tensor, tuple[Tensor, ...])


def constant(make: Callable[..., Made]) -> Callable[..., Made]:
    """Remember the tensors that ``make(*key, dtype, device)`` returns; call the result as ``(like, *key)``.

    What a step needs is then on its device before it begins: no step copies numbers from the host, which a
    CUDA graph could not capture. In a trace (of a compiler, exporter or ``torch.func``) they are made anew,
    and stay in it.

    Args:
        make: a pure function of hashable arguments, without random numbers, to a tensor or several.

    Returns:
        the function of a tensor ``like``, which gives dtype and device, and ``make``'s other arguments.
        Its results are shared: change none of them.
    """
    made: dict[tuple[Hashable, ...], Made] = {}

    def first(key: tuple[Hashable, ...], like: Tensor) -> Made:
        with torch.inference_mode(False):  # an inference tensor would poison later training
            value = make(*key, like.dtype, like.device)
        if all(map(plain, [value] if isinstance(value, Tensor) else value)):
            if len(made) >= SIZE:
                made.pop(next(iter(made)))
            made[like.dtype, like.device, *key] = value
        return value

    @wraps(make)
    def like_that(like: Tensor, *key: Hashable) -> Made:
        if not plain(like):
            return make(*key, like.dtype, like.device)
        value = made.get((like.dtype, like.device, *key))
        return first(key, like) if value is None else value

    return like_that
