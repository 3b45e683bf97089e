"""Reproducing exhibits: the list of them, the Records that they show, and their notebooks, executed."""

from icstn.reproduction.catalogue import EXHIBITS, Exhibit, ReproductionError, choose, tables
from icstn.reproduction.comparison import side_by_side
from icstn.reproduction.notebooks import execute
from icstn.reproduction.obtaining import obtain, of_any_preset, seed_list
from icstn.reproduction.plans import Job, Request, plan, train
from icstn.reproduction.rerunning import rerun

__all__ = [
    "EXHIBITS",
    "Exhibit",
    "Job",
    "ReproductionError",
    "Request",
    "choose",
    "execute",
    "obtain",
    "of_any_preset",
    "plan",
    "rerun",
    "seed_list",
    "side_by_side",
    "tables",
    "train",
]
