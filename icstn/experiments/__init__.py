"""Specs, training, Records: every run of the paper, and what it left behind.

Example:
    >>> [spec.model for spec in cells("table_2", "quick")][:3]
    ['CNN(a)', 'STN(a)', 'c-STN-1(a)']
"""

from icstn.extras import require

require("experiments", "filelock", "PIL", "platformdirs", "pooch", "tqdm")

from icstn.experiments.execution import DataOptions, Execution
from icstn.experiments.experiment import BASELINES, EXPERIMENTS, Experiment
from icstn.experiments.folders import folder_specs
from icstn.experiments.models import Model, build_model
from icstn.experiments.progress import Progress
from icstn.experiments.recipes import cells
from icstn.experiments.records import Record, Records, open_records
from icstn.experiments.running import ensure
from icstn.experiments.spec import PRESETS, BaselineSpec, FolderSpec, RunSpec, Spec, SpecError
from icstn.experiments.tasks import make_task
from icstn.experiments.training import train
from icstn.files import StorageError

__all__ = [
    "BASELINES",
    "EXPERIMENTS",
    "PRESETS",
    "BaselineSpec",
    "DataOptions",
    "Execution",
    "Experiment",
    "FolderSpec",
    "Model",
    "Progress",
    "Record",
    "Records",
    "RunSpec",
    "Spec",
    "SpecError",
    "StorageError",
    "build_model",
    "cells",
    "ensure",
    "folder_specs",
    "make_task",
    "open_records",
    "train",
]
