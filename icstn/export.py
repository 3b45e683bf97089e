"""Networks as ONNX files, compared with PyTorch before they are written."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from icstn.extras import require
from icstn.files import check_file, write_atomic

#: Batches with which an exported network is compared.
BATCHES = (1, 2, 5)


class ExportError(RuntimeError):
    """The exported network does not compute what the module does; nothing was written."""


def export_onnx(
    module: nn.Module,
    path: str | Path,
    *example: Tensor,
    names: Sequence[str] = ("image", "p"),
    outputs: Sequence[str] | None = None,
    tolerance: float = 1e-5,
) -> float:
    """Write ``module`` as an ONNX file for batches of any size.

    It is exported as in evaluation, on the CPU, run by ONNX Runtime on batches of several sizes, and written
    only when all outputs agree with PyTorch's.

    Args:
        module: a transformer, a ``build()`` network, a classifier with a transformer in front, or any other
            that takes tensors with a common batch axis and returns one or more such tensors.
        path: of the file, such as ``model.onnx``.
        example: its inputs, such as images ``(batch, channels, height, width)``; all sizes but the batch's
            are those of the network from then on.
        names: of the inputs, as many as there are examples.
        outputs: names of the outputs; the exporter's own by default.
        tolerance: how far an output may be from PyTorch's, as a share of the largest (at least 1).

    Returns:
        the largest such difference that was found.

    Raises:
        ImportError: ONNX is not installed; the message names the extra.
        ValueError: there is no example, an empty one, or fewer names than examples.
        ExportError: an output differs by more than the tolerance.
        StorageError: the file can't be written.
    """
    require("onnx", "onnx", "onnxruntime", "onnxscript")
    if not example or len(names) < len(example) or not all(len(x) for x in example):
        raise ValueError(f"an export needs example inputs and a name for each, got {len(example)} inputs")
    check_file(Path(path))
    network = copy.deepcopy(module).cpu().eval()
    inputs = [x.detach().cpu() for x in example]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        draft = Path(folder) / "draft.onnx"
        _export(network, draft, [_batch(x, 2) for x in inputs], names[: len(inputs)], outputs)
        worst = max(_difference(network, draft, [_batch(x, n) for x in inputs]) for n in BATCHES)
        if not worst <= tolerance:
            raise ExportError(
                f"the exported network differs from PyTorch's by {worst:.1e}, more than {tolerance:.1e}: "
                "nothing was written"
            )
        write_atomic(Path(path), draft.read_bytes())
    return worst


def _export(
    network: nn.Module, path: Path, inputs: list[Tensor], names: Sequence[str], outputs: Sequence[str] | None
) -> None:
    batch = torch.export.Dim("batch", min=1)
    with _quiet():
        program = torch.onnx.export(
            network,
            tuple(inputs),
            dynamo=True,
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            input_names=list(names),
            output_names=None if outputs is None else list(outputs),
            verbose=False,
        )
        assert program is not None
        program.save(str(path), external_data=False)


def _difference(network: nn.Module, path: Path, inputs: list[Tensor]) -> float:
    """Largest difference between the file's outputs and the network's, as a share of the largest output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {node.name: x.numpy() for node, x in zip(session.get_inputs(), inputs, strict=True)}
    worst = 0.0
    for ours, found in zip(_flat(network(*inputs)), session.run(None, given), strict=True):
        theirs = torch.from_numpy(found)
        if ours.shape != theirs.shape:
            raise ExportError(f"an exported output is {tuple(theirs.shape)}, not {tuple(ours.shape)}")
        scale = max(1.0, ours.abs().max().item())
        worst = max(worst, (ours - theirs).abs().max().item() / scale)
    return worst


def _flat(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    return [tensor for part in output for tensor in _flat(part)]


def _batch(x: Tensor, n: int) -> Tensor:
    """The example's items again and again, n of them."""
    return x[torch.arange(n) % len(x)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that are not there."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
