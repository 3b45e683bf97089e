"""The notation: every capacity the paper prints, round trips, and messages that point at the place."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from icstn.experiments.paper import TABLE_2, TABLE_3, PrintedRow
from icstn.networks import (
    FC,
    Architecture,
    Conv,
    NotationError,
    Pool,
    build,
    capacity,
    initialize,
    join,
    parse_stack,
)

ROWS = [(row, 1, 28, name) for name, row in TABLE_2.items()] + [(r, 3, 36, n) for n, r in TABLE_3.items()]
IDS = [name if size == 28 else f"GTSRB {name}" for *_, size, name in ROWS]


@pytest.mark.parametrize(("row", "channels", "size", "name"), ROWS, ids=IDS)
class TestThePapersRows:
    """All 17 rows of Tables 2 and 3."""

    def test_capacity_is_the_printed_one(self, row: PrintedRow, channels: int, size: int, name: str) -> None:
        architecture = Architecture.parse(row.architecture)
        copies = architecture.warps if name.startswith("c-STN") else min(architecture.warps, 1)
        predictor = build(architecture.predictor, channels, size, size) if copies else nn.Identity()
        classifier = build(architecture.classifier, channels, size, size)
        assert copies * capacity(predictor) + capacity(classifier) == row.capacity

    def test_prints_as_it_is_written(self, row: PrintedRow, channels: int, size: int, name: str) -> None:
        assert str(Architecture.parse(row.architecture)) == row.architecture

    def test_maps_a_batch_to_outputs(self, row: PrintedRow, channels: int, size: int, name: str) -> None:
        architecture = Architecture.parse(row.architecture)
        x = torch.zeros(2, channels, size, size)
        assert build(architecture.classifier, channels, size, size)(x).shape == (2, 10 if size == 28 else 43)
        if architecture.warps:
            assert build(architecture.predictor, channels, size, size)(x).shape == (2, 8)


def plain(stack: str, channels: int) -> nn.Sequential:
    """The notation read word for word: a ReLU after each layer with parameters but the last."""
    modules: list[nn.Module] = []
    layers = parse_stack(stack)
    for i, layer in enumerate(layers):
        if isinstance(layer, Pool):
            modules.append(nn.MaxPool2d(2))
            continue
        if isinstance(layer, Conv):
            modules.append(nn.Conv2d(channels, layer.filters, (layer.height, layer.width)))
            channels = layer.filters
        else:
            if not any(isinstance(m, nn.Flatten) for m in modules):
                modules.append(nn.Flatten())
            modules.append(nn.LazyLinear(layer.units))
        if i + 1 < len(layers):
            modules.append(nn.ReLU())
    return nn.Sequential(*modules).double()


@pytest.mark.parametrize(
    "stack",
    [
        "conv(3×3,3)-conv(3×3,6)-P-conv(3×3,9)-conv(3×3,12)-FC(48)-FC(10)",
        "conv(7×7,4)-conv(7×7,8)-P-FC(48)-FC(8)",
        "conv(2×5,2)-P-conv(5×2,3)-P-FC(7)",
        "FC(8)",
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_computes_what_the_notation_says(stack: str) -> None:
    ours = initialize(build(stack, 1, 28, 28).double(), 0.1, generator=torch.Generator().manual_seed(0))
    reference, x = plain(stack, 1), torch.randn(3, 1, 28, 28, dtype=torch.float64)
    reference(x)
    for theirs, mine in zip(reference.parameters(), ours.parameters(), strict=True):
        theirs.data.copy_(mine)
    torch.testing.assert_close(ours(x), reference(x))


layers = st.one_of(
    st.builds(Conv, st.integers(1, 11), st.integers(1, 11), st.integers(1, 99)),
    st.builds(FC, st.integers(1, 999)),
    st.just(Pool()),
)
stacks = st.lists(layers, min_size=1, max_size=6).map(tuple)


class TestParser:
    """Reading the notation."""

    @given(predictor=stacks, warps=st.integers(1, 20), classifier=st.one_of(st.just(()), stacks))
    def test_reads_back_what_it_prints(self, predictor: tuple, warps: int, classifier: tuple) -> None:
        architecture = Architecture(predictor, warps, classifier)
        assert Architecture.parse(str(architecture)) == architecture

    @given(stack=stacks)
    def test_reads_a_stack_in_ascii_with_spaces(self, stack: tuple) -> None:
        text = join(stack).replace("×", " x ").replace("-", " - ").replace("(", " ( ".strip())
        assert parse_stack(text) == stack

    @given(text=st.text(alphabet="convPFC()×x→->[],0123456789 ", max_size=30))
    def test_reads_or_says_where_it_stopped(self, text: str) -> None:
        try:
            Architecture.parse(text)
        except NotationError as error:
            _, echoed, pointer = str(error).split("\n")
            assert echoed == f"  {text}"
            assert pointer.index("^") - 2 <= len(text)

    @pytest.mark.parametrize(
        ("text", "at", "expected"),
        [
            ("", 1, "a layer"),
            ("FC(10)-", 8, "a layer"),
            ("FC(10)-Q", 8, "a layer"),
            ("conv(3*3,3)-FC(8)", 1, "conv(h×w,filters)"),
            ("FC(10) FC(2)", 8, "'-' and another layer, or the end"),
            ("[FC(8)×4 → FC(10)", 7, "closing ']'"),
            ("[FC(8)] → FC(10)", 9, "number of warp operations"),
            ("[FC(8)]×0 → FC(2)", 9, "at least 1"),
            ("conv(3×3,0)-FC(2)", 10, "at least 1"),
            ("[FC(8)]×4 →", 12, "a layer"),
            ("FC(10)-P(", 8, "a layer"),
        ],
    )
    def test_points_at_the_place(self, text: str, at: int, expected: str) -> None:
        with pytest.raises(NotationError) as caught:
            Architecture.parse(text)
        first, echoed, pointer = str(caught.value).split("\n")
        assert expected in first
        assert f"at character {at}:" in first
        assert (echoed, pointer) == (f"  {text}", "  " + " " * (at - 1) + "^")


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        ("conv(9×9,3)-FC(10)", r"conv\(9×9,3\) does not fit its input of 8×8"),
        ("conv(8×8,2)-P-FC(2)", "P does not fit its input of 1×1"),
        ("FC(3)-conv(3×3,2)", "follows a fully connected layer"),
        ("FC(3)-P", "follows a fully connected layer"),
    ],
)
def test_refuses_what_does_not_fit(stack: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(stack, 1, 8, 8)


class TestInitialize:
    """Initial weights."""

    STACK = "conv(7×7,4)-conv(7×7,8)-P-FC(48)-FC(8)"

    def test_depends_on_the_generator_alone(self) -> None:
        one, two = (
            initialize(build(self.STACK, 1, 28, 28), 0.1, generator=torch.Generator().manual_seed(3))
            for _ in range(2)
        )
        assert all(a.equal(b) for a, b in zip(one.parameters(), two.parameters(), strict=True))

    def test_weights_and_biases_have_that_deviation(self) -> None:
        network = initialize(build(self.STACK, 1, 28, 28), 0.1, generator=torch.Generator().manual_seed(0))
        values = torch.cat([p.detach().flatten() for p in network.parameters()])
        spread = 4 * 0.1 / (2 * len(values)) ** 0.5
        assert abs(values.std().item() - 0.1) < spread
        assert abs(values.mean().item()) < 4 * 0.1 / len(values) ** 0.5

    def test_zero_last_starts_at_the_identity_and_still_learns(self) -> None:
        network = initialize(
            build(self.STACK, 1, 28, 28), 0.1, generator=torch.Generator().manual_seed(0), zero_last=True
        )
        out = network(torch.rand(2, 1, 28, 28))
        assert not out.any()
        (out - 1).square().sum().backward()
        assert network[-1].weight.grad.abs().sum() > 0


def test_shared_and_frozen_parameters_count_once_and_not_at_all() -> None:
    layer = nn.Linear(3, 2)
    assert capacity(nn.Sequential(layer, layer)) == 8
    layer.bias.requires_grad_(False)
    assert capacity(layer) == 6
