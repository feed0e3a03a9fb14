"""Whether a model of texts fits a tokenizer."""

from __future__ import annotations

from torch import nn

from retrace_pl.data.text.tokenizer import TextTokenizer
from retrace_pl.errors import InputError


def check_text_model(model: nn.Module, tokenizer: TextTokenizer, max_length: int) -> None:
    """Make sure that a model has the special tokens of a tokenizer and takes texts of ``max_length`` tokens.

    What a model says of itself is compared: ``pad_id``, ``bos_id``, ``eos_id`` and ``window``, where it has them.

    Args:
        model: A classifier or a generator.
        tokenizer: What makes the token ids.
        max_length: Tokens per text, special tokens included.

    Raises:
        InputError: If it was built for another tokenizer or for shorter texts.
    """
    name = type(model).__name__
    for token in ("pad_id", "bos_id", "eos_id"):
        found, wanted = getattr(model, token, None), getattr(tokenizer, token)
        if found is not None and found != wanted:
            raise InputError(
                f"{token}: {name} has {found}, and the tokenizer {tokenizer.name} has {wanted}; set it to that"
            )
    window = getattr(model, "window", None)
    if isinstance(window, int) and window < max_length:
        raise InputError(
            f"max_length: {max_length} is more than the window of {window} tokens of {name}; lower it, or raise the"
            " model's window"
        )
