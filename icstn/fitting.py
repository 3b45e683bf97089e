"""From a folder of one's own images to a trained network, a Record and a report, in one call.

::

    from icstn.fitting import fit

    done = fit("my-signs", out="fit-my-signs")
    print({model: error.show() for model, error in done.findings.errors.items()})
    print(done.classifier.classify(["another.png"]))
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from icstn.datasets import Dataset, image_files, image_folder
from icstn.datasets.dataset import check_folder
from icstn.evidence.fits import FitFindings, fit_findings
from icstn.exhibits.reports import ReportFacts, fit_report
from icstn.experiments import DataOptions, Execution, FolderSpec, Record, Records, ensure, folder_specs, train
from icstn.experiments.bar import Bar
from icstn.experiments.classifiers import FittedClassifier, load_classifier, save_classifier
from icstn.experiments.tasks import fit_task
from icstn.files import StorageError, check_place, write_atomic

__all__ = ["Fit", "fit", "load_classifier"]


@dataclass(frozen=True)
class Fit:
    """What :func:`fit` leaves behind.

    Attributes:
        records: model → its Record, without and with a transformer.
        findings: what they show.
        report: the page.
        networks: model → its file, for :func:`icstn.experiments.classifiers.load_classifier`; without those
            that diverged.
    """

    records: dict[str, Record]
    findings: FitFindings
    report: Path
    networks: dict[str, Path]

    @property
    def classifier(self) -> FittedClassifier:
        """The network with the transformer, ready to be applied.

        Raises:
            StorageError: it diverged, so there is none.
        """
        model = list(self.records)[-1]
        if model not in self.networks:
            raise StorageError(f"{model} diverged: there is no network to load")
        return load_classifier(self.networks[model])

    @property
    def diverged(self) -> list[str]:
        """The models that diverged, each with its reason."""
        return [f"{m} diverged: {r.remark}" for m, r in self.records.items() if m not in self.networks]


def fit(
    folder: str | os.PathLike[str],
    network: str = "small",
    *,
    size: int = 36,
    gray: bool | None = None,
    sigma: float | None = None,
    operations: int | None = None,
    out: str | os.PathLike[str] | None = None,
    records: Records | None = None,
    execution: Execution | None = None,
    **changes: Any,
) -> Fit:
    """Train with and without a transformer on a folder of images, and write a report.

    Called again with the same arguments on the same images it goes on where it was stopped; what is finished
    is not trained again.

    Args:
        folder: with one subfolder a class, see :func:`icstn.datasets.image_folder`.
        network, sigma, operations: see :func:`icstn.experiments.folder_specs`, as for ``changes``.
        size, gray: see :func:`icstn.datasets.image_folder`.
        out: folder of ``report.html`` and the networks, ``fit-<folder>`` here by default.
        records: where Records and checkpoints are kept; the user's own by default.
        execution: device, workers, progress. By default the runs follow each other in this process. With
            other ``workers`` than 1 they have processes of their own, and a script that calls this needs
            ``if __name__ == "__main__":``.

    Raises:
        DataError: the folder has no such images; the message says what is wrong with it.
        NotationError, SpecError: the network is malformed or does not fit, or a field is out of range.
        ValueError: out lies inside the folder.
        StorageError: a file can't be written.
    """
    root = check_folder(folder)
    place = _place(root, out)
    check_place(place, "--out")
    images = image_folder(root, size, gray=gray)
    specs = folder_specs(images, network, sigma=sigma, operations=operations, **changes)
    execution = replace(execution or Execution(workers=1), data=DataOptions(str(root.resolve())))
    found = _trained(specs, records or Records(), execution)
    task = fit_task(specs[-1], images, "cpu")
    findings = fit_findings(task, *found)
    by_model = {r.spec.model: r for r in found}
    networks = {model: place / f"{model.lower()}.safetensors" for model in findings.errors}
    for model, path in networks.items():
        save_classifier(path, by_model[model], images.classes)
    held = task.test.groups
    assert held is not None
    facts = _facts(root, images, [int(i) for i in held], list(networks.values()), by_model)
    write_atomic(place / "report.html", fit_report(findings, by_model, facts))
    return Fit(by_model, findings, place / "report.html", networks)


def _place(root: Path, out: str | os.PathLike[str] | None) -> Path:
    """The folder of the results."""
    place = Path(f"fit-{root.resolve().name}" if out is None else out).expanduser()
    if place.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{place} lies inside {root}, where it would be a class: name another --out")
    return place


def _trained(specs: Sequence[FolderSpec], records: Records, execution: Execution) -> list[Record]:
    if execution.workers != 1 or execution.scheduler:
        return ensure(specs, records, execution)
    missing = [spec for spec in specs if records.find(spec) is None]
    with Bar(missing, records, execution.progress and bool(missing)) as bar:
        return [train(spec, records, execution, report=lambda _: bar.update()) for spec in specs]


def _facts(
    root: Path, images: Dataset, held: list[int], networks: list[Path], records: dict[str, Record]
) -> ReportFacts:
    files = [str(file.path.relative_to(root)) for file in image_files(root)]
    last = networks[-1] if networks else None
    usage = (
        "every run diverged: there is no network to use"
        if last is None
        else "from icstn.experiments.classifiers import load_classifier\n\n"
        f"network = load_classifier({str(last)!r})\nprint(network.classify([{str(root / files[held[0]])!r}]))"
    )
    command = str(next(iter(records.values())).provenance.get("command", ""))
    return ReportFacts(
        f"Fit on {images.name}",
        images.classes,
        [files[i] for i in held],
        len(images) - len(held),
        usage,
        command or shlex.join(["icstn", "fit", str(root)]),
    )
