"""Fast layers against PyTorch's own: same numbers forwards and backwards, over shapes and ties."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from icstn import layers
from icstn.experiments.paper import TABLE_2, TABLE_3
from icstn.layers import Conv2d, MaxPool2x2
from icstn.networks import Architecture, build

sizes = st.integers


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[int, ...]:
    """Batch, channels, filters, kernel height and width, output height and width."""
    return (
        draw(sizes(1, 4)),
        draw(sizes(1, 6)),
        draw(sizes(1, 18)),
        draw(sizes(1, 9)),
        draw(sizes(1, 9)),
        draw(sizes(1, 13)),
        draw(sizes(1, 16)),
    )


def paired(shape: tuple[int, ...], bias: bool = True) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    batch, channels, filters, kh, kw, oh, ow = shape
    generator = torch.Generator().manual_seed(0)
    fast = Conv2d(channels, filters, (kh, kw), bias=bias, dtype=torch.float64)
    for tensor in fast.parameters():
        tensor.data.copy_(torch.randn(tensor.shape, generator=generator))
    plain = nn.Conv2d(channels, filters, (kh, kw), bias=bias, dtype=torch.float64)
    plain.load_state_dict(fast.state_dict())
    size = (batch, channels, oh + kh - 1, ow + kw - 1)
    return fast, plain, torch.randn(size, generator=generator, dtype=torch.float64)


def results(module: nn.Module, x: torch.Tensor, seed: int = 1) -> list[torch.Tensor]:
    """Output, and the gradients of a random linear function of it in the input and all parameters."""
    x = x.detach().requires_grad_()
    y = module(x)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=y.dtype)
    return [y.detach(), *torch.autograd.grad(y, [x, *module.parameters()], grad)]


def agree(fast: nn.Module, plain: nn.Module, x: torch.Tensor, tolerance: float = 1e-10) -> None:
    for ours, theirs in zip(results(fast, x), results(plain, x), strict=True):
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


class TestConv2d:
    """The same function as ``nn.Conv2d``."""

    @given(shape=convolutions(), bias=st.booleans())
    def test_agrees_forwards_and_backwards(self, shape: tuple[int, ...], bias: bool) -> None:
        agree(*paired(shape, bias))

    @pytest.mark.parametrize("table", [TABLE_2, TABLE_3], ids=["table_2", "table_3"])
    def test_agrees_on_every_layer_of_the_paper(self, table: dict) -> None:
        size, channels = (28, 1) if table is TABLE_2 else (36, 3)
        generator = torch.Generator().manual_seed(0)
        for row in table.values():
            architecture = Architecture.parse(row.architecture)
            for stack in filter(None, (architecture.predictor, architecture.classifier)):
                x = torch.randn(2, channels, size, size, generator=generator).double()
                for module in build(stack, channels, size, size).double():
                    if isinstance(module, Conv2d):
                        plain = nn.Conv2d(
                            module.in_channels, module.out_channels, module.kernel_size, dtype=x.dtype
                        )
                        plain.load_state_dict(module.state_dict())
                        agree(module, plain, x)
                    x = module(x).detach()

    def test_float32_is_as_exact_as_the_plain_layer(self) -> None:
        fast, plain, x = paired((20, 4, 8, 7, 7, 16, 16))
        truth = results(plain, x)
        ours, theirs = results(fast.float(), x.float()), results(plain.float(), x.float())
        for exact, a, b in zip(truth, ours, theirs, strict=True):
            scale = exact.abs().max()
            assert (a - exact).abs().max() / scale < max(1e-5, 4 * (b - exact).abs().max() / scale)

    def test_passes_gradcheck(self) -> None:
        fast, _, x = paired((1, 2, 3, 5, 5, 2, 4))
        weight, bias = fast.weight, fast.bias
        assert torch.autograd.gradcheck(layers._Convolution.apply, (x.requires_grad_(), weight, bias))

    @pytest.mark.parametrize("frozen", ["input", "weight", "bias"])
    def test_leaves_out_the_gradients_nobody_wants(self, frozen: str) -> None:
        fast, plain, x = paired((2, 1, 4, 7, 7, 4, 4))
        for module in (fast, plain):
            if frozen != "input":
                getattr(module, frozen).requires_grad_(False)
        inputs = [x.clone().requires_grad_(frozen != "input") for _ in range(2)]
        for module, value in zip((fast, plain), inputs, strict=True):
            module(value).square().sum().backward()
        torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
        for a, b in zip(fast.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)

    @pytest.mark.parametrize(
        "options",
        [{"stride": 2}, {"padding": 1}, {"dilation": 2}, {"groups": 2}, {"padding": "same"}],
        ids=str,
    )
    def test_other_convolutions_are_the_plain_ones(self, options: dict) -> None:
        fast, plain = Conv2d(2, 4, 3, **options).double(), nn.Conv2d(2, 4, 3, **options).double()
        plain.load_state_dict(fast.state_dict())
        agree(fast, plain, torch.randn(2, 2, 8, 8, dtype=torch.float64))

    @pytest.mark.parametrize("mode", ["reflect", "circular"])
    def test_padding_modes_are_the_plain_ones(self, mode: str) -> None:
        fast = Conv2d(1, 2, 3, padding=1, padding_mode=mode).double()
        plain = nn.Conv2d(1, 2, 3, padding=1, padding_mode=mode).double()
        plain.load_state_dict(fast.state_dict())
        agree(fast, plain, torch.randn(2, 1, 6, 6, dtype=torch.float64))

    def test_takes_strided_inputs_and_gradients(self) -> None:
        fast, plain, x = paired((2, 3, 4, 5, 5, 8, 8))
        agree(fast, plain, x.permute(0, 1, 3, 2))
        agree(
            nn.Sequential(fast, _Transpose()),
            nn.Sequential(plain, _Transpose()),
            x.to(memory_format=torch.channels_last),
        )

    def test_takes_a_single_image_as_the_plain_layer_does(self) -> None:
        fast, plain, x = paired((1, 3, 4, 5, 5, 8, 8))
        agree(fast, plain, x[0])

    def test_widened_filters_compute_neighboring_outputs(self) -> None:
        weight = torch.arange(6.0).view(1, 1, 2, 3)
        wide = layers.widen(weight, (1, 2))
        assert wide[:, 0, 0].tolist() == [[0, 1, 2, 0], [0, 0, 1, 2]]
        wide = layers.widen(weight, (2, 1))
        assert wide[1, 0].tolist() == [[0, 0, 0], [0, 1, 2], [3, 4, 5]]

    @pytest.mark.parametrize("tile", [(1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (4, 2)])
    @pytest.mark.parametrize("channels", [1, 5])
    def test_every_tile_computes_the_same(
        self, tile: tuple[int, int], channels: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(layers, "best_tile", lambda *_: tile)
        fast, plain, x = paired((2, channels, 3, 5, 5, 8, 8))
        agree(fast, plain, x)

    @given(
        out=sizes(1, 30), channels=sizes(1, 9), kernel=sizes(1, 9), height=sizes(1, 40), width=sizes(1, 40)
    )
    def test_a_tile_divides_the_output(
        self, out: int, channels: int, kernel: int, height: int, width: int
    ) -> None:
        sy, sx = layers.best_tile((out, channels, kernel, kernel), (height, width))
        assert height % sy == 0
        assert width % sx == 0

    def test_a_plain_layer_costs_its_multiplications(self) -> None:
        """For each output: channels × kernel, times the lanes that are idle; no order has to be made."""
        assert layers.tile_cost((16, 4, 3, 3), (1, 1)) == 4 * 3 * 3
        assert layers.tile_cost((4, 4, 3, 3), (1, 1)) == 4 * 4 * 3 * 3

    def test_lanes_are_filled(self) -> None:
        assert layers.best_tile((4, 1, 7, 7), (22, 22)) == (2, 2)
        assert layers.best_tile((16, 16, 3, 3), (8, 8)) == (1, 1)

    def test_can_be_differentiated_twice(self) -> None:
        fast, _, x = paired((1, 2, 3, 3, 3, 2, 4))
        inputs = (x.requires_grad_(), fast.weight, fast.bias)
        assert torch.autograd.gradgradcheck(layers._Convolution.apply, inputs)


class _Transpose(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(2, 3)


class TestMaxPool:
    """The same function as ``nn.MaxPool2d(2)``, ties included."""

    @given(data=st.data(), batch=sizes(1, 3), channels=sizes(1, 3), height=sizes(2, 9), width=sizes(2, 9))
    def test_agrees_with_many_ties(
        self, data: st.DataObject, batch: int, channels: int, height: int, width: int
    ) -> None:
        count = batch * channels * height * width
        values = data.draw(st.lists(sizes(0, 2), min_size=count, max_size=count))
        x = torch.tensor(values, dtype=torch.float64).view(batch, channels, height, width)
        agree(MaxPool2x2(), nn.MaxPool2d(2), x, 0.0)

    def test_many_gradients_at_once(self, generator: torch.Generator) -> None:
        """Rows of the Jacobian, mapped: the gradient is then no plain tensor."""
        x = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
        rows = torch.randn(6, 2, 3, 2, 2, generator=generator, dtype=torch.float64)
        found = []
        for y in (MaxPool2x2()(x), nn.MaxPool2d(2)(x)):
            gradient = partial(torch.autograd.grad, y, x, retain_graph=True)
            found.append(torch.vmap(gradient)(rows)[0])
        torch.testing.assert_close(*found)

    def test_a_tie_gives_its_gradient_to_the_first(self) -> None:
        x = torch.zeros(1, 1, 2, 2, requires_grad=True)
        MaxPool2x2()(x).backward(torch.tensor([[[[5.0]]]]))
        assert x.grad.tolist() == [[[[5, 0], [0, 0]]]]

    def test_can_be_differentiated_twice(self, generator: torch.Generator) -> None:
        x = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradgradcheck(layers._MaxPool.apply, x)

    def test_nan_and_infinity_pass_as_in_the_plain_layer(self) -> None:
        x = torch.tensor([[[[1.0, float("nan"), -1.0, float("inf")], [0.0, 2.0, 3.0, 4.0]]]])
        y = MaxPool2x2()(x)
        torch.testing.assert_close(y, F.max_pool2d(x, 2), equal_nan=True)


def test_relu_and_pool_commute_in_values_and_gradients() -> None:
    """Pooling before the ReLU is the paper's ReLU before pooling."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 8, 8, generator=generator, dtype=torch.float64)
    agree(nn.Sequential(MaxPool2x2(), nn.ReLU()), nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), x, 0.0)


class TestServes:
    """Where the arrangement is used, and that the stock layers are used elsewhere."""

    X = torch.rand(2, 1, 8, 8)

    @pytest.fixture(autouse=True)
    def wide(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(layers, "_wide", True)

    def test_ordinary_images(self) -> None:
        assert layers.serves(self.X)
        assert layers.serves(self.X.double())

    @pytest.mark.parametrize(
        "x",
        [X.half(), X.bfloat16(), X[0], X[:0], X.to("meta"), X.int()],
        ids=["half", "bfloat16", "no batch", "empty", "other device", "integers"],
    )
    def test_not_these(self, x: torch.Tensor) -> None:
        assert not layers.serves(x)

    def test_not_under_autocast_nor_on_narrow_vectors_nor_when_switched_off(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with torch.autocast("cpu"):
            assert not layers.serves(self.X)
        with layers.stock_layers():
            assert not layers.serves(self.X)
            with layers.stock_layers(False):
                assert layers.serves(self.X)
        assert layers.serves(self.X)
        monkeypatch.setattr(layers, "_wide", False)
        assert not layers.serves(self.X)

    def test_not_in_transforms(self) -> None:
        seen = []

        def look(x: torch.Tensor) -> torch.Tensor:
            seen.append(layers.serves(x))
            return x.sum()

        torch.func.grad(look)(self.X)
        torch.func.vmap(look)(self.X[None])
        assert seen == [False, False]

    @pytest.mark.parametrize("layer", [Conv2d(1, 4, 7), MaxPool2x2()], ids=["conv", "pool"])
    def test_stock_means_stock(self, layer: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise AssertionError("the own arrangement was used")

        monkeypatch.setattr(layers._Convolution, "apply", refuse)
        monkeypatch.setattr(layers._MaxPool, "apply", refuse)
        with layers.stock_layers():
            layer(self.X)
        with pytest.raises(AssertionError, match="own arrangement"):
            layer(self.X)
