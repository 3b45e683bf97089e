"""Run by test_compilers.py in a process of its own, where no checker sits between compiler and library.

python tests/compilers.py trace IC-STN homography whole+crop
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from icstn.networks import build
from icstn.sampling import Frame
from icstn.transformers import ICSTN, STN, CompositionalSTN
from icstn.warps import FAMILIES

SIZE, CROP = 16, 12


def make(kind: str, name: str, whole: bool) -> nn.Sequential:
    """A transformer on a crop or on the whole image, and a classifier behind it."""
    size = SIZE if whole else CROP
    placed = {"warp": name, "frame": None if whole else Frame.crop(SIZE, SIZE, CROP, CROP)}
    predictors = [build(f"conv(3×3,4)-P-FC({FAMILIES[name].dim})", 1, size, size) for _ in "ab"]
    if kind == "STN":
        transformer = STN(predictors[0], 2, **placed)
    elif kind == "c-STN":
        transformer = CompositionalSTN(predictors, side="image", **placed)
    else:
        transformer = ICSTN(predictors[0], 2, invert=kind.endswith("inverse"), **placed)
    net = nn.Sequential(transformer, build("conv(3×3,3)-P-FC(10)", 1, size, size))
    generator = torch.Generator().manual_seed(0)
    for p in net.parameters():
        p.data.copy_(0.05 * torch.randn(p.shape, generator=generator))
    return net


def images(batch: int) -> Tensor:
    return torch.rand(batch, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(batch))


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def compiled(net: nn.Module, backend: str) -> None:
    """One graph, once, with the gradients of eager mode, and not a warning."""
    torch.compiler.reset()
    graphs = []

    def counted(graph, example):
        graphs.append(graph)
        return torch._dynamo.lookup_backend(backend)(graph, example)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = torch.compile(net, backend=counted, fullgraph=True)
        for seed in range(3):
            x = images(4) + seed
            same(fast(x), net(x))
            for ours, wanted in zip(
                *(torch.autograd.grad(f(x).square().sum(), list(net.parameters())) for f in (fast, net)),
                strict=True,
            ):
                torch.testing.assert_close(ours, wanted, atol=1e-3, rtol=1e-3)
    assert len(graphs) == 1, f"{len(graphs)} graphs"


def exported(net: nn.Module, strict: bool, dynamic: bool) -> None:
    shapes = ({0: torch.export.Dim("batch", min=1)},) if dynamic else None
    program = torch.export.export(net, (images(4),), dynamic_shapes=shapes, strict=strict)
    for batch in (1, 4, 7) if dynamic else (4,):
        same(program.module()(images(batch)), net(images(batch)))
    with tempfile.TemporaryDirectory() as folder:
        torch.export.save(program, Path(folder) / "net.pt2")
        same(torch.export.load(Path(folder) / "net.pt2").module()(images(4)), net(images(4)))


def traced(net: nn.Module) -> None:
    same(torch.jit.trace(net, (images(4),))(images(4)), net(images(4)))


def run(what: str, net: nn.Module) -> None:
    if what in ("eager", "aot_eager", "inductor"):
        compiled(net, what)
    elif what == "trace":
        traced(net)
    else:
        exported(net.eval(), strict="strict" in what, dynamic="dynamic" in what)


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for kind, name, places in zip(given[::3], given[1::3], given[2::3], strict=True):
        for place in places.split("+"):
            run(what, make(kind, name, whole=place == "whole"))
            print(what, kind, name, place, flush=True)
