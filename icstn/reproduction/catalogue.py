"""The list of exhibits: every table and figure, and what each needs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from icstn.experiments.experiment import EXPERIMENTS
from icstn.experiments.recipes import cells
from icstn.experiments.spec import RunSpec


class ReproductionError(ValueError):
    """An exhibit that does not exist, a parameter that it does not have, or a notebook that failed."""


@dataclass(frozen=True)
class Exhibit:
    """One table or figure.

    Attributes:
        title: what it shows.
        experiment: the experiment whose runs it needs, or empty.
        models: only these rows; empty for all.
        beside: a further experiment whose runs it shows, with the first seed, or empty.
        tables: names of the tables that its notebook renders.
    """

    title: str
    experiment: str = ""
    models: tuple[str, ...] = ()
    beside: str = ""
    tables: tuple[str, ...] = ()

    def specs(self, preset: str, seeds: Iterable[int]) -> list[RunSpec]:
        """The runs it needs."""
        if not self.experiment:
            return []
        seeds = list(seeds)
        own = cells(self.experiment, preset, seeds, self.models or None)
        return own + (cells(self.beside, preset, seeds[:1]) if self.beside else [])

    @property
    def data(self) -> str:
        """The data that its runs need, as an Experiment names them; empty without runs."""
        return EXPERIMENTS[self.experiment].data if self.experiment else ""


EXHIBITS: dict[str, Exhibit] = {
    "table_1": Exhibit(
        "Planar alignment: test error",
        "table_1",
        beside="baselines",
        tables=("table_1", "table_1_parameters", "table_1_classical"),
    ),
    "table_2": Exhibit("Perturbed MNIST: classification error", "table_2", tables=("table_2",)),
    "table_3": Exhibit("Perturbed GTSRB: classification error", "table_3", tables=("table_3",)),
    "figure_1": Exhibit("The Spatial Transformer"),
    "figure_2": Exhibit("The boundary effect"),
    "figure_3": Exhibit("The compositional STN"),
    "figure_4": Exhibit("Concatenated c-STNs"),
    "figure_5": Exhibit("The IC-STN"),
    "figure_6": Exhibit("Planar alignment: image and perturbed samples"),
    "figure_7": Exhibit("Error against the number of warp operations", "table_1"),
    "figure_8": Exhibit("Sample alignments on MNIST", "table_2", ("STN(a)", "IC-STN-4(a)")),
    "figure_9": Exhibit(
        "Mean and variance of aligned digits",
        "table_2",
        ("STN(a)", "c-STN-1(a)", "IC-STN-2(a)", "IC-STN-4(a)"),
    ),
    "figure_10": Exhibit("Sample alignments on GTSRB", "table_3", ("STN", "IC-STN-4")),
    "figure_11": Exhibit("Mean aligned traffic signs", "table_3", ("STN", "c-STN-1", "IC-STN-2", "IC-STN-4")),
    "learning_curves": Exhibit(
        "Learning curves of the presets", "table_2", ("CNN(b)", "STN(b)", "IC-STN-2(b)", "IC-STN-4(b)")
    ),
    "two_images": Exhibit(
        "Two images in: success against σ, beyond the paper",
        "two_images",
        beside="two_images_classical",
        tables=("two_images", "two_images_success"),
    ),
}


def choose(names: Iterable[str]) -> tuple[str, ...]:
    """Exhibit names as the user wrote them (``table_2``, ``table2`` or ``figure-7``); none is all.

    Raises:
        ReproductionError: no exhibit has that name; the message lists those that exist.
    """
    wanted = list(names)
    by_letters = {name.replace("_", ""): name for name in EXHIBITS}
    keys = [name.lower().replace("_", "").replace("-", "") for name in wanted]
    for name, key in zip(wanted, keys, strict=True):
        if key not in by_letters:
            raise ReproductionError(f"unknown exhibit {name!r}: choose from {', '.join(EXHIBITS)}")
    return tuple(dict.fromkeys(by_letters[k] for k in keys)) or tuple(EXHIBITS)


def tables(names: Iterable[str], rendered: Path) -> str:
    """The text of all tables of some exhibits, each under its caption as a heading.

    Args:
        names: exhibits; those without a table have no part in it.
        rendered: folder that their notebooks have rendered to.
    """
    texts = [(rendered / f"{table}.md").read_text() for name in names for table in EXHIBITS[name].tables]
    return "\n".join(re.sub(r"\A\*\*(.*)\*\*$", r"## \1", text, flags=re.MULTILINE) for text in texts)
