"""Token ids that are no texts, to see what a score makes of them."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from retrace_pl.errors import InputError

__all__ = ["random_tokens", "spliced"]


def random_tokens(like: Tensor, size: int, vocab_size: int, special: Collection[int], seed: int) -> Tensor:
    """Real texts with every token replaced by one drawn evenly from the vocabulary; special tokens stay.

    Args:
        like: Token ids of real texts [n, L]; they give the lengths.
        size: How many to draw.
        vocab_size: Number of token ids.
        special: Ids that stay where they are, and that are never drawn.
        seed: Seed of the draw.

    Returns:
        int64 of shape [size, L], on the CPU.

    Raises:
        InputError: If there is no text, or no token to draw.
    """
    drawn_from = torch.tensor([token for token in range(vocab_size) if token not in special])
    if len(like) == 0 or len(drawn_from) == 0:
        raise InputError("random tokens need at least one real text and one token that is not special")
    random = torch.Generator().manual_seed(seed)
    rows = like.detach().cpu()[torch.randint(len(like), (size,), generator=random)]
    noise = drawn_from[torch.randint(len(drawn_from), rows.shape, generator=random)]
    return torch.where(torch.isin(rows, torch.tensor(sorted(special))), rows, noise)


def spliced(real: Tensor, size: int, special: Collection[int], pad_id: int, seed: int) -> Tensor:
    """The first half of one real text followed by the second half of another: the mixtures of texts.

    Args:
        real: Token ids of real texts [n, L], padded on the right, n >= 2.
        size: How many to make.
        special: Ids that start, end or fill a text.
        pad_id: Id of the padding.
        seed: Seed of the pairs.

    Returns:
        int64 of shape [size, L], on the CPU, with the special tokens of the first half's start and the second's end.

    Raises:
        InputError: If there are fewer than two texts.
    """
    if len(real) < 2:
        raise InputError("spliced texts need at least two real ones")
    random = torch.Generator().manual_seed(seed)
    first = torch.randint(len(real), (size,), generator=random)
    second = (first + torch.randint(1, len(real), (size,), generator=random)) % len(real)
    rows = real.detach().cpu()
    result = torch.full((size, rows.shape[1]), pad_id, dtype=rows.dtype)
    for index, (one, two) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        start, end = _halves(rows[one], special)[0], _halves(rows[two], special)[1]
        joined = torch.cat([start, end])[: rows.shape[1]]
        result[index, : len(joined)] = joined
    return result


def _halves(row: Tensor, special: Collection[int]) -> tuple[Tensor, Tensor]:
    """A text cut in the middle of its words, with what starts it and what ends it, without padding behind."""
    content = torch.nonzero(~torch.isin(row, torch.tensor(sorted(special)))).flatten()
    if not len(content):
        return row[:0], row[:0]
    cut = int(content[len(content) // 2])
    last = int(content[-1]) + 1
    end = last + 1 if last < len(row) else last  # with the token that ends the text; padding where there is none
    return row[:cut], row[cut:end]
