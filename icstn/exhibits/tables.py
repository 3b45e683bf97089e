"""Tables 1 to 3, and what stands beside Table 1: numbers as HTML, CSV, Markdown and LaTeX."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from icstn.experiments import paper
from icstn.experiments.experiment import BASELINES
from icstn.experiments.records import Record

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
        data: the numbers, one row a cell (of a table of the paper: :data:`COLUMNS`).
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


def table_1_parameters(records: Iterable[Record]) -> Table:
    """Table 1 once more in the space of warp parameters: the mean L2 norm of what is left of p. Only ours."""
    records = [r for r in records if r.spec.experiment == "table_1"]
    data = _measured(records, list(paper.TABLE_1), "parameter_error")
    text = pd.DataFrame([_row(rows, {"": _mean}) for _, rows in data.groupby("model", sort=False)])
    title = "Table 1, in warp parameters. Test error of planar alignment, as the L2 norm of p"
    note = "A warp parameter has no unit: 1 is half the width of the template."
    return Table("table_1_parameters", title, data, text, (*_notes(records), note))


#: Rows of Table 1 that :func:`table_1_classical` repeats.
REPEATED = ("c-STN-1", "IC-STN-6")


def table_1_classical(records: Iterable[Record]) -> Table:
    """Classical methods on the trials of Table 1: mean and median error in pixels, and failures.

    Args:
        records: of ``baselines`` and of ``table_1``, from which the initial error and :data:`REPEATED` come.
    """
    records = [r for r in records if r.spec.experiment == "baselines" or r.spec.model in REPEATED]
    data = _measured(records, ["no alignment", *BASELINES, *REPEATED], "test_error")
    words = {"mean": _mean, "median": lambda cell: _number(cell["median"])}
    groups = data.groupby("model", sort=False)
    text = pd.DataFrame([_row(rows, words) | _remarks(str(model), rows) for model, rows in groups])
    title = "Classical methods on the trials of Table 1, a comparison that the paper does not make"
    notes = (*_notes(records), *_OF_CLASSICAL)
    return Table("table_1_classical", f"{title}: test error in pixels", data, text, notes)


_OF_CLASSICAL = (
    "Failed: items in percent, for each σ in turn, that the method itself does not call converged: it left "
    "the image, its equations were singular, it still moved at the last iteration, or it stopped at what "
    "does not look like the template. They count in mean and median, with their last warp.",
    "Learned: numbers that were learned from perturbed samples. Methods that learn nothing draw nothing, and "
    "run once.",
)


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
    name: str, title: str, printed: Mapping[str, paper.PrintedRow], records: Iterable[Record]
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


def _measured(records: Sequence[Record], models: Sequence[str], metric: str) -> pd.DataFrame:
    """One row a model and σ of Table 1's trials; statistics over the runs that finished."""
    rows = []
    for model in models:
        for sigma in paper.SIGMAS:
            at = [r for r in records if r.spec.sigma == sigma and _tested(r)]
            runs = [r for r in at if r.spec.model == model]
            found = [r.metrics for r in runs] if model != "no alignment" else _initial(at)
            failed = [m["failed"] / m["test_items"] * 100 for m in found if "failed" in m]
            errors = pd.Series([m.get(metric) for m in found], dtype=float)
            rows.append(
                {
                    "model": model,
                    "sigma": sigma,
                    "ours": errors.mean(),
                    "sd": errors.std(),
                    "n": len(errors),
                    "diverged": 0,
                    "median": pd.Series([m.get("median_px") for m in found], dtype=float).mean(),
                    "failed": pd.Series(failed, dtype=float).mean(),
                    "learned": _capacity(runs) or 0,
                    "draws": max((r.provenance.get("draws", 0) for r in runs), default=0),
                }
            )
    return pd.DataFrame(rows)


def _initial(records: Sequence[Record]) -> list[dict[str, float]]:
    """Error of the perturbations themselves, which are the same for all."""
    curves = [r.metrics["by_operations"] for r in records if r.metrics.get("by_operations")]
    return [{"test_error": c[0]["corner_px"], "median_px": c[0]["median_px"]} for c in curves[:1]]


def _row(rows: pd.DataFrame, parts: Mapping[str, Callable[[Mapping], str]]) -> dict[str, str]:
    """Texts of one model: a few columns for each σ."""
    cells = rows.to_dict("records")
    shown = {"Model": cells[0]["model"]}
    for cell in cells:
        for name, write in parts.items():
            shown[f"σ = {cell['sigma']:g}" + (f", {name}" if name else "")] = write(cell)
    return shown | {"n": _seeds(cells)}


def _remarks(model: str, rows: pd.DataFrame) -> dict[str, str]:
    failed = " / ".join(MISSING if pd.isna(share) else f"{share:.1f}" for share in rows["failed"])
    learned = int(rows["learned"].max())
    return {
        "Failed": MISSING if rows["failed"].isna().all() else failed,
        "Learned": str(learned) if learned else MISSING,
        "Method": BASELINES.get(model, ""),
    }


def _mean(cell: Mapping) -> str:
    if pd.isna(cell["ours"]):
        return MISSING
    return _number(cell["ours"]) + ("" if cell["n"] < 2 else f" ± {_number(cell['sd'])}")


def _number(value: float) -> str:
    """Three decimals, or a power of ten for what flew off."""
    return MISSING if pd.isna(value) else f"{value:.3f}" if value < 1000 else f"{value:.1e}"


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
    return shown | {
        "n": _seeds(cells),
        "Capacity": _count(cells[0]["capacity"]),
        "Architecture": cells[0]["architecture"],
    }


def _seeds(cells: Sequence[Mapping]) -> str:
    counts = sorted({cell["n"] for cell in cells})
    return "–".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))


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
    finished = record.status == "finished" and not record.stand_in
    return finished and {"test_items", "test_draws"} <= set(record.metrics)


def _align(column: str) -> str:
    return "" if column in ("Model", "Architecture", "Method") else ' style="text-align:right"'


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _tex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
