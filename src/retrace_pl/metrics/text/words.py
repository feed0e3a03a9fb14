"""What counts as a word, the same for every metric of texts and for what the report highlights."""

from __future__ import annotations

import re

__all__ = ["word_positions", "words"]

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """Runs of letters and digits, in lower case: what ROUGE counts (Lin 2004, without stemming), in any script.

    Punctuation plays no part, so how a tokenizer puts spaces around it changes nothing.

    Args:
        text: Any text.
    """
    return [word.lower() for word in _WORD.findall(text)]


def word_positions(text: str) -> list[tuple[int, int]]:
    """Start and end in the text of every one of `words`, in their order.

    Args:
        text: Any text.
    """
    return [match.span() for match in _WORD.finditer(text)]
