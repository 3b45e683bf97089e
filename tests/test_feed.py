"""The feed of changes: every line of the changelog, once, valid, and known again after a change elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as XML

import feed

ROOT = Path(__file__).resolve().parent.parent
NOW = "2026-11-01T10:00:00+00:00"
TEXT = """# Changelog

## Unreleased

### Added

- One `thing`: with a long
  second line.
- Two <b>.

## [0.1.0] - 2026-01-02

### Changed

- Three.
"""


def entries(data: bytes) -> list[dict[str, str]]:
    root = XML.fromstring(data)
    found = root.findall(f"{{{feed.ATOM}}}entry")
    return [{node.tag.rpartition("}")[2]: node.text or "" for node in entry} for entry in found]


def test_each_line_is_an_entry_with_its_date() -> None:
    one, two, three = entries(feed.feed(list(feed.changes(TEXT)), NOW))
    assert one["title"] == "Added (Unreleased): One thing"
    assert one["content"] == "<p>One <code>thing</code>: with a long second line.</p>\n"
    assert (one["updated"], three["updated"]) == (NOW, "2026-01-02T00:00:00+00:00")
    assert three["title"] == "Changed (0.1.0): Three"
    assert len({one["id"], two["id"], three["id"]}) == 3


def test_an_entry_keeps_its_name_when_it_is_released() -> None:
    released = TEXT.replace("## Unreleased", "## [0.2.0] - 2026-12-01")
    before, after = (
        [e["id"] for e in entries(feed.feed(list(feed.changes(t)), NOW))] for t in (TEXT, released)
    )
    assert before == after


def test_the_project_s_own_changelog(tmp_path: Path) -> None:
    """What Atom demands of a feed, and nothing left out."""
    path = feed.write(tmp_path, ROOT / "CHANGELOG.md")
    root = XML.parse(path).getroot()
    assert root.tag == f"{{{feed.ATOM}}}feed"
    for tag in ("title", "id", "updated"):
        assert all(
            node.find(f"{{{feed.ATOM}}}{tag}").text for node in (root, *root.findall(f"{{{feed.ATOM}}}entry"))
        )  # type: ignore[union-attr]
    lines = re.findall(r"^- ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(entries(path.read_bytes())) == len(lines) > 30
