"""The README: its numbers are the rendered tables, its example runs, what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import readme
import yaml


@pytest.fixture
def text(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


def test_results_and_costs_are_the_measured_ones(text: str) -> None:
    assert readme.rewritten(text) == text, "python tools/readme.py mends that"


def test_results_come_from_the_files(tmp_path: Path) -> None:
    (tmp_path / "table_1.md").write_text("one\n")
    (tmp_path / "table_2.md").write_text("two\n")
    assert readme.section(tmp_path) == "one\n\ntwo\n"
    assert readme.updated(f"a\n{readme.START}\nold\n{readme.END}\nb", "new\n") == (
        f"a\n{readme.START}\n\nnew\n\n{readme.END}\nb"
    )


def test_counts_are_what_each_section_has_in_bold(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    parts = ["**no section**", "A\n\n**two of\nthree.** More **so:**\n", "B\n\na b", "C\n**d** (e)"]
    page.write_text("\n## ".join(parts))
    assert readme.counts(page) == "- *A:* two of three. so.\n- *C:* d.\n"


def test_lost_marks_are_an_error() -> None:
    with pytest.raises(ValueError, match="lost its marks"):
        readme.updated("no marks", "new")


@pytest.mark.parametrize("page", ["README.md", "book/environment.md"])
def test_python_examples_run(root: Path, page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (root / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {})


def test_linked_files_exist(text: str, root: Path) -> None:
    links = re.findall(r"\]\(([^):#]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
    missing = [name for pair in links for name in pair if name and not (root / name).exists()]
    assert missing == []


def test_named_commands_exist(text: str, root: Path) -> None:
    makefile = (root / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z]+)", text)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_citation_is_of_this_version(root: Path) -> None:
    import tomllib

    cited = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert str(cited["version"]) == project["version"]
    assert cited["license"] == project["license"]
