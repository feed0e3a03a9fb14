"""Classifiers over texts: batches of token ids, compared at their embeddings."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace_pl.errors import InputError
from retrace_pl.models.base import Classifier
from retrace_pl.models.behaviour import Behaviour, LogitsBehaviour, checked_logits

__all__ = ["TokenBehaviour", "TokenClassifier", "token_lengths", "token_mask"]


def token_lengths(inputs: Tensor, pad_id: int) -> Tensor:
    """Number of tokens of every text up to the last one that is no padding, int64 [n]; at least 1.

    Args:
        inputs: Token ids [n, L], padded on the right.
        pad_id: Id of the padding.
    """
    places = torch.arange(1, inputs.shape[-1] + 1, device=inputs.device)
    return (inputs.ne(pad_id) * places).amax(dim=-1).clamp_min(1)


def token_mask(inputs: Tensor, pad_id: int) -> Tensor:
    """Which of the tokens [n, L] belong to a text, bool [n, L]; the first one always does."""
    places = torch.arange(inputs.shape[-1], device=inputs.device)
    return places < token_lengths(inputs, pad_id)[..., None]


class TokenClassifier(Classifier):
    """Base of the classifiers over token ids [n, L], int64, padded on the right.

    The way from ids to logits has a stop at the embeddings, where gradients can be taken: a subclass builds its body
    and implements `embeddings` and `features_at`. Texts shorter than the longest of their batch are padded; the padding
    must not influence a text's features.

    Attributes:
        vocab_size: Number V of token ids.
        pad_id: Id of the padding.
        head: Maps the features [n, F] to the logits [n, K].
    """

    vocab_size: int
    pad_id: int
    head: nn.Linear

    @property
    def behaviour(self) -> Behaviour:
        """Compared on token ids, gradients taken at the embeddings."""
        return TokenBehaviour(self.pad_id)

    @abstractmethod
    def embeddings(self, inputs: Tensor) -> Tensor:
        """Map token ids [n, L] to the outputs [n, L, E] of the embedding layer."""

    @abstractmethod
    def features_at(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Map embeddings [n, L, E] to features [n, F].

        Args:
            embeddings: Results of `embeddings`, or anything of that shape.
            mask: Which of them belong to the text, bool [n, L].
        """

    def features(self, inputs: Tensor) -> Tensor:
        """Map token ids [n, L] to features [n, F]."""
        return self.features_at(self.embeddings(inputs), token_mask(inputs, self.pad_id))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map token ids [n, L] to logits [n, K]."""
        return torch.as_tensor(self.head(self.features(inputs)))


class TokenBehaviour(LogitsBehaviour):
    """Text classifiers over token ids [n, L], int64, padded on the right; gradients taken at the embedding output.

    Texts are run in groups of similar length, each group without the padding that none of its members needs. A text's
    group is decided by its own length alone (rounded up to a multiple of `bucket`), never by the longest text that
    happens to be in the batch. So a batch of short texts is cheap however wide its tensor is, and no text's result
    depends on the company it comes in.

    Args:
        pad_id: Id of the padding.
        bucket: Lengths are rounded up to a multiple of it.

    Raises:
        InputError: `bucket` is below 1.
    """

    def __init__(self, pad_id: int = 0, bucket: int = 16) -> None:
        if bucket < 1:
            raise InputError(f"bucket must be at least 1, got {bucket}")
        self.pad_id = pad_id
        self.bucket = bucket

    def size(self, inputs: Tensor) -> int:
        """Return the length of the first dimension.

        Raises:
            InputError: `inputs` is no int64 tensor of shape [n, L].
        """
        if not isinstance(inputs, Tensor) or inputs.ndim != 2 or inputs.dtype != torch.int64:
            kind = (
                f"{inputs.dtype} tensor of shape {list(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs)
            )
            raise InputError(f"inputs: a text classifier takes an int64 tensor of token ids [n, L], got {kind}")
        return inputs.shape[0]

    def differentiable(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Return the outputs of the embedding layer as a leaf, shape [n, L, E].

        Raises:
            InputError: The model has no embeddings to speak of.
        """
        with torch.no_grad():
            leaf = _token_classifier(model).embeddings(inputs)
        return leaf.detach().requires_grad_(True)

    def forward(self, model: nn.Module, inputs: Tensor, representation: Tensor | None = None) -> Tensor:
        """Return the logits, shape [n, K] with K >= 2.

        Raises:
            InputError: The model returns something else, or has no embeddings to start from.
        """
        widths = self._widths(inputs)
        order = self.run_order(inputs)
        parts, start = [], 0
        found, counts = torch.unique(widths, return_counts=True)
        for width, count in zip(found.tolist(), counts.tolist(), strict=True):
            rows = order[start : start + count]
            start += count
            ids = inputs[rows, :width]
            if representation is None:
                logits = model(ids)
            else:
                text = _token_classifier(model)
                features = text.features_at(representation[rows, :width], token_mask(ids, self.pad_id))
                logits = text.head(features)
            parts.append(checked_logits(model, logits, count))
        together = torch.cat(parts)
        return together[order.argsort()]

    def run_order(self, inputs: Tensor) -> Tensor:
        """Return the numbers of the samples in the order that `forward` runs them, int64 [n]."""
        return self._widths(inputs).argsort(stable=True)

    def blanks(self, samples: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return `count` texts of the median length, int64 [count, L], and their free places, bool [count, L].

        The first and the last token are not free where all samples share it: they are the tokenizer's own.
        """
        lengths = token_lengths(samples, self.pad_id)
        median = lengths.median()
        text = samples[int(lengths.eq(median).nonzero()[0])]
        free = token_mask(text[None], self.pad_id)[0]
        ends = samples.gather(1, lengths[:, None] - 1)
        free[0] = not bool(samples[:, 0].eq(samples[0, 0]).all())
        free[median - 1] = not bool(ends.eq(ends[0]).all())
        return text.expand(count, -1).clone(), free.expand(count, -1).clone()

    def scale(self, model: nn.Module) -> float:
        """Return the root mean square of the word embeddings."""
        return float(self._table(model).square().mean().sqrt())

    def nearest(self, model: nn.Module, inputs: Tensor, free: Tensor, representation: Tensor) -> Tensor:
        """Return texts [n, L] whose free tokens are those with the largest cosine to a representation [n, L, E].

        The padding is never chosen, nor what stands at the places that are not free.
        """
        similar = functional.normalize(representation[free], dim=1) @ functional.normalize(self._table(model), dim=1).T
        similar[:, inputs[~free]] = -torch.inf
        similar[:, self.pad_id] = -torch.inf
        filled = inputs.clone()
        filled[free] = similar.argmax(dim=1)
        return filled

    def join(self, first: Tensor, second: Tensor) -> Tensor:
        """Return both batches in one, the narrower of them padded, shape [n + m, L]."""
        width = max(first.shape[1], second.shape[1])
        return torch.cat([self._padded(first, width), self._padded(second, width)])

    def words(self, inputs: Tensor) -> Tensor:
        """Return the ids counted from that of the padding, which so is 0, shape [n, L]."""
        return inputs.detach() - self.pad_id

    def moved(self, inputs: Tensor, representation: Tensor, direction: Tensor, size: float) -> Tensor:
        """Return embeddings after a step of `size` times the root mean square of each text's own embeddings."""
        mask = token_mask(inputs, self.pad_id)[..., None]
        squares = (representation.square() * mask).sum(dim=(1, 2), keepdim=True)
        scale = (squares / (mask.sum(dim=(1, 2), keepdim=True) * representation.shape[2])).sqrt()
        return representation + size * scale * direction

    @torch.no_grad()
    def _table(self, model: nn.Module) -> Tensor:
        text = _token_classifier(model)
        device = next(model.parameters()).device
        return text.embeddings(torch.arange(text.vocab_size, device=device)[:, None])[:, 0]

    def _widths(self, inputs: Tensor) -> Tensor:
        lengths = token_lengths(inputs, self.pad_id)
        return ((lengths + self.bucket - 1) // self.bucket * self.bucket).clamp_max(inputs.shape[1])

    def _padded(self, inputs: Tensor, width: int) -> Tensor:
        return functional.pad(inputs, (0, width - inputs.shape[1]), value=self.pad_id)


def _token_classifier(model: nn.Module) -> TokenClassifier:
    if not isinstance(model, TokenClassifier):
        raise InputError(
            f"model: {type(model).__name__} shows no embeddings to take gradients at; derive it from TokenClassifier,"
            " or use gray or black access"
        )
    return model
