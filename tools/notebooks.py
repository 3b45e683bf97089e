"""Run notebooks and write them back in one canonical form; the only writer of committed outputs.

    python tools/notebooks.py book/warps.ipynb figures/table_2.ipynb     run, then write
    python tools/notebooks.py --check book/*.ipynb                       only say what is not canonical

The form holds nothing that changes from run to run: no timing, no kernel or editor metadata, cell ids made
from the cells' source, counts 1..n, animations without random element ids and without links to the network.
Anything on stderr is refused. Notebooks run in their own folder, with one thread.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

KEPT_CELL_METADATA = ("tags", "mystnb")
KEPT_METADATA = ("mystnb",)
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "pygments_lexer": "ipython3",
}
NETWORK_LINK = re.compile(r"\s*<link[^>]+https?://[^>]+>\s*")
PLAYER = re.compile(r'id="_anim_img([0-9a-f]{32})"')  # matplotlib draws an animation's id at random
DATA_URI = re.compile(r"data:[\w/+.-]+;base64,[^\"'\s]+")
ADDRESS = re.compile(r"<[\w.]+[^<>\n]* at 0x[0-9a-f]{6,}>")


class NotebookError(Exception):
    """A notebook that must not be committed as it is; the message says where and why."""


def run(path: Path, timeout: int = 900) -> NotebookNode:
    """Execute the notebook from top to bottom in its own folder."""
    from nbclient import NotebookClient

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    book = nbformat.read(path, as_version=4)
    book.metadata["kernelspec"] = dict(KERNEL)
    client = NotebookClient(
        book,
        timeout=timeout,
        record_timing=False,
        coalesce_streams=True,  # where a stream is cut depends on how busy the machine is
        resources={"metadata": {"path": str(path.parent)}},
    )
    return client.execute()


def canonical(book: NotebookNode) -> NotebookNode:
    """The notebook without anything that would differ after an identical run; what it says is left alone."""
    book = nbformat.from_dict(book)
    book.nbformat, book.nbformat_minor = 4, 5
    book.metadata = nbformat.from_dict(
        {"kernelspec": KERNEL, "language_info": LANGUAGE}
        | {key: book.metadata[key] for key in KEPT_METADATA if key in book.metadata}
    )
    seen: set[str] = set()
    for cell in book.cells:
        cell.metadata = nbformat.from_dict(
            {key: cell.metadata[key] for key in KEPT_CELL_METADATA if cell.metadata.get(key)}
        )
        cell.id = _cell_id(cell, seen)
        for n, output in enumerate(cell.get("outputs", [])):
            _clean_output(output, f"{cell.id}-{n}")
    return book


def problems(book: NotebookNode) -> list[str]:
    """Why the outputs of this notebook must not be committed, one sentence each."""
    found = []
    code = [cell for cell in book.cells if cell.cell_type == "code" and cell.source.strip()]
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        found.append(f"its execution counts are {counts}, not 1..{len(code)}: run it from top to bottom")
    for number, cell in enumerate(code, 1):
        found += [f"code cell {number} {reason}" for reason in _cell_problems(cell)]
    return found


def dumps(book: NotebookNode) -> str:
    """The text of the file."""
    return nbformat.writes(book, ensure_ascii=False).rstrip("\n") + "\n"


def _cell_problems(cell: NotebookNode) -> Iterator[str]:
    raises = "raises-exception" in cell.metadata.get("tags", [])
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stderr":
            yield f"wrote to stderr: {output.text.strip().splitlines()[-1][:120]!r}"
        if output.output_type == "error" and not raises:
            yield f"raised {output.ename}: {output.evalue[:120]}"
        for text in _texts(output):
            if ADDRESS.search(text):
                yield f"shows a memory address, {ADDRESS.search(text).group()!r}: end a plot with plt.show()"


def _texts(output: NotebookNode) -> Iterator[str]:
    if output.output_type == "stream":
        yield output.text
    for kind, value in output.get("data", {}).items():
        if kind.startswith("text/") and isinstance(value, str):
            yield value


def _clean_output(output: NotebookNode, name: str) -> None:
    if "data" not in output:
        return
    for kind, value in output.data.items():
        if kind == "text/html":
            output.data[kind] = _clean_html(value, name)
    if output.output_type == "display_data":
        output.pop("execution_count", None)
    output.metadata = nbformat.from_dict(
        {key: value for key, value in output.get("metadata", {}).items() if value}
    )


def _clean_html(html: str, name: str) -> str:
    html = NETWORK_LINK.sub("", html)
    pieces = DATA_URI.findall(html)  # an image's base64 may look like an id: keep it out of the way
    html = DATA_URI.sub("\0", html)
    for n, old in enumerate(dict.fromkeys(PLAYER.findall(html))):
        stable = hashlib.md5(f"{name}-{n}".encode()).hexdigest()
        html = re.sub(rf"\b(_?anim\w*?){old}", rf"\g<1>{stable}", html)
    return re.sub("\0", lambda _: pieces.pop(0), html)


def _cell_id(cell: NotebookNode, seen: set[str]) -> str:
    digest = hashlib.sha1(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
    name, n = digest, 1
    while name in seen:
        n += 1
        name = f"{digest}-{n}"
    seen.add(name)
    return name


def check(path: Path) -> list[str]:
    """What keeps the file from being in the form that :func:`write` gives it."""
    book = nbformat.read(path, as_version=4)
    found = problems(book)
    if path.read_text(encoding="utf-8") != dumps(canonical(book)):
        found.append("its metadata or ids are not in the canonical form")
    return [f"{path}: {reason}; python tools/notebooks.py {path} mends that" for reason in found]


def write(path: Path) -> bool:
    """Run, clean and write the notebook; returns whether the file changed."""
    book = canonical(run(path))
    if found := problems(book):
        raise NotebookError("\n".join(f"{path}: {reason}" for reason in found))
    text = dumps(book)
    changed = path.read_text(encoding="utf-8") != text
    if changed:
        path.write_text(text, encoding="utf-8")
    return changed


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the number of notebooks with problems."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true", help="do not run, only check the committed form")
    options = parser.parse_args(argv)
    failed = 0
    for path in options.notebooks:
        try:
            found = check(path) if options.check else []
            state = "checked" if options.check else ("written" if write(path) else "unchanged")
        except Exception as error:  # one broken notebook must not hide the state of the others
            found, state = [str(error)], "failed"
        failed += bool(found)
        print("\n".join(found) if found else f"{path}: {state}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
