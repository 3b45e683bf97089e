"""The book: complete, built without a warning, readable without a network, its formulas typeset."""

from __future__ import annotations

import functools
import html.parser
import http.server
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import book

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted(
    p for kind in ("ipynb", "md") for f in ("book", "figures") for p in (ROOT / f).glob(f"*.{kind}")
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}
DESKTOP, PHONE = (1280, 900), (390, 844)


def toc_entries(node: Any) -> Iterator[str]:
    """The files that a table of contents names, in its order."""
    if isinstance(node, dict):
        if "file" in node or "root" in node:
            yield node.get("file") or node["root"]
        node = [value for value in node.values() if isinstance(value, list)]
    if isinstance(node, list):
        for child in node:
            yield from toc_entries(child)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, int]:
    """The HTML folder, the builder's messages and its exit status."""
    out = tmp_path_factory.mktemp("book")
    result = book.build(book.stage(out / "stage"), out, strict=True)
    return out / "_build" / "html", result.stdout, result.returncode


@pytest.fixture(scope="module")
def pages(built: tuple[Path, str, int]) -> list[Path]:
    folder, messages, status = built
    assert status == 0, messages[-4000:]
    return sorted(p for p in folder.rglob("*.html") if "_static" not in p.parts)


class Loads(html.parser.HTMLParser):
    """Collects what a page makes the browser fetch (links that a reader may click are no fetch)."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag == "link" and values.get("rel") in ("canonical", "author", "license", "next", "prev", "index"):
            return
        if url := values.get(LOADED.get(tag, "")):
            self.urls.append(url)


def test_every_chapter_is_in_the_table_of_contents() -> None:
    listed = set(toc_entries(yaml.safe_load((ROOT / "_toc.yml").read_text())))
    assert {str(p.relative_to(ROOT).with_suffix("")) for p in CHAPTERS} == listed


def test_no_chapter_exists_twice() -> None:
    names = [p.relative_to(ROOT).with_suffix("") for p in CHAPTERS]
    assert len(names) == len(set(names))


def test_staging_overlays_executed_notebooks(tmp_path: Path) -> None:
    overlay = tmp_path / "fresh"
    (overlay / "book").mkdir(parents=True)
    (overlay / "book" / "intro.md").write_text("# Fresh\n")
    (overlay / "environment.md").write_text("# Fresh, too\n")
    (overlay / "stray.ipynb").write_text("{}")
    staged = book.stage(tmp_path / "stage", overlay=overlay)
    assert (staged / "book" / "intro.md").read_text() == "# Fresh\n"
    assert (staged / "book" / "environment.md").read_text() == "# Fresh, too\n"
    assert (staged / "_toc.yml").read_text() == (ROOT / "_toc.yml").read_text()
    assert not list(staged.rglob("stray.ipynb"))
    assert not (staged / "figures" / "records").exists()
    book.stage(tmp_path / "stage")
    assert (staged / "book" / "intro.md").read_text() == (ROOT / "book" / "intro.md").read_text()


@pytest.mark.slow
def test_builds_without_a_warning(built: tuple[Path, str, int]) -> None:
    _, messages, status = built
    assert status == 0, messages[-6000:]
    assert not re.search(r"\bWARNING\b|\bERROR\b", messages)


@pytest.mark.slow
def test_every_chapter_became_a_page(pages: list[Path], built: tuple[Path, str, int]) -> None:
    for chapter in CHAPTERS:
        assert built[0] / chapter.relative_to(ROOT).with_suffix(".html") in pages


@pytest.mark.slow
def test_pages_fetch_nothing_from_elsewhere(pages: list[Path]) -> None:
    for page in pages:
        loads = Loads()
        text = page.read_text(encoding="utf-8")
        loads.feed(text)
        assert [u for u in loads.urls if re.match(r"(https?:)?//", u)] == [], page.name
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", text), page.name


@pytest.mark.slow
def test_pages_have_no_dead_internal_links(pages: list[Path]) -> None:
    for page in pages:
        for target in re.findall(r'<a[^>]+href="([^"#:?]+)(?:#[^"]*)?"', page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.fixture(scope="module")
def address(built: tuple[Path, str, int]) -> Iterator[str]:
    """A server on this machine, since a browser treats file:// pages differently."""
    handler = functools.partial(QuietHandler, directory=str(built[0]))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Any]:
    """Opens a page as a reader without a network would; remembers what it asked for in vain."""
    contexts = []

    def open_page(name: str, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Any:
        context = browser.new_context(
            viewport=dict(zip(("width", "height"), size, strict=True)), color_scheme=scheme
        )
        contexts.append(context)
        page = context.new_page()
        page.complaints = []
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("requestfailed", lambda request: page.complaints.append(request.url))
        page.on("response", lambda r: page.complaints.append(r.url) if r.status >= 400 else None)
        context.route(lambda url: not url.startswith((address, "data:")), lambda route: route.abort())
        page.goto(address + name, wait_until="load")
        page.wait_for_function("() => !window.MathJax || !MathJax.startup || MathJax.startup.promise")
        page.evaluate("() => window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => 0) : 0")
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.slow
@pytest.mark.browser
def test_every_page_renders_offline(visit: Any, pages: list[Path], built: tuple[Path, str, int]) -> None:
    for page in pages:
        name = str(page.relative_to(built[0]))
        shown = visit(name)
        assert shown.complaints == [], name
        wrong = "[...document.querySelectorAll('[data-mjx-error], mjx-merror')].map(e => e.textContent)"
        assert shown.evaluate(wrong) == [], name
        formulas = shown.locator(".math").count()
        assert shown.locator("mjx-container").count() >= formulas, f"{name}: a formula was not typeset"
        shown.context.close()


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_follow_the_theme(
    visit: Any, pages: list[Path], built: tuple[Path, str, int], scheme: str
) -> None:
    for page in pages:
        if "only-dark" not in page.read_text(encoding="utf-8"):
            continue
        shown = visit(str(page.relative_to(built[0])), scheme=scheme)
        other = "light" if scheme == "dark" else "dark"
        assert shown.locator(f".bd-article img.only-{other}:visible").count() == 0, page.name
        assert shown.locator(f".bd-article img.only-{scheme}").count() > 0, page.name
        shown.context.close()


@pytest.mark.slow
@pytest.mark.browser
def test_pages_fit_a_phone(visit: Any, pages: list[Path], built: tuple[Path, str, int]) -> None:
    for page in pages:
        shown = visit(str(page.relative_to(built[0])), size=PHONE)
        width = shown.evaluate("() => document.scrollingElement.scrollWidth")
        assert width <= PHONE[0], f"{page.name} is {width} pixels wide on a phone"
        shown.context.close()


def test_every_image_has_alternative_text() -> None:
    for chapter in CHAPTERS:
        for image in re.findall(r"<img\b[^>]*>", chapter.read_text(encoding="utf-8")):
            assert re.search(r'alt=\\?"[^"\\]', image), f"{chapter.name}: {image[:80]}"
