"""GPT-2 steered by a latent: texts that a vector decides (Radford et al., 2019; Li et al., 2020)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from retrace_pl.errors import InputError
from retrace_pl.models.decoding import Rank, greedy_decode, guided_decode
from retrace_pl.models.gpt2_body import GPT2Decoder, build_body
from retrace_pl.models.latent_semantics import LatentSemanticEncoder
from retrace_pl.models.pretrained import require_sizes
from retrace_pl.models.recoding import Recoder
from retrace_pl.models.text_generator import TextGenerator, check_sample_space, target_mask

__all__ = ["GPT2Generator"]


class GPT2Generator(TextGenerator):
    """GPT-2 as a decoder p(x | z) of texts, z ~ N(0, I) saying what they are about.

    z is no free code that a training could leave unused. It is a text's latent semantic analysis, fitted on the
    training texts and spread like N(0, I) over them (`LatentSemanticEncoder`), and the decoder learns to write
    texts for it. A learned linear map turns z into `prefix` embeddings that every token attends to, another one into an
    embedding that is added to every token's own (the two schemes of Optimus, Li et al., 2020), and a third one into a
    term of every token's logit.

    Sampling is greedy: the text of z is the most probable continuation token by token, `x_t = argmax p(x | x_<t, z)`,
    with padding and first tokens left out, and no sequence of `no_repeat` tokens occurring twice (Paulus et al., 2018),
    without which greedy decoding goes round in circles. All variety comes from z, so that a search over z meets no
    noise, and the same z gives the same text in every batch: where the two best tokens are closer than rounding could
    turn around, the text is decoded in double precision. Sampling is batched with transformers' key-value cache, and
    texts that ended leave the batch.

    Args:
        sample_space: (longest text in tokens L, size of the data's vocabulary V).
        latent_dim: Dimension d of z.
        pretrained: Name on the Hugging Face hub, such as `gpt2`, or a local folder with `config.json` and
            `model.safetensors`; the sizes are then the model's own. Absent: random weights.
        width: Width E of embeddings and hidden states; GPT-2's is 768.
        layers: Number of transformer layers; 12.
        heads: Attention heads per layer; 12.
        prefix: Number of prefix embeddings, at least 1.
        dropout: Probability of dropout, in [0, 1); eval mode has none.
        no_repeat: Tokens of a sequence that no sample holds twice, at least 2; 0 allows everything.
        pad_id: Id of the padding in the data's vocabulary.
        bos_id: Id that begins every text there.
        eos_id: Id that ends every text there.
        tokenizer: Name, folder or JSON file of the generator's own tokenizer, where its vocabulary is not the data's.
            It must have one id that begins and ends texts, as GPT-2's has. Texts are decoded and encoded again.
        data_tokenizer: The same of the data's; needed beside `tokenizer`.
        own_length: Longest text in own tokens; L when absent.

    Raises:
        InputError: A setting is out of range, a model or tokenizer cannot be loaded, or they do not fit each other.
    """

    def __init__(
        self,
        sample_space: tuple[int, ...],
        *,
        latent_dim: int = 32,
        pretrained: str | None = None,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        prefix: int = 4,
        dropout: float = 0.1,
        no_repeat: int = 3,
        pad_id: int = 0,
        bos_id: int = 2,
        eos_id: int = 3,
        tokenizer: str | None = None,
        data_tokenizer: str | None = None,
        own_length: int | None = None,
    ) -> None:
        super().__init__()
        length, vocabulary = check_sample_space("GPT2Generator", sample_space)
        if latent_dim < 1 or prefix < 1 or (own_length is not None and own_length < 4):
            raise InputError("latent_dim and prefix of GPT2Generator must be at least 1, own_length at least 4")
        if no_repeat < 0 or no_repeat == 1:
            raise InputError(f"no_repeat must be 0 or at least 2, got {no_repeat}")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout must lie in [0, 1), got {dropout}")
        if len({pad_id, bos_id, eos_id}) < 3 or not all(0 <= i < vocabulary for i in (pad_id, bos_id, eos_id)):
            raise InputError(f"pad_id, bos_id and eos_id must be three different ids below {vocabulary}")
        if (tokenizer is None) is not (data_tokenizer is None):
            raise InputError("tokenizer and data_tokenizer of GPT2Generator belong together: give both or neither")
        require_sizes("GPT2Generator", width, layers, heads)
        self.output_shape = (length,)
        self.latent_dim = latent_dim
        self.pad_id, self.bos_id, self.eos_id = pad_id, bos_id, eos_id
        self.own_length = own_length or length
        self.no_repeat = no_repeat
        self._to_own: Recoder | None = None
        self._to_data: Recoder | None = None
        self.own_begin, self.own_end, self._banned = bos_id, eos_id, [pad_id, bos_id]
        own_vocabulary = vocabulary
        if tokenizer is not None and data_tokenizer is not None:
            self._to_own = Recoder(data_tokenizer, tokenizer, "tokenizer or data_tokenizer")
            self._to_data = Recoder(tokenizer, data_tokenizer, "tokenizer or data_tokenizer")
            own_vocabulary = self._to_own.target.get_vocab_size()
            self.own_begin = self.own_end = _end_of_text(tokenizer, self._to_own)
            self._banned = []
            known = self._to_data.target.get_vocab_size()
            if known != vocabulary:
                raise InputError(f"data_tokenizer: {data_tokenizer} has {known} ids and the data {vocabulary}")
        body = build_body(
            pretrained=pretrained,
            vocabulary=own_vocabulary,
            positions=prefix + self.own_length,
            sizes={"n_embd": width, "n_layer": layers, "n_head": heads},
            dropout=dropout,
        )
        self.decoder = GPT2Decoder(body, latent_dim, prefix)
        self.encoder = LatentSemanticEncoder(own_vocabulary, latent_dim)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents [n, d] to token ids of the data [n, L], int64: first token, text, last token, padding."""
        return self._in_data(self.decode(latents))

    def decode(self, latents: Tensor) -> Tensor:
        """Map latents [n, d] to own ids [n, T], int64: first token, text, last token, padding."""
        return greedy_decode(self.decoder, latents, self.own_length, **self._marks())

    @property
    def guided_steps(self) -> int:
        """Tokens of the longest text between its first and its last one."""
        return self.own_length - 2

    def guided(self, latents: Tensor, rank: Rank, candidates: int) -> Tensor:
        """Map latents [n, d] to token ids of the data [n, L] token by token; see `GuidedGenerator`."""

        def in_data(own: Tensor, texts: Tensor) -> Tensor:
            return rank(self._in_data(own), texts)

        own = guided_decode(self.decoder, latents, self.own_length, in_data, candidates, **self._marks())
        return self._in_data(own)

    def _in_data(self, own: Tensor) -> Tensor:
        if self._to_data is None:
            return own
        return self._to_data(own, self.output_shape[0], pad=self.pad_id, begin=self.bos_id, end=self.eos_id)

    def _marks(self) -> dict[str, Any]:
        return {
            "begin": self.own_begin,
            "end": self.own_end,
            "pad": self.own_end if self._to_own else self.pad_id,
            "banned": self._banned,
            "no_repeat": self.no_repeat,
        }

    def tokens(self, inputs: Tensor) -> Tensor:
        """Translate ids of the data [n, L] into own ids [n, T]."""
        if self._to_own is None:
            return inputs
        return self._to_own(inputs, self.own_length, pad=self.own_end, begin=self.own_begin, end=self.own_end)

    def losses(self, latents: Tensor, tokens: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return -log p(x | z) of every text, [n], in nats, and its number of tokens, [n]; see `TextGenerator`."""
        states = self.decoder(latents, tokens[:, :-1], None if kept is None else kept[:, :-1])
        wanted = target_mask(tokens, self.own_end)[:, 1:]
        # Logits are made for the tokens that count alone: over a whole vocabulary they are the larger part of the work.
        rows = wanted.nonzero()[:, 0]
        logits = self.decoder.logits(states[wanted], latents[rows])
        losses = functional.cross_entropy(logits.float(), tokens[:, 1:][wanted], reduction="none")
        return losses.new_zeros(len(tokens)).index_add(0, rows, losses), wanted.sum(1)


def _end_of_text(name: str, recoder: Recoder) -> int:
    found = recoder.target.token_to_id("<|endoftext|>")
    if found is None:
        raise InputError(f"tokenizer: {name} has no token <|endoftext|>, which begins and ends GPT-2's texts")
    return int(found)
