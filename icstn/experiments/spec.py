"""Specs: what a run is, as a frozen, checked, serializable value. Equal Specs are equal runs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, TypeVar

from icstn.experiments.experiment import EXPERIMENTS, FOLDER, Experiment, folder_experiment
from icstn.warps import FAMILIES

#: What each preset is for.
PRESETS = {
    "smoke": "seconds: checks that everything runs; the numbers mean nothing",
    "quick": "minutes on two CPU cores: the paper's order of models, not its last digit",
    "full": "our best recipe: publishable numbers",
    "paper": "the paper's text verbatim where it speaks: SGD, constant rates, 200K iterations",
}

OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("constant", "cosine")
SIDES = ("image", "template")
SPLITS = ("test", "validation")
SUPERVISIONS = ("last", "each")

#: Largest seed, and largest number of anything that is counted.
MOST_SEED, MOST = 2**63 - 1, 2**31 - 1


_Kind = TypeVar("_Kind", bound="RunSpec")


class SpecError(ValueError):
    """A spec that does not exist; the message lists what does."""


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """What all runs have in common.

    A run's identity, :attr:`digest`, is made of the fields that differ from their defaults, so that a new
    field with a default leaves every older Record where it is. For the same reason the default of a field
    never changes once a Record has been published.

    Attributes:
        experiment: one of :data:`icstn.experiments.experiment.EXPERIMENTS`.
        model: the row of the experiment's table, such as ``IC-STN-4(a)``.
        preset: one of :data:`PRESETS`.
        seed: of the training draws, and of the initial weights if there are any.
        sigma: noise in pixels on the corners, and of the translation.
        warp: family of the warps.
        image: photograph of the planar experiment, empty otherwise.
        test_items, test_draws: test items (0 for all) and perturbations drawn for each.

    Raises:
        SpecError: a value is out of its range; the message names the field, the value and the range.
    """

    experiment: str
    model: str
    preset: str
    seed: int
    sigma: float
    warp: str
    image: str = ""
    test_items: int = 0
    test_draws: int = 1

    def __post_init__(self) -> None:
        for f in fields(self):
            _coerce(self, f.name, str(f.type))
        self._one_of("experiment", self.experiments())
        self._one_of("preset", PRESETS)
        self._one_of("warp", FAMILIES)
        self._at_least(0, "seed", "sigma", "test_items")
        self._at_least(1, "test_draws")
        self._at_most(MOST_SEED, "seed")
        self._at_most(MOST, "test_items", "test_draws")

    def _one_of(self, name: str, allowed: Iterable[str]) -> None:
        if getattr(self, name) not in (known := list(allowed)):
            raise SpecError(f"unknown {name} {getattr(self, name)!r}: choose from {', '.join(known)}")

    def _at_least(self, least: float, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= least):
                finite = "" if math.isfinite(value) else "finite and "
                raise SpecError(f"{name} is {finite}at least {least:g}, not {value!r}")

    def _at_most(self, most: int, *names: str) -> None:
        for name in names:
            if (value := getattr(self, name)) > most:
                raise SpecError(f"{name} is at most {most}, not {value!r}")

    @classmethod
    def experiments(cls) -> Iterable[str]:
        """Names of the experiments that such a spec can be of."""
        return EXPERIMENTS

    @property
    def about(self) -> Experiment:
        """The experiment."""
        return EXPERIMENTS[self.experiment]

    @property
    def kind(self) -> str:
        """The model without what tells it from others of its kind: ``CNN``, ``STN``, ``c-STN``, ``IC-STN``,
        ``RNN`` or a classical method."""
        if self.model.startswith("CNN"):
            return "CNN"
        return self.model.split("(")[0].rstrip("-0123456789")

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the fields that differ from their defaults."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        told = {f.name: own[f.name] for f in fields(self) if f.default is MISSING or own[f.name] != f.default}
        return hashlib.sha256(_canonical(told).encode()).hexdigest()

    @property
    def key(self) -> str:
        """Readable, unique name of the run, also its folder's name."""
        model = self.model.replace("(", "-").replace(")", "").replace(" ", "-").lower()
        sigma = f"-sigma{self.sigma:g}" if self.about.by_sigma else ""
        return f"{self.experiment}-{model}{sigma}-{self.preset}-seed{self.seed}-{self.digest[:10]}"

    def json(self) -> str:
        """Canonical JSON of all fields."""
        return _canonical(asdict(self))

    @classmethod
    def from_dict(cls: type[_Kind], values: Mapping[str, Any]) -> _Kind:
        """The inverse of ``dataclasses.asdict``; a field that is not there has its default.

        Raises:
            SpecError: a field is unknown, missing or out of its range.
        """
        known = {f.name for f in fields(cls)}
        if set(values) - known:
            raise SpecError(f"a spec has no field {', '.join(sorted(set(values) - known))}")
        try:
            return cls(**values)
        except TypeError as error:
            raise SpecError(f"incomplete spec: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Spec(RunSpec):
    """The training of one network.

    Attributes:
        architecture: in the notation of :mod:`icstn.networks`.
        side, invert: see :class:`icstn.transformers.ICSTN`.
        iterations, batch: training length.
        optimizer: one of :data:`OPTIMIZERS`.
        schedule: ``constant`` or ``cosine`` (to zero at the end).
        rate_classifier, rate_predictor: initial learning rates.
        std_classifier, std_predictor: of the initial weights; the predictor's last layer starts at zero.
        clip: bound on the norm of the predictor's gradient, 0 for none.
        restarts: how often a diverged run may start again from its last good checkpoint.
        tested_on: ``test``, or ``validation``: the run then trains without the validation set (planar
            alignment: its draws are others) and is tested on it, so that recipes can be chosen.
        weight_decay: decoupled weight decay, of Adam only.
        average: decay of an exponential moving average of the weights a step, which is what is tested and
            kept; 0 for the last weights.
        appearance: strength of :mod:`icstn.experiments.augmentation`, 0 for none.
        resolution: side in pixels that images are reduced to and brought back from; 0 for as they are.
        sigma_trained: noise of the training draws in pixels; -1 for that of the test, ``sigma``.
        supervision: of pairs, the warp whose error is the loss: the ``last``, or ``each``, later ones more.
    """

    architecture: str
    side: str = "image"
    invert: bool = False
    iterations: int = 1000
    batch: int = 100
    optimizer: str = "adam"
    schedule: str = "cosine"
    rate_classifier: float = 2e-3
    rate_predictor: float = 2e-4
    std_classifier: float = 0.1
    std_predictor: float = 0.1
    clip: float = 0.0
    restarts: int = 0
    tested_on: str = "test"
    weight_decay: float = 0.0
    average: float = 0.0
    appearance: float = 0.0
    sigma_trained: float = -1.0
    resolution: int = 0
    supervision: str = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._one_of("side", SIDES)
        self._one_of("optimizer", OPTIMIZERS)
        self._one_of("schedule", SCHEDULES)
        self._at_least(1, "iterations", "batch")
        self._at_most(MOST, "iterations", "batch", "restarts")
        rates = ("rate_classifier", "rate_predictor", "std_classifier", "std_predictor")
        self._at_least(0, *rates, "clip", "restarts", "weight_decay", "average", "appearance", "resolution")
        self._one_of("tested_on", SPLITS)
        if self.sigma_trained != -1:
            self._at_least(0, "sigma_trained")
        self._one_of("supervision", SUPERVISIONS)
        if self.average >= 1:
            raise SpecError(f"average is a decay below 1, not {self.average!r}")
        if self.weight_decay and self.optimizer != "adam":
            raise SpecError("weight_decay is Adam's; this spec's optimizer is sgd")

    @property
    def block(self) -> str:
        """The block of the table: ``a``, ``b`` or empty."""
        return self.model[self.model.find("(") + 1] if "(" in self.model else ""


@dataclass(frozen=True, kw_only=True)
class FolderSpec(Spec):
    """The training of one network on a folder of one's own images, see :mod:`icstn.experiments.folders`.

    The images are told by what they show, not by where they lie: the run looks for them in the data folder of
    its :class:`icstn.experiments.Execution`, and refuses others.

    Attributes:
        fingerprint: of all images at that size and their labels, see ``icstn.datasets.Dataset``.
        size: side of the images and of the template in pixels.
        gray: whether the images have one channel, not three.
    """

    fingerprint: str
    size: int
    gray: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least(2, "size")

    @classmethod
    def experiments(cls) -> Iterable[str]:
        """A folder, and no other."""
        return (FOLDER,)

    @property
    def about(self) -> Experiment:
        """An experiment of its own."""
        return folder_experiment(self.fingerprint[:8], self.sigma)

    @property
    def key(self) -> str:
        """Readable, unique name of the run, also its folder's name."""
        images = self.fingerprint[:8]
        return f"{self.experiment}-{images}-{self.model.lower()}-seed{self.seed}-{self.digest[:10]}"


@dataclass(frozen=True, kw_only=True)
class BaselineSpec(RunSpec):
    """A classical method on the trials of Table 1 or of pairs, see :mod:`icstn.experiments.baselines`.

    Attributes:
        steps: most steps of an iteration, or stages of a cascade.
        samples: perturbations that each stage of a cascade learns from; 0 for a method that does not learn.
        side: where the update of the best linear step joins, see :meth:`icstn.warps.Warp.compose`; the others
            have one of their own.
    """

    steps: int
    samples: int = 0
    side: str = "template"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._one_of("side", SIDES)
        if self.side != "template" and self.model != "best linear step":
            raise SpecError(f"only the best linear step has a side {self.side!r}, not {self.model}")
        self._at_least(1, "steps")
        self._at_least(0, "samples")
        self._at_most(MOST, "steps", "samples")


def spec_from_dict(values: Mapping[str, Any]) -> RunSpec:
    """A spec of the kind that its experiment has.

    Raises:
        SpecError: as :meth:`RunSpec.from_dict`.
    """
    if not isinstance(values, Mapping):
        raise SpecError(f"a spec is a table of fields, not a {type(values).__name__}")
    name = str(values.get("experiment"))
    if name in FolderSpec.experiments():
        return FolderSpec.from_dict(values)
    found = EXPERIMENTS.get(name)
    return (BaselineSpec if found and found.classical else Spec).from_dict(values)


def learning_rate(spec: Spec, base: float, step: int) -> float:
    """Rate at a step: ``base``, or half a cosine from ``base`` to 0 over the run."""
    if spec.schedule == "constant":
        return base
    return base * 0.5 * (1 + math.cos(math.pi * step / spec.iterations))


def _canonical(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, ensure_ascii=False)


def _coerce(spec: RunSpec, name: str, kind: str) -> None:
    """A whole number where a float is due becomes one; any other type is refused."""
    value = getattr(spec, name)
    if kind == "float" and type(value) is int:
        object.__setattr__(spec, name, float(value))
    elif type(value).__name__ != kind:
        article = "an" if kind == "int" else "a"
        raise SpecError(f"{name} is {article} {kind}, not {value!r}")
