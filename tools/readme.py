"""Put the verdicts' counts, the rendered result tables and the costs into README.md, between their marks.

    python tools/readme.py            rewrite these sections
    python tools/readme.py --check    say whether they are up to date

The counts are those of the page of verdicts, which ``python -m tools.ledgers`` writes; the tables are the
files that the exhibits render from Records, ``figures/rendered/table_*.md``; the costs come from
``tools/costs.py`` and the Records.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from costs import measured, summary

from icstn.experiments import Records

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- results: written by tools/readme.py -->", "<!-- end of results -->"
COST, COST_END = "<!-- cost: written by tools/readme.py -->", "<!-- end of cost -->"
COUNTS, COUNTS_END = "<!-- counts: written by tools/readme.py -->", "<!-- end of counts -->"
NOTHING = "No table has been rendered yet: `make reproduce` does that.\n"


def section(rendered: Path = ROOT / "figures" / "rendered") -> str:
    """The tables as Markdown, in the paper's order."""
    tables = [path.read_text(encoding="utf-8").strip() for path in sorted(rendered.glob("table_?.md"))]
    return "\n\n".join(tables) + "\n" if tables else NOTHING


def counts(page: Path = ROOT / "book" / "does_the_paper_hold.md") -> str:
    """What each section of the page of verdicts counts, in bold there, as a list."""
    _, *sections = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = []
    for section in sections:
        if bold := re.findall(r"\*\*(.+?)\*\*", section, re.DOTALL):
            said = " ".join(" ".join(part.split()).rstrip(".:") + "." for part in bold)
            lines.append(f"- *{section.splitlines()[0]}:* {said}")
    return "\n".join(lines) + "\n"


def costs(root: Path = ROOT) -> str:
    """What each preset costs, as Markdown."""
    records = list(Records(root / "figures" / "records"))
    return summary(measured(), records)


def updated(readme: str, results: str, start: str = START, end: str = END) -> str:
    """The README with that text between the marks."""
    before, _, rest = readme.partition(start)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"README.md has lost its marks: {start!r} … {end!r}")
    return f"{before}{start}\n\n{results}\n{end}{after}"


def rewritten(readme: str) -> str:
    """The README with all sections anew."""
    readme = updated(readme, counts(), COUNTS, COUNTS_END)
    return updated(updated(readme, section()), costs(), COST, COST_END)


def main(argv: list[str]) -> int:
    """Command line; with ``--check``, 1 when a section is out of date."""
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = rewritten(old)
    if "--check" in argv:
        print("up to date" if old == new else "out of date: python tools/readme.py mends that")
        return int(old != new)
    path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
