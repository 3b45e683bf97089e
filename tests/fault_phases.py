"""The phases of a reproduction in a small world, for tests/faults.py: each is the library's own code."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import os
import shutil
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Any

import first_screen
import live
import nbformat
import numpy as np
import runs
import torch
from faults import Phase, digest

import book
from icstn import reproduction
from icstn.datasets import _gtsrb, _mnist, gtsrb, mnist
from icstn.datasets import cache as data_cache
from icstn.experiments import DataOptions, Records
from icstn.experiments.classification import Classification
from icstn.reproduction import Job

torch.set_num_threads(1)
DIGITS = 600

#: Of what the phases begin with.
_HOME = tempfile.TemporaryDirectory(prefix="icstn-faults-")


@cache
def digits() -> dict[str, bytes]:
    """Noise in the official files' form, gzipped, by name."""
    chance = np.random.default_rng(0)
    made = {}
    for files in _mnist.FILES.values():
        pixels = chance.integers(0, 256, (DIGITS, 28, 28), dtype=np.uint8)
        labels = chance.integers(0, 10, DIGITS).astype(np.uint8)
        made |= {file.name: _mnist.idx_bytes(a) for file, a in zip(files, (pixels, labels), strict=True)}
    return made


class Server(http.server.BaseHTTPRequestHandler):
    """Has the digits."""

    def do_GET(self) -> None:
        """Send a file in pieces."""
        content = gzip.compress(digits()[Path(self.path).name.removesuffix(".gz")], mtime=0)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for at in range(0, len(content), 1 << 16):
            self.wfile.write(content[at : at + (1 << 16)])

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@cache
def address() -> str:
    """Of the server, which begins now."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # whoever asked was killed
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def small_official() -> dict[str, tuple[_mnist.File, ...]]:
    """What the tiny files' sizes and hashes are."""
    md5 = lambda data: hashlib.md5(data).hexdigest()  # noqa: E731
    raw = digits()
    return {
        split: tuple(
            _mnist.File(f.name, len(raw[f.name]), md5(raw[f.name]), md5(gzip.compress(raw[f.name], mtime=0)))
            for f in files
        )
        for split, files in _mnist.FILES.items()
    }


OFFICIAL = small_official()


def _digits_in(folder: Path) -> None:
    os.environ["ICSTN_CACHE"] = str(folder)
    _mnist.FILES, _mnist.MIRRORS = OFFICIAL, (address(),)  # type: ignore[assignment]
    data_cache.RETRIES = 0


def download(folder: Path) -> None:
    """Fill the cache from the server."""
    _digits_in(folder)
    for split in ("train", "test"):
        mnist(split)  # type: ignore[arg-type]


def downloaded(folder: Path) -> str:
    """The digits that are there; a file that is there is one of them, in whole."""
    known = {gzip.compress(raw, mtime=0) for raw in digits().values()}
    files = sorted(p for p in folder.rglob("*.gz") if p.is_file())
    assert all(p.read_bytes() in known for p in files), "half a file"
    return digest(*(p.read_bytes() for p in files)) if len(files) == 4 else ""


@cache
def archives() -> Path:
    """Three archives with one sign of each class."""
    from test_datasets_gtsrb import make_tree, pack

    folder = Path(_HOME.name) / "signs"
    make_tree(folder / "tree")
    return pack(folder / "tree", folder / "own")


def decode(folder: Path) -> None:
    """Decode an archive into the cache."""
    os.environ["ICSTN_CACHE"] = str(folder)
    _gtsrb.COUNTS = {"train": 43, "test": 43}
    gtsrb("train", archives(), size=50)


def decoded(folder: Path) -> str:
    """The images in the cache."""
    found = [data_cache.load_dataset(p) for p in folder.rglob("*.safetensors")]
    assert None not in found, "half a file"
    return "".join(d.fingerprint for d in found if d is not None)


SPEC = runs.small_spec(iterations=300)


def train(folder: Path) -> None:
    """Train a network, with a checkpoint after each block."""
    runs.train(SPEC, folder / "records", checkpoint_seconds=0, wait=60)


def trained(folder: Path) -> str:
    """The Record."""
    records = Records(folder / "records")
    record = records.find(SPEC)
    if record is None:
        return ""
    names = ("weights.safetensors", "outcomes.safetensors")
    files = [(records.path(SPEC) / name).read_bytes() for name in names]
    return digest(*files, json.dumps([record.metrics, record.curve]))


def train_to_the_test(folder: Path) -> None:
    """Train, and stop where the test begins: its last checkpoint is there."""
    original = Classification.evaluate
    Classification.evaluate = lambda *_: _end()  # type: ignore[method-assign, assignment]
    try:
        train(folder)
    except KeyboardInterrupt:
        pass
    finally:
        Classification.evaluate = original  # type: ignore[method-assign]


def _end() -> None:
    raise KeyboardInterrupt


CELLS = (
    'output = "rendered"',
    "from pathlib import Path\nfolder = Path(output)\nfolder.mkdir(parents=True, exist_ok=True)",
    'total = sum(range(1000))\n(folder / "total.txt").write_text(str(total))\nprint(total)',
)


@cache
def notebook() -> Path:
    """A notebook with a parameter."""
    new = nbformat.v4.new_code_cell
    cells = [new(CELLS[0], metadata={"tags": ["parameters"]}), *map(new, CELLS[1:])]
    for n, cell in enumerate(cells):
        cell.id = f"cell-{n}"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path = Path(_HOME.name) / "totals.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


def execute(folder: Path) -> None:
    """Execute it."""
    job = Job("totals", (), DataOptions(), notebook(), {"output": str(folder / "rendered")})
    reproduction.execute([job], folder / "figures", Records(folder / "records"), 1)


def executed(folder: Path) -> str:
    """What its cells gave."""
    path = folder / "figures" / "totals.ipynb"
    if not path.is_file():
        return ""
    done = nbformat.read(path, 4)
    assert "icstn" in done.metadata, "half a notebook"
    return digest(json.dumps([c.get("outputs", []) for c in done.cells], sort_keys=True))


def render(folder: Path) -> None:
    """Draw a figure and a table."""
    import pandas as pd

    from icstn.exhibits.forms import Table
    from icstn.exhibits.theme import FigurePair

    chance = np.random.default_rng(0)
    bulk = {mode: chance.bytes(300_000) for mode in ("light", "dark")}
    FigurePair("figure_0", "noise", None, bulk, bulk).save(folder / "rendered")  # type: ignore[arg-type]
    data = pd.DataFrame({"model": ["A"] * 300, "ours": range(300)})
    Table("table_0", "Numbers", data, data.astype(str)).save(folder / "rendered")


NAMES = [f"figure_0_{mode}.{kind}" for kind in ("svg", "png") for mode in ("light", "dark")]
NAMES += [f"table_0.{kind}" for kind in ("html", "csv", "md", "tex")]


@cache
def drawn() -> dict[str, bytes]:
    """What the drawing leaves."""
    with tempfile.TemporaryDirectory() as folder:
        render(Path(folder))
        return {name: (Path(folder) / "rendered" / name).read_bytes() for name in NAMES}


def rendered(folder: Path) -> str:
    """The files that are there; each is whole."""
    files = [folder / "rendered" / name for name in NAMES]
    there = [p for p in files if p.is_file()]
    assert all(p.read_bytes() == drawn()[p.name] for p in there), "half a file"
    return digest(*(p.read_bytes() for p in there)) if len(there) == len(files) else ""


@cache
def small_book() -> Path:
    """A book of one page."""
    root = Path(_HOME.name) / "book"
    (root / "book").mkdir(parents=True)
    shutil.copy(book.ROOT / "CHANGELOG.md", root)
    config = "title: Small\nonly_build_toc_files: true\nexecute: {execute_notebooks: 'off'}\n"
    (root / "_config.yml").write_text(config + "repository: {url: '', branch: main}\n")
    (root / "_toc.yml").write_text("format: jb-book\nroot: book/intro\n")
    (root / "book" / "intro.md").write_text("# Small\n\n" + "A page of a book.\n\n" * 200)
    return root


def build(folder: Path) -> None:
    """Stage it and build it."""
    live.write = first_screen.write = lambda _: []  # type: ignore[assignment]
    done = book.make(folder, small_book(), strict=False)
    if done.returncode:
        raise RuntimeError(f"the book was not built: {done.stdout.strip().splitlines()[-1]}")


def built(folder: Path) -> str:
    """Its page, once it is built."""
    page = folder / "_build" / "html" / "book" / "intro.html"
    if not page.is_file() or (folder / "_build" / book.UNDER_WAY).is_file():
        return ""
    text = page.read_text("utf-8")
    return digest(str(text.count("A page of a book.")), text[-20:])


_LIST = (
    Phase(
        "download",
        "the digits from a server into the cache",
        download,
        downloaded,
        "rename",
        lambda _: address(),
    ),
    Phase(
        "decode", "an archive of signs, decoded into the cache", decode, decoded, begins=lambda _: archives()
    ),
    Phase("train", "300 steps of a network, a checkpoint after each hundred", train, trained),
    Phase(
        "evaluate", "the test of a trained network, and its Record", train, trained, begins=train_to_the_test
    ),
    Phase("notebook", "a notebook, executed with parameters", execute, executed, "", lambda _: notebook()),
    Phase("render", "a figure and a table in all their forms", render, rendered, begins=lambda _: drawn()),
    Phase("book", "the pages staged, built and finished", build, built, begins=lambda _: small_book()),
)
PHASES = {phase.name: phase for phase in _LIST}
