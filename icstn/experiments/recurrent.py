"""An ordinary recurrent network for alignment, to hold the IC-STN against (Sec. 5.1).

An IC-STN hands a *warp* from step to step and looks at the image anew through it; Elman's network (1990)
hands on a state of numbers that mean what training makes of them, and looks at the same first crop each time.
Both are unrolled alike, have the same loss and, with a state as long as the warp's parameters, the same size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from icstn.sampling import Frame, sample
from icstn.transformers import Compositional, Side
from icstn.warps import Warp


class ElmanAlignment(Compositional):
    """h ← tanh(V I(p₀) + U h + c) and p = p₀ ∘ (W h + b), n times.

    Args:
        n: number of steps in training.
        channels: of an image.
        warp: family of the warps; the state has as many numbers.
        frame: where the template lies in the image.
        side: of the composition, see :class:`icstn.transformers.ICSTN`.
        seed: of the initial weights, PyTorch's but for V: its spread is that of a layer with as many
            inputs, 1/√inputs, since at the cell's own, 1/√6, thousands of pixels would saturate every tanh.
            The output starts at zero.
    """

    def __init__(
        self, n: int, channels: int, *, warp: Warp | str, frame: Frame, side: Side, seed: int
    ) -> None:
        super().__init__(warp, frame, side, "zeros")
        self._check_operations(n)
        self.n = n
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.cell = nn.RNNCell(pixels := channels * frame.height * frame.width, self.warp.dim)
            nn.init.uniform_(self.cell.weight_ih, -(pixels**-0.5), pixels**-0.5)
            self.output = nn.Linear(self.warp.dim, self.warp.dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    @property
    def operations(self) -> int:
        """Number of steps by default."""
        return self.n

    def predictor(self, step: int) -> nn.Module:
        """The recurrent cell."""
        return self.cell

    def predictors(self) -> list[nn.Module]:
        """The cell and the layer that reads its state."""
        return [self.cell, self.output]

    def warps(self, image: Tensor, p: Tensor, frame: Frame, n: int) -> list[Tensor]:
        """The warp before the first and after each step, all from the same crop."""
        x = sample(image, p, frame, self.warp, padding=self.padding).flatten(1)
        state, found = x.new_zeros(len(x), self.warp.dim), [p]
        for _ in range(n):
            state = self.cell(x, state)
            found.append(self.compose(p, self.output(state)))
        return found
