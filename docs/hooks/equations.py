"""Turns the equations of the pages into MathML while the site is built, so that showing them needs no script.

`pymdownx.arithmatex` (generic) finds `$...$` and `$$...$$`; what it leaves in the page is replaced here.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

FOUND = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
LEFT_OVER = re.compile(r"\\[a-zA-Z]+")
"""A command that the converter does not know stands in its output as it was."""


def to_mathml(latex: str, display: str) -> str:
    """One equation as a `<math>` element.

    Args:
        latex: What stands between the dollar signs.
        display: `inline` or `block`.

    Raises:
        PluginError: The converter does not understand the equation.
    """
    try:
        math = convert(latex.strip(), display=display)
    except Exception as error:
        raise PluginError(f"equation cannot be converted: {latex!r}: {type(error).__name__} {error}") from error
    unknown = LEFT_OVER.search(math)
    if unknown:
        raise PluginError(f"equation cannot be converted: {latex!r}: {unknown[0]} is unknown to latex2mathml")
    return str(math)


def on_page_content(content: str, *, page: Any, **_: Any) -> str:
    """Replaces every equation of a page, an event of MkDocs."""

    def replace(match: re.Match[str]) -> str:
        tag, latex = match.groups()
        display = "block" if tag == "div" else "inline"
        try:
            math = to_mathml(html.unescape(latex), display)
        except PluginError as error:
            raise PluginError(f"{page.file.src_uri}: {error}") from error
        return f'<div class="equation" tabindex="0">{math}</div>' if tag == "div" else math

    return FOUND.sub(replace, content)
