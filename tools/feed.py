"""A feed of changes for feed readers (Atom, RFC 4287), made from CHANGELOG.md when the book is built.

Each line of the changelog is an entry. An entry is known by its words, so a reader's program shows it once,
wherever the book is published; it is dated as its version is, and, while that has no date, as the file is.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as XML

from markdown_it import MarkdownIt

ATOM = "http://www.w3.org/2005/Atom"
NAME = "changes.atom"
#: So many characters of an entry's first sentence are its title.
TITLE = 90


@dataclass(frozen=True)
class Change:
    """A line of the changelog.

    Attributes:
        version: ``Unreleased``, or a number.
        date: ISO, or empty.
        kind: Added, Changed …
        text: Markdown, one paragraph.
    """

    version: str
    date: str
    kind: str
    text: str


def write(html: Path, changelog: Path) -> Path:
    """Write the feed into the folder of the built book."""
    text = changelog.read_text(encoding="utf-8")
    changed = datetime.datetime.fromtimestamp(int(changelog.stat().st_mtime), datetime.UTC).isoformat()
    path = html / NAME
    path.write_bytes(feed(list(changes(text)), changed))
    return path


def changes(changelog: str) -> Iterator[Change]:
    """The lines of a changelog in the format of Keep a Changelog, as they come."""
    for version in re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]:
        title, _, body = version.partition("\n")
        name, _, date = title.strip().strip("[]").partition(" - ")
        for part in re.split(r"^### ", body, flags=re.MULTILINE)[1:]:
            kind, _, lines = part.partition("\n")
            for item in re.findall(r"^- (.*(?:\n(?!- |#).*)*)", lines, flags=re.MULTILINE):
                yield Change(name.strip("[] "), date.strip(), kind.strip(), " ".join(item.split()))


def feed(entries: list[Change], changed: str) -> bytes:
    """The feed.

    Args:
        entries: the newest first.
        changed: date and time of what has no date of its own, ISO with an offset.
    """
    XML.register_namespace("", ATOM)
    root = XML.Element(f"{{{ATOM}}}feed")
    _add(root, "title", "Inverse Compositional Spatial Transformer Networks: changes")
    _add(root, "id", _urn("feed"))
    _add(root, "updated", max((_when(entry, changed) for entry in entries), default=changed))
    _add(_add(root, "author"), "name", "the icstn authors")
    for entry in entries:
        node = _add(root, "entry")
        _add(node, "title", _title(entry))
        _add(node, "id", _urn(f"{entry.kind} {entry.text}"))
        _add(node, "updated", _when(entry, changed))
        _add(node, "content", MarkdownIt().render(entry.text), type="html")
    return bytes(XML.tostring(root, encoding="utf-8", xml_declaration=True))


def _add(parent: XML.Element, tag: str, text: str = "", **attributes: str) -> XML.Element:
    node = XML.SubElement(parent, f"{{{ATOM}}}{tag}", attributes)
    node.text = text or None
    return node


def _when(entry: Change, changed: str) -> str:
    return f"{entry.date}T00:00:00+00:00" if entry.date else changed


def _title(entry: Change) -> str:
    words = re.split(r"(?<=[.:;])\s", re.sub(r"[`*]", "", entry.text))[0].rstrip(".:;")
    short = words if len(words) <= TITLE else words[:TITLE].rpartition(" ")[0] + " …"
    return f"{entry.kind} ({entry.version}): {short}"


def _urn(text: str) -> str:
    """A name that depends on the text alone."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"urn:sha256:{digest[:40]}"
