"""Text classifiers of the transformers library, whatever their architecture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from retrace_pl.models.token_behaviour import TokenClassifier, token_mask

__all__ = ["SequenceClassifier"]

_SAME = 1e-4
"""Largest difference of logits, as a share of their size, between the two ways into a model that is rounding."""


class SequenceClassifier(TokenClassifier):
    """A sequence classifier of transformers, run as its authors run it, with a stop at its word embeddings.

    Its logits are its features: where a foreign architecture has its last layer is not known.

    Args:
        model: What `AutoModelForSequenceClassification` loads.
        pad_id: Id of the padding of its tokenizer.
    """

    head: nn.Module  # type: ignore[assignment]

    def __init__(self, model: Any, pad_id: int) -> None:
        super().__init__()
        self.model = model
        self.pad_id = pad_id
        self.vocab_size = int(model.get_input_embeddings().num_embeddings)
        self.num_classes = self.num_features = int(model.config.num_labels)
        self.head = nn.Identity()

    def embeddings(self, inputs: Tensor) -> Tensor:
        """Map token ids [n, L] to word embeddings [n, L, E]."""
        return torch.as_tensor(self.model.get_input_embeddings()(inputs))

    def features_at(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Map word embeddings [n, L, E] to logits [n, K]; `mask` [n, L] says which belong to the text."""
        return torch.as_tensor(self.model(inputs_embeds=embeddings, attention_mask=mask.long()).logits)

    def features(self, inputs: Tensor) -> Tensor:
        """Map token ids [n, L] to logits [n, K]."""
        mask = token_mask(inputs, self.pad_id).long()
        return torch.as_tensor(self.model(input_ids=inputs, attention_mask=mask).logits)

    @torch.no_grad()
    def starts_at_embeddings(self, inputs: Tensor) -> bool:
        """Whether texts [n, L] get the same logits from their embeddings as from their ids.

        Some architectures look at the ids to find where a text ends, so that gradients at the embeddings would be those
        of another function.
        """
        straight = self.features(inputs)
        around = self.features_at(self.embeddings(inputs), token_mask(inputs, self.pad_id))
        return bool((straight - around).abs().max() <= _SAME * straight.abs().max().clamp_min(1))
