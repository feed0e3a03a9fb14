"""Greedy decoding whose result depends on the latent alone, not on the batch, and decoding that others guide."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from retrace_pl.models.gpt2_body import GPT2Decoder

__all__ = ["CLOSE", "Rank", "forbid_repeats", "greedy_decode", "guided_decode"]

CLOSE = 2e-3
"""Logits that lie closer than this are compared in double precision; rounding in float32 stays far below it."""

Rank = Callable[[Tensor, Tensor], Tensor]
"""Begun texts ``[m, T]`` and the numbers ``[m]`` of the latents they belong to, to what is added to log p."""

_Choose = Callable[[Tensor, Tensor, int], Tensor]
"""Logits ``[m, V]`` of the running texts, their numbers ``[m]`` and the place, to the tokens ``[m]`` taken."""


@torch.no_grad()
def greedy_decode(
    decoder: GPT2Decoder,
    latents: Tensor,
    length: int,
    *,
    begin: int,
    end: int,
    pad: int,
    banned: Sequence[int] = (),
    no_repeat: int = 0,
) -> Tensor:
    """The most probable token at every place, until a text ends.

    The order in which a matrix product adds up depends on the size of the batch, so logits differ in their last bits
    between batches. A text in which the best two tokens were ever closer than `CLOSE` is decoded again in double
    precision, where that no longer decides anything: the result is that of double precision for every text.

    Args:
        decoder: The decoder; it runs in eval mode, and its flag is left as it was.
        latents: [n, d].
        length: Tokens T per text.
        begin: First token of every text.
        end: Last token of every text.
        pad: What follows it.
        banned: Tokens that no text holds past its first.
        no_repeat: Tokens of a sequence that no text holds twice; 0 allows everything.

    Returns:
        [n, T], int64: the first token, at least one token of text, the last token, padding.
    """
    training = decoder.training
    decoder.eval()
    try:
        tokens = torch.full((len(latents), length), pad, device=latents.device)
        tokens[:, 0] = begin
        doubtful = _decode(decoder, latents, tokens, end, list(banned), no_repeat)
        if decoder.prefix.weight.dtype != torch.float64 and bool(doubtful.any()):
            again = tokens[doubtful].fill_(pad)
            again[:, 0] = begin
            _decode(copy.deepcopy(decoder).double(), latents[doubtful], again, end, list(banned), no_repeat)
            tokens[doubtful] = again
    finally:
        decoder.train(training)
    return tokens


@torch.no_grad()
def guided_decode(
    decoder: GPT2Decoder,
    latents: Tensor,
    length: int,
    rank: Rank,
    candidates: int,
    *,
    begin: int,
    end: int,
    pad: int,
    banned: Sequence[int] = (),
    no_repeat: int = 0,
) -> Tensor:
    """At every place, of the tokens that the decoder thinks likeliest, the one with the highest guided score.

    ``x_t = argmax over the top candidates of log p(x_t | x_<t, z) + rank(x_<=t)``, the texts begun so far being shown
    to `rank` as if they ended there. The last place holds the end and is not ranked.

    Args:
        decoder: The decoder; it runs in eval mode, and its flag is left as it was.
        latents: [n, d].
        length: Tokens T per text.
        rank: What guides; it is asked about at most `candidates` samples per text and place, T - 2 times.
        candidates: Tokens that are ranked at every place.
        begin: First token of every text.
        end: Last token of every text.
        pad: What follows it.
        banned: Tokens that no text holds past its first.
        no_repeat: Tokens of a sequence that no text holds twice; 0 allows everything.

    Returns:
        [n, T], int64, as `greedy_decode`.
    """
    tokens = torch.full((len(latents), length), pad, device=latents.device)
    tokens[:, 0] = begin

    def choose(logits: Tensor, running: Tensor, place: int) -> Tensor:
        best = logits.float().log_softmax(dim=1).topk(min(candidates, logits.shape[1]), dim=1)
        width = best.indices.shape[1]
        tried = tokens[running].repeat_interleave(width, dim=0)
        tried[:, place] = best.indices.flatten()
        tried[:, place + 1] = torch.where(tried[:, place].eq(end), pad, end)
        added = rank(tried, running.repeat_interleave(width)).to(best.values).view(-1, width)
        return best.indices.gather(1, (best.values + added).argmax(dim=1, keepdim=True))[:, 0]

    training = decoder.training
    decoder.eval()
    try:
        _decode(decoder, latents, tokens, end, list(banned), no_repeat, choose)
    finally:
        decoder.train(training)
    return tokens


def forbid_repeats(logits: Tensor, tokens: Tensor, size: int, end: int) -> None:
    """Set the logits of tokens that would complete a sequence which a text already holds to minus infinity.

    What `NoRepeatNGramLogitsProcessor` of transformers does, in one pass over the batch instead of a loop over its
    texts, and with `end` always allowed.

    Args:
        logits: Of the next token, [n, V]; changed in place.
        tokens: The texts so far, [n, T].
        size: Tokens of a sequence, at least 2.
        end: Id that may always follow.
    """
    count = tokens.shape[1] - size + 1
    if count < 1:
        return
    starts, last = tokens.unfold(1, size - 1, 1), tokens[:, -(size - 1) :]
    seen = starts[:, :count].eq(last[:, None]).all(2)
    following = tokens[:, size - 1 :]
    allowed = logits[:, end].clone()
    rows = seen.nonzero()[:, 0]
    logits[rows, following[seen]] = float("-inf")
    logits[:, end] = allowed


def _decode(
    decoder: GPT2Decoder,
    latents: Tensor,
    tokens: Tensor,
    end: int,
    banned: list[int],
    no_repeat: int,
    choose: _Choose | None = None,
) -> Tensor:
    """Fills in tokens [n, T], the likeliest or those chosen; which texts [n] were ever close to a tie."""
    from transformers import DynamicCache

    count, length = tokens.shape
    doubtful = torch.zeros(count, dtype=torch.bool, device=tokens.device)
    running = torch.arange(count, device=tokens.device)
    cache = DynamicCache(config=decoder.body.config)
    prefix, shift = decoder.condition(latents)
    fresh = torch.cat([prefix, decoder.embed(tokens[:, :1]) + shift[:, None]], dim=1)
    for place in range(1, length - 1):
        logits = decoder.logits(decoder.states(fresh, cache)[:, -1], latents[running])
        logits[:, banned if place > 1 else [*banned, end]] = float("-inf")  # no empty texts
        if no_repeat:
            forbid_repeats(logits, tokens[running, :place], no_repeat, end)
        best = logits.topk(2, dim=1)
        chosen = best.indices[:, 0] if choose is None else choose(logits, running, place)
        tokens[running, place] = chosen
        doubtful[running] |= best.values[:, 0] - best.values[:, 1] < CLOSE
        going = chosen.ne(end).nonzero()[:, 0]
        if len(going) == 0:
            return doubtful
        if len(going) < len(running):
            cache.batch_select_indices(going)
            running, shift, chosen = running[going], shift[going], chosen[going]
        fresh = decoder.embed(chosen[:, None]) + shift[:, None]
    tokens[running, length - 1] = end
    return doubtful
