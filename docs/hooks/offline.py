"""Refuses a page that fetches something from elsewhere: the site is read offline, and no stranger learns of it."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from mkdocs.exceptions import PluginError

FETCHED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "embed": "src",
    "object": "data",
    "link": "href",
}
"""Element -> attribute whose address a browser asks for by itself."""

NOT_FETCHED = {"canonical", "next", "prev", "alternate", "edit"}
"""Relations of a `<link>` that only name another page."""


class Fetches(HTMLParser):
    """Collects the addresses elsewhere that a page fetches."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Looks at one element, an event of the parser."""
        values = dict(attrs)
        address = values.get(FETCHED.get(tag, "")) or ""
        names_page = tag == "link" and values.get("rel") in NOT_FETCHED
        if address.startswith(("http://", "https://", "//")) and not names_page:
            self.found.append(address)


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Looks at a finished page, an event of MkDocs."""
    fetches = Fetches()
    fetches.feed(output)
    if fetches.found:
        raise PluginError(f"{page.file.src_uri}: fetches {', '.join(fetches.found)}; keep a copy in docs/ instead")
    return output
