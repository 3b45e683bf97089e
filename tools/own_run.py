"""A page of the book with a reader's own run below what is published; the book is built from such pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

TITLE = "## Your run"
SAME = "It gave what is shown above."


def write(published: Path, own: Path) -> None:
    """Append the section to the published notebook, in place.

    Args:
        published: the staged copy of a committed notebook.
        own: the same notebook as ``icstn reproduce`` has executed it.
    """
    page = with_own_run(nbformat.read(published, 4), nbformat.read(own, 4))
    nbformat.write(page, published)


def made(notebook: Path) -> bool:
    """Whether ``icstn reproduce`` has executed that notebook to its end."""
    return notebook.suffix == ".ipynb" and "icstn" in nbformat.read(notebook, 4).metadata


def with_own_run(published: NotebookNode, own: NotebookNode) -> NotebookNode:
    """The published page, then a section with what the executed notebook gave, if it is anything else."""
    about = own.metadata["icstn"]
    same = list(map(_shown, _results(published))) == list(map(_shown, _results(own)))
    words = [TITLE, about["about"], SAME if same else about["comparison"]]
    cells = [new_markdown_cell("\n\n".join(filter(None, words)), id="your-run")]
    if not same and not (
        about["comparison"] and about["stand_in"]
    ):  # a table that has no cell for a stand-in
        cells += _sections(own)
    return nbformat.from_dict({**published, "cells": [*published.cells, *cells]})


def _sections(own: NotebookNode) -> Iterator[NotebookNode]:
    """What each code cell gave, below the line of text that leads to it; its source stands above already."""
    for before, cell in zip([None, *own.cells], own.cells, strict=False):
        if _has_outputs(cell):
            if before is not None and _is_line(before):
                yield new_markdown_cell(before.source, id=f"your-{before.id}")
            yield new_code_cell(
                cell.source,
                id=f"your-{cell.id}",
                outputs=cell.outputs,
                execution_count=cell.execution_count,
                metadata={"tags": ["remove-input"]},
            )


def _results(book: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in book.cells if _has_outputs(cell)]


def _has_outputs(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.outputs)


def _is_line(cell: NotebookNode) -> bool:
    """Whether it is a single paragraph: it leads to what follows and starts no section."""
    return cell.cell_type == "markdown" and "\n\n" not in cell.source and not cell.source.startswith("#")


def _shown(cell: NotebookNode) -> list[str]:
    """What the page shows of a cell's outputs; where a stream of text is cut makes no difference."""
    text = "".join(output.text for output in cell.outputs if output.output_type == "stream")
    data = [output.data for output in cell.outputs if "data" in output]
    return [text, *(str(d.get("text/html", d.get("text/plain", ""))) for d in data)]
