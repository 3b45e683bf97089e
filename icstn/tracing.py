"""Who looks on while a function runs: compilers, exporters and ``torch.func`` want plain operations."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def plain(x: Tensor) -> bool:
    """Whether ``x`` is a tensor of numbers in eager mode and nothing else: no fake, no wrapper, no trace.

    Then in-place work and autograd functions of one's own are safe; otherwise the same has to be said in
    operations that every transform knows.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return type(x) in (Tensor, nn.Parameter) and torch.func.debug_unwrap(x) is x
