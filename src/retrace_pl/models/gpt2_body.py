"""GPT-2 as a decoder that a latent vector steers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from retrace_pl.errors import InputError
from retrace_pl.models.pretrained import initial_std, load_pretrained

__all__ = ["GPT2Decoder", "build_body"]


class GPT2Decoder(nn.Module):
    """p(x | z): a GPT-2 body that sees z as prefix embeddings, in every token's embedding and in every logit.

    The logits are `E h + b + W z`, E the matrix of the token embeddings, h the hidden state: `b + W z` alone is a
    log-linear model of which tokens a text about z holds, and the body says in which order.

    Args:
        body: The body, without an output layer.
        latent_dim: Dimension d of z.
        prefix: Number P of prefix embeddings.
    """

    def __init__(self, body: Any, latent_dim: int, prefix: int) -> None:
        super().__init__()
        self.body = body
        self.width = int(body.config.n_embd)
        self.prefix = nn.Linear(latent_dim, prefix * self.width)
        self.shift = nn.Linear(latent_dim, self.width)
        self.words = nn.Linear(latent_dim, int(body.config.vocab_size))
        spread = float(body.wte.weight.detach().std()) / math.sqrt(latent_dim)
        nn.init.normal_(self.prefix.weight, std=spread)  # prefixes of the size of a token's embedding
        nn.init.normal_(self.shift.weight, std=0.02)  # little, and
        nn.init.zeros_(self.words.weight)  # nothing: a pretrained body starts with its own predictions
        for layer in (self.prefix, self.shift, self.words):
            nn.init.zeros_(layer.bias)

    def forward(self, latents: Tensor, tokens: Tensor, kept: Tensor | None = None) -> Tensor:
        """Map latents [n, d] and tokens [n, T] to the states [n, T, E] that predict each next token.

        Args:
            latents: z.
            tokens: The history.
            kept: Which of it [n, T] is shown; all of it when absent.
        """
        embeddings = self.embed(tokens)
        if kept is not None:
            embeddings = embeddings * kept[..., None]
        prefix, shift = self.condition(latents)
        return self.states(torch.cat([prefix, embeddings + shift[:, None]], dim=1))[:, prefix.shape[1] :]

    def condition(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Map latents [n, d] to the prefix embeddings [n, P, E] and what is added to every token's embedding [n, E]."""
        latents = latents.to(self.prefix.weight.dtype)
        return self.prefix(latents).unflatten(1, (-1, self.width)), self.shift(latents)

    def embed(self, tokens: Tensor) -> Tensor:
        """Map tokens [n, T] to their embeddings [n, T, E]."""
        return torch.as_tensor(self.body.wte(tokens))

    def states(self, embeddings: Tensor, cache: Any = None) -> Tensor:
        """Run the body on embeddings [n, T, E], after what a cache holds; last hidden states [n, T, E]."""
        result = self.body(inputs_embeds=embeddings, past_key_values=cache, use_cache=cache is not None)
        return torch.as_tensor(result.last_hidden_state)

    def logits(self, states: Tensor, latents: Tensor) -> Tensor:
        """Map states [m, E] and the latents [m, d] of their texts to the logits [m, V] of the next token."""
        words = self.words(latents.to(self.words.weight.dtype))
        return torch.addmm(words, states, self.body.wte.weight.T)


def build_body(pretrained: str | None, vocabulary: int, positions: int, sizes: dict[str, Any], dropout: float) -> Any:
    """A GPT-2 body without its output layer, from random weights or a checkpoint.

    Args:
        pretrained: Name or folder of a checkpoint; None for random weights.
        vocabulary: Number of token ids.
        positions: Longest sequence, prefix included.
        sizes: Settings of the configuration without a checkpoint.
        dropout: Probability of dropout everywhere.

    Raises:
        InputError: The checkpoint has another vocabulary or too short a window.
    """
    from transformers import GPT2Config, GPT2Model

    settings: dict[str, Any] = {
        "resid_pdrop": dropout,
        "embd_pdrop": dropout,
        "attn_pdrop": dropout,
        "attn_implementation": "sdpa",
    }
    if pretrained is None:
        return GPT2Model(
            GPT2Config(
                vocab_size=vocabulary,
                n_positions=positions,
                bos_token_id=0,
                eos_token_id=0,
                initializer_range=initial_std(sizes["n_embd"]),
                **sizes,
                **settings,
            )
        )
    body = load_pretrained(GPT2Model, pretrained, **settings)
    if body.config.vocab_size != vocabulary:
        raise InputError(
            f"pretrained: {pretrained} has {body.config.vocab_size} token ids, its tokenizer or the data's "
            f"{vocabulary}; name the model's own tokenizer in `tokenizer` and the data's in `data_tokenizer`"
        )
    if body.config.n_positions < positions:
        raise InputError(
            f"texts of {positions} tokens with their prefix are longer than the window of {pretrained}, "
            f"{body.config.n_positions}: lower the data's max_length or own_length"
        )
    return body
