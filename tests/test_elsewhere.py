"""Elsewhere than in training: each error again by the plain route, a model that was built for it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from test_measurements import DATA, classification, handing_out, made, without_each

from icstn.evidence import elsewhere, measurements
from icstn.evidence.alignment import trained
from icstn.evidence.elsewhere import MOST, NOISE, by_operations, under_noise
from icstn.evidence.measurements import measure, to_measure
from icstn.experiments import DataOptions, build_model, cells, make_task
from icstn.experiments.classification import Classification


@pytest.mark.parametrize(("table", "model"), [("table_2", "CNN(b)"), ("table_3", "IC-STN-2")])
def test_under_other_noise(table: str, model: str) -> None:
    task = classification(table, model)
    network = trained(made(task, 0.1), task.frame, task.channels)
    for sigma in NOISE[table]:
        spec = replace(task.spec, sigma=sigma, test_draws=1, test_items=0)
        anew = Classification(spec, task.train, task.test, task.frame, task.device, task.standardize)
        found = under_noise(task, network, sigma)
        assert found.tolist() == (anew.evaluate(network).outcomes[0] * 100.0).tolist()
        assert 0 < found.mean() < 100
    assert task.spec.sigma == 3.5


def test_under_other_noise_in_the_plane() -> None:
    (spec,) = cells("table_1", "quick", [0], ["IC-STN-2"], sigma=5.0, test_items=700)
    task = make_task(spec, DataOptions(), "cpu")
    network = trained(made(task, 1e-4), task.frame, task.channels)
    seen = [under_noise(task, network, sigma) for sigma in NOISE["table_1"]]
    for sigma, found in zip(NOISE["table_1"], seen, strict=True):
        other = make_task(replace(spec, sigma=sigma), DataOptions(), "cpu")
        assert found.numpy() == pytest.approx(other.evaluate(network).outcomes[0].numpy(), rel=1e-4)
    assert all(a.mean() < b.mean() for a, b in pairwise(seen))


def test_after_more_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    task = classification("table_2", "IC-STN-2(b)")
    monkeypatch.setattr(
        elsewhere, "CHUNK", len(task.test.labels) // 2 - 1
    )  # three batches, the last a small one
    record = made(task, 0.1)
    found = by_operations(task, trained(record, task.frame, task.channels))
    assert found.shape == (MOST + 1, len(task.test.labels))
    for n in range(1, MOST + 1):
        spec = replace(task.spec, architecture=task.spec.architecture.replace("×2", f"×{n}"), test_draws=1)
        deeper = build_model(spec, task.frame, task.channels).eval()
        deeper.load_state_dict(record.weights)
        anew = Classification(spec, task.train, task.test, task.frame, task.device, False)
        assert found[n].tolist() == (anew.evaluate(deeper).outcomes[0] * 100.0).tolist()
    assert len({tuple(row) for row in found.tolist()}) > 2
    with pytest.raises(ValueError, match="only an IC-STN"):
        by_operations(task, trained(made(classification("table_2", "STN(b)")), task.frame, task.channels))


def test_measured_at_the_presets_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    task = classification("table_2", "IC-STN-4(b)")
    (task.spec,) = cells("table_2", "full", [0], ["IC-STN-4(b)"])
    monkeypatch.setattr(measurements, "make_task", handing_out(task))
    record = made(task, 0.1)
    found, network = measure(record, DATA), trained(record, task.frame, task.channels)
    wanted = {f"error_at_{sigma:g}": under_noise(task, network, sigma) for sigma in NOISE["table_2"]}
    wanted |= {f"error_after_{n}": errors for n, errors in enumerate(by_operations(task, network))}
    assert set(found.measures) == set(wanted)
    for name, errors in wanted.items():
        values = without_each(errors.numpy(), lambda x: float(x.mean()))
        assert [found[name].value, *found[name].left_out] == pytest.approx(values, rel=1e-5), name
    assert found["error_after_4"].value == found["error_at_3.5"].value
    key = record.spec.key
    assert to_measure([record], {key: found}) == []
    assert to_measure([record], {}) == [record]
    fewer = replace(found, measures={k: v for k, v in found.measures.items() if k != "error_at_7"})
    assert to_measure([record], {key: fewer}) == [record]
    quick = replace(record, spec=cells("table_2", "quick", [0], ["IC-STN-4(b)"])[0])
    assert to_measure([quick, replace(record, status="diverged")], {}) == []
