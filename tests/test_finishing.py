"""What built pages get last."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import finishing
import pytest
from PIL import Image


def inline(kind: str, content: bytes) -> str:
    data = base64.b64encode(content).decode()
    return f'<img class="only-light" alt="noise" src="data:image/{kind};base64,{data}">'


def png(side: int) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((side, side), 90).save(out, "png")
    return out.getvalue()


SVG = b'<svg width="36pt" height="18pt" viewBox="0 0 36 18">' + b"<path/>" * 600 + b"</svg>"
PAGE = """<script src="../_static/scripts/fontawesome.js?digest=1"></script>
<button class="btn search-button-field" title="Search" aria-label="Search">Search Ctrl+K</button>
<summary aria-label="Toggle hidden content"><p>Show code</p></summary><div role="doc-biblioentry">…</div>
{}"""


@pytest.fixture
def html(tmp_path: Path) -> Path:
    """A folder with a page that holds one of everything."""
    pictures = [inline("png", png(80)), inline("svg+xml", SVG), inline("png", png(4)), inline("png", png(80))]
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "page.html").write_text(PAGE.format("\n".join(pictures)), encoding="utf-8")
    (tmp_path / "_static" / "scripts").mkdir(parents=True)
    (tmp_path / "_static" / "scripts" / "fontawesome.js").write_text("…")
    return tmp_path


def test_large_pictures_become_files(html: Path) -> None:
    finishing.finish(html)
    page = (html / "book" / "page.html").read_text(encoding="utf-8")
    assert page.count("base64") == 1  # the small one stays
    assert sorted(p.suffix for p in (html / "_images").iterdir()) == [".png", ".png", ".svg"]
    for file in (html / "_images").iterdir():
        assert f'src="../_images/{file.name}"' in page
    assert (html / "_images" / next(f.name for f in (html / "_images").glob("*.svg"))).read_bytes() == SVG
    assert page.count('loading="lazy"') == 3
    assert page.count('width="80" height="80" ') == 2
    assert 'width="48" height="24" ' in page
    assert page.count('class="only-light" alt="noise"') == 4


@pytest.mark.parametrize(("content", "width", "height"), [(SVG, 30, 15), (png(80), 200, 200)])
def test_a_picture_of_a_given_width_keeps_its_place(
    content: bytes, width: int, height: int, html: Path
) -> None:
    """Else what stands below it jumps when it comes."""
    kind = "svg+xml" if content is SVG else "png"
    page = html / "book" / "page.html"
    page.write_text(inline(kind, content).replace("<img", f'<img width="{width}"'), encoding="utf-8")
    finishing.finish(html)
    text = page.read_text(encoding="utf-8")
    assert f'width="{width}"' in text
    assert f'height="{height}" src=' in text
    assert text.count("width=") == text.count("height=") == 1


def test_a_link_begins_with_its_first_letter(html: Path) -> None:
    page = html / "book" / "page.html"
    page.write_text(
        '<p class="admonition-title">Solution to<a href="#x"> Exercise 1</a></p>', encoding="utf-8"
    )
    finishing.finish(html)
    assert 'Solution to <a href="#x">Exercise 1</a>' in page.read_text(encoding="utf-8")


def test_a_formula_keeps_its_full_stop(html: Path) -> None:
    page = html / "book" / "page.html"
    formula = '<span class="math notranslate nohighlight">\\(p\\)</span>'
    page.write_text(f"<p>Of {formula}, and {formula} too.</p>", encoding="utf-8")
    for _ in range(2):
        finishing.finish(html)
        text = page.read_text(encoding="utf-8")
        assert f'<p>Of <span class="kept-together">{formula},</span> and {formula} too.' in text


def test_a_second_time_changes_nothing(html: Path) -> None:
    finishing.finish(html)
    before = {p: p.read_bytes() for p in html.rglob("*") if p.is_file()}
    finishing.finish(html)
    assert {p: p.read_bytes() for p in html.rglob("*") if p.is_file()} == before


def test_icons_and_names(html: Path) -> None:
    finishing.finish(html)
    page = (html / "book" / "page.html").read_text(encoding="utf-8")
    assert "fontawesome.js" not in page
    assert not (html / "_static" / "scripts" / "fontawesome.js").exists()
    assert "aria-label" not in page
    assert 'role="listitem"' in page
