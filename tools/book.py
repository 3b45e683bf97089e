"""Build the book from a staging copy, so that nothing in the checkout changes.

    python tools/book.py --strict                       the committed notebooks, a warning is an error
    python tools/book.py --overlay _build/reproduce     with the freshly executed notebooks of that folder

The staging copy holds the configuration, book/ and figures/, and what tools/live.py and tools/first_screen.py
make of the published Records. Of an overlay, what ``icstn reproduce`` has executed becomes a section below
what is published; its other files replace those of the book. A file is placed by its path below the overlay
(``figures/table_2.ipynb``) or, when it lies at the overlay's top, by its name. The HTML lies in
``OUT/_build/html``.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import feed
import filelock
import finishing
import first_screen
import live
import own_run
import yaml

from icstn.files import StorageError, write_atomic

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("_config.yml", "_toc.yml", "CHANGELOG.md", "book", "figures")
#: The environment variable that may name the repository's address in place of ``_config.yml``.
REPOSITORY = "ICSTN_REPOSITORY"
BINDER = {"notebook_interface": "jupyterlab", "binderhub_url": "https://mybinder.org"}
LEFT_OUT = shutil.ignore_patterns("records", ".ipynb_checkpoints", "__pycache__", "_build", ".*")
STRICT = ("-W", "--keep-going", "-n")
#: Is there while a book is built.
UNDER_WAY = "under-way"


def stage(target: Path, root: Path = ROOT, overlay: Path | None = None) -> Path:
    """Copy the sources to ``target``, then the overlay over them; unchanged files keep their time."""
    kept: set[Path] = set()
    for name in SOURCES:
        if (root / name).exists():
            kept |= _copy_tree(root / name, target / name)
    _connect(target / "_config.yml")
    data = target / "book" / "assets" / "live" / "data"
    kept |= {*live.write(data), *first_screen.write(data)}
    for file in sorted(target.rglob("*"), reverse=True):
        if file.is_file() and file not in kept:
            file.unlink()
    if overlay is not None:
        for file in sorted(overlay.rglob("*")):
            if file.is_file() and (place := _place(file.relative_to(overlay), target)):
                _lay_over(file, place)
    return target


def _lay_over(file: Path, place: Path) -> None:
    if place.is_file() and own_run.made(file):
        own_run.write(place, file)
    else:
        _copy(file, place)


def make(
    out: Path, root: Path = ROOT, overlay: Path | None = None, strict: bool = True
) -> subprocess.CompletedProcess[str]:
    """Stage the book and build it below a folder, one process at a time; others wait.

    Raises:
        StorageError: the folder can't be written, or the disk is full.
    """
    place = out / "_build"
    try:
        place.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(place / ".book-lock"):
            return build(stage(place / "stage", root, overlay), out, strict)
    except OSError as error:
        raise StorageError(f"the book was not built: {error}; mend that and build it again") from error


def build(source: Path, out: Path, strict: bool = True) -> subprocess.CompletedProcess[str]:
    """Run Jupyter Book on a staging copy and finish its pages; stdout and stderr come back as one text.

    Sphinx takes a page for written whose file is newer than its source, also where a killed build has left
    half of it. So a build that did not come to its end is followed by one of all pages.
    """
    command = [
        str(Path(sys.executable).parent / "jupyter-book"),
        "build",
        str(source),
        "--path-output",
        str(out),
    ]
    under_way = out / "_build" / UNDER_WAY
    command += STRICT if strict else ()
    command += ["--all"] if strict or under_way.is_file() else []
    write_atomic(under_way, "")
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, check=False
    )
    html = out / "_build" / "html"
    finishing.finish(html)
    if html.is_dir():
        feed.write(html, source / "CHANGELOG.md")
    under_way.unlink(missing_ok=True)
    return done


def _connect(config: Path) -> None:
    """Add the buttons that need the repository's public address to the staged configuration, if it is set."""
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    url = os.environ.get(REPOSITORY) or settings["repository"]["url"]
    if not url:
        return
    if not re.fullmatch(r"https://[\w.-]+(/[\w.-]+){2,}", url):
        raise SystemExit(f"{url!r} is no repository's address: write it as https://HOST/NAME/REPOSITORY")
    settings["repository"]["url"] = url
    options = {"repository_url": url, "repository_branch": settings["repository"]["branch"]}
    options |= {"use_repository_button": True, "use_issues_button": True, "launch_buttons": dict(BINDER)}
    settings["sphinx"]["config"]["html_theme_options"] |= options
    config.write_text(yaml.safe_dump(settings, allow_unicode=True, sort_keys=False), encoding="utf-8")


def _copy_tree(source: Path, target: Path) -> set[Path]:
    if source.is_file():
        return {_copy(source, target)}
    skipped = LEFT_OUT(str(source), [entry.name for entry in source.iterdir()])
    entries = [entry for entry in sorted(source.iterdir()) if entry.name not in skipped]
    return set().union(*(_copy_tree(entry, target / entry.name) for entry in entries))


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
        shutil.copy2(source, target)
    return target


def _place(relative: Path, target: Path) -> Path | None:
    """Where an overlay's file goes: by its path, or by its name when it lies at the top."""
    if len(relative.parts) > 1:
        return target / relative if relative.parts[0] in SOURCES else None
    return next((folder / relative.name for folder in (target / "figures", target / "book")
                 if (folder / relative.name).is_file()), None)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status of the build."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--overlay", type=Path, help="a folder of freshly executed notebooks")
    parser.add_argument("--out", type=Path, default=ROOT, help="the HTML goes to OUT/_build/html")
    parser.add_argument("--strict", action="store_true", help="build everything anew; a warning is an error")
    options = parser.parse_args(argv)
    try:
        result = make(options.out, overlay=options.overlay, strict=options.strict)
    except StorageError as error:
        print(error, file=sys.stderr)
        return 1
    if result.returncode:
        print(result.stdout)
        print("the book was not built: see the messages above")
        return result.returncode
    print(f"the book is at {options.out / '_build' / 'html' / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
