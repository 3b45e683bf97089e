"""Light: training signs under other light, less sharp, and with noise, in plain NumPy."""

from __future__ import annotations

import numpy as np
import torch

from golden import draws


class Light:
    """The light of each step of a run; steps are asked for in their order.

    At strength s a channel's value v becomes (v + t (m − v)) g + o + l + e: towards the mean m of its nine
    neighbors by a share t up to min(s, 1), times a gain g whose logarithm has deviation 0.2 s, plus an offset
    of deviation 0.2 s, a slope of light that has deviation 0.3 s at the middle of either edge, and noise of a
    deviation up to 0.1 min(s, 1) s.
    """

    def __init__(self, seed: int, restart: int, strength: float) -> None:
        self.seed, self.restart, self.strength = seed, restart, strength

    def on(self, images: torch.Tensor, step: int) -> torch.Tensor:
        """The images of a step, numbered from zero."""
        if not self.strength:
            return images
        block, at = divmod(step, draws.BLOCK)
        if at == 0:  # the bits of the block's seed, the last of them turned
            whole = draws.source("train", self.seed, self.restart, block).initial_seed()
            self.generator = torch.Generator().manual_seed(whole ^ 1)
        return torch.from_numpy(self._lit(images.numpy()))

    def _lit(self, images: np.ndarray) -> np.ndarray:
        n, channels, height, width = images.shape
        gain, offset = self._normal(n, channels), self._normal(n, channels)
        across, down = self._normal(n), self._normal(n)
        noisy = self._share(n)
        noise = self._normal(n, channels, height, width)
        dull = self._share(n)
        out = np.empty_like(images)
        for i in range(n):
            for c in range(channels):
                value = images[i, c]
                padded = np.pad(value, 1, mode="edge")
                mean = sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3)) / 9
                slope = across[i] * np.linspace(-1, 1, width) + down[i] * np.linspace(-1, 1, height)[:, None]
                out[i, c] = (value + dull[i] * (mean - value)) * np.exp(0.2 * gain[i, c])
                out[i, c] += 0.2 * offset[i, c] + 0.3 * slope + 0.1 * noisy[i] * noise[i, c]
        return out

    def _normal(self, *shape: int) -> np.ndarray:
        return self.strength * torch.randn(*shape, generator=self.generator).double().numpy()

    def _share(self, n: int) -> np.ndarray:
        return min(self.strength, 1.0) * torch.rand(n, generator=self.generator).double().numpy()
