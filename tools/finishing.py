"""What built pages get last: they load little before a reader touches them, and say what their parts are.

Pictures inside a page's HTML become files, of which a browser fetches those of the theme in use and only when
they come near the screen. The theme's icons come twice, as a font and as a script of 1.5 MB that draws the
same ones: the script goes. Labels of the theme that hide what a button says, a role that is no longer in use,
and a link that begins with a space are put right, and a formula keeps the full stop behind it. Each page
names the feed of changes.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import struct
from pathlib import Path

import feed

from icstn.files import write_atomic

#: A picture in an ``img`` of at least so many characters becomes a file.
INLINE = 4000
PICTURE = re.compile(
    r'<img\b(?P<before>[^>]*?)\bsrc="data:image/(?P<kind>png|jpeg|svg\+xml);base64,(?P<data>[^"]+)"'
)
ICONS = re.compile(r'\s*<script src="[^"]*scripts/fontawesome\.js[^"]*"></script>')
#: What a page says → what it should say, for those who do not see it.
SAID = (
    (re.compile(r'<summary aria-label="Toggle hidden content">'), "<summary>"),
    (re.compile(r'(<button\s+class="[^"]*search-button-field[^"]*"[^>]*?)\s+aria-label="Search"'), r"\1"),
    (re.compile(r'role="doc-biblioentry"'), 'role="listitem"'),
    (
        re.compile(r'(?<!<span class="kept-together">)(<span class="math [^>]*>[^<]*</span>[.,;:!?)]+)'),
        r'<span class="kept-together">\1</span>',
    ),
    (re.compile(r'(admonition-title">Solution to)(<a [^>]*>) (?=Exercise)'), r"\1 \2"),
)


def finish(html: Path) -> None:
    """Rewrite every page below that folder; a second time changes nothing."""
    for page in sorted(html.rglob("*.html")):
        if "_static" not in page.parts:
            old = page.read_text(encoding="utf-8")
            new = finished(old, page, html)
            if new != old:
                write_atomic(page, new)
    (html / "_static" / "scripts" / "fontawesome.js").unlink(missing_ok=True)


def finished(text: str, page: Path, html: Path) -> str:
    """A page's text, its larger pictures written to ``_images``."""
    text = PICTURE.sub(lambda match: _extracted(match, page, html), ICONS.sub("", text))
    for pattern, replacement in SAID:
        text = pattern.sub(replacement, text)
    address = Path(os.path.relpath(html / feed.NAME, page.parent)).as_posix()
    link = f'<link rel="alternate" type="application/atom+xml" title="Changes" href="{address}">'
    return text if link in text else text.replace("</head>", f"{link}\n</head>", 1)


def _extracted(match: re.Match[str], page: Path, html: Path) -> str:
    if len(match["data"]) < INLINE:
        return match[0]
    content = base64.b64decode(match["data"])
    ending = {"svg+xml": "svg", "jpeg": "jpg"}.get(match["kind"], match["kind"])
    file = html / "_images" / f"{hashlib.sha256(content).hexdigest()[:20]}.{ending}"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, content)
    address = Path(os.path.relpath(file, page.parent)).as_posix()
    return f'<img loading="lazy"{match["before"]}{_size(content, match["before"])}src="{address}"'


def _size(content: bytes, attributes: str) -> str:
    """Width and height in pixels, so that the page does not jump when the picture comes.

    Where the page says the width, the height is what the picture's proportions make of it.
    """
    if "height=" in attributes or not (own := _own_size(content)):
        return ""
    width, height = own
    if (said := re.search(r'\bwidth="(\d+)"', attributes)) is not None:
        return f'height="{round(int(said[1]) * height / width)}" '
    return "" if "width=" in attributes else f'width="{round(width)}" height="{round(height)}" '


def _own_size(content: bytes) -> tuple[float, float] | None:
    """Of a PNG or of Matplotlib's SVG, in pixels."""
    if content.startswith(b"\x89PNG"):
        width, height = struct.unpack(">II", content[16:24])
        return width, height
    start = content[:2000].partition(b"<svg")[2].partition(b">")[0]
    sizes = dict(re.findall(rb'\b(width|height)="([\d.]+)pt"', start))
    return (float(sizes[b"width"]) * 4 / 3, float(sizes[b"height"]) * 4 / 3) if len(sizes) == 2 else None
