"""Run exhibits: train what they need, execute their notebooks with parameters, collect what they render."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from icstn.exhibits.results import ExhibitError
from icstn.experiments import Records, RunSpec, cells


@dataclass(frozen=True)
class Exhibit:
    """One table or figure.

    Args:
        title: what it shows.
        experiment: the table whose runs it needs, or empty.
        models: only these rows; empty for all.
        beside: a further experiment whose runs it shows, or empty.
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
        return own + (cells(self.beside, preset, seeds) if self.beside else [])


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
}


def choose(names: Iterable[str]) -> list[str]:
    """Exhibit names as the user wrote them (``table_2``, ``table2`` or ``figure-7``); none is all.

    Raises:
        ExhibitError: no exhibit has that name; the message lists those that exist.
    """
    wanted = list(names)
    by_letters = {name.replace("_", ""): name for name in EXHIBITS}
    keys = [name.lower().replace("_", "").replace("-", "") for name in wanted]
    for name, key in zip(wanted, keys, strict=True):
        if key not in by_letters:
            raise ExhibitError(f"unknown exhibit {name!r}: choose from {', '.join(EXHIBITS)}")
    return [by_letters[k] for k in keys] or list(EXHIBITS)


def tables(names: Iterable[str], rendered: Path) -> str:
    """The text of all tables of some exhibits, each under its caption as a heading.

    Args:
        names: exhibits; those without a table have no part in it.
        rendered: folder that their notebooks have rendered to.
    """
    texts = [(rendered / f"{table}.md").read_text() for name in names for table in EXHIBITS[name].tables]
    return "\n".join(re.sub(r"\A\*\*(.*)\*\*$", r"## \1", text, flags=re.MULTILINE) for text in texts)


def figures_folder() -> Path:
    """The checkout's ``figures`` folder, from the working directory or beside the package.

    Raises:
        ExhibitError: there is none; the notebooks are not part of the installed package.
    """
    here = Path.cwd()
    for root in (here, *here.parents, Path(__file__).parents[2]):
        if (root / "figures" / "table_2.ipynb").is_file():
            return root / "figures"
    raise ExhibitError("the exhibits' notebooks are in the project's checkout: run this inside it")


def check_parameters(notebook: Path, parameters: Mapping[str, Any]) -> None:
    """Refuse parameters that the notebook does not have, or whose type is not its default's.

    Raises:
        ExhibitError: names the parameter, what was given and what is expected.
    """
    import papermill

    known = papermill.inspect_notebook(str(notebook))
    for name, value in parameters.items():
        if name not in known:
            raise ExhibitError(f"{notebook.stem} has no parameter {name!r}: it has {', '.join(known)}")
        default = _literal(known[name]["default"])
        if default is not None and value is not None and not _same_type(value, default):
            raise ExhibitError(
                f"{notebook.stem}: {name} is a {type(default).__name__} such as {default!r}, not {value!r}"
            )


def execute(
    names: Iterable[str], parameters: Mapping[str, Any], target: Path, records: Records, workers: int = 2
) -> dict[str, Path]:
    """Execute the notebooks of some exhibits, a few at a time; unchanged ones are kept.

    Args:
        names: exhibits, see :func:`choose`.
        parameters: papermill parameters by exhibit name, see :func:`check_parameters`.
        target: folder of the executed notebooks.
        records: its content decides whether an executed notebook is still valid.
        workers: notebooks at a time.

    Returns:
        the executed notebooks, by exhibit.

    Raises:
        ExhibitError: a notebook failed; the message holds its own error.
    """
    names, target = list(names), target.resolve()  # papermill changes the working directory
    target.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        paths = pool.map(lambda n: _execute(n, parameters[n], target / f"{n}.ipynb", records), names)
        return dict(zip(names, paths, strict=True))


def _execute(name: str, parameters: Mapping[str, Any], path: Path, records: Records) -> Path:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    notebook = figures_folder() / f"{name}.ipynb"
    key = _key(notebook, parameters, records)
    if path.is_file() and nbformat.read(path, 4).metadata.get("icstn") == key:
        return path
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        papermill.execute_notebook(
            str(notebook),
            str(path),
            parameters=dict(parameters),
            kernel_name="python3",
            cwd=str(notebook.parent),
            progress_bar=False,
        )
    except PapermillExecutionError as error:
        raise ExhibitError(f"{name} failed in its cell {error.exec_count}: {error.ename}: {error.evalue}; "
                           f"the notebook as far as it came is {path}") from error  # fmt: skip
    done = nbformat.read(path, 4)
    done.metadata["icstn"] = key
    nbformat.write(done, path)
    return path


def _key(notebook: Path, parameters: Mapping[str, Any], records: Records) -> str:
    """Hash of everything that an executed notebook depends on: its source, parameters, Records, library."""
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True, default=str).encode())
    digest.update("\n".join(cell.source for cell in nbformat.read(notebook, 4).cells).encode())
    library = Path(__file__).parents[1]
    folder = records.folder / "stand-in" if parameters.get("data") == "stand-in" else records.folder
    for file in [*sorted(library.rglob("*.py")), *sorted(folder.glob("*/record.json"))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _literal(text: str) -> Any:
    import ast

    return ast.literal_eval(text)


def _same_type(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, type(default))
