"""The book as one PDF, printed by Chromium from the built pages; it reads without a network, too.

    python tools/pdf.py                         _build/html becomes _build/icstn.pdf
    python tools/pdf.py --html SITE --out FILE  the same of another place

All chapters follow each other in the order of the table of contents, which has their page numbers. Links
between pages become links inside the file. Films and live pages are shown by their stills, solutions stand
open, and code that a page folds away is left out. So is the reference of the library (:data:`LEFT_OUT`): it
is for looking things up, and longer than all the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import io
import posixpath
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from bs4 import BeautifulSoup, Tag
from pypdf import PdfReader

from icstn.files import StorageError, write_atomic

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = ("book/library",)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
#: What a reader on paper can't use, and the half of each figure that is for dark pages.
USELESS = (
    "script, button, a.headerlink, details.admonition, .exhibit-dark, .only-dark, .cite-page, .film-controls"
)
STYLE = Path(__file__).with_suffix(".css")
FOOTER = """<div style="width:100%;font:8px sans-serif;color:#59636e;text-align:center">
<span class="pageNumber"></span></div>"""
TITLE = """<div class="whole-title"><img src="_static/logo.svg" alt=""><h1>{title}</h1>
<p>{author}</p><p>version {release}, {date}</p></div>"""


@dataclass(frozen=True)
class Chapter:
    """A page of the book.

    Attributes:
        name: such as ``book/warps``.
        part: caption of its part, empty for the first page.
        opens: whether it is its part's first.
    """

    name: str
    part: str
    opens: bool

    @property
    def anchor(self) -> str:
        """Where it begins in the long page."""
        return self.name.replace("/", "-")


def chapters(toc: Path = ROOT / "_toc.yml") -> list[Chapter]:
    """In the order of the table of contents."""
    listed = yaml.safe_load(toc.read_text(encoding="utf-8"))
    found = [Chapter(listed["root"], "", False)]
    for part in listed["parts"]:
        names = [c["file"] for c in part["chapters"] if c["file"] not in LEFT_OUT]
        found += [Chapter(name, part["caption"], k == 0) for k, name in enumerate(names)]
    return found


def whole(html: Path, listed: Iterable[Chapter], config: dict[str, Any]) -> str:
    """One page of all chapters, to be served from the folder of the built book.

    Args:
        html: that folder.
        listed: what it is made of.
        config: of the book, as in ``_config.yml``.
    """
    listed = list(listed)
    known = {chapter.name: chapter for chapter in listed}
    parsed = {c.name: _parsed(html / f"{c.name}.html") for c in listed}
    bodies = [_body(c, parsed[c.name], known) for c in listed]
    first = parsed[listed[0].name]
    date = first.select_one(".last-updated")
    release = config["sphinx"]["config"]["release"]
    said = {"title": config["title"], "author": config["author"], "release": release}
    title = TITLE.format(
        **said, date=date.get_text(strip=True).removeprefix("Last updated on ") if date else ""
    )
    contents = _contents([(c, _heading(parsed[c.name])) for c in listed])
    head = f"<title>{config['title']}</title>{_head(first, listed[0].name)}"
    text = f"{title}{contents}{''.join(bodies)}"
    body = f'<div class="bd-content"><article class="bd-article">{text}</article></div>'
    return (
        f'<!doctype html><html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8">'
        f"{head}<style>{STYLE.read_text(encoding='utf-8')}</style></head><body>{body}</body></html>"
    )


def _parsed(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def _heading(page: BeautifulSoup) -> str:
    """Of a page that :func:`_body` has seen."""
    found = page.select_one("article.bd-article h1")
    assert found is not None
    return found.decode_contents()


def _head(page: BeautifulSoup, name: str) -> str:
    """The book's styles, and its formulas' script."""
    kept = [tag for tag in page.select('link[rel="stylesheet"], script') if _needed(tag)]
    for tag in kept:
        for attribute in {"href", "src"} & set(tag.attrs):
            tag[attribute] = _resolved(str(tag[attribute]), name)
    return "".join(map(str, kept))


def _needed(tag: Tag) -> bool:
    return tag.name == "link" or "MathJax" in (tag.string or "") or "mathjax" in str(tag.get("src", ""))


def _body(chapter: Chapter, page: BeautifulSoup, known: dict[str, Chapter]) -> str:
    article = page.select_one("article.bd-article")
    assert article is not None, f"{chapter.name} has no text"
    _still(article)
    for tag in article.select(USELESS):
        tag.decompose()
    for tag in article.select("[id]"):
        tag["id"] = f"{chapter.anchor}--{tag['id']}"
    for tag in article.select("img[src]"):
        tag["src"] = _resolved(str(tag["src"]), chapter.name)
        tag.attrs.pop("loading", None)
    for tag in article.select("a[href]"):
        _relink(tag, chapter, known)
    part = f'<p class="whole-part">{chapter.part}</p>' if chapter.opens else ""
    return f'<div class="whole-chapter" id="{chapter.anchor}">{part}{article.decode_contents()}</div>'


def _still(article: Tag) -> None:
    """Stills and captions in place of elements that need a script."""
    for tag in article.select("icstn-film, icstn-live"):
        for part in tag.select("script"):
            part.decompose()
        shown = tag.select_one("img.il-still")
        words = f"{shown.get('alt', '') if shown else ''} (A still: on the page itself this moves.)"
        note = BeautifulSoup('<p class="still-note"></p>', "html.parser").p
        assert note is not None
        note.string = words.strip()
        tag.append(note)
        tag.name = "figure"


def _resolved(address: str, name: str) -> str:
    """An address on a page, seen from the book's folder."""
    if address.startswith(("data:", "http:", "https:", "#")):
        return address
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), address))


def _relink(tag: Tag, chapter: Chapter, known: dict[str, Chapter]) -> None:
    """A link to where its goal is in the long page; one that has no goal there is none."""
    address = str(tag["href"])
    if address.startswith(("http:", "https:", "mailto:")):
        return
    page, _, fragment = address.partition("#")
    name = _resolved(page, chapter.name).removesuffix(".html") if page else chapter.name
    if name not in known:
        tag.unwrap()
        return
    anchor = known[name].anchor
    tag["href"] = f"#{anchor}--{fragment}" if fragment else f"#{anchor}"


def _contents(listed: Iterable[tuple[Chapter, str]]) -> str:
    """The table of contents, its page numbers still empty."""
    lines = ['<div class="whole-contents"><h2>Contents</h2><ol>']
    for chapter, title in listed:
        lines += [f"</ol><h3>{chapter.part}</h3><ol>"] if chapter.opens else []
        link = f'<a href="#{chapter.anchor}">{title}</a>'
        lines.append(f'<li>{link}<span class="page" data-of="{chapter.anchor}">000</span></li>')
    return "".join([*lines, "</ol></div>"])


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of that folder on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def printed(html: Path, text: str) -> bytes:
    """The long page as a PDF with page numbers in its table of contents.

    Raises:
        RuntimeError: no Chromium is installed.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise RuntimeError("a PDF is printed by Chromium, and there is none: install Chromium or Chrome")
    from playwright.sync_api import sync_playwright

    with served(html) as address, sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        chromium = playwright.chromium.launch(executable_path=browser, args=flags, timeout=180_000)
        page = chromium.new_page()
        page.set_default_timeout(600_000)
        page.route(f"{address}whole.html", lambda route: route.fulfill(body=text, content_type="text/html"))
        page.goto(f"{address}whole.html", wait_until="load")
        page.evaluate("() => window.MathJax?.startup?.promise")
        page.evaluate(FILL, pages_of(_print(page)))
        pdf = _print(page)
        chromium.close()
    return pdf


#: Chapters' first pages, into the table of contents.
FILL = """pages => {
  for (const place of document.querySelectorAll(".whole-contents .page"))
    place.textContent = pages[place.dataset.of] ?? "";
}"""


def _print(page: Any) -> bytes:
    pdf: bytes = page.pdf(
        prefer_css_page_size=True,
        print_background=True,
        display_header_footer=True,
        header_template="<span></span>",
        footer_template=FOOTER,
        outline=True,
        tagged=True,
    )
    return pdf


def pages_of(pdf: bytes) -> dict[str, int]:
    """Where the file's links lead: name of a place → number of its page, from 1."""
    reader = PdfReader(io.BytesIO(pdf))
    numbers = {page.indirect_reference.idnum: k for k, page in enumerate(reader.pages, 1)}  # type: ignore[union-attr]
    places = reader.named_destinations
    return {name.lstrip("/"): numbers[place.page.idnum] for name, place in places.items()}


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--html", type=Path, default=ROOT / "_build" / "html", help="the built book")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "icstn.pdf", help="the file to write")
    options = parser.parse_args(argv)
    if not (options.html / "index.html").is_file():
        print(
            f"there is no built book in {options.html}: make it with  python tools/book.py", file=sys.stderr
        )
        return 2
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    try:
        pdf = printed(options.html, whole(options.html, chapters(), config))
        write_atomic(options.out, pdf)
    except (RuntimeError, StorageError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"the book is in {options.out}: {len(PdfReader(io.BytesIO(pdf)).pages)} pages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
