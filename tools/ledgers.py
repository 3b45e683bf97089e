"""Write the ledgers: the book's pages on equations, claims and provenance, in which no verdict is by hand.

    python -m tools.ledgers              write the pages
    python -m tools.ledgers --check      only say which of them are out of date
    python -m tools.ledgers --measure    first apply the published models to their test sets (needs the data)

The equations' marks come from running tests/equations; the claims' verdicts and all numbers from the Records
in figures/records and the measurements in figures/records/measurements.json. Same inputs, same bytes.
"""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from icstn.evidence.collection import Evidence
from icstn.evidence.measurements import measure, read_measurements, to_measure, write_measurements
from icstn.experiments import DataOptions, Record, Records
from icstn.experiments.search import SearchOutcome, load_outcome
from tools.ledger_ablations import ablations_page
from tools.ledger_claims import claims_page
from tools.ledger_equations import equations, equations_page
from tools.ledger_provenance import provenance_page
from tools.ledger_recipes import recipes_page
from tools.ledger_studies import studies_page
from tools.ledger_summary import summary_page

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "figures" / "records"
MEASUREMENTS = RECORDS / "measurements.json"
SEARCHES = ROOT / "figures" / "searches"


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


def searches() -> dict[str, SearchOutcome]:
    """Table → the search for its recipe, of those in figures/searches."""
    return {p.stem: load_outcome(p) for p in sorted(SEARCHES.glob("*.json"))}


def pages(records: Sequence[Record], measurements: dict, root: Path = ROOT) -> dict[str, str]:
    """Name of each ledger → its text."""
    labels, documents = book_labels(root), book_documents(root)
    evidence = Evidence(records, measurements)
    return {
        "equations.md": equations_page(equations(), labels),
        "claims.md": claims_page(evidence, documents),
        "does_the_paper_hold.md": summary_page(evidence, documents),
        "ablations.md": ablations_page(evidence),
        "provenance.md": provenance_page(records),
        "recipes.md": recipes_page(searches(), records),
        "studies.md": studies_page(records),
    }


def _measure(folder: str | None) -> None:
    keys = {record.spec.key for record in published()}
    known = {key: found for key, found in read_measurements(MEASUREMENTS).items() if key in keys}
    write_measurements(MEASUREMENTS, known)
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
