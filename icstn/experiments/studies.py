"""Studies: the runs that the book's results call for, in the order of their value.

A study names runs; what has a Record is done, and the rest can be trained by one command, on any number of
machines, in any order, and stopped at any time: ``icstn study image-side``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from icstn.experiments.experiment import EXPERIMENTS
from icstn.experiments.paper import SIGMA_OF_THE_CODE
from icstn.experiments.recipes import RECIPES, cells
from icstn.experiments.spec import RunSpec, Spec, SpecError
from icstn.warps import FAMILIES

SIX, FIVE, THREE, TWO, ONE = range(6), range(5), range(3), range(2), range(1)

#: Bound on the predictor's gradient, under which an explicit inverse trains as it does without one.
BOUND = 1.0


@dataclass(frozen=True)
class Study:
    """Some runs with one purpose.

    Attributes:
        name: for the command line.
        purpose: what they are for.
        specs: the runs.
    """

    name: str
    purpose: str
    specs: tuple[RunSpec, ...]


def _full(table: str, seeds: Iterable[int], models: Sequence[str] | None = None, **own: Any) -> list[RunSpec]:
    return cells(table, "full", seeds, models, **own)


def _composed(table: str) -> list[str]:
    return [model for model in EXPERIMENTS[table].rows if "C-STN" in model or "c-STN" in model]


def shared_stack(model: str) -> str:
    """Architecture of four STNs in a row that share the predictor of ``STN(a)`` or ``STN(b)``."""
    return EXPERIMENTS["table_2"].rows[model].replace("]×1", "]×4")


def smaller_family(model: str, warp: str) -> str:
    """Architecture of a row of Table 2 whose predictor ends in the parameters of another family of warps."""
    return EXPERIMENTS["table_2"].rows[model].replace("FC(8)]", f"FC({FAMILIES[warp].dim})]")


def _shared_stn() -> list[RunSpec]:
    models = ("STN(a)", "STN(b)")
    return [s for m in models for s in _full("table_2", THREE, [m], architecture=shared_stack(m))]


#: Table, STN and c-STN-1, whose recipes differ by the search.
AT_SAME_RATES = (
    ("table_2", "STN(a)", "c-STN-1(a)"),
    ("table_2", "STN(b)", "c-STN-1(b)"),
    ("table_3", "STN", "c-STN-1"),
)


def rates(table: str, model: str) -> dict[str, float]:
    """Initial learning rates of a row at ``full``."""
    (spec,) = _full(table, ONE, [model])
    assert isinstance(spec, Spec)
    return {"rate_classifier": spec.rate_classifier, "rate_predictor": spec.rate_predictor}


def _same_rates() -> list[RunSpec]:
    seeds = {"table_2": FIVE, "table_3": THREE}
    return [s for t, stn, other in AT_SAME_RATES for s in _full(t, seeds[t], [stn], **rates(t, other))]


def _families() -> list[RunSpec]:
    model, smaller = "IC-STN-4(b)", [name for name in FAMILIES if name != "homography"]
    return [
        spec
        for name in smaller
        for spec in _full("table_2", THREE, [model], warp=name, architecture=smaller_family(model, name))
    ]


#: How many times the preset's length a longer training has.
LONGER = 4

#: Rows whose error is above the paper's, and the iterations of their longer training.
LENGTHENED = {
    (table, model): LONGER * RECIPES[table, "full"]["iterations"]
    for table, model in (("table_2", "CNN(a)"), ("table_3", "CNN"), ("table_3", "IC-STN-4"))
}


def _longer() -> list[RunSpec]:
    return [
        spec
        for (table, model), steps in LENGTHENED.items()
        for spec in _full(table, ONE if model == "IC-STN-4" else THREE, [model], iterations=steps)
    ]


def _paper() -> list[RunSpec]:
    block_b = [model for model in EXPERIMENTS["table_2"].rows if model.endswith("(b)")]
    block_a = ["CNN(a)", "STN(a)", "c-STN-1(a)", "IC-STN-4(a)"]
    planar = cells("table_1", "paper", ONE, ["c-STN-1", "IC-STN-2", "IC-STN-4"])
    return [
        *cells("table_2", "paper", ONE, block_b + block_a),
        *(spec for spec in planar if spec.sigma in (2.5, 10.0)),
    ]


def _study(name: str, purpose: str, *runs: Iterable[RunSpec]) -> Study:
    return Study(name, purpose, tuple(spec for some in runs for spec in some))


#: By name, the most valuable first.
STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        _study("table-1", "Table 1 with three seeds in each cell", _full("table_1", THREE)),
        _study("table-2", "Table 2 with five seeds in each cell", _full("table_2", FIVE)),
        _study(
            "image-side",
            "The same networks composed on the side that the paper prints",
            _full("table_2", THREE, _composed("table_2"), side="image"),
            _full("table_1", THREE, _composed("table_1"), side="image"),
        ),
        _study(
            "image-floor",
            "What one linear step can at most reach on the side that the paper prints",
            _full("baselines", ONE, ["best linear step"], side="image"),
        ),
        _study("table-3", "Table 3 with three seeds in each cell", _full("table_3", THREE)),
        _study(
            "cascades",
            "Cascades learned together (Sec. 2.2), an ordinary recurrent network of that size (Sec. 5.1)",
            _full("cascades", THREE),
        ),
        _study(
            "tolerance",
            "What pooling, distorted training digits and size give a plain network (Sec. 1)",
            _full("tolerance", THREE),
            _full("tolerance", (3, 4), ["CNN-unpooled"]),  # three end at 12, 25 and 89 %
        ),
        _study(
            "inverse",
            "The inverse of the predicted warp computed, not learned",
            _full("table_2", SIX, ["IC-STN-4(b)"], invert=True),
            *(_full("table_2", THREE, ["IC-STN-4(b)"], clip=BOUND, invert=x) for x in (False, True)),
            _full("table_2", THREE, ["IC-STN-4(a)"], invert=True),
        ),
        _study(
            "shared-stn",
            "Reuse without passing on the warp: four STNs in a row that share one predictor",
            _shared_stn(),
        ),
        _study("same-rates", "Spatial Transformers at the learning rates of c-STN-1", _same_rates()),
        _study("families", "Smaller families of warps, of the noise and of the predictor", _families()),
        _study(
            "sign-noise",
            "Signs under the noise of the authors' released code, 4.5 px, not the text's 3.5",
            _full("table_3", TWO, ["IC-STN-4"], sigma=SIGMA_OF_THE_CODE),
        ),
        _study(
            "resolution",
            "Signs of fewer pixels, 16 and 24 a side",
            *(_full("table_3", ONE, ["IC-STN-2"], resolution=side) for side in (16, 24)),
        ),
        _study("length", f"Training {LONGER} times as long where the error is above the paper's", _longer()),
        _study("paper", "The paper's optimizer, rates and length, to the letter", _paper()),
    )
}


def study(name: str) -> Study:
    """The study of that name.

    Raises:
        SpecError: there is none; the message lists what there is.
    """
    if name not in STUDIES:
        raise SpecError(f"there is no study {name!r}: choose from {', '.join(STUDIES)}")
    return STUDIES[name]
