"""A small language model of its own, to say how likely a text is without asking any audited model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrace_pl.errors import InputError

__all__ = ["LanguageModel", "NGramLanguageModel", "predicted_tokens"]

LanguageModel: TypeAlias = Callable[[Tensor], Tensor]
"""Token ids [n, L] -> log-likelihood [n] of each text's tokens after its first, in nats."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def predicted_tokens(ids: Tensor, pad_id: int) -> Tensor:
    """Tokens of every text after its first, which only starts it: what a log-likelihood sums over.

    Args:
        ids: Token ids [n, L], padded on the right.
        pad_id: Id of the padding.

    Returns:
        int64 of shape [n].
    """
    return ((ids != pad_id).sum(dim=1) - 1).clamp_min(0)


class NGramLanguageModel:
    """An interpolated n-gram model of tokens with Witten-Bell smoothing (Witten and Bell 1991, method C).

    ``p(w | h) = (c(hw) + T(h) p(w | h')) / (c(h) + T(h))`` with counts c, T(h) different tokens seen after the context
    h, and h' the context without its oldest token; below the unigrams all tokens are equally likely, so no text has
    probability 0. It is counted in seconds, needs no training and no accelerator, and is the same on every machine.

    Args:
        ids: Texts to count, token ids [n, L], padded on the right.
        pad_id: Id of the padding.
        vocab_size: Number of token ids.
        order: Tokens looked at, the predicted one included, at least 1.
        source: What the texts are, for `description`.

    Raises:
        InputError: For no text, or an order or id out of range.
    """

    def __init__(self, ids: Tensor, pad_id: int, vocab_size: int, order: int = 3, source: str = "") -> None:
        if order < 1 or float(vocab_size + 1) ** order > 2.0**62:
            raise InputError(
                f"order {order} of the language model must be at least 1, and less for {vocab_size} tokens"
            )
        if len(ids) == 0:
            raise InputError("a language model needs at least one text")
        if int(ids.min()) < 0 or int(ids.max()) >= vocab_size:
            raise InputError(f"token ids {int(ids.min())} to {int(ids.max())} do not fit a vocabulary of {vocab_size}")
        self.pad_id, self.vocab_size, self.order = pad_id, vocab_size, order
        self.description = f"interpolated {order}-gram model" + (f" of {source}" if source else "")
        self._tables = []
        contexts, tokens, _ = self._events(ids)
        for size in range(order):
            context = self._code(contexts, size)
            grams, counts = np.unique(context * (vocab_size + 1) + tokens, return_counts=True)
            owners = grams // (vocab_size + 1)
            held, first = np.unique(owners, return_index=True)
            seen = np.diff(np.append(first, len(owners)))
            total = np.add.reduceat(counts, first) if len(first) else np.zeros(0, dtype=np.int64)
            self._tables.append((grams, counts, held, total, seen))

    def __call__(self, ids: Tensor) -> Tensor:
        """Log-likelihood of every text in nats, float64 of shape [n] on the CPU; 0 for one without predicted tokens.

        Args:
            ids: Token ids [n, L].
        """
        contexts, tokens, rows = self._events(ids)
        probability = np.full(len(tokens), 1 / self.vocab_size)
        for size, (grams, counts, held, total, seen) in enumerate(self._tables):
            context = self._code(contexts, size)
            count = _looked_up(grams, counts, context * (self.vocab_size + 1) + tokens)
            whole, kinds = _looked_up(held, total, context), _looked_up(held, seen, context)
            known = whole > 0
            mixed = (count + kinds * probability) / np.maximum(whole + kinds, 1)
            probability = np.where(known, mixed, probability)
        result = np.zeros(len(ids))
        np.add.at(result, rows, np.log(probability))
        return torch.from_numpy(result)

    def _events(self, ids: Tensor) -> tuple[Ints, Ints, Ints]:
        """The contexts [t, order - 1] of all predicted tokens (oldest first), the tokens [t] and their texts [t]."""
        table = ids.detach().cpu().to(torch.int64).numpy()
        width = self.order - 1
        start = np.full((len(table), max(width - 1, 0)), self.vocab_size, dtype=np.int64)  # before the text's start
        padded = np.concatenate([start, table], axis=1)
        real = table != self.pad_id
        last = np.where(real.any(axis=1), table.shape[1] - 1 - real[:, ::-1].argmax(axis=1), 0)
        rows, places = np.nonzero(np.arange(table.shape[1])[None, :] <= last[:, None])
        rows, places = rows[places > 0], places[places > 0]
        offsets = places[:, None] + start.shape[1] - np.arange(width, 0, -1)[None, :]
        return padded[rows[:, None], offsets], table[rows, places], rows

    def _code(self, contexts: Ints, size: int) -> Ints:
        """One number for the newest `size` tokens of every context."""
        code = np.zeros(len(contexts), dtype=np.int64)
        for column in range(contexts.shape[1] - size, contexts.shape[1]):
            code = code * (self.vocab_size + 1) + contexts[:, column]
        return code


def _looked_up(keys: Ints, values: Ints, wanted: Ints) -> Floats:
    """Values at the wanted keys, 0 where there is none."""
    if not len(keys):
        return np.zeros(len(wanted))
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0).astype(np.float64)
