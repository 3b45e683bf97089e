"""Constants in a fresh process, first needed in odd places: none of them may be left behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from icstn.constants import SIZE, constant
from icstn.perturb import perturbations
from icstn.sampling import Frame, sample
from icstn.transformers import ICSTN
from icstn.warps import FAMILIES, corner_error, corners, family

SETUP = """
import torch, warnings
from torch import nn
from icstn.transformers import ICSTN
from icstn.sampling import Frame, sample
from icstn.warps import homography, corner_error
warnings.simplefilter("error")
torch.manual_seed(0)
net = ICSTN(nn.Sequential(nn.Flatten(), nn.Linear(36 * 36, 8)), n=2, frame=Frame.crop(50, 50, 36, 36))
nn.init.normal_(net.geometric_predictor[1].weight, std=1e-3)
x = torch.rand(4, 1, 50, 50)
"""
FIRST_USES = {
    "export": "with warnings.catch_warnings():\n"
    "    warnings.simplefilter('default')\n"
    "    torch.export.export(net, (x,))",
    "strict export": "with warnings.catch_warnings():\n"
    "    warnings.simplefilter('default')\n"
    "    torch.export.export(net, (x,), strict=True)",
    "compile": "torch.compile(net, backend='eager', fullgraph=True)(x)",
    "inference mode": "with torch.inference_mode():\n    net(x)",
    "fake tensors": "from torch._subclasses import FakeTensorMode\n"
    "with FakeTensorMode(allow_non_fake_inputs=True) as mode:\n    net(mode.from_tensor(x))",
    "grad of functorch": "torch.func.grad(lambda p: sample(x, p, net.frame).sum())(torch.zeros(4, 8))",
    "vmap": "torch.func.vmap(lambda p: homography.inverse(p, check=False))(torch.zeros(4, 8))",
    "autocast": "with torch.autocast('cpu'):\n    net(x)",
    "half": "ICSTN(net.geometric_predictor.bfloat16(), 2)(x[..., :36, :36].bfloat16())\n"
    "net.geometric_predictor.float()",
}
AFTERWARDS = """
y = net(x)
assert type(y) is torch.Tensor, type(y)
y.detach().numpy()
p = torch.zeros(4, 8, requires_grad=True)
(homography.inverse(p).sum() + corner_error(homography, p).sum() + sample(x, p, net.frame).sum()).backward()
assert p.grad.isfinite().all()
net(x).sum().backward()
torch.testing.assert_close(net(x), y)
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", FIRST_USES)
def test_first_use_leaves_the_process_sound(first: str, forked_python: Callable[[str], str]) -> None:
    forked_python(SETUP + FIRST_USES[first] + "\nwarnings.simplefilter('default')" + AFTERWARDS)


class HostData(TorchDispatchMode):
    """Notes what is made from numbers of the host, which a CUDA graph refuses to capture."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in (torch.ops.aten.lift_fresh, torch.ops.aten._to_copy):
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_no_step_makes_a_tensor_from_host_data(name: str, device: str) -> None:
    """Warm, as a step is when it is captured: forwards and backwards, with loss and error of Table 1."""
    warp, frame = family(name), Frame.crop(20, 20, 9, 9)
    predictor = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(81, warp.dim)).to(device)
    net = ICSTN(predictor, 2, warp=warp, frame=frame, invert=True)
    p = perturbations(3, 0.5, frame, warp, generator=torch.Generator().manual_seed(0)).to(device)
    image = torch.rand(3, 1, 20, 20).to(device)

    def step() -> None:
        out, warps = net(image, p, return_warps=True)
        (out.sum() + warps[-1].square().sum()).backward()
        corner_error(warp, warps[-1].detach(), p)
        frame.to_pixels(corners(p.dtype, p.device))

    step()
    with HostData() as mode:
        step()
    assert mode.found == []


def test_the_probe_sees_host_data() -> None:
    with HostData() as mode:
        torch.tensor([1.0, 2.0])
    assert mode.found


def test_remembers_a_bounded_number_and_one_of_each() -> None:
    made = []

    @constant
    def number(value: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        made.append(value)
        return torch.full((1,), value, dtype=dtype, device=device)

    like = torch.zeros(1)
    assert number(like, 3) is number(like, 3)
    assert number(like.double(), 3).dtype == torch.float64
    assert made == [3, 3]
    for value in range(SIZE):
        number(like, 10 + value)
    number(like, 3)  # made again: the oldest had to go
    assert made.count(3) == 3


def test_sample_of_one_image_reads_no_host_data_either() -> None:
    image, p = torch.rand(1, 1, 9, 9), torch.zeros(3, 8)
    sample(image, p)
    with HostData() as mode:
        sample(image, p)
    assert mode.found == []
