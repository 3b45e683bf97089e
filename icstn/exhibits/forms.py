"""A table in all its forms: HTML, CSV, Markdown and LaTeX show the same text."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from icstn.files import write_atomic

#: Columns of words; all others are numbers and stand to the right.
WORDS = ("Model", "Architecture", "Method", "Warp")

_LATEX = {"%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#", "×": r"$\times$", "→": r"$\to$", "±": r"$\pm$"}
_LATEX |= {"σ": r"$\sigma$", "–": "--", "−": r"$-$"}


@dataclass(frozen=True)
class Table:
    """A table of numbers, of which every form shows the same text.

    Args:
        name: stem of the files, such as ``"table_2"``.
        title: what stands above it.
        data: the numbers, one row a cell.
        text: what is shown, all strings.
        notes: sentences below it.
    """

    name: str
    title: str
    data: pd.DataFrame
    text: pd.DataFrame
    notes: tuple[str, ...] = ()

    def ours(self) -> dict[str, float]:
        """Model → mean test error of ours (of Table 1: ``"model σ"`` → error), where there is one."""
        rows = self.data.dropna(subset=["ours"]).to_dict("records")
        return {r["model"] + ("" if pd.isna(r["sigma"]) else f" {r['sigma']:g}"): r["ours"] for r in rows}

    def html(self) -> str:
        """A plain ``<table>`` with its title as caption and the notes below."""
        head = "".join(f"<th{_align(c)}>{html.escape(c)}</th>" for c in self.text.columns)
        body = "".join(
            "<tr>"
            + "".join(
                f"<td{_align(c)}>{html.escape(v)}</td>" for c, v in zip(self.text.columns, row, strict=True)
            )
            + "</tr>\n"
            for row in self._rows()
        )
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        caption = f"<caption>{html.escape(self.title)}</caption>"
        table = f"{caption}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>"
        table = f'<table class="dataframe table">{table}</table>'
        return f'<div class="exhibit-table" data-exhibit="{self.name}">{table}{notes}</div>'

    def csv(self) -> str:
        """The numbers of :attr:`data`, to six digits."""
        return self.data.to_csv(index=False, lineterminator="\n", float_format="%.6g")

    def markdown(self) -> str:
        """A pipe table."""
        head = list(self.text.columns)
        rule = [":--" if c in WORDS else "--:" for c in head]
        rows = [[cell.replace("|", "\\|") for cell in row] for row in self._rows()]
        lines = [_pipes(row) for row in (head, rule, *rows)]
        return "\n".join([f"**{self.title}**\n", *lines, *(f"\n{note}" for note in self.notes), ""])

    def latex(self) -> str:
        """A ``table`` environment; needs the package booktabs."""
        columns = "".join("l" if c in WORDS else "r" for c in self.text.columns)
        rows = [" & ".join(map(_tex, row)) + r" \\" for row in [list(self.text.columns), *self._rows()]]
        rows.insert(1, r"\midrule")
        body = "\n".join([r"\toprule", *rows, r"\bottomrule"])
        notes = "".join(f"\n\\par\\footnotesize {_tex(note)}" for note in self.notes)
        caption, label = f"\\caption{{{_tex(self.title)}}}", f"\\label{{tab:{self.name}}}"
        tabular = f"\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}"
        return f"\\begin{{table}}\n\\centering\n{caption}\n{label}\n{tabular}{notes}\n\\end{{table}}\n"

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``<name>.html``, ``.csv``, ``.md`` and ``.tex``; returns the paths."""
        forms = {"html": self.html() + "\n", "csv": self.csv(), "md": self.markdown(), "tex": self.latex()}
        paths = {suffix: Path(folder) / f"{self.name}.{suffix}" for suffix in forms}
        for suffix, text in forms.items():
            write_atomic(paths[suffix], text)
        return list(paths.values())

    def _rows(self) -> list[list[str]]:
        return [list(map(str, row)) for row in self.text.itertuples(index=False)]

    def __repr__(self) -> str:
        """The same text as Markdown, whatever the width of the terminal."""
        return self.markdown()

    def _repr_html_(self) -> str:
        return self.html()


def _align(column: str) -> str:
    return "" if column in WORDS else ' style="text-align:right"'


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _tex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
