"""Attacks on foreign models of texts: their data, their tokenizer, and the generator that suits them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from retrace_pl.data import HuggingFaceTextSource, LabelledTexts, TextSource, TextTokenizer
from retrace_pl.data.paths import expand
from retrace_pl.data.text import build_text_loader, check_text_model, open_tokenizer
from retrace_pl.errors import InputError
from retrace_pl.external.inputs import Material, ModelInputs, RecordSet, few_of
from retrace_pl.external.outputs import OutputKind, as_logits, check_kind
from retrace_pl.external.packaged import packaged_model, registered_source
from retrace_pl.external.questions import Questions, TextQuestions
from retrace_pl.metrics.text import NGramLanguageModel, TextDomain
from retrace_pl.models import GPT2Generator, TokenBehaviour, TokenClassifier
from retrace_pl.pipeline.config import GeneratorSettings

if TYPE_CHECKING:
    from retrace_pl.external.config import PairSettings, PublicGeneratorSettings

__all__ = ["NamedTokenizer", "TextInput", "TextMaterial", "known_texts"]

GENERATOR_STEPS = 1300
"""Updates of the generator where its epochs are not set: those of the packaged audit of texts."""

TASK = {"lr": 0.004, "weight_decay": 0.05, "noise": 0.4}
PRETRAINED_TASK = {"lr": 0.0001, "noise": 0.4}
"""Settings of the generator's training in the packaged audits, from random and from pretrained weights."""

LONGEST = 128
"""Tokens per text where nothing is declared and the models take as many."""

MANY, FEW_DIMENSIONS = 2000, 16
"""Public texts from which a pretrained generator has the packaged latent dimensions, and how many it has below."""

_PROBED = 16
"""Tokens per text of a tokenizer that is only looked at."""


class NamedTokenizer:
    """A tokenizer by its name, and by what it does: two that give every text the same ids are equal.

    Args:
        path: Name on the hub, folder or file.
        option: The command-line option that named it, or the model that it came with, for messages.
    """

    def __init__(self, path: str, option: str = "--tokenizer") -> None:
        self.path = path
        self.option = option

    def open(self, max_length: int) -> TextTokenizer:
        """The tokenizer.

        Raises:
            InputError: There is none, or it does not fit.
        """
        try:
            return open_tokenizer(self.path, max_length)
        except InputError as error:
            raise InputError(f"{self.option}: {str(error).removeprefix('tokenizer: ')}") from error

    @cached_property
    def _looked_at(self) -> tuple[str, int | None]:
        """Hash of everything that decides its ids, and the longest text that its models take."""
        found = self.open(_PROBED)
        digest = hashlib.sha256(f"{found.backend.to_str()} {found.special}".encode()).hexdigest()
        return digest, found.window

    @property
    def digest(self) -> str:
        """Hash of everything that decides its ids."""
        return self._looked_at[0]

    @property
    def window(self) -> int | None:
        """Longest text that models of this tokenizer take, in tokens, where that is known."""
        return self._looked_at[1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NamedTokenizer) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class TextInput(ModelInputs):
    """The texts that a model takes, as far as it is known; None where it is not.

    Args:
        tokenizer: What turns texts into its token ids.
        max_length: Tokens per text, special tokens included.
        window: Longest text that it takes, in tokens.
        vocab_size: Number of token ids that it embeds.
        pad_id: Id of the padding that its attention leaves out.
    """

    noun: ClassVar[str] = "texts"

    tokenizer: NamedTokenizer | None = None
    max_length: int | None = None
    window: int | None = None
    vocab_size: int | None = None
    pad_id: int | None = None

    def options(self) -> dict[str, Any]:
        """Tokenizer and tokens per text, where they are known."""
        known = {"--tokenizer": self.tokenizer, "--max-length": self.max_length}
        return {option: value for option, value in known.items() if value is not None}

    def completed(self, hint: TextInput) -> TextInput:
        """These values, and those of `hint` where there is none; the smaller window of the two."""
        windows = [window for window in (self.window, hint.window) if window is not None]
        return replace(
            self,
            tokenizer=self.tokenizer or hint.tokenizer,
            max_length=self.max_length or hint.max_length,
            window=min(windows) if windows else None,
        )

    def material(self, settings: PairSettings) -> TextMaterial:
        """Texts of that kind."""
        if settings.generator_size is not None:
            raise InputError("--generator-size: it is the side of images, and the models take texts; leave it out")
        return TextMaterial(self, settings.generator_pretrained)


def known_texts(model: TokenClassifier) -> TextInput:
    """The texts that a classifier of this package takes, as far as it tells."""
    window = getattr(model, "window", None)
    return TextInput(window=window, vocab_size=model.vocab_size, pad_id=model.pad_id)


class PreparedTexts(nn.Module):
    """A model of which only answers are seen; its outputs are class scores whose softmax are the probabilities.

    Args:
        model: Maps token ids [n, L] to class scores.
        kind: What it returns.
        pad_id: Id of the padding.
        max_length: Tokens per text; texts of all lengths go through in one batch.
    """

    def __init__(self, model: nn.Module, kind: OutputKind, pad_id: int, max_length: int) -> None:
        super().__init__()
        check_kind(kind)
        self.model = model
        self.kind: OutputKind = kind
        self.behaviour = TokenBehaviour(pad_id, bucket=max_length)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map token ids [n, L] to logits or log-probabilities [n, K]."""
        return as_logits(self.model(inputs), self.kind)


class TextMaterial(Material):
    """Texts as token ids [n, L], padded on the right.

    Args:
        inputs: What was declared of them, completed by what the models' folders say.
        pretrained: A GPT-2 that the generator starts from, by name or folder; None: random weights.

    Raises:
        InputError: No tokenizer is known, or the length does not fit tokenizer or models.
    """

    noun = "texts"
    advice = "check --tokenizer and --max-length"
    declared = "--tokenizer and --max-length"

    def __init__(self, inputs: TextInput, pretrained: str | None = None) -> None:
        if inputs.tokenizer is None:
            raise InputError(
                "--tokenizer: no model's folder holds one; name a folder with a tokenizer, a tokenizer.json that was "
                "trained here, or a name on the Hugging Face hub"
            )
        self.named = inputs.tokenizer
        self.pretrained = pretrained
        windows = [window for window in (inputs.window, self.named.window) if window is not None]
        self.max_length = inputs.max_length or min([LONGEST, *windows])
        if windows and self.max_length > min(windows):
            raise InputError(
                f"--max-length: {self.max_length} is more than the {min(windows)} tokens that models and tokenizer "
                "take; lower it"
            )
        if self.max_length < 4:
            raise InputError(f"--max-length: {self.max_length} leaves no room for texts; set it to 4 or more")
        self.tokenizer = self.named.open(self.max_length)
        self.domain = TextDomain(self.tokenizer)
        self.truncated: dict[str, float] = {}

    def check(self, option: str, inputs: ModelInputs | None) -> None:
        """Makes sure that a model embeds every token, and leaves out the padding of this tokenizer.

        Raises:
            InputError: The tokenizer does not fit the model.
        """
        if not isinstance(inputs, TextInput):
            return
        if inputs.vocab_size is not None and inputs.vocab_size < self.tokenizer.vocab_size:
            raise InputError(
                f"--tokenizer: {self.named} has {self.tokenizer.vocab_size} tokens, and the model of {option} embeds "
                f"{inputs.vocab_size}; name the tokenizer that it was trained with"
            )
        if inputs.pad_id is not None and inputs.pad_id != self.tokenizer.pad_id:
            raise InputError(
                f"--tokenizer: {self.named} pads with {self.tokenizer.pad_id}, and the model of {option} with "
                f"{inputs.pad_id}; name the tokenizer that it was trained with"
            )

    def read(
        self, name: str, option: str, *, exclude: tuple[str, ...] = (), limit: int | None = None, seed: int = 0
    ) -> RecordSet:
        """Reads a folder, a CSV, TSV, JSON, JSON Lines, parquet or text file, or a registered data set of texts.

        Texts are in the only column of strings, or in one of the usual name; classes, whole numbers, in a column
        ``label`` or of another usual name, where there is one.
        """
        source, partition = self._source(name, option)
        try:
            found, classes = source.read(partition)
        except InputError as error:
            raise InputError(f"{option}: {error}; texts are read from a column named text") from error
        labels = torch.from_numpy(np.asarray(found.labels, dtype=np.int64))
        positions = few_of(labels, classes, name, exclude, limit, seed)
        if len(positions) == 0:
            raise InputError(f"{option}: {name} has no texts that are not left out")
        texts = [found.texts[index] for index in positions.tolist()]
        for index, text in zip(positions.tolist(), texts, strict=True):
            if not text.strip():
                raise InputError(f"{option}: the text of record {index} of {name} is empty; remove it")
        encoded = self.tokenizer.encode_all(texts)
        self.truncated[option.removeprefix("--")] = float(encoded.truncated.double().mean())
        pad = self.tokenizer.pad_id
        records = LabelledTexts(encoded.ids.to(torch.int32), labels[positions], positions, pad)
        return RecordSet(records, classes, source.title, partial(build_text_loader, records, bucket_batches=16))

    def _source(self, name: str, option: str) -> tuple[TextSource, str]:
        path = Path(expand(name, option))
        if path.exists():
            return HuggingFaceTextSource(str(path)), "train"
        return registered_source(name, option, TextSource, "no folder, no file of texts", self.noun)

    def ready(self, batch: Tensor) -> Tensor:
        """The token ids themselves."""
        return batch

    def present(self, inputs: Tensor) -> Questions:
        """The texts that the token ids stand for."""
        return TextQuestions(self.tokenizer.decode(inputs))

    def prepare(self, model: nn.Module, kind: OutputKind) -> nn.Module:
        """A classifier that shows its embeddings as it is; around others nothing but the form of their answers."""
        if isinstance(model, TokenClassifier) and kind != "probabilities":
            return model.eval()
        return PreparedTexts(model, kind, self.tokenizer.pad_id, self.max_length).eval()

    def generator(self, settings: PublicGeneratorSettings, count: int) -> GeneratorSettings:
        """The packaged GPT-2 in miniature, or the pretrained one that was named; what is set goes first."""
        if self.pretrained is not None and settings.model is not None:
            raise InputError("--generator-pretrained and --generator.model both name the generator; give one of them")
        task = TASK if self.pretrained is None else PRETRAINED_TASK
        packaged = partial(self._packaged, wide=count >= MANY)
        return settings.completed(packaged, count, GENERATOR_STEPS, fewest=4, most=40, task=task)

    def _packaged(self, space: tuple[int, ...], wide: bool) -> GPT2Generator:
        special = {name: getattr(self.tokenizer, name) for name in ("pad_id", "bos_id", "eos_id")}
        if self.pretrained is None:
            return GPT2Generator(space, **packaged_model("gpt2_tiny"), **special)
        settings = {**packaged_model("gpt2"), **special, "pretrained": self.pretrained, "tokenizer": self.pretrained}
        if not wide:
            settings["latent_dim"] = FEW_DIMENSIONS
        try:
            return GPT2Generator(space, **{**settings, "data_tokenizer": self.named.path})
        except InputError as error:
            raise InputError(f"--generator-pretrained: {error}") from error

    def sample_space(self) -> tuple[int, ...]:
        """Longest text in tokens and size of the vocabulary (L, V)."""
        return (self.max_length, self.tokenizer.vocab_size)

    def check_generator(self, model: nn.Module) -> None:
        """Makes sure that a generator speaks in the ids of this tokenizer.

        Raises:
            InputError: It was built for another one.
        """
        check_text_model(model, self.tokenizer, self.max_length)

    def take_public(self, public: RecordSet) -> None:
        """Counts the language model behind the perplexity, and keeps the texts that copies are looked up in."""
        ids, tokenizer = public.inputs, self.tokenizer
        counted = NGramLanguageModel(
            ids, tokenizer.pad_id, tokenizer.vocab_size, source="the public texts, which the generator has seen too"
        )
        self.domain = TextDomain(tokenizer, counted).fitted(lambda _: public.records)

    def encoding(self) -> dict[str, Any]:
        """Tokenizer, its vocabulary, tokens per text, and the share of texts that were cut off, by option."""
        known = {"tokenizer": self.named.path, "vocabulary": self.tokenizer.vocab_size, "max_length": self.max_length}
        return {"encoding": {**known, "truncated": dict(self.truncated)}}

    def facts(self) -> dict[str, Any]:
        """Tokenizer, its vocabulary and tokens per text."""
        return {
            "tokenizer": self.named.path,
            "tokenizer_digest": self.named.digest,
            "vocabulary": self.tokenizer.vocab_size,
            "max_length": self.max_length,
        }
