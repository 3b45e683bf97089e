"""What a figure prints and what a claim is judged by are one number: a measure has one definition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from icstn.evidence.collection import identity, one
from icstn.evidence.curves import operations
from icstn.evidence.measurements import GROUPS, LOOKED_AT, read_measurements, to_measure
from icstn.experiments import Record, Records

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "figures" / "records"
MEASURED = read_measurements(PUBLISHED / "measurements.json")


@pytest.fixture(scope="module")
def runs() -> dict[str, Record]:
    """The published runs at ``full`` that were measured, by key."""
    return {r.spec.key: r for r in Records(PUBLISHED) if r.spec.key in MEASURED and r.spec.preset == "full"}


@pytest.mark.parametrize(
    ("figure", "experiment", "names"),
    [("figure_9", "table_2", ("within", "unexplained")), ("figure_11", "table_3", ("sharpness",))],
)
def test_a_figure_prints_what_the_ledger_judges(
    figure: str, experiment: str, names: tuple[str, ...], runs: dict[str, Record]
) -> None:
    drawn = np.load(ROOT / "figures" / "rendered" / f"{figure}.npz")
    own = [r for r in runs.values() if r.spec.experiment == experiment]
    models = {m: MEASURED[one(own, m).spec.key] for m in LOOKED_AT[experiment]}
    assert len(models) == 4
    for model, measured in models.items():
        for name in names:
            assert float(drawn[f"{model}|{name}"]) == pytest.approx(measured[name].value, rel=1e-4)
            assert float(drawn[f"initial|{name}"]) == pytest.approx(
                measured[f"initial_{name}"].value, rel=1e-4
            )


def test_measurements_belong_to_the_published_records(runs: dict[str, Record]) -> None:
    assert to_measure(Records(PUBLISHED), MEASURED) == []
    for key, run in runs.items():
        assert MEASURED[key].of == identity(run)
        assert all(len(m.left_out) == GROUPS for m in MEASURED[key].measures.values())
        if run.spec.experiment != "cascades":  # which nobody tests under other noise
            again = MEASURED[key][f"error_at_{run.spec.sigma:g}"].value
            assert again == pytest.approx(run.metrics.get("errors_by_draw", [run.test_error])[0], rel=1e-3)
        if "error_last" in MEASURED[key].measures:  # of ten times as many items, these among them
            for name, n in (("error_trained", operations(run.spec.model)), ("error_last", -1)):
                step = run.metrics["by_operations"][n]
                half = (step["interval"][1] - step["interval"][0]) / 2
                assert MEASURED[key][name].value == pytest.approx(step["corner_px"], abs=2 * half)


def test_a_record_is_the_same_however_its_metrics_are_ordered(runs: dict[str, Record]) -> None:
    run = next(iter(runs.values()))
    other = replace(run, metrics=dict(reversed(run.metrics.items())))
    assert list(other.metrics) != sorted(other.metrics)
    assert identity(other) == identity(run) != identity(replace(run, metrics=run.metrics | {"unit": "x"}))
