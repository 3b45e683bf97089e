"""The book as one PDF."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pdf
import pytest
import yaml
from browser import CHROMIUM
from bs4 import BeautifulSoup
from pypdf import PdfReader

ROOT = Path(__file__).resolve().parent.parent
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
PAGE = """<html><head><link rel="stylesheet" href="../_static/theme.css">
<script src="../_static/other.js"></script>
<script defer src="../_static/mathjax/tex.js"></script></head><body><article class="bd-article">
<section id="top"><h1>{title}<a class="headerlink" href="#top">#</a></h1>{body}</section></article>
<p class="last-updated">Last updated on Nov 1, 2026.</p></body></html>"""
FIRST = """<p id="here">See <a href="two.html#there">there</a>, <a href="two.html">two</a>,
<a href="#here">here</a>,
<a href="library.html#f">the reference</a> and <a href="https://example.org/">elsewhere</a>.</p>
<img loading="lazy" class="only-light" src="../_images/a.svg">
<img class="exhibit-dark" src="../_images/b.svg">
<details class="admonition hide above-input"><summary>Show code</summary><pre>secret = 1</pre></details>"""
SECOND = """<icstn-live compact>
<img class="il-still" src="../_static/still.png" alt="Three boxes."></icstn-live>
<icstn-film label="x"><img class="il-still" src="s.png" alt="Steps."><script>{"rows": []}</script>
<p class="il-caption">What it shows.</p></icstn-film><p id="there">There.</p>"""
LISTED = [pdf.Chapter("book/one", "", False), pdf.Chapter("book/two", "Foundations", True)]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A built book of two chapters."""
    (tmp_path / "book").mkdir()
    for name, title, body in (("one", "Align", FIRST), ("two", "Warps <em>compose</em>", SECOND)):
        text = PAGE.format(title=title, body=body)
        (tmp_path / "book" / f"{name}.html").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def page(site: Path) -> BeautifulSoup:
    return BeautifulSoup(pdf.whole(site, LISTED, CONFIG), "html.parser")


def test_all_chapters_but_the_reference_in_their_order() -> None:
    listed = [c.name for c in pdf.chapters()]
    written = re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    assert listed == [name for name in written if name not in pdf.LEFT_OUT]
    assert set(pdf.LEFT_OUT) <= set(written)
    assert [c.part for c in pdf.chapters() if c.opens][:2] == ["Start here", "Foundations"]


def test_links_lead_to_places_in_the_page(page: BeautifulSoup) -> None:
    ids = [tag["id"] for tag in page.select("[id]")]
    assert len(set(ids)) == len(ids)
    inside = [a["href"].removeprefix("#") for a in page.select('a[href^="#"]')]
    assert set(inside) == {"book-one", "book-two", "book-two--there", "book-one--here"} <= set(ids)
    assert [a["href"] for a in page.select('a[href^="http"]')] == ["https://example.org/"]
    assert "the reference and" in page.get_text()


def test_nothing_stays_that_needs_a_script_or_another_page(page: BeautifulSoup) -> None:
    assert not page.select("icstn-film, icstn-live, details, .headerlink, .exhibit-dark, [loading]")
    assert "secret" not in page.get_text()
    text = " ".join(page.get_text(" ").split())
    assert "Three boxes. (A still: on the page itself this moves.)" in text
    assert "What it shows." in text
    sources = [tag["src"] for tag in page.select("article img")]
    assert sources == ["_static/logo.svg", "_images/a.svg", "_static/still.png", "book/s.png"]
    assert [tag["src"] for tag in page.select("script[src]")] == ["_static/mathjax/tex.js"]
    assert page.select_one("link")["href"] == "_static/theme.css"  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="to run it, install Chromium")
def test_contents_have_the_numbers_of_the_pages(site: Path) -> None:
    long = "<p>line</p>" * 150
    one = site / "book" / "one.html"
    one.write_text(
        one.read_text(encoding="utf-8").replace("</section>", f"{long}</section>"), encoding="utf-8"
    )
    reader = PdfReader(io.BytesIO(pdf.printed(site, pdf.whole(site, LISTED, CONFIG))))
    texts = [page.extract_text() for page in reader.pages]
    first, second = (
        next(k for k, t in enumerate(texts, 1) if title in t and "Contents" not in t)
        for title in ("Align", "Warps compose")
    )
    assert second > first + 2
    contents = next(t for t in texts if "Contents" in t)
    assert re.search(rf"Align\s*{first}\b", contents)
    assert re.search(rf"Warps compose\s*{second}\b", contents)
    assert texts[second - 1].rstrip().endswith(str(second))  # the number below the page


def test_no_built_book(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pdf.main(["--html", str(tmp_path)]) == 2
    assert "make it with" in capsys.readouterr().err


def test_no_browser(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "BROWSERS", ("no-such-browser",))
    with pytest.raises(RuntimeError, match="install Chromium"):
        pdf.printed(site, "")
