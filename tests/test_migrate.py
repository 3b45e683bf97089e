"""Records of schema 1 become Records of schema 2: same numbers, new name, and what became of each item."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from test_experiments_running import planar

from icstn.evidence.trace import explain
from icstn.experiments import BASELINES, DataOptions, Execution, Records, cells, training
from icstn.experiments.spec import BaselineSpec
from tools.migrate import migrate, new_spec

#: Fields that every spec of schema 1 had, with the defaults of its day.
OLD = {
    "image": "", "side": "image", "invert": False, "iterations": 1000, "batch": 100, "optimizer": "adam",
    "schedule": "cosine", "rate_classifier": 2e-3, "rate_predictor": 2e-4, "std_classifier": 0.1,
    "std_predictor": 0.1, "clip": 0.0, "test_items": 0, "test_draws": 1, "restarts": 0,
}  # fmt: skip


def write_old(folder: Path, spec: dict, metrics: dict, weights: dict[str, torch.Tensor]) -> Path:
    """A Record as schema 1 wrote it."""
    raw = safetensors.torch.save(weights)
    content = {
        "schema": 1, "spec": spec, "status": "finished", "metrics": metrics, "curve": {"step": [50.0]},
        "provenance": {"seed": 0, "commit": "abc", "data": {"stand_in": False}},
        "weights_sha256": hashlib.sha256(raw).hexdigest(),
    }  # fmt: skip
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(raw)
    (folder / "record.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """A run of today, whose numbers an old Record may have."""
    return training.train(
        planar(), Records(tmp_path_factory.mktemp("today")), Execution(device="cpu", progress=False)
    )


def old_spec() -> dict:
    spec = planar()
    return OLD | {name: getattr(spec, name) for name in spec.__dataclass_fields__ if name in OLD} | {
        "experiment": "table_1", "model": "IC-STN-2", "preset": "smoke", "seed": 0, "sigma": 2.5,
        "warp": "affine", "architecture": "[FC(6)]×2",
    }  # fmt: skip


def test_numbers_stay_and_outcomes_come(tmp_path: Path, trained) -> None:
    old = write_old(tmp_path / "table_1-old-0123456789", old_spec(), trained.metrics, trained.weights)
    line = migrate(old, DataOptions())
    (found,) = Records(tmp_path)
    assert not old.exists()
    assert found.spec == trained.spec
    assert found.spec.key in line
    assert found.metrics == trained.metrics
    assert found.provenance["commit"] == "abc"
    assert found.outcomes.equal(trained.outcomes)
    assert found.provenance["outcomes"]["test_error"] == trained.test_error
    assert all(found.weights[k].equal(w) for k, w in trained.weights.items())
    assert found.spec.key in explain("table_1-old-0123456789", [found])
    assert "has schema 2 already" in migrate(tmp_path / found.spec.key, DataOptions())


def test_a_number_that_does_not_come_again_gets_no_outcomes(tmp_path: Path, trained) -> None:
    metrics = trained.metrics | {"test_error": trained.test_error * 1.01}
    migrate(write_old(tmp_path / "old", old_spec(), metrics, trained.weights), DataOptions())
    (found,) = Records(tmp_path)
    assert found.test_error == metrics["test_error"]
    assert found.outcomes.numel() == 0
    assert found.provenance["outcomes"]["test_error"] == trained.test_error


def test_damage_is_not_carried_over(tmp_path: Path, trained) -> None:
    old = write_old(tmp_path / "old", old_spec(), trained.metrics, trained.weights)
    (old / "weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"weights\.safetensors is damaged"):
        migrate(old, DataOptions())
    assert old.exists()


@pytest.mark.parametrize("model", BASELINES)
def test_a_classical_method_gets_fields_of_its_own(model: str) -> None:
    (wanted, *_) = cells("baselines", "quick", models=[model])
    assert isinstance(wanted, BaselineSpec)
    spec = OLD | {
        "experiment": "baselines", "model": model, "preset": "quick", "seed": 0, "sigma": 2.5,
        "warp": "affine", "image": "chelsea", "architecture": "words", "optimizer": "ridge",
        "side": "template",
        "iterations": wanted.steps, "batch": wanted.samples, "test_items": 2000,
    }  # fmt: skip
    assert new_spec(spec) == wanted
