"""axe-core, which finds what keeps people out of a page."""

from __future__ import annotations

from typing import Any

import npm

#: MPL-2.0; used by the tests alone, and no part of what the project ships.
PACKAGE = "axe-core@4.14.1"
SHA256 = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
#: Web Content Accessibility Guidelines 2.2, level AA.
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
#: What a theme can change.
OF_A_THEME = ["color-contrast", "link-in-text-block"]
RUN = """only => axe.run(document, {runOnly: only, preload: false, resultTypes: ["violations"]}).then(
    result => result.violations.flatMap(
        found => found.nodes.map(node => `${found.id}: ${node.html.slice(0, 120)}`)))"""


def script() -> str:
    """axe.min.js, or nothing where it neither is nor can be fetched."""
    folder = npm.folder(PACKAGE, SHA256)
    return "" if folder is None else (folder / "axe.min.js").read_text(encoding="utf-8")


def violations(page: Any, source: str, of_a_theme: bool = False) -> list[str]:
    """What axe finds on a page as it is now.

    Args:
        page: in a browser.
        source: :func:`script`.
        of_a_theme: only what another theme may have changed since axe looked at all of it.
    """
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(source)
    only = {"type": "rule", "values": OF_A_THEME} if of_a_theme else {"type": "tag", "values": TAGS}
    found: list[str] = page.evaluate(RUN, only)
    return found
