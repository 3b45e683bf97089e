"""Tables 1 to 3: the paper's numbers beside ours, as HTML, CSV, Markdown and LaTeX."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from icstn.experiments import paper
from icstn.experiments.storage import Record

#: Columns of :attr:`Table.data`.
COLUMNS = ("model", "sigma", "paper", "ours", "sd", "n", "diverged", "capacity", "architecture")
MISSING = "–"
_Printed = dict[tuple[str, float | None], float]
_LATEX = {"%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#", "×": r"$\times$", "→": r"$\to$", "±": r"$\pm$"}
_LATEX |= {"σ": r"$\sigma$", "–": "--", "−": r"$-$"}


@dataclass(frozen=True)
class Table:
    """A table of numbers, of which every form shows the same text.

    Args:
        name: stem of the files, such as ``"table_2"``.
        title: what stands above it.
        data: the numbers, one row a cell of the paper (:data:`COLUMNS`).
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
        rule = [":--" if _align(c) == "" else "--:" for c in head]
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in self._rows()]
        notes = [f"\n{note}" for note in self.notes]
        return "\n".join(
            [f"**{self.title}**\n", "| " + " | ".join(head) + " |", _pipes(rule), *lines, *notes, ""]
        )

    def latex(self) -> str:
        """A ``table`` environment; needs the package booktabs."""
        columns = "".join("l" if _align(c) == "" else "r" for c in self.text.columns)
        rows = [" & ".join(map(_tex, row)) + r" \\" for row in [list(self.text.columns), *self._rows()]]
        rows.insert(1, r"\midrule")
        body = "\n".join([r"\toprule", *rows, r"\bottomrule"])
        notes = "".join(f"\n\\par\\footnotesize {_tex(note)}" for note in self.notes)
        caption, label = f"\\caption{{{_tex(self.title)}}}", f"\\label{{tab:{self.name}}}"
        tabular = f"\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}"
        return f"\\begin{{table}}\n\\centering\n{caption}\n{label}\n{tabular}{notes}\n\\end{{table}}\n"

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``<name>.html``, ``.csv``, ``.md`` and ``.tex``; returns the paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        forms = {"html": self.html() + "\n", "csv": self.csv(), "md": self.markdown(), "tex": self.latex()}
        for suffix, text in forms.items():
            (folder / f"{self.name}.{suffix}").write_text(text, encoding="utf-8")
        return [folder / f"{self.name}.{suffix}" for suffix in forms]

    def _rows(self) -> list[list[str]]:
        return [list(map(str, row)) for row in self.text.itertuples(index=False)]

    def _repr_html_(self) -> str:
        return self.html()


def table_1(records: Iterable[Record]) -> Table:
    """Table 1, planar alignment: test error in pixels (RMS corner distance) by model and σ."""
    records = list(records)
    printed: _Printed = {
        (m, s): e for m, row in paper.TABLE_1.items() for s, e in zip(paper.SIGMAS, row, strict=True)
    }
    known = {m: ("[FC(6)]×" + m.rsplit("-", 1)[1], None) for m in paper.TABLE_1}
    data = _data(printed, known, records)
    text = pd.DataFrame([_wide(rows) for _, rows in data.groupby("model", sort=False)])
    notes = (*_notes(records), _UNIT_OF_TABLE_1)
    return Table("table_1", "Table 1. Test error of planar alignment, in pixels", data, text, notes)


def table_2(records: Iterable[Record]) -> Table:
    """Table 2, perturbed MNIST: test error in percent."""
    return _classification(
        "table_2", "Table 2. Test error on perturbed MNIST, in percent", paper.TABLE_2, records
    )


def table_3(records: Iterable[Record]) -> Table:
    """Table 3, perturbed GTSRB: test error in percent.

    Records of the rendered stand-in fill no cell; a note says that there are some.
    """
    return _classification(
        "table_3", "Table 3. Test error on perturbed GTSRB, in percent", paper.TABLE_3, records
    )


_UNIT_OF_TABLE_1 = (
    "The paper does not name the unit of this table; pixels (RMS distance of the corners) is our reading."
)


def _classification(
    name: str, title: str, printed: Mapping[str, paper.Row], records: Iterable[Record]
) -> Table:
    records = list(records)
    numbers: _Printed = {(m, None): row.error for m, row in printed.items()}
    known = {m: (row.architecture, row.capacity) for m, row in printed.items()}
    data = _data(numbers, known, records)
    text = pd.DataFrame([_long(row) for row in data.to_dict("records")])
    return Table(name, title, data, text, _notes(records))


def _data(
    printed: _Printed,
    known: Mapping[str, tuple[str, int | None]],
    records: Sequence[Record],
) -> pd.DataFrame:
    """One row a cell; statistics are over the seeds of the runs that finished on the real data."""
    rows = []
    for (model, sigma), value in printed.items():
        runs = [r for r in records if _is_cell(r, model, sigma)]
        errors = pd.Series([r.test_error for r in runs if r.status == "finished"], dtype=float)
        architecture, capacity = known[model]
        rows.append(
            {
                "model": model,
                "sigma": sigma,
                "paper": value,
                "ours": errors.mean(),
                "sd": errors.std(),
                "n": len(errors),
                "diverged": sum(r.status != "finished" for r in runs),
                "capacity": _capacity(runs) or capacity,
                "architecture": architecture,
            }
        )
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({"sigma": float, "capacity": "Int64"})


def _is_cell(record: Record, model: str, sigma: float | None) -> bool:
    same = record.spec.model == model and (sigma is None or record.spec.sigma == sigma)
    return same and not record.stand_in


def _capacity(runs: Sequence[Record]) -> int | None:
    """Learnable parameters, counted in the weights that a run left."""
    counts = [sum(w.numel() for w in r.weights.values()) for r in runs if r.weights]
    return counts[0] if counts else None


def _long(row: Mapping) -> dict[str, str]:
    return {
        "Model": row["model"],
        "Paper": f"{row['paper']:.3f}",
        "Ours": _ours(row, 2),
        "n": str(row["n"]),
        "Capacity": _count(row["capacity"]),
        "Architecture": row["architecture"],
    }


def _wide(rows: pd.DataFrame) -> dict[str, str]:
    cells = rows.to_dict("records")
    shown = {"Model": cells[0]["model"]}
    for cell in cells:
        shown[f"σ = {cell['sigma']:g}, paper"] = f"{cell['paper']:.3f}"
        shown[f"σ = {cell['sigma']:g}, ours"] = _ours(cell, 3)
    seeds = sorted({cell["n"] for cell in cells})
    shown["n"] = "–".join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1])))
    return shown | {"Capacity": _count(cells[0]["capacity"]), "Architecture": cells[0]["architecture"]}


def _ours(row: Mapping, digits: int) -> str:
    if row["n"] == 0:
        return "diverged" if row["diverged"] else MISSING
    text = f"{row['ours']:.{digits}f}"
    return text if row["n"] == 1 else f"{text} ± {row['sd']:.{digits}f}"


def _count(value: object) -> str:
    return MISSING if pd.isna(value) else str(value)  # type: ignore[call-overload]


def _notes(records: Sequence[Record]) -> tuple[str, ...]:
    notes = ["Ours: mean ± standard deviation over n seeds. n is the number of seeds."]
    presets = sorted({r.spec.preset for r in records})
    if presets:
        notes[0] += f" Preset: {', '.join(presets)}."
    sizes = sorted({(r.metrics["test_items"], r.metrics["test_draws"]) for r in records if _tested(r)})
    for items, draws in sizes:
        notes.append(
            f"Tested on {items} items, {draws} perturbation{'s' * (draws > 1)} each, alike for all models."
        )
    if failed := [f"{r.spec.model} (seed {r.spec.seed})" for r in records if r.status != "finished"]:
        notes.append(f"Diverged and left out of the means: {', '.join(failed)}.")
    if any(r.stand_in for r in records):
        notes.append(
            "Some runs used rendered stand-in data; their numbers are not the data set's and fill no cell."
        )
    found = {
        note for r in records for note in r.provenance.get("data", {}).get("notes", ()) if not r.stand_in
    }
    return (*notes, *sorted(found))


def _tested(record: Record) -> bool:
    return not record.stand_in and {"test_items", "test_draws"} <= set(record.metrics)


def _align(column: str) -> str:
    return "" if column in ("Model", "Architecture") else ' style="text-align:right"'


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _tex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
