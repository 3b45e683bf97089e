"""The book: complete, built without a warning, readable without a network, its formulas typeset."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import html.parser
import importlib
import inspect
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import axe
import nbformat
import pytest
import yaml
from browser import DESKTOP, PHONE, launched, served

import book

#: Before a reader touches anything: the page, its theme, formulas, and the pictures on the first screens.
MOST_BYTES = 1_500_000
ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted(
    p for kind in ("ipynb", "md") for f in ("book", "figures") for p in (ROOT / f).glob(f"*.{kind}")
)
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}
MATHJAX = "a4354ff94fd868aea0cc6eaaa79a57fda0588646fc46ee3700a349ee0a11cbe6"
NARROW = {"width": 1200, "height": 900}  # the least that still has a table of contents on both sides
CODE_WIDTH = 76


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


def test_mathjax_is_as_it_was_released() -> None:
    """Another project's file: what changes spelling or white space everywhere has to leave it alone."""
    script = (ROOT / "book" / "assets" / "mathjax" / "tex-svg-full.js").read_bytes()
    assert hashlib.sha256(script).hexdigest() == MATHJAX


def test_no_chapter_exists_twice() -> None:
    names = [p.relative_to(ROOT).with_suffix("") for p in CHAPTERS]
    assert len(names) == len(set(names))


def test_staging_overlays_executed_notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for made in (book.live, book.first_screen):  # pictures and networks, which are not overlaid
        monkeypatch.setattr(made, "write", lambda _: ())
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


def documented_modules() -> list[str]:
    return re.findall(r"automodule:: (\S+)", (ROOT / "book" / "library.md").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("module", documented_modules())
def test_library_page_shows_calls(module: str, pages: list[Path], built: tuple[Path, str, int]) -> None:
    """Public functions, classes and methods, and ``__call__`` where calling the object is the interface."""
    entries = set(load_inventory(built[0] / "objects.inv"))
    for name, value in vars(importlib.import_module(module)).items():
        if getattr(value, "__module__", None) != module or name.startswith("_"):
            continue
        if inspect.isfunction(value) and value.__doc__:
            assert f"{module}.{name}" in entries
        elif inspect.isclass(value) and value.__doc__:
            for method in (m for m in vars(value) if m in ("__call__", "forward")):
                assert f"{module}.{name}.{method}" in entries, f"{module}.{name}.{method}"


def load_inventory(path: Path) -> list[str]:
    """The Python names of Sphinx's inventory: a header of four lines, then zlib."""
    lines = zlib.decompress(path.read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    return [line.split(" ")[0] for line in lines if " py:" in line]


@pytest.fixture(scope="module")
def address(built: tuple[Path, str, int]) -> Iterator[str]:
    with served(built[0]) as at:
        yield at


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as chromium:
        yield chromium


@dataclass
class Sight:
    """What a reader without a network sees on a page; the names say what a right page has none of."""

    complaints: list[str] = field(default_factory=list)
    untypeset: int = 0
    tex_errors: list[str] = field(default_factory=list)
    wrong_theme: dict[str, int] = field(default_factory=dict)
    missing_images: list[str] = field(default_factory=list)
    too_wide: int = 0
    cut_off: list[str] = field(default_factory=list)
    loaded: set[str] = field(default_factory=set)
    barriers: dict[str, list[str]] = field(default_factory=dict)


TYPESET = """() => window.MathJax && MathJax.startup ? Promise.race([
    MathJax.startup.promise,
    new Promise((_, no) => setTimeout(() => no(Error("MathJax does not finish")), 170000))
]).then(() => true) : true"""
# an unknown macro is no error to MathJax: it shows its name in red
TEX_ERRORS = """() => [...document.querySelectorAll('[data-mjx-error], mjx-container [fill=red]')]
    .map(e => e.dataset.mjxError || e.textContent || e.closest('.math').textContent)"""
UNTYPESET = (
    "() => [...document.querySelectorAll('.math')].filter(e => !e.querySelector('mjx-container')).length"
)
SHOWN = "s => [...document.querySelectorAll('.bd-article img' + s)].filter(e => e.checkVisibility()).length"
MISSING = """() => [...document.querySelectorAll('.bd-article img')]
    .filter(e => e.complete && e.naturalWidth == 0).map(e => e.src.slice(0, 80))"""
# what scrolls sideways inside the article, or reaches beyond it
CUT_OFF = """() => {
    const article = document.querySelector('.bd-article'), found = [];
    if (!article) return [];  // the search page has none
    const padding = parseFloat(getComputedStyle(article).paddingRight);
    const edge = article.getBoundingClientRect().right - padding + 1;
    for (const e of article.querySelectorAll('*')) {
        const style = getComputedStyle(e), box = e.getBoundingClientRect();
        if (!box.width || !e.checkVisibility() || style.display == 'inline' || style.position == 'absolute'
            || e.closest('mjx-container > *') || e.matches('span.math')) continue;  // inline: see its formula
        const over = style.overflowX == 'visible' ? box.right - edge : e.scrollWidth - e.clientWidth - 1;
        if (over > 0 && !found.some(f => f.e.contains(e)))
            found.push({e, text: `${e.tagName} ${e.className}, by ${Math.round(over)}: ` +
                                 (e.innerText || '').trim().slice(0, 60)});
    }
    return found.map(f => f.text);
}"""
FETCHED = "() => performance.getEntriesByType('resource').map(e => e.name)"
#: A page has thousands of strokes of formulas, words of code and entries of one kind: axe looks at each.
THIN = """() => { for (const [kind, most] of [
        ['mjx-container', 4], ['div.highlight', 4], ['dl.py', 20], ['tbody tr', 12],
        ['.bd-links li', 8], ['.bd-sidebar-secondary li', 8]])
    [...document.querySelectorAll(kind)].slice(most).forEach(e => e.remove()) }"""
OVERHANG = "() => document.scrollingElement.scrollWidth - innerWidth"
STILL = "*, *::before, *::after { transition: none !important; }"


@pytest.fixture(scope="module")
def sights(
    browser: Any,
    address: str,
    pages: list[Path],
    built: tuple[Path, str, int],
    pytestconfig: pytest.Config,
) -> dict[str, Sight]:
    """Every page, looked at once: on a desk in light and in dark, and on a phone.

    What keeps people out is sought on every page in light, and in dark on every sixth, and among the first of
    a page's formulas and of the library's entries; with --long on all in both, and among all.
    One tab goes from page to page, as a reader's does: a new one would load each script anew.
    """
    names = [
        str(page.relative_to(built[0])) for page in pages if page != built[0] / "index.html"
    ]  # a redirect
    source = axe.script()
    every = pytestconfig.getoption("--long")
    dark = set(names if every else names[5::6])
    with tab(browser) as page:
        return {
            name: look(page, address, name, source if "/" in name else "", name in dark, every)
            for name in names
        }


@contextlib.contextmanager
def tab(browser: Any) -> Iterator[Any]:
    """A tab of a window of its own."""
    context = browser.new_context(viewport=DESKTOP, color_scheme="light", reduced_motion="reduce")
    context.set_default_timeout(180_000)
    yield context.new_page()
    context.close()


def look(
    page: Any, address: str, name: str, source: str = "", dark: bool = True, every: bool = False
) -> Sight:
    """A page in every respect; what keeps people out of it, too, where axe's source is given."""
    sight = Sight()
    listeners = {
        "pageerror": lambda error: sight.complaints.append(str(error)),
        "requestfailed": lambda request: sight.complaints.append(request.url),
        "response": lambda r: sight.complaints.append(r.url) if r.status >= 400 else None,
    }
    page.goto("about:blank")  # nothing is left of the page before, which need not follow these two
    forget(page)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(DESKTOP)
    for event, listener in listeners.items():
        page.on(event, listener)
    page.goto(address + name, wait_until="load")
    page.add_style_tag(content=STILL)
    page.evaluate(TYPESET)
    sight.tex_errors, sight.untypeset = page.evaluate(TEX_ERRORS), page.evaluate(UNTYPESET)
    sight.missing_images = page.evaluate(MISSING)
    loaded = [address + name, *page.evaluate(FETCHED)]
    sight.loaded = {url.removeprefix(address).partition("?")[0] for url in loaded if url.startswith(address)}
    for scheme, other in (("light", "dark"), ("dark", "light")):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(f"() => document.documentElement.dataset.theme == '{scheme}'")
        hidden = page.evaluate(
            "s => document.querySelectorAll('.bd-article img' + s).length", f".only-{scheme}"
        )
        hidden -= page.evaluate(SHOWN, f".only-{scheme}")
        sight.wrong_theme[scheme] = hidden + page.evaluate(SHOWN, f".only-{other}")
    page.set_viewport_size(NARROW)
    sight.cut_off = page.evaluate(CUT_OFF)
    page.set_viewport_size(PHONE)
    sight.too_wide = max(0, page.evaluate(OVERHANG))
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    if source:
        page.set_viewport_size(DESKTOP)
        if not every:
            page.evaluate(THIN)
        for scheme in ("light", "dark") if dark else ("light",):
            page.emulate_media(color_scheme=scheme)
            page.wait_for_function(f"() => document.documentElement.dataset.theme == '{scheme}'")
            sight.barriers[scheme] = axe.violations(page, source, of_a_theme=scheme == "dark")
    return sight


def forget(page: Any) -> None:
    """Empty the cache in memory: Chromium takes each font in it for a page that does not use it, too."""
    session = page.context.new_cdp_session(page)
    for disabled in (True, False):
        session.send("Network.setCacheDisabled", {"cacheDisabled": disabled})
    session.detach()


def weigh(loaded: set[str], folder: Path) -> int:
    """Bytes of what was loaded, texts compressed, as a host sends them."""
    files = [folder / name for name in loaded if (folder / name).is_file()]
    text = (".html", ".js", ".css", ".svg", ".json")
    return sum(len(gzip.compress(f.read_bytes()) if f.suffix in text else f.read_bytes()) for f in files)


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.timeout(1800)
class TestInBrowser:
    def test_pages_are_light_before_a_reader_touches_them(
        self, sights: dict[str, Sight], built: tuple[Path, str, int]
    ) -> None:
        weights = {name: weigh(sight.loaded, built[0]) for name, sight in sights.items()}
        assert min(weights.values()) > 50_000  # it does weigh what was loaded
        assert {name: weight for name, weight in weights.items() if weight > MOST_BYTES} == {}

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_nothing_keeps_people_out(
        self, scheme: str, sights: dict[str, Sight], pytestconfig: pytest.Config
    ) -> None:
        """Contrast, labels, names and roles on every chapter, after axe-core (not Sphinx's own indices)."""
        seen = {name: sight.barriers[scheme] for name, sight in sights.items() if scheme in sight.barriers}
        if not seen:
            pytest.skip(f"to run it, install npm, which fetches {axe.PACKAGE} once")
        every = scheme == "light" or pytestconfig.getoption("--long")
        assert len(seen) >= len(CHAPTERS) // (1 if every else 7)
        assert {name: found for name, found in seen.items() if found} == {}

    def test_pages_want_nothing_that_is_not_there(self, sights: dict[str, Sight]) -> None:
        assert {name: s.complaints for name, s in sights.items() if s.complaints} == {}
        assert {name: s.missing_images for name, s in sights.items() if s.missing_images} == {}

    def test_every_formula_is_typeset(self, sights: dict[str, Sight]) -> None:
        assert {name: s.tex_errors for name, s in sights.items() if s.tex_errors} == {}
        assert {name: s.untypeset for name, s in sights.items() if s.untypeset} == {}

    def test_figures_follow_the_theme(self, sights: dict[str, Sight]) -> None:
        assert {name: s.wrong_theme for name, s in sights.items() if any(s.wrong_theme.values())} == {}

    def test_pages_fit_a_phone(self, sights: dict[str, Sight]) -> None:
        assert {name: s.too_wide for name, s in sights.items() if s.too_wide} == {}

    def test_nothing_is_cut_off_on_a_desk(self, sights: dict[str, Sight]) -> None:
        assert {name: s.cut_off for name, s in sights.items() if s.cut_off} == {}

    def test_search_finds_the_boundary_effect(self, browser: Any, address: str) -> None:
        context = browser.new_context(viewport=DESKTOP)
        context.set_default_timeout(180_000)
        page = context.new_page()
        page.goto(address + "search.html?q=boundary+effect", wait_until="load")
        page.wait_for_selector("#search-results ul.search li a")
        found = [link.get_attribute("href") for link in page.query_selector_all("ul.search li > a")]
        context.close()
        assert any("spatial_transformers.html" in link for link in found[:3]), found[:5]

    def test_the_looking_would_notice(self, browser: Any, address: str, built: tuple[Path, str, int]) -> None:
        """A page with one of each fault, to see that the tests above can fail."""
        intro = (built[0] / "book" / "intro.html").read_text(encoding="utf-8")
        faults = (
            '<div class="math">\\[\\frac{1}\\]</div><div class="math">\\[\\nosuchmacro\\]</div>'
            '<div class="math">$no delimiters for it</div>'
            '<img src="nowhere.png"><div style="width: 3000px">wide</div>'
            '<p style="color: #777; background: #888">faint</p>'
            f'<div class="highlight"><pre>{"x" * 200}</pre></div>'
            f'<div class="exhibit-table"><table><tr>{"<td>1.234</td>" * 40}</tr></table></div>'
            '<img class="only-dark" style="display: block !important" src="data:image/gif;base64,'
            'R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7">'
        )
        broken = intro.replace("<section", faults + "<section", 1)
        (built[0] / "book" / "broken.html").write_text(broken, encoding="utf-8")
        with tab(browser) as page:
            sight = look(page, address, "book/broken.html", source := axe.script())
            after = look(page, address, "book/intro.html")
        assert any("nowhere.png" in complaint for complaint in sight.complaints)
        assert sight.missing_images
        assert set(sight.tex_errors) == {"Missing argument for \\frac", "\\nosuchmacro"}
        assert sight.untypeset
        assert sight.wrong_theme["light"]
        assert sight.too_wide > 1000
        assert all(any("faint" in b for b in found) for found in sight.barriers.values())
        assert set(sight.barriers) == ({"light", "dark"} if source else set())
        assert {text.split()[0] for text in sight.cut_off} >= {"DIV", "PRE"}
        assert any("exhibit-table" in text for text in sight.cut_off)
        assert after == replace(Sight(), loaded=after.loaded, wrong_theme={"light": 0, "dark": 0})
        assert after.loaded >= sight.loaded - {"book/broken.html", "nowhere.png", "book/nowhere.png"}


def test_every_image_has_alternative_text() -> None:
    for chapter in CHAPTERS:
        images = re.findall(r"<img\b[^>]*>", chapter.read_text(encoding="utf-8"))
        for image in (i for i in images if "_anim_img" not in i):  # a player's canvas; the text describes it
            assert re.search(r'alt=\\?"[^"\\]', image), f"{chapter.name}: {image[:80]}"


def test_lines_of_code_fit_the_column() -> None:
    """What the formatter can't break (strings, comments, commands) has to be short by hand."""
    long = []
    for chapter in CHAPTERS:
        for line in code_lines(chapter):
            if len(line) > CODE_WIDTH:
                long.append(f"{chapter.name}: {line}")
    assert long == []


def code_lines(chapter: Path) -> Iterator[str]:
    """Lines of a notebook's cells of code, and of the fenced blocks of any chapter."""
    texts = [chapter.read_text(encoding="utf-8")]
    if chapter.suffix == ".ipynb":
        cells = nbformat.read(chapter, as_version=4).cells
        texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
        yield from (line for c in cells if c.cell_type == "code" for line in c.source.splitlines())
    for text in texts:
        for block in re.findall(
            r"^```(?:bash|python|text|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE
        ):
            yield from block.splitlines()
