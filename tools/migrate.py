"""Bring a folder of Records of schema 1 to schema 2: new names, and what became of each test item.

    python -m tools.migrate FOLDER [--data DATA]

Schema 1 kept the test error alone, described classical methods with the fields of a trained network, and
named a run after all its fields, so that a new field would have orphaned every Record. Each model is tested
again with its stored weights; a classical method is fitted again. Metrics, curve and provenance stay as they
were; the provenance gets the former name (which ``icstn trace`` still understands) and the test error that
this second test found, which differs from the first where another processor rounds another way.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch

from icstn.experiments import baselines
from icstn.experiments.execution import DataOptions
from icstn.experiments.planar import Planar
from icstn.experiments.provenance import commit
from icstn.experiments.records import Record, Records
from icstn.experiments.spec import BaselineSpec, RunSpec, spec_from_dict
from icstn.experiments.task import Evaluation
from icstn.experiments.tasks import make_task

#: Relative difference of the two tests up to which they are the same.
AGREEMENT = 1e-3

#: Fields of schema 1 that a classical method has under another name now.
RENAMED = {"iterations": "steps", "batch": "samples"}


def new_spec(old: dict[str, Any]) -> RunSpec:
    """The spec of schema 2."""
    if old["experiment"] != "baselines":
        return spec_from_dict(old)
    kept = ("experiment", "model", "preset", "seed", "sigma", "warp", "image", "test_items", "test_draws")
    return spec_from_dict({name: old[name] for name in kept} | {new: old[o] for o, new in RENAMED.items()})


def retested(spec: RunSpec, weights: dict, data: DataOptions) -> Evaluation:
    """The test once more, with the stored weights (a classical method is fitted again)."""
    task = make_task(spec, data, "cpu")
    if isinstance(spec, BaselineSpec):
        assert isinstance(task, Planar)
        return baselines.evaluate(baselines.METHODS[spec.model](spec, task), task)
    model = task.model()
    model.load_state_dict(weights)
    return task.evaluate(model.eval())


def migrate(folder: Path, data: DataOptions) -> str:
    """Replace one Record by its successor; returns what happened in a line."""
    content = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    if content["schema"] != 1:
        return f"{folder.name}: has schema {content['schema']} already"
    raw = (folder / "weights.safetensors").read_bytes()
    if hashlib.sha256(raw).hexdigest() != content["weights_sha256"]:
        raise ValueError(f"{folder}/weights.safetensors is damaged")
    spec, weights = new_spec(content["spec"]), safetensors.torch.load(raw)
    facts = content["provenance"] | {"former_key": folder.name}
    record = Record(spec, content["status"], content["metrics"], content["curve"], facts, weights)
    if record.status == "finished":
        again = retested(spec, weights, data)
        facts["outcomes"] = {"test_error": again.metrics["test_error"], "commit": commit()}
        if math.isclose(again.metrics["test_error"], record.test_error, rel_tol=AGREEMENT):
            record = replace(record, outcomes=again.outcomes)
    Records(folder.parent).save(record)
    shutil.rmtree(folder)
    found = facts.get("outcomes", {}).get("test_error", float("nan"))
    return f"{spec.key}: {record.test_error:.6g}, again {found:.6g}"


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", help="folder of the data sets")
    options = parser.parse_args(argv)
    for path in sorted(options.folder.glob("*/record.json")):
        print(migrate(path.parent, DataOptions.parse(options.data)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
