"""Texts from one tokenizer's ids into another's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from retrace_pl.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Recoder"]


class Recoder:
    """Translates token ids of one fast tokenizer into those of another one, by way of the text.

    Args:
        source: Name on the Hugging Face hub, local folder, or JSON file of the tokenizer that texts come from.
        target: The same of the tokenizer that they go to.
        setting: The setting the names come from, for messages.

    Raises:
        InputError: A tokenizer cannot be loaded.
    """

    def __init__(self, source: str, target: str, setting: str) -> None:
        self.source = load_tokenizer(source, setting)
        self.target = load_tokenizer(target, setting)

    def __call__(self, ids: Tensor, length: int, *, pad: int, begin: int | None, end: int) -> Tensor:
        """Translate ids [n, T].

        Args:
            ids: Ids of the source; its special tokens are dropped.
            length: Width L of the result; longer texts are cut.
            pad: Id that fills a row after its text.
            begin: Id that begins every row; None for none.
            end: Id that ends every text.

        Returns:
            Ids of the target [n, L], int64, on the device of `ids`.
        """
        texts = self.source.decode_batch(ids.tolist(), skip_special_tokens=True)
        return self.encode(texts, length, pad=pad, begin=begin, end=end).to(ids.device)

    def encode(self, texts: Sequence[str], length: int, *, pad: int, begin: int | None, end: int) -> Tensor:
        """Encode texts as ids of the target [n, L]; arguments as those of a call."""
        first = [] if begin is None else [begin]
        rows = torch.full((len(texts), length), pad)
        for row, encoded in zip(rows, self.target.encode_batch(list(texts), add_special_tokens=False), strict=True):
            ids = [*first, *encoded.ids[: length - len(first) - 1], end]
            row[: len(ids)] = torch.tensor(ids)
        return rows


def load_tokenizer(name: str, setting: str) -> Tokenizer:
    """Load a fast tokenizer from the hub, a local folder or a JSON file; never code.

    Raises:
        InputError: There is none.
    """
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    try:
        if Path(name).is_file():
            loaded = Tokenizer.from_file(name)
        else:
            loaded = AutoTokenizer.from_pretrained(name, trust_remote_code=False).backend_tokenizer
    except Exception as error:  # the library's parser raises bare exceptions
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{setting}: the tokenizer {name!r} cannot be loaded ({line.rstrip('.')})") from error
    copied: Tokenizer = Tokenizer.from_str(loaded.to_str())
    copied.no_padding()
    copied.no_truncation()
    return copied
