"""The transformers in ordinary training code: families × kinds × dtypes × what PyTorch does to modules."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn

from icstn import layers, sampling
from icstn.networks import build
from icstn.sampling import Frame, sample
from icstn.transformers import ICSTN, STN, CompositionalSTN, Transformer
from icstn.warps import FAMILIES

KINDS = ("STN", "c-STN", "IC-STN", "IC-STN inverse")
SIZE, CROP = 16, 12
FRAME = Frame.crop(SIZE, SIZE, CROP, CROP)
EVERY = [pytest.param(kind, name, id=f"{kind}-{name}") for kind in KINDS for name in FAMILIES]
every = pytest.mark.parametrize(("kind", "name"), EVERY)


@pytest.fixture(autouse=True, params=["own layers", "stock layers"])
def arrangement(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Everything holds with the layers' own arrangement and without."""
    monkeypatch.setattr(layers, "_wide", request.param == "own layers")


def predictor(k: int, seed: int = 0) -> nn.Sequential:
    net = build(f"conv(3×3,4)-P-conv(3×3,5)-FC({k})", 2, CROP, CROP)
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net


def make(kind: str, name: str) -> Transformer:
    k, placed = FAMILIES[name].dim, {"warp": name, "frame": FRAME}
    if kind == "STN":
        return STN(predictor(k), 2, **placed)
    if kind == "c-STN":
        return CompositionalSTN([predictor(k), predictor(k, 1)], side="image", **placed)
    return ICSTN(predictor(k), 2, invert=kind.endswith("inverse"), **placed)


def images(batch: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    """Smooth ones, so that a small change of a warp is a small change of what it shows."""
    t = torch.linspace(0, 3, SIZE)
    waves = torch.stack((torch.sin(t)[:, None] * torch.cos(t), torch.cos(2 * t)[:, None] * torch.sin(t)))
    return (waves + torch.linspace(0, 1, batch).view(-1, 1, 1, 1)).to(dtype)


def gradients(module: Transformer, x: Tensor) -> list[Tensor]:
    """Output, last warps, and the gradients of both in image and parameters."""
    x = x.detach().requires_grad_()
    out, warps = module(x, return_warps=True)
    loss = out.float().square().sum() + warps[-1].float().square().sum()
    return [out.detach(), warps[-1].detach(), *torch.autograd.grad(loss, [x, *module.parameters()])]


def close(ours: list[Tensor], wanted: list[Tensor], tolerance: float = 1e-5) -> None:
    for a, b in zip(ours, wanted, strict=True):
        scale = b.double().abs().max() if b.numel() else torch.tensor(0.0)
        error = (a.double() - b.double()).abs().max() if b.numel() else torch.tensor(0.0)
        assert a.shape == b.shape
        assert error <= tolerance * (scale + 1e-3), (error, scale)


@every
class TestDtypes:
    """What the images and the predictor are; warps are float32 or better."""

    def test_float64_is_float32_but_finer(self, kind: str, name: str) -> None:
        module = make(kind, name)
        single = gradients(module, images())
        double = gradients(module.double(), images(dtype=torch.float64))
        assert {t.dtype for t in double} == {torch.float64}
        close(single, double, 1e-3)

    @pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
    def test_half_precision_keeps_its_warps_in_float32(self, kind: str, name: str, half: torch.dtype) -> None:
        module = make(kind, name)
        wanted = gradients(module, images())
        ours = gradients(module.to(half), images(dtype=half))
        assert ours[0].dtype == half
        assert ours[1].dtype == torch.float32
        close(ours[:2], wanted[:2], 0.1)
        assert all(g.isfinite().all() for g in ours)

    def test_autocast_leaves_the_coordinates_alone(self, kind: str, name: str) -> None:
        """The predictor computes in bfloat16; given its predictions, every warp is exact."""
        module, x = make(kind, name), images()
        seen: list[Tensor] = []
        for p in module.predictors():
            p.register_forward_hook(lambda _, inputs, output: seen.append((*inputs, output)))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out, warps = module(x, return_warps=True)
        assert {crop.dtype for crop, _ in seen} == {torch.float32}
        assert {dp.dtype for _, dp in seen} == {torch.bfloat16}
        assert {w.dtype for w in warps} == {torch.float32}
        for before, after, (_, dp) in zip(warps, warps[1:], seen, strict=False):
            side = getattr(module, "side", "template")
            dp = dp.float().detach()
            dp = module.warp.inverse(dp) if kind.endswith("inverse") else dp
            assert torch.equal(module.warp.compose(before, dp, side=side), after)
        if kind != "STN":
            assert torch.equal(sample(x, warps[-1], FRAME, name), out)
        out.sum().backward()
        assert all(p.grad.isfinite().all() for p in module.parameters())


@every
class TestModules:
    """What training code does to any module."""

    def test_copies_and_pickles(self, kind: str, name: str) -> None:
        module = make(kind, name)
        wanted, file = gradients(module, images()), io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        for other in (
            copy.deepcopy(module),
            pickle.loads(pickle.dumps(module)),
            torch.load(file, weights_only=False),
            nn.DataParallel(module).module,
        ):
            close(gradients(other, images()), wanted, 0)

    def test_replicas_hold_plain_tensors(self, kind: str, name: str) -> None:
        """DataParallel calls copies whose parameters are tensors with a history."""
        module = make(kind, name)
        tensors = {key: p.clone() for key, p in module.named_parameters()}
        out = torch.func.functional_call(module, tensors, (images(),))
        close([out], [module(images())], 0)
        out.sum().backward()
        assert all(p.grad is not None for p in module.parameters())

    def test_an_empty_batch_has_shapes_and_gradients(self, kind: str, name: str) -> None:
        module = make(kind, name)
        out, warps, d_x, *rest = gradients(module, images(0))
        assert out.shape == (0, 2, CROP, CROP)
        assert warps.shape == (0, FAMILIES[name].dim)
        assert d_x.shape == (0, 2, SIZE, SIZE)
        assert not any(g.any() for g in rest)

    def test_any_memory_layout(self, kind: str, name: str) -> None:
        module, x = make(kind, name), images()
        wanted = gradients(module, x)
        strided = torch.zeros(3, 2, SIZE, 2 * SIZE)[..., ::2].copy_(x)
        turned = x.transpose(2, 3).contiguous().transpose(2, 3)
        for other in (x.to(memory_format=torch.channels_last), strided, turned):
            assert other.stride() != x.stride()
            close(gradients(module, other), wanted)
        close(gradients(module.to(memory_format=torch.channels_last), x), wanted)

    def test_inference_mode_first_then_training(self, kind: str, name: str) -> None:
        module = make(kind, name)
        with torch.inference_mode():
            shown = module(images())
        close([gradients(module, images())[0]], [shown], 0)


@every
class TestTransforms:
    """Derivatives beyond the first, and ``torch.func``."""

    def test_second_derivatives(self, kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those of plain operations in stock layers, which are PyTorch's own matter."""
        module, x = make(kind, name).double(), images(dtype=torch.float64)

        def second() -> list[Tensor]:
            inputs = [x.clone().requires_grad_(), *module.parameters()]
            out, warps = module(inputs[0], return_warps=True)
            first = torch.autograd.grad(
                out.square().sum() + warps[-1].pow(3).sum(), inputs, create_graph=True
            )
            return list(torch.autograd.grad(sum(g.square().sum() for g in first), inputs))

        ours = second()
        monkeypatch.setattr(layers, "_wide", False)
        monkeypatch.setattr(sampling, "plain", lambda _: False)
        close(ours, second(), 1e-9)

    def test_gradients_of_each_item(self, kind: str, name: str) -> None:
        """vmap of grad over the batch, as for per-sample gradients."""
        module, x = make(kind, name), images()
        parameters = dict(module.named_parameters())

        def loss(values: dict[str, Tensor], item: Tensor) -> Tensor:
            return torch.func.functional_call(module, values, (item[None],)).square().sum()

        each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
        for i, item in enumerate(x):
            wanted = torch.autograd.grad(loss(parameters, item), list(parameters.values()))
            close([each[key][i] for key in parameters], list(wanted))

    def test_jacobian_of_the_warps(self, kind: str, name: str) -> None:
        module, x = make(kind, name).double(), images(1, torch.float64)

        def last(p: Tensor) -> Tensor:
            return module(x, p, return_warps=True).warps[-1][0]

        p = torch.full((1, module.warp.dim), 0.01, dtype=torch.float64)
        ours = torch.func.jacrev(last)(p)[:, 0]
        close([ours], [torch.autograd.functional.jacobian(last, p)[:, 0]], 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_an_option(kind: str) -> None:
    """A shift by a whole frame: zeros, the border's pixels, or the image mirrored."""
    x = images()[..., :CROP, :CROP]
    seen = {}
    for padding in ("zeros", "border", "reflection"):
        module = make(kind, "translation")
        module.frame, module.padding = None, padding
        for p in module.predictors():
            nn.init.zeros_(p[-1].weight)
            p[-1].bias.data.copy_(torch.tensor([2.0, 0.0]) / module.operations)
        seen[padding] = module(x)
    if kind in ("c-STN", "IC-STN"):
        close([seen["zeros"][..., 1:]], [torch.zeros(3, 2, CROP, CROP - 1)])
        close([seen["border"]], [x[..., -1:].expand(-1, -1, -1, CROP)])
        close([seen["reflection"]], [x.flip(-1)])
    assert not torch.equal(seen["zeros"], seen["border"])
