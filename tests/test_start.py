"""The identity start and the predictors' own learning rate."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from icstn.networks import build
from icstn.perturb import perturbations
from icstn.sampling import Frame, sample
from icstn.start import identity_start, parameter_groups
from icstn.transformers import ICSTN, STN, CompositionalSTN


def predictor(k: int = 8) -> nn.Sequential:
    return build(f"conv(3×3,4)-P-FC({k})", 1, 12, 12)


def model(transformer: nn.Module) -> nn.Sequential:
    return nn.Sequential(transformer, build("conv(3×3,4)-P-FC(10)", 1, 12, 12))


TRANSFORMERS = {
    "STN": lambda: STN(predictor(), 2),
    "c-STN": lambda: CompositionalSTN([predictor() for _ in range(3)]),
    "IC-STN": lambda: ICSTN(predictor()),
}
every = pytest.mark.parametrize("make", TRANSFORMERS.values(), ids=TRANSFORMERS)
IMAGES = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))


@every
class TestIdentityStart:
    def test_all_warps_are_the_identity(self, make) -> None:
        net = model(make())
        assert identity_start(net) is net
        warps = net[0](IMAGES, return_warps=True).warps
        assert not torch.stack(warps).any()
        torch.testing.assert_close(net[0](IMAGES), IMAGES)

    def test_and_still_learns(self, make) -> None:
        net = identity_start(model(make()))
        F.cross_entropy(net(IMAGES), torch.tensor([1, 2])).backward()
        for p in net[0].predictors():
            assert p[-1].weight.grad.any()

    def test_leaves_the_rest_alone(self, make) -> None:
        net = model(make())
        before = {k: v.clone() for k, v in net.state_dict().items()}
        identity_start(net)
        changed = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
        lasts = [m for p in net[0].predictors() for m in (p[-1].weight, p[-1].bias)]
        assert len(changed) == len(lasts)
        assert not any(p.any() for p in lasts)


class TestRefusals:
    def test_no_transformer(self) -> None:
        for call in (identity_start, lambda m: parameter_groups(m, 1e-3)):
            with pytest.raises(ValueError, match="contains no spatial transformer"):
                call(nn.Linear(2, 2))

    def test_nothing_to_set_to_zero(self) -> None:
        with pytest.raises(ValueError, match="ends in no linear or convolutional layer"):
            identity_start(ICSTN(nn.Flatten()))

    @pytest.mark.filterwarnings("ignore:Lazy modules")
    def test_a_layer_that_does_not_know_its_size(self) -> None:
        net = ICSTN(nn.Sequential(nn.Flatten(), nn.LazyLinear(8)))
        with pytest.raises(ValueError, match="run it on some images first"):
            identity_start(net)


@every
class TestParameterGroups:
    def test_every_learnable_parameter_is_in_one_group(self, make) -> None:
        net = model(make())
        net[1][0].bias.requires_grad_(False)
        rest, slow = parameter_groups(net, 2e-3)
        assert (rest["lr"], slow["lr"]) == (2e-3, pytest.approx(2e-4))
        assert {*map(id, slow["params"])} == {*map(id, net[0].parameters())}
        both = [*map(id, rest["params"]), *map(id, slow["params"])]
        assert sorted(both) == sorted(id(p) for p in net.parameters() if p.requires_grad)

    def test_a_transformer_alone_is_one_group(self, make) -> None:
        (group,) = parameter_groups(make(), 1e-3, 0.0)
        assert group["lr"] == 0.0


def test_a_strangers_network_trains_as_the_docstring_says() -> None:
    """Displaced bars, upright or lying: from the identity, at a rate of its own, it learns to align."""
    frame, generator = Frame.full(16, 16), torch.Generator().manual_seed(0)
    bars = torch.zeros(2, 1, 16, 16)
    bars[0, :, 3:13, 6:10] = 1
    bars[1, :, 6:10, 3:13] = 1

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(2, (64,), generator=generator)
        p = perturbations(64, 1.5, frame, "affine", generator=generator)
        return sample(bars[labels], p, frame, "affine"), labels

    torch.manual_seed(0)
    align = ICSTN(build("conv(5×5,4)-P-FC(24)-FC(6)", 1, 16, 16), warp="affine")
    net = identity_start(nn.Sequential(align, build("conv(5×5,4)-P-FC(2)", 1, 16, 16)))
    optimizer = torch.optim.Adam(parameter_groups(net, rate=5e-3))
    losses = []
    for _ in range(120):
        x, labels = batch()
        loss = F.cross_entropy(net(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) / 20 < 0.25
    aligned = align(batch()[0], return_warps=True)
    assert aligned.warps[-1].abs().max() > 0.02  # the transformer took part
    assert aligned.warps[-1].abs().max() < 3
