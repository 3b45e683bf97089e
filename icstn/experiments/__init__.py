"""Specs, training, Records: every run of the paper, and what it left behind.

Example:
    >>> [spec.model for spec in cells("table_2", "quick")][:3]
    ['CNN(a)', 'STN(a)', 'c-STN-1(a)']
"""

from icstn.experiments.models import Model, build_model
from icstn.experiments.running import ensure
from icstn.experiments.spec import EXPERIMENTS, PRESETS, Spec, SpecError, cells
from icstn.experiments.storage import Record, Records, StorageError, open_records
from icstn.experiments.tasks import DataOptions, make_task
from icstn.experiments.training import Progress, train

__all__ = [
    "EXPERIMENTS",
    "PRESETS",
    "DataOptions",
    "Model",
    "Progress",
    "Record",
    "Records",
    "Spec",
    "SpecError",
    "StorageError",
    "build_model",
    "cells",
    "ensure",
    "make_task",
    "open_records",
    "train",
]
