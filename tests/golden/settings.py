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


_ADAM, _SGD = ("adam", "cosine", "template"), ("sgd", "constant", "image")
_ROUND = (2e-4, 2e-3)

#: (table, preset): rates are of the predictor, then of the classifier; so are the spreads.
PRESETS = {
    ("table_1", "smoke"): Settings(*_ADAM, 100, 3e-5, 2e-3, 0.0, 0.1, 1, 100),
    ("table_1", "quick"): Settings(*_ADAM, 1000, 3e-5, 2e-3, 0.0, 0.1, 1, 2000),
    ("table_1", "full"): Settings(*_ADAM, 10000, 3e-5, 2e-3, 0.0, 0.1, 1, 10000, 3),
    ("table_1", "paper"): Settings(*_SGD, 200000, 1e-4, 2e-3, 0.0, 0.1, 1, 10000),
    ("table_2", "smoke"): Settings(*_ADAM, 20, *_ROUND, 0.1, 0.1, 1, 500),
    ("table_2", "quick"): Settings(*_ADAM, 3000, *_ROUND, 0.1, 0.1, 1, 0),
    ("table_2", "full"): Settings(*_ADAM, 20000, *_ROUND, 0.1, 0.1, 10, 0, 3),
    ("table_2", "paper"): Settings(*_SGD, 200000, 1e-4, 1e-2, 0.1, 0.1, 10, 0),
    ("table_3", "smoke"): Settings(*_ADAM, 10, *_ROUND, 0.001, 0.01, 1, 200),
    ("table_3", "quick"): Settings(*_ADAM, 600, *_ROUND, 0.001, 0.01, 1, 0),
    ("table_3", "full"): Settings(*_ADAM, 6000, *_ROUND, 0.001, 0.01, 3, 0, 3),
    ("table_3", "paper"): Settings(*_SGD, 200000, 1e-5, 1e-3, 0.001, 0.01, 10, 0),
}


def settings(table: str, preset: str, model: str) -> Settings:
    """Of a row, whose rates may be its own."""
    found = PRESETS[table, preset]
    if (table, preset, model) == ("table_1", "full", "IC-STN-6"):
        return found._replace(rate_predictor=1e-5, clip=1.0)
    if table == "table_2" and preset in ("quick", "full") and model == "CNN(a)":
        return found._replace(rate_classifier=1e-3)
    if (table, preset) == ("table_2", "full") and "STN" in model and model.endswith("(b)"):
        return found._replace(rate_predictor=1e-4, rate_classifier=5e-3)
    return found
