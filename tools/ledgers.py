"""Write the ledgers: the book's pages on equations, claims and provenance, in which no verdict is by hand.

    python -m tools.ledgers              write book/{equations,claims,does_the_paper_hold,provenance}.md
    python -m tools.ledgers --check      only say which of them are out of date
    python -m tools.ledgers --measure    first apply the published models to their test sets (needs the data)

The equations' marks come from running tests/equations; the claims' verdicts and all numbers from the Records
in figures/records and the measurements in figures/records/measurements.json. Same inputs, same bytes.
"""

from __future__ import annotations

import argparse
import ast
import functools
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from icstn.evidence.claims import CLAIMS, Claim, Judgement, judge
from icstn.evidence.collection import Evidence, MissingError
from icstn.evidence.comparison import ALIKE, Compared, against_paper
from icstn.evidence.estimates import coverage
from icstn.evidence.measurements import measure, read_measurements, to_measure, write_measurements
from icstn.evidence.predicates.composition import side_of_composition
from icstn.evidence.trace import Origin, duration, origins
from icstn.evidence.verdicts import VERDICTS
from icstn.experiments import EXPERIMENTS, DataOptions, Record, Records

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "figures" / "records"
MEASUREMENTS = RECORDS / "measurements.json"

#: Label of each numbered equation in the chapters.
LABELS = {
    1: "eq-lk-objective", 2: "eq-lk-linear", 3: "eq-ic-objective", 4: "eq-ic-linear", 5: "eq-ic-solution",
    6: "eq-regression", 7: "eq-sdm", 8: "eq-stn", 9: "eq-warp-matrix", 10: "eq-composition",
    11: "eq-composition-derivative",
}  # fmt: skip

MARKS = {"holds": "✓", "holds in part": "◐", "does not hold": "✗", "undecided": "?"}
BADGES = dict(zip(VERDICTS, ("bdg-success", "bdg-warning", "bdg-danger", "bdg-secondary"), strict=True))
REACHED = {"reached": "✓", "not reached": "✗", "undecided": "?", "not run": "–"}
NOTE = "<!-- Written by `python -m tools.ledgers`; changes made here are lost. -->\n"


# Equations.


@dataclass(frozen=True)
class Check:
    """One test: its sentence and whether it passed."""

    sentence: str
    passed: bool


@dataclass(frozen=True)
class Equation:
    """One test file."""

    file: str
    title: str
    math: str
    checks: tuple[Check, ...]

    @property
    def number(self) -> int:
        """The paper's number, 0 for a remark on its text."""
        match = re.fullmatch(r"test_eq_(\d+)\.py", self.file)
        return int(match[1]) if match else 0

    @property
    def passed(self) -> bool:
        """Whether all its checks pass."""
        return bool(self.checks) and all(c.passed for c in self.checks)


def equations(folder: Path = ROOT / "tests" / "equations") -> list[Equation]:
    """Run the tests and read what they say about themselves."""
    passed = _run(folder)
    found = []
    for path in sorted(folder.glob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        title, _, rest = (ast.get_docstring(tree) or "").partition("\n")
        math = textwrap.dedent(rest.split(".. math::", 1)[1]).strip() if ".. math::" in rest else ""
        tests = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
        checks = (
            Check(" ".join((ast.get_docstring(t) or "").split()), (path.stem, t.name) in passed)
            for t in tests
        )
        found.append(Equation(path.name, title, math, tuple(checks)))
    return found


def _run(folder: Path) -> set[tuple[str, str]]:
    """Names of the tests that pass, as (file, function)."""
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += [str(folder), f"--junitxml={report}"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        environment |= {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            raise RuntimeError(f"the equations' tests could not run:\n{done.stdout}{done.stderr}")
        cases = list(ET.parse(report).iter("testcase"))
    results: dict[tuple[str, str], bool] = {}
    for case in cases:
        key = (case.get("classname", "").rsplit(".", 1)[-1], re.sub(r"\[.*", "", case.get("name", "")))
        results[key] = results.get(key, True) and len(case) == 0
    return {key for key, ok in results.items() if ok}


def equations_page(found: Sequence[Equation], labels: set[str]) -> str:
    """book/equations.md."""
    numbered = [e for e in found if e.number]
    remarks = [e for e in found if not e.number]
    checks = [c for e in found for c in e.checks]
    out = [
        NOTE,
        "# Equations\n",
        _wrap(
            "Every numbered equation of the paper {cite}`lin2017icstn` has a test of its own, written"
            " from first principles: against a scene whose values and gradients are known as "
            "formulas, numpy's linear algebra, automatic differentiation or finite differences, never"
            " against a second call of the code under test. This page is written by running those "
            "tests, so a mark below is a result and not an opinion."
        ),
        f"\n**{sum(e.passed for e in numbered)} of {len(numbered)} equations and "
        f"{sum(e.passed for e in remarks)} of {len(remarks)} remarks check out, "
        f"in {sum(c.passed for c in checks)} of {len(checks)} tests.**\n",
        "| | equation | what it is | in the book |\n|---|---|---|---|",
        *(_row(e, labels) for e in numbered),
        "",
        *(_section(e, f"Eq. ({e.number})", f"check-eq-{e.number:02}", labels) for e in numbered),
        "## Remarks\n",
        _wrap(
            "Places where the paper's text can't be taken as it stands: something printed is false (an "
            "erratum), two places disagree (an inconsistency), or something needed is not said (an "
            "omission). Each is shown by tests, and so is what holds instead."
        ),
        "",
        *(_section(e, _kind(e), f"check-{e.file[5:-3].replace('_', '-')}", labels) for e in remarks),
    ]
    return "\n".join(out).rstrip() + "\n"


def _kind(e: Equation) -> str:
    """Erratum, inconsistency or omission: the second word of the file's name."""
    return e.file.split("_")[1].capitalize()


def _row(e: Equation, labels: set[str]) -> str:
    mark = "✓" if e.passed else "✗"
    where = _where(e, labels) or "–"
    return f"| {mark} | [({e.number})](check-eq-{e.number:02}) | {e.title.rstrip('.')} | {where} |"


def _where(e: Equation, labels: set[str]) -> str:
    label = LABELS.get(e.number, "")
    return f"{{eq}}`{label}`" if label in labels else ""


def _section(e: Equation, kind: str, target: str, labels: set[str]) -> str:
    level = "##" if e.number else "###"
    mark = "✓" if e.passed else "✗"
    where = _where(e, labels)
    lines = [f"({target})=", f"{level} {kind} {mark} {_plain(e.title)}\n", "```{math}", e.math, "```\n"]
    lines += [f"- {'✓' if c.passed else '✗'} {c.sentence}" for c in e.checks]
    lines += [f"\nDerived at {where}; tested in `tests/equations/{e.file}`.\n" if where else
              f"\nTested in `tests/equations/{e.file}`.\n"]  # fmt: skip
    return "\n".join(lines)


def _plain(title: str) -> str:
    return title.rstrip(".").replace("*", "")


# Claims.


def claims_page(evidence: Evidence, documents: set[str]) -> str:
    """book/claims.md."""
    judged = [(c, judge(c, evidence)) for c in CLAIMS]
    out = [
        NOTE,
        "# The paper's claims\n",
        _wrap(
            "Each statement of the paper that can be checked, in our words, with a verdict that code "
            "reached from the published Records or from a computation. A comparison *holds* when the "
            "95 % interval of the difference lies on the claimed side, *does not hold* when it lies "
            "on the other, and is *undecided* in between or when a run is missing. Where a claim takes "
            "several comparisons they are corrected for being many (Holm): one that does not survive this is "
            "undecided, whatever its own interval says. A claim holds when all its comparisons do, "
            "and *holds in part* when some do and some do not. What counts as little or negligible is for us "
            "to say; each such limit stands beside the limits at which the verdict would change."
        ),
        "",
        _wrap(
            "All models of a table meet the same test items under the same perturbations, and differences "
            "are taken item by item. What an interval covers depends on how many seeds there are, and is "
            "said at each claim: with several seeds it covers test items and seeds (a two-level bootstrap), "
            "with one seed the test items alone. How much a difference would change with another seed can't "
            "be known from one, so that a verdict from one seed is one about these trained networks, not yet "
            "about the models."
        ),
        f"\n**{_tally(j.verdict for _, j in judged)}**\n",
        "| | claim | place |\n|---|---|---|",
        *(f"| {MARKS[j.verdict]} | [{c.statement}](claim-{c.name}) | {c.place} |" for c, j in judged),
        "",
        *(_claim(c, j, documents) for c, j in judged),
    ]
    return "\n".join(out).rstrip() + "\n"


def _tally(verdicts: Iterable[str]) -> str:
    found = list(verdicts)
    counts = [(name, found.count(name)) for name in VERDICTS]
    return f"{len(found)} claims: " + ", ".join(f"{n} {_verb(name, n)}" for name, n in counts if n) + "."


def _verb(name: str, n: int) -> str:
    if n == 1:
        return name
    return name.replace("holds", "hold").replace("does not", "do not")


def _claim(c: Claim, j: Judgement, documents: set[str]) -> str:
    lines = [f"(claim-{c.name})=", f"## {MARKS[j.verdict]} {_plain(c.statement)}\n"]
    lines += [f"{{{BADGES[j.verdict]}}}`{j.verdict}` &nbsp; {c.place}{_basis(j, c)}\n"]
    lines += [_wrap(f"*Rule.* {c.rule}") + "\n"] if c.rule else []
    lines += [f"- {MARKS[f.verdict]} {_escaped(f.text)}" for f in j.findings]
    lines += [f"- ? {_escaped(j.missing)}"] if j.missing else []
    shown = [f"{{doc}}`{name}`" for name in c.shown if name in documents]
    lines += [f"\nShown in {' and '.join(shown)}." if shown else "", ""]
    return "\n".join(lines)


def _basis(j: Judgement, c: Claim) -> str:
    if c.kind == "computation":
        return " · a computation"
    if not j.presets:
        return ""
    presets = ", ".join(f"`{preset}`" for preset in j.presets)
    return f" · Records of preset {presets}; {coverage(j.seeds)}"


def _escaped(text: str) -> str:
    return text.replace("[", r"\[").replace("~", r"\~").replace("|", r"\|").replace("*", r"\*")


# Summary.


def summary_page(evidence: Evidence, documents: set[str]) -> str:
    """book/does_the_paper_hold.md."""
    judged = [(c, judge(c, evidence)) for c in CLAIMS]
    cells = against_paper(evidence)
    out = [
        NOTE,
        "# Does the paper hold?\n",
        _wrap(
            "A reproduction answers two questions that are easily taken for one. Do its *claims* "
            "hold: does reuse help, does geometry preservation help, is the trade-off as good as "
            "stated? And do its *numbers* come out: does the same cell of the same table show the "
            "same error? The first is what a reader builds on. The second depends on training "
            "details, some of which the paper doesn't give."
        ),
        "\n## Its claims\n",
        f"**{_tally(j.verdict for _, j in judged)}** Each links to its evidence.\n",
        *(_group(name, judged) for name in VERDICTS),
        "## Its numbers\n",
        *_numbers(cells),
        *_side(evidence),
        "## What stays open\n",
        *_open(judged, cells),
        _after(documents),
    ]
    return "\n".join(out).rstrip() + "\n"


def _numbers(cells: Sequence[Compared]) -> list[str]:
    have = [row for row in cells if row.ours is not None]
    if not have:
        return ["No cell has been run yet at a preset whose numbers mean anything.\n"]
    reached = sum(row.reached == "reached" for row in have)
    alike = {share: sum(row.alike(share) for row in have) for share in (ALIKE / 2, ALIKE, 2 * ALIKE)}
    spread = ", ".join(f"{n} within {share:.0%}" for share, n in alike.items())
    text = (
        "The table sets the paper's test errors beside ours: the mean over seeds with its 95 % "
        f"interval ({coverage([row.seeds for row in have])}), from the best preset that has been run. "
        "*Reached*: ✓ our mean is at or below the paper's, ✗ it is above by more than its interval, ? "
        f"anything else. *Alike*: the two are the same number, to {ALIKE:.0%} or to our interval. A cell "
        "that is reached and not alike shows that the recipe differs, not that the paper's number was "
        "reproduced: optimizer, schedule and number of steps then mattered more than what the paper varied. "
        "Table 1 is measured on another photograph than the paper's, so its cells can be compared in size "
        "but not digit by digit."
    )
    return [
        _wrap(text),
        f"\n**Of {len(have)} cells {reached} are at or below the paper's error. Alike are {spread}.**\n",
        "| reached | alike | cell | paper | ours | seeds |\n|:-:|:-:|---|--:|--:|--:|",
        *(_cell(row) for row in cells),
        "",
    ]


def _side(evidence: Evidence) -> list[str]:
    """What the paper does not ask: on which side the update should join."""
    try:
        findings = side_of_composition(evidence)
    except MissingError:
        return []
    text = (
        "Eq. (10) composes the update on the image's side, Lucas-Kanade on the template's. For a fixed "
        "target both ask the predictor for the same warp; they differ in how an imperfect step acts. Our "
        "presets but `paper` use the template's side. What that is worth, all else equal:"
    )
    lines = [f"- {MARKS[f.verdict]} {_escaped(f.text)} (preset `{f.cells[0].preset}`; "
             f"{coverage([len(cell.runs) for cell in f.cells])})" for f in findings]  # fmt: skip
    return ["## Beyond the paper: the side of composition\n", _wrap(text), "", *lines, ""]


def _group(verdict: str, judged: Sequence[tuple[Claim, Judgement]]) -> str:
    chosen = [c for c, j in judged if j.verdict == verdict]
    if not chosen:
        return ""
    lines = [f"### {MARKS[verdict]} {verdict[0].upper()}{verdict[1:]}\n"]
    return "\n".join([*lines, *(f"- [{c.statement}](claim-{c.name}) ({c.place})" for c in chosen), ""])


def _cell(row: Compared) -> str:
    about = EXPERIMENTS[row.experiment]
    shown = _escaped(row.ours.show(about.digits)) if row.ours else "–"
    alike = "–" if row.ours is None else "✓" if row.alike() else "✗"
    marks = f"| {REACHED[row.reached]} | {alike} "
    return (
        f"{marks}| {about.title.split(',')[0]}, {row.cell} | {row.printed:.3f} {about.unit} | {shown} | "
        f"{row.seeds or '–'} |"
    )


def _open(judged: Sequence[tuple[Claim, Judgement]], cells: Sequence[Compared]) -> list[str]:
    lines = [f"- {c.statement} {_escaped(j.missing)}." for c, j in judged if j.missing]
    unrun = sum(row.ours is None for row in cells)
    lines += [f"- Cells without a run of ours: {unrun} of {len(cells)}."] if unrun else []
    unsure = [c for c, j in judged if j.verdict == "undecided" and not j.missing]
    lines += [f"- {c.statement} The interval includes both answers." for c in unsure]
    alone = sum(row.seeds == 1 for row in cells)
    if alone:
        lines.append(f"- Cells with a single seed, whose intervals know nothing of other seeds: {alone}.")
    return [*lines, ""] if lines else ["Nothing: every claim is decided, and every cell has several runs.\n"]


def _after(documents: set[str]) -> str:
    links = [
        f"{{doc}}`{name}`" for name in ("planar_alignment", "mnist", "traffic_signs") if name in documents
    ]
    tour = f"The experiments are told in {', '.join(links)}; " if links else ""
    return _wrap(
        f"{tour}every number above can be followed to its runs in {{doc}}`provenance`, every formula to its "
        "test in {doc}`equations`."
    )


# Provenance.


def provenance_page(records: Sequence[Record]) -> str:
    """book/provenance.md."""
    found = origins(records)
    out = [
        NOTE,
        "# Where each number comes from\n",
        _wrap(
            "Every number of Tables 1 to 3 is the mean over the runs listed here. A run is a "
            "*Record*: a folder in `figures/records` with the trained weights and a JSON file that "
            "holds what was run, how it went, and under which command, commit, versions, hardware and"
            " data."
        ),
        "\nThe way back from a number, on the command line:\n",
        '```\nicstn trace "table_2 IC-STN-4(a)"\nicstn trace "table_1 IC-STN-4 sigma=5"\n```\n',
    ]
    if not found:
        out.append("There are no published Records yet.\n")
    for about in EXPERIMENTS.values():
        rows = [o for o in found if o.experiment == about.name]
        if rows:
            out += [f"({about.name.replace('_', '-')}-provenance)=", f"## {about.title}\n", *_runs(rows)]
    return "\n".join(out).rstrip() + "\n"


def _runs(rows: Sequence[Origin]) -> list[str]:
    out = [
        "| cell | preset, seed | error | training | hardware | commit | Record |",
        "|---|---|--:|--:|---|---|---|",
    ]
    for o in rows:
        facts, spec = o.record.provenance, o.record.spec
        name = o.model + ("" if o.sigma is None else f" σ = {o.sigma:g}")
        name += f" ({o.variation})" if o.variation else ""
        error = f"{o.record.test_error:.3f}" if o.record.status == "finished" else o.record.status
        time = f"{facts.get('steps', 0):,} steps, {duration(facts.get('training_seconds', 0.0))}"
        commit = str(facts.get("commit") or "–")
        commit = commit[:7] + commit[40:]
        out.append(
            f'| <span id="{spec.key}"></span>{name} | {spec.preset}, {spec.seed} | {error} | {time} | '
            f"{facts.get('device', '–')} | `{commit}` | `{spec.key}` |"
        )
    return [*out, "", *_commands(rows)]


def _commands(rows: Sequence[Origin]) -> list[str]:
    groups: dict[str, int] = {}
    for o in rows:
        command = str(o.record.provenance.get("command", "–"))
        groups[command] = groups.get(command, 0) + 1
    lines = [f"- `{command}` ({n} run{'s' * (n > 1)})" for command, n in sorted(groups.items())]
    return ["Commands:\n", *lines, ""]


# Writing.


def book_labels(root: Path = ROOT) -> set[str]:
    """Labels of the equations in the chapters."""
    text = "\n".join(p.read_text(encoding="utf-8") for p in sorted((root / "book").glob("*.ipynb")))
    text += "\n".join(p.read_text(encoding="utf-8") for p in sorted((root / "book").glob("*.md")))
    return set(re.findall(r":label: (eq-[\w-]+)", text)) | set(re.findall(r"\$\$ \((eq-[\w-]+)\)", text))


def book_documents(root: Path = ROOT) -> set[str]:
    """Names of the chapters in the table of contents that exist."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    files = [c["file"] for part in toc["parts"] for c in part["chapters"]]
    return {Path(f).name for f in files if any((root / f"{f}{s}").is_file() for s in (".ipynb", ".md"))}


@functools.lru_cache(maxsize=1)
def published() -> tuple[Record, ...]:
    """The Records in figures/records."""
    return tuple(Records(RECORDS))


def pages(records: Sequence[Record], measurements: dict, root: Path = ROOT) -> dict[str, str]:
    """Name of each ledger → its text."""
    labels, documents = book_labels(root), book_documents(root)
    return {
        "equations.md": equations_page(equations(), labels),
        "claims.md": claims_page(Evidence(records, measurements), documents),
        "does_the_paper_hold.md": summary_page(Evidence(records, measurements), documents),
        "provenance.md": provenance_page(records),
    }


def _wrap(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def _measure(folder: str | None) -> None:
    known = read_measurements(MEASUREMENTS)
    for record in to_measure(published(), known):
        print(f"measuring {record.spec.key}", flush=True)
        known[record.spec.key] = measure(record, DataOptions(folder))
        write_measurements(MEASUREMENTS, known)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the number of pages that are out of date (with ``--check``)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, say what is out of date")
    parser.add_argument("--measure", action="store_true", help="measure what is new on its test set first")
    parser.add_argument("--data", help="folder of the data sets, for --measure")
    options = parser.parse_args(argv)
    if options.measure:
        _measure(options.data)
    stale = 0
    for name, text in pages(published(), read_measurements(MEASUREMENTS)).items():
        path = ROOT / "book" / name
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        state = "unchanged" if old == text else "out of date" if options.check else "written"
        stale += options.check and old != text
        if old != text and not options.check:
            path.write_text(text, encoding="utf-8")
        print(f"book/{name}: {state}")
    return stale


if __name__ == "__main__":
    sys.exit(main())
