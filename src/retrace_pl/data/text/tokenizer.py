"""The canonical tokenizer of a text audit: every text is a row of its token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from retrace_pl.data.paths import explained
from retrace_pl.errors import InputError
from retrace_pl.files import atomic_path

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD_TOKEN, UNKNOWN_TOKEN, BEGIN_TOKEN, END_TOKEN = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
"""Special tokens of a tokenizer trained here, with the ids 0, 1, 2 and 3."""


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens that stand for no text.

    Args:
        pad: fills a row after its text; no text holds it.
        bos: begins every text (BERT calls it [CLS]).
        eos: ends every text (BERT calls it [SEP]).
    """

    pad: int
    bos: int
    eos: int


class Encoded(NamedTuple):
    """Texts as token ids: ``ids`` int64 [n, L], and ``truncated`` bool [n], which of them did not fit."""

    ids: Tensor
    truncated: Tensor


class TextTokenizer:
    """Texts to rows of token ids and back: ``bos``, the text, ``eos``, then padding on the right up to ``max_length``.

    Args:
        backend: a fast tokenizer whose post-processing adds ``bos`` and ``eos``; it is copied.
        special: ids of its special tokens.
        max_length: tokens per row L, special tokens included.
        name: what to call it in messages.
        window: the longest row that models of this tokenizer take, in tokens; None where nothing is known.

    Raises:
        InputError: `max_length` is more than the window, or leaves no room for text; or the tokenizer does not fit:
            it has no padding token of its own, or does not mark where texts begin and end.
    """

    def __init__(
        self, backend: Tokenizer, special: SpecialTokens, max_length: int, *, name: str, window: int | None = None
    ) -> None:
        from tokenizers import Tokenizer

        self.name = name
        self.special = special
        self.max_length = max_length
        self.window = window
        self.backend = Tokenizer.from_str(backend.to_str())
        self.vocab_size = self.backend.get_vocab_size(with_added_tokens=True)
        self._check()
        self.backend.encode_special_tokens = True  # a text that spells one, such as "[SEP]", is a text
        self.backend.no_padding()
        self.backend.enable_truncation(max_length)

    @property
    def pad_id(self) -> int:
        """Id that fills a row after its text."""
        return self.special.pad

    @property
    def bos_id(self) -> int:
        """Id that begins every text."""
        return self.special.bos

    @property
    def eos_id(self) -> int:
        """Id that ends every text."""
        return self.special.eos

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Token ids int64 [n, L] of texts; what does not fit is cut off before ``eos``."""
        return self.encode_all(texts).ids

    def encode_all(self, texts: Sequence[str]) -> Encoded:
        """Token ids of texts, and which of them were cut off."""
        found = self.backend.encode_batch(list(texts))
        ids = torch.full((len(found), self.max_length), self.pad_id, dtype=torch.int64)
        for row, encoding in zip(ids, found, strict=True):
            row[: len(encoding.ids)] = torch.tensor(encoding.ids, dtype=torch.int64)
        return Encoded(ids, torch.tensor([bool(encoding.overflowing) for encoding in found], dtype=torch.bool))

    def decode(self, ids: Tensor) -> list[str]:
        """The texts of rows of token ids, up to each row's first ``eos`` and without special tokens.

        Args:
            ids: int64 [n, any length], ids in ``[0, vocab_size)``.

        Raises:
            InputError: An id is outside the vocabulary.
        """
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self.vocab_size:
            raise InputError(
                f"token ids from {int(ids.min())} to {int(ids.max())} are not all in the vocabulary of {self.name}, "
                f"which has {self.vocab_size}; use the tokenizer that they were made with"
            )
        rows = [self._text_part(row) for row in ids.tolist()]
        return [text.strip() for text in self.backend.decode_batch(rows, skip_special_tokens=True)]

    def lengths(self, ids: Tensor) -> Tensor:
        """Tokens of each row without the padding on its right, int64 [n]."""
        return text_lengths(ids, self.pad_id)

    def save(self, path: Path) -> None:
        """Write the tokenizer as JSON; only one trained here can be opened again without further settings."""
        with atomic_path(path) as temporary:
            self.backend.save(str(temporary))

    @classmethod
    def from_file(cls, path: Path, max_length: int) -> TextTokenizer:
        """Open a tokenizer that was trained here and saved.

        Raises:
            InputError: The file is no such tokenizer.
        """
        from tokenizers import Tokenizer

        with explained(f"tokenizer: {path} is no tokenizer in JSON; delete or replace it"):
            backend = Tokenizer.from_file(str(path))
        return cls.of_trained(backend, max_length, name=path.name)

    @classmethod
    def of_trained(cls, backend: Tokenizer, max_length: int, *, name: str) -> TextTokenizer:
        """Wrap a tokenizer whose special tokens are those of this module.

        Raises:
            InputError: It lacks one of them.
        """
        special = []
        for token in (PAD_TOKEN, BEGIN_TOKEN, END_TOKEN):
            found = backend.token_to_id(token)
            if found is None:
                raise InputError(f"tokenizer: {name} has no token {token}; use one that was trained here")
            special.append(found)
        return cls(backend, SpecialTokens(*special), max_length, name=name)

    def _check(self) -> None:
        if self.window is not None and self.max_length > self.window:
            raise InputError(
                f"max_length: {self.max_length} is more than the {self.window} tokens that {self.name} takes; lower it"
            )
        probe = self.backend.encode("").ids
        if self.max_length <= len(probe):
            raise InputError(
                f"max_length: {self.max_length} leaves no room beside the {len(probe)} special tokens; raise it"
            )
        if probe[:1] != [self.bos_id] or probe[-1:] != [self.eos_id]:
            raise InputError(
                f"tokenizer: {self.name} does not mark where a text begins and ends; use one of a BERT-like model, or "
                "TrainedTokenizer"
            )
        if self.pad_id in (self.bos_id, self.eos_id):
            raise InputError(
                f"tokenizer: {self.name} pads with the token that begins or ends a text; use one with a padding token "
                "of its own, or TrainedTokenizer"
            )

    def _text_part(self, row: list[int]) -> list[int]:
        """A row up to its first ``eos`` after the first place, where some tokenizers put the same token."""
        end = row.index(self.eos_id, 1) if self.eos_id in row[1:] else len(row)
        return [token for token in row[:end] if token not in (self.pad_id, self.bos_id, self.eos_id)]


def text_lengths(ids: Tensor, pad_id: int) -> Tensor:
    """Tokens of each row without the padding on its right.

    Args:
        ids: int [n, L].
        pad_id: what fills a row.

    Returns:
        int64 [n], each from 0 to L.
    """
    positions = torch.arange(1, ids.shape[1] + 1, device=ids.device)
    return ((ids != pad_id) * positions).amax(dim=1) if ids.shape[1] else torch.zeros(len(ids), dtype=torch.int64)


def trim(ids: Tensor, pad_id: int) -> Tensor:
    """Drop the columns that hold nothing but padding; at least one column stays.

    Args:
        ids: int [n, L].
        pad_id: what fills a row.

    Returns:
        int [n, longest text], a view.
    """
    longest = int(text_lengths(ids, pad_id).max()) if len(ids) else 0
    return ids[:, : max(1, longest)]
