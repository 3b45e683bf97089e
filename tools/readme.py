"""Put the rendered result tables into README.md, between its two marks.

    python tools/readme.py            rewrite the section
    python tools/readme.py --check    say whether it is up to date

The tables are the files that the exhibits render from Records, ``figures/rendered/table_*.md``.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- results: written by tools/readme.py -->", "<!-- end of results -->"
NOTHING = "No table has been rendered yet: `make reproduce` does that.\n"


def section(rendered: Path = ROOT / "figures" / "rendered") -> str:
    """The tables as Markdown, in the paper's order."""
    tables = [path.read_text(encoding="utf-8").strip() for path in sorted(rendered.glob("table_?.md"))]
    return "\n\n".join(tables) + "\n" if tables else NOTHING


def updated(readme: str, results: str) -> str:
    """The README with that text between the marks."""
    before, _, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"README.md has lost its marks: {START!r} … {END!r}")
    return f"{before}{START}\n\n{results}\n{END}{after}"


def main(argv: list[str]) -> int:
    """Command line; with ``--check``, 1 when the section is out of date."""
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = updated(old, section())
    if "--check" in argv:
        print("up to date" if old == new else "out of date: python tools/readme.py mends that")
        return int(old != new)
    path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
