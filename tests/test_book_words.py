"""The book's words: every exercise marked and listed, every symbol with one meaning and linked."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))


def exercises() -> dict[str, str]:
    """Label and title of every exercise in the chapters."""
    texts = [chapter.read_text(encoding="utf-8") for chapter in CHAPTERS if chapter.suffix == ".ipynb"]
    pattern = r"\{exercise-start\} ([^\"]*?)\\n\",\s*\":label: ([\w-]+)\\n"
    return {label: title for text in texts for title, label in re.findall(pattern, text)}


def test_every_exercise_has_a_mark_and_is_listed() -> None:
    page = (ROOT / "book" / "exercises.md").read_text(encoding="utf-8")
    found = exercises()
    assert len(found) > 25
    assert [title for title in found.values() if not re.search(r" ★{1,3}$", title)] == []
    assert {b: a for a, b in re.findall(r"\{ref\}`(.*?) <(ex-[\w-]+)>`", page)} == found


def test_each_symbol_has_one_meaning() -> None:
    """One row for each symbol; each word is in the glossary; and the letters that used to mean two things."""
    page = (ROOT / "book" / "symbols.md").read_text(encoding="utf-8")
    rows = [re.split(r"(?<!\\)\|", row)[1:5] for row in re.findall(r"^\| \$.*", page, re.MULTILINE)]
    symbols = [s for row in rows for s in re.findall(r"\$([^$]+)\$", row[0])]
    assert len(symbols) == len(set(symbols)) > 35
    words = set(re.findall(r"^(\w[\w ]+)\n  ", page.split("{glossary}")[1], re.MULTILINE))
    assert set(re.findall(r"\{term\}`([^`]+)`", page)) <= words
    chapters = {c.stem: c.read_text(encoding="utf-8") for c in CHAPTERS if c.suffix == ".ipynb"}
    assert all(row[3].strip()[6:-1] in chapters for row in rows)
    text = "".join(chapters.values())
    linked = set(re.findall(r"\{term\}`(?:[^`<]+<)?([^`>]+)>?`", text))
    assert linked == words
    for twice in (r"\\mathbf{D}", r"\\mathbf{G}\\b(?!_)", r"\\sigma_i", r"O\(n\^?2? ?N"):
        assert not re.search(twice, text), twice
