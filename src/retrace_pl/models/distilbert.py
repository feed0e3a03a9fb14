"""DistilBERT as a classifier of texts (Sanh et al., 2019)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from retrace_pl.errors import InputError
from retrace_pl.models.pretrained import initial_std, load_pretrained, require_sizes
from retrace_pl.models.token_behaviour import TokenClassifier


class DistilBertClassifier(TokenClassifier):
    """DistilBERT with the classification head of its authors: features = relu(W h_1), h_1 the state of the first token.

    Inputs are token ids [n, L], int64, padded on the right with `pad_id`, L at most the model's window. Attention is
    masked at the padding, so a text's features do not depend on how far it is padded. Attention is computed by plain
    matrix products by default, because gradients record by record, forward-mode and second derivatives, which
    unlearning methods and traces need, are not there for every fused kernel.

    The defaults are DistilBERT in miniature, for a CPU; its own size is width 768, 6 layers, 12 heads, with 66 million
    parameters.

    Args:
        vocab_size: Number V of token ids of the data's tokenizer.
        num_classes: Number K of classes.
        pretrained: Name on the Hugging Face hub, such as `distilbert-base-uncased`, or a local folder with
            `config.json` and `model.safetensors`; the four sizes are then the model's own. Absent: random weights.
        width: Width E of embeddings and hidden states; also the number F of features.
        layers: Number of transformer layers.
        heads: Attention heads per layer; they divide the width.
        window: Longest text in tokens, special ones included.
        dropout: Probability of dropout in the body, in [0, 1); eval mode has none.
        head_dropout: That of the features before the last layer.
        pad_id: Id of the padding.
        fused_attention: Use torch's fused attention: faster on long texts on a GPU.

    Raises:
        InputError: A setting is out of range, the pretrained model cannot be loaded, or its vocabulary is another one.
    """

    def __init__(
        self,
        vocab_size: int,
        num_classes: int,
        *,
        pretrained: str | None = None,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        window: int = 512,
        dropout: float = 0.1,
        head_dropout: float = 0.2,
        pad_id: int = 0,
        fused_attention: bool = False,
    ) -> None:
        from transformers import DistilBertConfig, DistilBertModel

        super().__init__()
        if vocab_size < 1 or num_classes < 1 or window < 1:
            raise InputError("vocab_size, num_classes and window of DistilBertClassifier must be at least 1")
        if not 0 <= pad_id < vocab_size:
            raise InputError(f"pad_id {pad_id} must be one of the {vocab_size} token ids")
        for name, value in (("dropout", dropout), ("head_dropout", head_dropout)):
            if not 0 <= value < 1:
                raise InputError(f"{name} must lie in [0, 1), got {value}")
        require_sizes("DistilBertClassifier", width, layers, heads)
        settings: dict[str, Any] = {
            "dropout": dropout,
            "attention_dropout": dropout,
            "attn_implementation": "sdpa" if fused_attention else "eager",
        }
        if pretrained is None:
            config = DistilBertConfig(
                vocab_size=vocab_size,
                dim=width,
                hidden_dim=4 * width,
                n_layers=layers,
                n_heads=heads,
                max_position_embeddings=window,
                pad_token_id=pad_id,
                **settings,
            )
            self.body = DistilBertModel(config)
        else:
            self.body = load_pretrained(DistilBertModel, pretrained, **settings)
            if self.body.config.vocab_size != vocab_size:
                raise InputError(
                    f"pretrained: {pretrained} has {self.body.config.vocab_size} token ids, the data's tokenizer "
                    f"{vocab_size}; set the data's tokenizer to that of the model"
                )
        self.vocab_size = vocab_size
        self.num_classes = num_classes
        self.num_features = int(self.body.config.dim)
        self.window = int(self.body.config.max_position_embeddings)
        self.pad_id = pad_id
        self.hidden = nn.Sequential(
            nn.Linear(self.num_features, self.num_features), nn.ReLU(), nn.Dropout(head_dropout)
        )
        self.head = nn.Linear(self.num_features, num_classes)
        for layer in (self.hidden, self.head) if pretrained else (self,):
            _draw(layer, initial_std(self.num_features), None)

    def embeddings(self, inputs: Tensor) -> Tensor:
        """Map token ids [n, L] to word embeddings [n, L, E], before position embeddings are added.

        Raises:
            InputError: The texts are longer than the model's window, or no token ids.
        """
        if inputs.ndim != 2 or inputs.dtype != torch.int64:
            raise InputError(
                f"DistilBertClassifier takes token ids [n, L], int64, got {inputs.dtype} of shape {list(inputs.shape)}"
            )
        if inputs.shape[1] > self.window:
            raise InputError(
                f"texts of {inputs.shape[1]} tokens are longer than the model's window of {self.window}: lower the "
                "data's max_length or raise the model's window"
            )
        return torch.as_tensor(self.body.embeddings.word_embeddings(inputs))

    def features_at(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Map word embeddings [n, L, E] to features [n, F]; `mask` [n, L] says which belong to the text."""
        bias = torch.zeros_like(mask, dtype=embeddings.dtype).masked_fill(~mask, torch.finfo(embeddings.dtype).min)
        # A mask of four dimensions is taken as it is; transformers' own would look at the values, which neither
        # gradients record by record nor tracing allow.
        states = self.body(inputs_embeds=embeddings, attention_mask=bias[:, None, None, :]).last_hidden_state
        return torch.as_tensor(self.hidden(states[:, 0]))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew as BERT does, pretrained ones too.

        Matrices N(0, s^2) with s = 0.02 at width 768 and `initial_std` at others, biases 0, layer normalisation 1 and
        0, the embedding of the padding 0.

        Args:
            generator: Random generator on the model's device; torch's global one when absent.
        """
        _draw(self, initial_std(self.num_features), generator)


def _draw(module: nn.Module, std: float, generator: torch.Generator | None) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, std=std, generator=generator)
        elif isinstance(layer, nn.LayerNorm):
            nn.init.ones_(layer.weight)
        if isinstance(layer, nn.Linear | nn.LayerNorm) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
        if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
            with torch.no_grad():
                layer.weight[layer.padding_idx].zero_()
