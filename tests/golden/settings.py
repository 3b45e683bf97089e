"""Settings: how each preset trains each table, typed a second time."""

from __future__ import annotations

from typing import NamedTuple


class Settings(NamedTuple):
    """What a run is trained with."""

    optimizer: str
    schedule: str
    side: str
    iterations: int
    rate_predictor: float
    rate_classifier: float
    std_predictor: float
    std_classifier: float
    test_draws: int
    test_items: int
    restarts: int = 0
    clip: float = 0.0
    batch: int = 100
    average: float = 0.0
    weight_decay: float = 0.0
    appearance: float = 0.0


_ADAM, _SGD = ("adam", "cosine", "template"), ("sgd", "constant", "image")
_ROUND = (2e-4, 2e-3)

#: (table, preset): rates are of the predictor, then of the classifier; so are the spreads.
PRESETS = {
    ("table_1", "smoke"): Settings(*_ADAM, 100, 3e-5, 2e-3, 0.0, 0.1, 1, 100),
    ("table_1", "quick"): Settings(*_ADAM, 1000, 3e-5, 2e-3, 0.0, 0.1, 1, 2000),
    ("table_1", "full"): Settings(*_ADAM, 10000, 3e-5, 2e-3, 0.0, 0.1, 1, 10000, 3, 1.0),
    ("table_1", "paper"): Settings(*_SGD, 200000, 1e-4, 2e-3, 0.0, 0.1, 1, 10000),
    ("table_2", "smoke"): Settings(*_ADAM, 20, *_ROUND, 0.1, 0.1, 1, 500),
    ("table_2", "quick"): Settings(*_ADAM, 3000, *_ROUND, 0.1, 0.1, 1, 0),
    ("table_2", "full"): Settings(*_ADAM, 20000, *_ROUND, 0.1, 0.1, 10, 0, 3),
    ("table_2", "paper"): Settings(*_SGD, 200000, 1e-4, 1e-2, 0.1, 0.1, 10, 0),
    ("table_3", "smoke"): Settings(*_ADAM, 10, *_ROUND, 0.001, 0.01, 1, 200),
    ("table_3", "quick"): Settings(*_ADAM, 600, *_ROUND, 0.001, 0.01, 1, 0),
    ("table_3", "full"): Settings(*_ADAM, 6000, *_ROUND, 0.001, 0.01, 3, 0, 3, appearance=1.0),
    ("table_3", "paper"): Settings(*_SGD, 200000, 1e-5, 1e-3, 0.001, 0.01, 10, 0),
}


def settings(table: str, preset: str, model: str, sigma: float | None = None) -> Settings:
    """Of a row, or of a row at one σ, whose rates may be its own."""
    found = PRESETS[table, preset]
    if (table, preset, model, sigma) == ("table_1", "full", "c-STN-1", 2.5):
        return found._replace(rate_predictor=1e-4)
    if (table, preset, model) == ("table_2", "quick", "CNN(a)"):
        return found._replace(rate_classifier=1e-3)
    if (table, preset) == ("table_2", "full") and model in ("STN(b)", "c-STN-1(a)", "c-STN-1(b)"):
        return found._replace(rate_predictor=2e-4 if model == "STN(b)" else 4e-4, rate_classifier=5e-3)
    if (table, preset) == ("table_3", "full") and model in ("c-STN-1", "IC-STN-2"):
        return found._replace(rate_classifier=1e-3)
    return found


#: Pairs of images, whose ``paper`` is their ``full``.
_PAIR = Settings(*_ADAM, 2500, 2e-3, 2e-3, 0.07, 0.1, 1, 1000, 3, 1.0, 64)
PAIRS = {
    "smoke": _PAIR._replace(iterations=20, batch=16, test_items=20, restarts=0),
    "quick": _PAIR._replace(iterations=500, test_items=200, restarts=0),
    "full": _PAIR,
    "paper": _PAIR,
}

#: Plain networks: the noise of their training, and under Adam the rate and the spread of the weights.
PLAIN = {
    "CNN-undistorted": (0.0, 2e-3, 0.1),
    "CNN-unpooled": (None, 1e-3, 0.2),
    "CNN-4x": (None, 2e-3, 0.1),
    "CNN-16x": (None, 2e-3, 0.1),
}

#: Classical methods: their steps, and the samples that they learn from in each preset.
METHODS = {
    "LK": (50, 0, 0, 0, 0),
    "IC-LK": (50, 0, 0, 0, 0),
    "coarse-to-fine": (15, 0, 0, 0, 0),
    "SDM": (6, 300, 2000, 20_000, 20_000),
    "conditional-LK": (6, 300, 2000, 20_000, 20_000),
    "best linear step": (1, 3000, 20_000, 200_000, 200_000),
    "ECC": (50, 0, 0, 0, 0),
    "multi-scale-ECC": (50, 0, 0, 0, 0),
}
NAMES = ("smoke", "quick", "full", "paper")
ITEMS = {"baselines": (100, 2000, 10_000, 10_000), "two_images_classical": (20, 200, 1000, 1000)}


def beside(experiment: str, preset: str, model: str) -> Settings:
    """Of a network that stands beside the tables, trained as the table's rows are."""
    if experiment == "two_images":
        return PAIRS[preset]
    if experiment == "cascades":
        found = PRESETS["table_1", preset]
        adam = preset != "paper"
        return found._replace(rate_predictor=1e-3) if adam and model == "RNN-4" else found
    found = PRESETS["table_2", preset]
    if preset == "paper":
        return found
    _, rate, spread = PLAIN[model]
    return found._replace(rate_classifier=rate, std_classifier=spread)
