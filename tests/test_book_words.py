"""The book's words: every exercise marked and listed, every symbol with one meaning and linked."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

from icstn.evidence.claims import CLAIMS

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


#: What TeX needs, and letters of indices: no symbols of the book.
TEX = re.compile(
    r"\\([bB]igg?[lr]?|left|right|t?frac|partial|nabla|top|q?quad|cdot|[cdl]?dots|sum|prod|min|max|[lr]Vert|le|ge|approx"
    r"|to|times|leftarrow|mapsto|otimes|dagger|sqrt|mid|propto|Longleftrightarrow|mathbf0?)"
)
#: Words, labels and names in a formula, and braces above and below it.
WORDS = re.compile(r"\\(begin|end|text|mathrm|label|operatorname)\{[^{}]*\}|\\(under|over)brace")


def letters(formula: str) -> set[str]:
    """Letters and named signs of a formula; a bold or decorated one is another than a plain one."""
    styled = r"\\(?:mathbf|mathcal|boldsymbol|tilde)(?:\{\\?\w+\}|\{\\mathbf\{\w+\}\}|\\\w+)"
    found = re.findall(rf"{styled}|\\[A-Za-z]+|[A-Za-z]", WORDS.sub("", formula))
    return {re.sub(r"[{}]", "", f) for f in found if not TEX.fullmatch(re.sub(r"[{}]", "", f))}


def test_every_letter_of_a_formula_is_in_the_table() -> None:
    """Exercises have letters of their own."""
    page = (ROOT / "book" / "symbols.md").read_text(encoding="utf-8")
    known = set().union(*map(letters, re.findall(r"\$([^$]+)\$", page)))
    unknown = set()
    for chapter in CHAPTERS:
        cells = nbformat.read(chapter, as_version=4).cells
        for text in (c.source for c in cells if c.cell_type == "markdown"):
            if "solution-start" in text:
                continue
            text = re.sub(r"^:label:.*$", "", text, flags=re.MULTILINE)
            formulas = re.findall(r"(?<!`)\$([^$\n]+)\$|```\{math\}(.*?)```|\$\$(.*?)\$\$", text, re.DOTALL)
            unknown |= {(chapter.stem, x) for parts in formulas for x in letters("".join(parts)) - known}
    assert unknown == set()


def test_every_chapter_links_the_words_that_it_uses() -> None:
    for chapter in CHAPTERS:
        linked = set(re.findall(r"\{term\}`(?:[^`<]+<)?([^`>]+)>?`", chapter.read_text(encoding="utf-8")))
        assert len(linked) > 3 or chapter.stem in ("conventions", "your_images"), (chapter.stem, linked)


def test_every_claim_is_linked_where_its_verdict_says_that_it_is_shown() -> None:
    words = {
        chapter.stem: "\n".join(
            c.source for c in nbformat.read(chapter, 4).cells if c.cell_type == "markdown"
        )
        for chapter in CHAPTERS
    }
    lacking = [(c.name, d) for c in CLAIMS for d in c.shown if f"{{ref}}`claim-{c.name}`" not in words[d]]
    assert lacking == []
