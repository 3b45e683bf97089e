"""What a page offers besides its text: launching, downloading, citing, and what has changed."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import book

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "https://github.com/someone/icstn"
SMALL = {"format": "jb-book", "root": "book/conventions"}
SMALL["chapters"] = [{"file": "book/symbols"}, {"file": "book/changes"}]


@pytest.fixture(scope="module", autouse=True)
def no_live_page() -> Iterator[None]:
    """Its networks and pictures take long, and no page here shows them."""
    with pytest.MonkeyPatch.context() as patch:
        for made in (book.live, book.first_screen):
            patch.setattr(made, "write", lambda _: ())
        yield


def settings(folder: Path) -> dict:
    return yaml.safe_load((folder / "_config.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def small_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pages, with an address; not strict, for their links into the rest of the book lead nowhere."""
    folder = tmp_path_factory.mktemp("book")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(book.REPOSITORY, ADDRESS)
        staged = book.stage(folder / "stage")
        (staged / "_toc.yml").write_text(yaml.safe_dump(SMALL))
        done = book.build(staged, folder, strict=False)
    assert done.returncode == 0, done.stdout[-3000:]
    return folder / "_build" / "html" / "book"


def test_without_an_address_there_are_no_buttons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(book.REPOSITORY, raising=False)
    found = settings(book.stage(tmp_path))
    assert found == settings(ROOT)
    assert found["repository"]["url"] == ""
    assert "launch_buttons" not in found["sphinx"]["config"]["html_theme_options"]


def test_what_is_no_address_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(book.REPOSITORY, "icstn")
    with pytest.raises(SystemExit, match="'icstn' is no repository's address"):
        book.stage(tmp_path)


@pytest.mark.slow
def test_an_address_brings_the_buttons(small_book: Path) -> None:
    page = (small_book / "conventions.html").read_text(encoding="utf-8")
    assert re.search(r'href="https://mybinder\.org/v2/[^"]+book/conventions\.ipynb"', page)
    assert f'href="{ADDRESS}"' in page
    assert f'href="{ADDRESS}/issues/new' in page


@pytest.mark.slow
def test_every_page_can_be_downloaded_and_cited(small_book: Path) -> None:
    page = (small_book / "conventions.html").read_text(encoding="utf-8")
    (source,) = re.findall(r'href="([^"]+)"[^>]*\bdownload-source-button', page)
    assert (small_book / source).read_bytes() == (ROOT / "book" / "conventions.ipynb").read_bytes()
    entry = re.search(r"@misc\{icstn-conventions,(.*?)\n\}</pre>", page, re.DOTALL)[1]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert "{Conventions}" in entry
    assert f"version {version}" in entry
    changes = (small_book / "changes.html").read_text(encoding="utf-8")
    for heading in re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE):
        assert re.search(rf"<h2>{re.escape(heading)}", changes)
    (link,) = re.findall(r'rel="alternate" type="application/atom\+xml"[^>]* href="([^"]+)"', changes)
    assert (small_book / link).is_file()
    assert page.count('class="prev-next-area"') == 1


def test_the_story_is_about_pages_of_the_book() -> None:
    """What the links to the next page say, for every chapter of the foundations and the transformers."""
    story = settings(ROOT)["sphinx"]["config"]["html_context"]["story"]
    parts = {
        part["caption"]: part["chapters"] for part in yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"]
    }
    pages = {caption: {c["file"].split("/")[1] for c in chapters} for caption, chapters in parts.items()}
    assert set(story) == set().union(*pages.values())
    assert len(set(story.values())) == len(story)


@pytest.mark.slow
def test_the_link_to_the_next_page_tells_its_story(small_book: Path) -> None:
    page = (small_book / "conventions.html").read_text(encoding="utf-8")
    said = re.findall(r'prev-next-story">(.*?)</p>', page)
    assert said == [settings(ROOT)["sphinx"]["config"]["html_context"]["story"]["symbols"]]
