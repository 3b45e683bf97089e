"""Specs: every cell of Tables 1-3, and of what stands beside Table 1, as a frozen, serializable value."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from icstn.experiments import paper

#: What is run: the tables, and classical methods on Table 1's trials (which the paper does not do).
EXPERIMENTS = ("table_1", "table_2", "table_3", "baselines")

#: What each preset is for.
PRESETS = {
    "smoke": "seconds: checks that everything runs; the numbers mean nothing",
    "quick": "minutes on two CPU cores: the paper's order of models, not its last digit",
    "full": "our best recipe: publishable numbers",
    "paper": "the paper's text verbatim where it speaks: SGD, constant rates, 200K iterations",
}


class SpecError(ValueError):
    """A spec that does not exist; the message lists what does."""


@dataclass(frozen=True)
class Spec:
    """One run: what is trained, on what, and how. Equal specs are equal runs.

    For the classical methods, see :mod:`icstn.experiments.baselines`, some fields have a meaning of their
    own: ``architecture`` and ``optimizer`` are words, ``iterations`` is the number of steps or stages, and
    ``batch`` how many perturbations each stage learns from (0 for a method that does not learn).

    Attributes:
        experiment: ``table_1`` (planar alignment), ``table_2`` (MNIST), ``table_3`` (GTSRB) or
            ``baselines`` (classical methods on the trials of ``table_1``).
        model: the paper's name of the row, such as ``IC-STN-4(a)``.
        preset: one of :data:`PRESETS`.
        seed: of the initial weights and of the training draws.
        architecture: in the notation of :mod:`icstn.networks`.
        sigma: noise in pixels on the corners, and of the translation.
        warp, side, invert: see :class:`icstn.transformers.ICSTN`.
        image: photograph of the planar experiment, empty otherwise.
        iterations, batch: training length.
        optimizer: ``adam`` or ``sgd``.
        schedule: ``constant`` or ``cosine`` (to zero at the end).
        rate_classifier, rate_predictor: initial learning rates.
        std_classifier, std_predictor: of the initial weights; the predictor's last layer starts at zero.
        clip: bound on the norm of the predictor's gradient, 0 for none.
        test_items, test_draws: test items (0 for all) and perturbations drawn for each.
        restarts: how often a diverged run may start again from its last good checkpoint.
    """

    experiment: str
    model: str
    preset: str
    seed: int
    architecture: str
    sigma: float
    warp: str
    side: str = "image"
    invert: bool = False
    image: str = ""
    iterations: int = 1000
    batch: int = 100
    optimizer: str = "adam"
    schedule: str = "cosine"
    rate_classifier: float = 2e-3
    rate_predictor: float = 2e-4
    std_classifier: float = 0.1
    std_predictor: float = 0.1
    clip: float = 0.0
    test_items: int = 0
    test_draws: int = 1
    restarts: int = 0

    @property
    def kind(self) -> str:
        """``CNN``, ``STN``, ``c-STN`` or ``IC-STN``."""
        return self.model.split("(")[0].rstrip("-0123456789")

    @property
    def block(self) -> str:
        """The block of the table: ``a``, ``b`` or empty."""
        return self.model[self.model.find("(") + 1] if "(" in self.model else ""

    @property
    def digest(self) -> str:
        """SHA-256 of the spec's canonical JSON."""
        return hashlib.sha256(self.json().encode()).hexdigest()

    @property
    def key(self) -> str:
        """Readable, unique name of the run, also its folder's name."""
        model = self.model.replace("(", "-").replace(")", "").lower()
        sigma = f"-sigma{self.sigma:g}" if self.experiment in ("table_1", "baselines") else ""
        return f"{self.experiment}-{model}{sigma}-{self.preset}-seed{self.seed}-{self.digest[:10]}"

    def json(self) -> str:
        """Canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Spec:
        """The inverse of ``dataclasses.asdict``.

        Raises:
            SpecError: a field is unknown or missing.
        """
        known = {f.name for f in fields(cls)}
        if set(values) - known:
            raise SpecError(f"a spec has no field {', '.join(sorted(set(values) - known))}")
        try:
            return cls(**values)
        except TypeError as error:
            raise SpecError(f"incomplete spec: {error}") from error


def cells(
    experiment: str,
    preset: str = "quick",
    seeds: Iterable[int] = (0,),
    models: Sequence[str] | None = None,
    **changes: Any,
) -> list[Spec]:
    """The Specs of a table: each model (and each σ of Table 1 and of the baselines) for each seed.

    A baseline that draws nothing has a single run, with seed 0.

    Args:
        experiment: one of :data:`EXPERIMENTS`.
        preset: one of :data:`PRESETS`.
        seeds: one run each.
        models: only these rows.
        **changes: fields of :class:`Spec` to replace, for a variation of your own.

    Raises:
        SpecError: unknown experiment, preset or model; the message lists the known ones.

    Example:
        >>> [spec.model for spec in cells("table_3", "smoke")]
        ['CNN', 'STN', 'c-STN-1', 'IC-STN-2', 'IC-STN-4']
    """
    _known("experiment", experiment, EXPERIMENTS)
    _known("preset", preset, PRESETS)
    rows = list(_ROWS[experiment])
    for model in models or ():
        _known("model", model, rows)
    wanted = [m for m in rows if models is None or m in models]
    sigmas = paper.SIGMAS if experiment in ("table_1", "baselines") else (3.5,)
    made = (_cell(experiment, m, preset, s, x) for s in seeds for m in wanted for x in sigmas)
    return list(dict.fromkeys(_changed(spec, changes) for spec in made))


def cost(spec: Spec) -> float:
    """Rough work of a run, for putting long runs first: only the order of the values means anything."""
    per_step = _COST[spec.experiment].get(spec.model, 1.0)
    return per_step * spec.iterations


def learning_rate(spec: Spec, base: float, step: int) -> float:
    """Rate at a step: ``base``, or half a cosine from ``base`` to 0 over the run."""
    if spec.schedule == "constant":
        return base
    return base * 0.5 * (1 + math.cos(math.pi * step / spec.iterations))


def _planar(model: str) -> str:
    return f"[FC(6)]×{model.rsplit('-', 1)[1]}"


#: Classical methods that stand beside Table 1, and what each does, in a word.
BASELINES: dict[str, str] = {
    "LK": "forwards additive, Gauss-Newton",
    "IC-LK": "inverse compositional, Gauss-Newton",
    "coarse-to-fine": "second-order steps on an image pyramid, IC on the finest level",
    "SDM": "a cascade of linear regressors on pixels",
    "conditional-LK": "a cascade of one gradient a pixel",
}

_ROWS: dict[str, dict[str, str]] = {
    "table_1": {m: _planar(m) for m in paper.TABLE_1},
    "table_2": {m: row.architecture for m, row in paper.TABLE_2.items()},
    "table_3": {m: row.architecture for m, row in paper.TABLE_3.items()},
    "baselines": BASELINES,
}

_TASK: dict[str, dict[str, Any]] = {
    "table_1": {"warp": "affine", "image": "chelsea", "std_predictor": 0.0},
    "table_2": {"warp": "homography", "std_classifier": 0.1, "std_predictor": 0.1},
    "table_3": {"warp": "homography", "std_classifier": 0.01, "std_predictor": 0.001},
    "baselines": {
        "warp": "affine",
        "image": "chelsea",
        "side": "template",
        "schedule": "constant",
        **dict.fromkeys(("rate_classifier", "rate_predictor", "std_classifier", "std_predictor"), 0.0),
    },
}

_BASELINES: dict[str, dict[str, Any]] = {
    "LK": {"optimizer": "Gauss-Newton", "iterations": 50, "batch": 0},
    "IC-LK": {"optimizer": "Gauss-Newton", "iterations": 50, "batch": 0},
    "coarse-to-fine": {"optimizer": "Gauss-Newton", "iterations": 15, "batch": 0},
    "SDM": {"optimizer": "ridge regression", "iterations": 6},
    "conditional-LK": {"optimizer": "L-BFGS", "iterations": 6},
}

_ADAM = {"optimizer": "adam", "schedule": "cosine", "side": "template"}
_SGD = {"optimizer": "sgd", "schedule": "constant", "side": "image"}

_RECIPES: dict[tuple[str, str], dict[str, Any]] = {
    ("table_1", "smoke"): _ADAM | {"iterations": 100, "test_items": 100, "rate_predictor": 3e-5},
    ("table_1", "quick"): _ADAM | {"iterations": 1000, "test_items": 2000, "rate_predictor": 3e-5},
    ("table_1", "full"): _ADAM
    | {"iterations": 10_000, "test_items": 10_000, "rate_predictor": 3e-5, "restarts": 3},
    ("table_1", "paper"): _SGD | {"iterations": 200_000, "test_items": 10_000, "rate_predictor": 1e-4},
    ("table_2", "smoke"): _ADAM | {"iterations": 20, "test_items": 500},
    ("table_2", "quick"): _ADAM | {"iterations": 3000},
    ("table_2", "full"): _ADAM | {"iterations": 20_000, "test_draws": 10, "restarts": 3},
    ("table_2", "paper"): _SGD
    | {"iterations": 200_000, "test_draws": 10, "rate_classifier": 1e-2, "rate_predictor": 1e-4},
    ("table_3", "smoke"): _ADAM | {"iterations": 10, "test_items": 200},
    ("table_3", "quick"): _ADAM | {"iterations": 600},
    ("table_3", "full"): _ADAM | {"iterations": 6000, "test_draws": 3, "restarts": 3},
    ("table_3", "paper"): _SGD
    | {"iterations": 200_000, "test_draws": 10, "rate_classifier": 1e-3, "rate_predictor": 1e-5},
    ("baselines", "smoke"): {"batch": 300, "test_items": 100},
    ("baselines", "quick"): {"batch": 2000, "test_items": 2000},
    ("baselines", "full"): {"batch": 20_000, "test_items": 10_000},
    ("baselines", "paper"): {"batch": 20_000, "test_items": 10_000},
}

#: Rows that want other steps than their table's recipe: linear predictors smaller ones (through six warp
#: operations also bounded ones: at the recipe's rate a long run diverges), and the CNN of block (a) such
#: that it leaves the plateau that its initial weights lie on, whatever the rounding.
_EXCEPTIONS: dict[tuple[str, str], dict[str, dict[str, Any]]] = {
    ("table_1", "full"): {"IC-STN-6": {"rate_predictor": 1e-5, "clip": 1.0}},
    ("table_2", "quick"): {"CNN(a)": {"rate_classifier": 1e-3}},
    ("table_2", "full"): {"CNN(a)": {"rate_classifier": 1e-3}}
    | {
        m: {"rate_predictor": 1e-4, "rate_classifier": 5e-3}
        for m in paper.TABLE_2
        if "STN" in m and "(b)" in m
    },
}

_COST: dict[str, dict[str, float]] = {
    "table_1": {m: 0.5 * int(m.rsplit("-", 1)[1]) for m in paper.TABLE_1},
    "table_2": {
        "CNN(a)": 5,
        "STN(a)": 15,
        "c-STN-1(a)": 15,
        "c-STN-2(a)": 12,
        "c-STN-4(a)": 9,
        "IC-STN-2(a)": 28,
        "IC-STN-4(a)": 54,
        "CNN(b)": 8,
        "STN(b)": 5,
        "c-STN-1(b)": 5,
        "IC-STN-2(b)": 7,
        "IC-STN-4(b)": 9,
    },
    "table_3": {"CNN": 40, "STN": 100, "c-STN-1": 100, "IC-STN-2": 165, "IC-STN-4": 300},
    "baselines": {"LK": 10, "IC-LK": 5, "coarse-to-fine": 10, "SDM": 100, "conditional-LK": 60},
}


def _cell(experiment: str, model: str, preset: str, seed: int, sigma: float) -> Spec:
    recipe = _TASK[experiment] | _RECIPES[experiment, preset]
    recipe |= _EXCEPTIONS.get((experiment, preset), {}).get(model, {})
    if experiment == "baselines":
        recipe |= _BASELINES[model]
    return Spec(
        experiment=experiment,
        model=model,
        preset=preset,
        seed=int(seed) if recipe.get("batch") != 0 else 0,
        architecture=_ROWS[experiment][model],
        sigma=sigma,
        **recipe,
    )


def _changed(spec: Spec, changes: dict[str, Any]) -> Spec:
    for name, value in changes.items():
        old = getattr(spec, name, None)
        if old is None:
            raise SpecError(f"a spec has no field {name!r}: it has {', '.join(f.name for f in fields(Spec))}")
        if type(value) is not type(old) and not (isinstance(old, float) and isinstance(value, int)):
            raise SpecError(f"{name} is a {type(old).__name__} such as {old!r}, not {value!r}")
        changes = {**changes, name: type(old)(value)}
    return replace(spec, **changes)


def _known(what: str, value: str, allowed: Iterable[str]) -> None:
    if value not in (known := list(allowed)):
        raise SpecError(f"unknown {what} {value!r}: choose from {', '.join(known)}")
