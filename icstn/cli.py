"""``icstn``: reproduce exhibits, list what there is, look after data and runs."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Inverse Compositional Spatial Transformer Networks: every table and figure of the paper, rerun.",
)

Seeds = Annotated[str, typer.Option(help="Seeds of the runs: 0, or 0,1,2, or 0-4.")]
Device = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu or cuda.")]
Data = Annotated[
    str | None, typer.Option(help="Folder with your own copy of the data, or 'stand-in' (traffic signs).")
]
RecordsFolder = Annotated[
    Path | None, typer.Option("--records", help="Folder of the Records; your own data folder by default.")
]
Preset = Annotated[str, typer.Option(help="smoke (seconds), quick (minutes), full (our best) or paper.")]


@app.command()
def reproduce(
    exhibits: Annotated[
        list[str] | None, typer.Argument(help="table_1 … table_3, figure_1 … figure_11; all by default.")
    ] = None,
    preset: Preset = "quick",
    device: Device = "auto",
    seeds: Seeds = "0",
    data: Data = None,
    records: RecordsFolder = None,
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("_build/reproduce"),
    workers: Annotated[
        int, typer.Option(min=0, help="Runs side by side; 0 is one a core, or one for a GPU.")
    ] = 0,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a dask.distributed scheduler to run on instead.")
    ] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", help="A notebook parameter, NAME=VALUE.")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="Folder for TensorBoard event files.")] = None,
    train_only: Annotated[bool, typer.Option(help="Train what is missing and stop there.")] = False,
    book: Annotated[
        bool | None, typer.Option(help="Build the book with the results; by default when all are made.")
    ] = None,
) -> None:
    """Train what is missing, render the exhibits, print the tables and build the book."""
    with _plain_errors():
        _reproduce(
            exhibits or [], preset, device, seeds, data, records, output, workers, scheduler,
            parameter or [], log, train_only, book,
        )  # fmt: skip


@app.command()
def train(
    experiment: Annotated[str, typer.Argument(help="table_1 (planar), table_2 (MNIST) or table_3 (GTSRB).")],
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Only this row, such as 'IC-STN-4(a)'.")
    ] = None,
    preset: Preset = "quick",
    device: Device = "auto",
    seeds: Seeds = "0",
    data: Data = None,
    records: RecordsFolder = None,
    workers: Annotated[int, typer.Option(min=0, help="Runs side by side; 0 chooses.")] = 0,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a dask.distributed scheduler to run on instead.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="A variation: a field of the Spec, such as invert=True or side=image."),
    ] = None,
    log: Annotated[Path | None, typer.Option(help="Folder for TensorBoard event files.")] = None,
) -> None:
    """Train cells of a table, or variations of them, and print their test errors."""
    from icstn.exhibits.results import data_options, seed_list
    from icstn.experiments import Records, cells, ensure

    with _plain_errors():
        specs = cells(experiment, preset, seed_list(seeds), model, **_parse(change or []))
        store = Records(records)
        options = data_options(data)
        for r in ensure(
            specs, store, device=device, data=options, workers=workers, log=log, **_on(scheduler)
        ):
            result = f"{r.test_error:.3f} {r.metrics['unit']}" if r.status == "finished" else r.status
            print(f"{result:>12}  {r.spec.key}")


@app.command(name="list")
def list_(preset: Preset = "quick", seeds: Seeds = "0") -> None:
    """The exhibits, and the runs that each needs at a preset."""
    from icstn.exhibits.reproduction import EXHIBITS
    from icstn.exhibits.results import seed_list
    from icstn.experiments.spec import PRESETS

    with _plain_errors():
        print("Presets")
        for name, purpose in PRESETS.items():
            print(f"  {name:<10} {purpose}")
        print(f"\nExhibits (runs at {preset}, seeds {seeds})")
        for name, exhibit in EXHIBITS.items():
            n = len(exhibit.specs(preset, seed_list(seeds)))
            print(f"  {name:<10} {exhibit.title}{f': {n} runs' if n else ''}")


@app.command()
def data(
    fetch: Annotated[
        list[str] | None, typer.Argument(help="Data sets to download now: mnist, gtsrb …")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Folder with your own copy of the data.")] = None,
) -> None:
    """Where the data would be read from, whose they are; with names, fetch those."""
    from icstn.datasets import catalog

    with _plain_errors():
        rows = [catalog.fetch(name, data) for name in fetch] if fetch else catalog.status(data)
        for row in rows:
            print(f"{row.dataset}\n  found     {row.found or 'no'}\n  verified  {row.verified}")
            print(f"  size      {row.size / 1e6:.1f} MB")
            print(f"  from      {row.credit.attribution}\n  licence   {row.credit.license}")


@app.command()
def status(records: RecordsFolder = None) -> None:
    """The state of every run: finished, diverged, running or left, and how far."""
    from icstn.experiments import open_records
    from icstn.experiments.running import status as rows

    with _plain_errors():
        store = open_records(records)
        lines = [str(row) for row in rows(store)]
        print("\n".join(lines) or f"no runs in {store.folder}")


@app.command()
def trace(
    cell: Annotated[
        str, typer.Argument(help="A cell such as 'table_2 IC-STN-4(a)', or a number of a table.")
    ],
    records: Annotated[
        str, typer.Option(help="Folder of Records, or 'published' for those of the book as well.")
    ] = "published",
) -> None:
    """Where a number comes from: its Record, command, commit, seed, hardware and time."""
    from icstn.experiments import open_records
    from icstn.experiments.ledger import trace as explain

    with _plain_errors():
        print(explain(cell, open_records(records)))


def _reproduce(
    exhibits: list[str], preset: str, device: str, seeds: str, data: str | None, records: Path | None,
    output: Path, workers: int, scheduler: str | None, parameter: list[str], log: Path | None,
    train_only: bool, book: bool | None,
) -> None:  # fmt: skip
    from icstn.exhibits import reproduction
    from icstn.exhibits.results import data_options, seed_list
    from icstn.experiments import Records, ensure
    from icstn.experiments.running import cores
    from icstn.experiments.training import pick_device

    started = time.monotonic()
    names = reproduction.choose(exhibits)
    pick_device(device)
    numbers = seed_list(seeds)
    specs = {name: reproduction.EXHIBITS[name].specs(preset, numbers) for name in names}
    sources = _sources(names, data)
    store = Records(records)
    figures = reproduction.figures_folder()
    given = {"preset": preset, "seeds": seeds, "device": device, "records": str(store.folder.resolve())}
    parameters = {
        name: _only_known(
            figures / f"{name}.ipynb",
            given | {"output": str(output.resolve() / "rendered"), "data": sources[name]},
        )
        | _parse(parameter)
        for name in names
    }
    for name in names:
        reproduction.check_parameters(figures / f"{name}.ipynb", parameters[name])

    for source in dict.fromkeys(sources.values()):
        wanted = list(dict.fromkeys(s for n in names if sources[n] == source for s in specs[n]))
        options = data_options(source)
        ensure(wanted, store, device=device, data=options, workers=workers, log=log, **_on(scheduler))
    if train_only:
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    reproduction.execute(names, parameters, output / "figures", store, cores())
    _print_tables(reproduction.tables(names, output / "rendered"))
    print(f"results: {output.resolve()} ({time.monotonic() - started:.0f} s)")
    if book if book is not None else not exhibits:
        _build_book(figures.parent, output)


def _on(scheduler: str | None) -> dict[str, Any]:
    return {"scheduler": scheduler} if scheduler else {}


def _print_tables(text: str) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    Console(width=max(190, shutil.get_terminal_size().columns)).print(Markdown(text))


def _sources(names: list[str], data: str | None) -> dict[str, str | None]:
    """The data parameter of each exhibit: traffic signs fall back to the stand-in, in so many words."""
    from icstn.datasets import DataError, gtsrb
    from icstn.exhibits.reproduction import EXHIBITS

    folder = None if data in (None, "stand-in") else str(Path(str(data)).resolve())
    signs = data if data == "stand-in" else folder
    if data != "stand-in" and any(EXHIBITS[n].experiment == "table_3" for n in names):
        try:
            gtsrb("test", folder)
        except DataError as error:
            signs = "stand-in"
            note = "GTSRB can't be had, so a rendered stand-in takes its place and fills no table."
            print(f"{note}\n{error}\n", file=sys.stderr)
    return {n: signs if EXHIBITS[n].experiment == "table_3" else folder for n in names}


def _only_known(notebook: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """The common parameters that this notebook has (a diagram needs neither seeds nor data)."""
    import papermill

    known = papermill.inspect_notebook(str(notebook))
    return {name: value for name, value in parameters.items() if name in known}


def _parse(parameters: list[str]) -> dict[str, Any]:
    """``NAME=VALUE`` texts → values: a Python literal where it is one, else text."""
    found: dict[str, Any] = {}
    for text in parameters:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"a parameter is NAME=VALUE, not {text!r}")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def _build_book(root: Path, output: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(root / "tools" / "book.py"), "--overlay", str(output)], cwd=root, check=False
    )
    if done.returncode:
        raise RuntimeError("the results are there, but the book could not be built; see above")


@contextmanager
def _plain_errors() -> Iterator[None]:
    """One sentence on stderr and exit status 1 or 2 in place of a traceback."""
    from icstn.datasets import DataError
    from icstn.experiments import StorageError

    try:
        yield
    except BrokenPipeError:  # the reader of our output went away, as `icstn list | head` does
        raise typer.Exit(0) from None
    except (DataError, StorageError, RuntimeError, OSError) as error:
        _fail(error, 1)
    except (ValueError, LookupError) as error:
        _fail(error, 2)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on from the last checkpoints", file=sys.stderr)
        raise typer.Exit(130) from None


def _fail(error: Exception, code: int) -> None:
    if os.environ.get("ICSTN_DEBUG"):
        raise error
    print(f"icstn: {error}", file=sys.stderr)
    raise typer.Exit(code) from None


main: Callable[[], None] = app
