"""Where the canonical tokenizer comes from: a pretrained one by name or folder, or one trained on the public texts."""

from __future__ import annotations

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrace_pl.data.paths import expand, one_line
from retrace_pl.data.text.tokenizer import (
    BEGIN_TOKEN,
    END_TOKEN,
    PAD_TOKEN,
    UNKNOWN_TOKEN,
    SpecialTokens,
    TextTokenizer,
)
from retrace_pl.errors import InputError, RunError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_log = logging.getLogger(__name__)

_NO_CACHE = (None, "", "null", "None")  # a shell hands over the last two as text, and nobody means a folder by them
_NO_WINDOW = 10**6  # tokenizers that know no window say 10^30


class TokenizerSource(ABC):
    """Gives the tokenizer of a data module once its splits are drawn."""

    @abstractmethod
    def open(self, public_texts: Sequence[str], max_length: int) -> TextTokenizer:
        """The tokenizer.

        Args:
            public_texts: texts of the public split, in order; the only ones a tokenizer may be trained on, because the
                attacker has it.
            max_length: tokens per row.

        Raises:
            InputError: It cannot be had, or does not fit.
        """


class PretrainedTokenizer(TokenizerSource):
    """The fast tokenizer of a pretrained model.

    Args:
        path: name on the Hugging Face hub, for example ``distilbert-base-uncased``, or a folder with a checkpoint;
            ``~`` and environment variables are expanded.
    """

    def __init__(self, path: str = "distilbert-base-uncased") -> None:
        self.path = path

    def open(self, public_texts: Sequence[str], max_length: int) -> TextTokenizer:
        """Load it, without running any code that comes with it.

        Raises:
            InputError: It cannot be found or read, is no fast tokenizer, has no padding token, or does not mark where
                texts begin and end; or `max_length` is more than it takes.
        """
        fast = self._load()
        backend = getattr(fast, "backend_tokenizer", None)
        if backend is None:
            raise InputError(f"tokenizer: {self.path} is no fast tokenizer; use a checkpoint with a tokenizer.json")
        if fast.pad_token_id is None:
            raise InputError(
                f"tokenizer: {self.path} has no padding token, so texts cannot be told from padding; use one that has, "
                "such as distilbert-base-uncased, or TrainedTokenizer"
            )
        begin = fast.cls_token_id if fast.cls_token_id is not None else fast.bos_token_id
        end = fast.sep_token_id if fast.sep_token_id is not None else fast.eos_token_id
        special = SpecialTokens(fast.pad_token_id, -1 if begin is None else begin, -1 if end is None else end)
        window = fast.model_max_length if fast.model_max_length < _NO_WINDOW else None
        return TextTokenizer(backend, special, max_length, name=self.path, window=window)

    def _load(self) -> Any:
        from transformers import AutoTokenizer

        path = expand(self.path, "tokenizer")
        if not Path(path).is_dir() and (Path(path).exists() or path.startswith(("/", ".")) or path.count("/") > 1):
            state = "is not a folder" if Path(path).exists() else "does not exist"
            raise InputError(f"tokenizer: the folder {path} {state}; check the path")
        try:
            return AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        except Exception as error:
            where = "the folder holds none" if Path(path).is_dir() else "the Hugging Face hub does not give it"
            raise InputError(
                f"tokenizer: {path} gives no tokenizer, {where}; check the name, the network and HF_HUB_OFFLINE, or "
                f"use TrainedTokenizer ({one_line(error)})"
            ) from error


def open_tokenizer(path: str, max_length: int) -> TextTokenizer:
    """A tokenizer that exists already: a name on the hub, a checkpoint folder, or the JSON of one trained here.

    Args:
        path: name, folder or file; ``~`` and environment variables are expanded.
        max_length: tokens per row.

    Raises:
        InputError: There is none, or it does not fit; see `PretrainedTokenizer`.
    """
    file = Path(expand(path, "tokenizer"))
    if file.is_file():
        return TextTokenizer.from_file(file, max_length)
    return PretrainedTokenizer(path).open((), max_length)


class TrainedTokenizer(TokenizerSource):
    """Byte-level byte-pair encoding trained on the public texts; the same texts and settings give the same tokenizer.

    No text has an unknown token in it. Special tokens are ``[PAD]`` 0, ``[UNK]`` 1, ``[CLS]`` 2 and ``[SEP]`` 3. (Of
    the trainers of the `tokenizers` library, WordPiece numbers its tokens in another order each time; this one does
    not.) Source: Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", 2016, over bytes as
    in GPT-2.

    Args:
        vocab_size: tokens at most, the 4 special ones and the 256 bytes included; short texts may give fewer.
        lowercase: whether case is dropped before.
        min_frequency: how often a pair must occur in the public texts to become a token.
        cache: folder where trained tokenizers are kept as JSON; ``~`` and environment variables are expanded. Empty,
            None or ``null``: it is trained anew each time, as it is where the folder cannot be written.

    Raises:
        InputError: A number is out of range.
    """

    def __init__(
        self,
        vocab_size: int = 8192,
        lowercase: bool = True,
        min_frequency: int = 2,
        cache: str | None = "~/.cache/retrace_pl/tokenizers",
    ) -> None:
        if vocab_size < 260:
            raise InputError(f"vocab_size: {vocab_size} is less than 4 special tokens and 256 bytes; raise it to 260")
        if min_frequency < 1:
            raise InputError(f"min_frequency: {min_frequency} is below 1")
        self.vocab_size = vocab_size
        self.lowercase = lowercase
        self.min_frequency = min_frequency
        self.cache = None if cache in _NO_CACHE else cache

    def open(self, public_texts: Sequence[str], max_length: int) -> TextTokenizer:
        """Train the tokenizer, or open it if it was trained before.

        Raises:
            InputError: The file kept of it cannot be read, or `max_length` leaves no room for text.
        """
        file = None if self.cache is None else Path(expand(self.cache, "cache")) / f"{self._key(public_texts)}.json"
        if file is not None and file.is_file():
            return TextTokenizer.from_file(file, max_length)
        found = TextTokenizer.of_trained(self._train(public_texts), max_length, name="the trained tokenizer")
        if file is not None:
            try:
                found.save(file)
            except RunError as error:
                _log.warning("the tokenizer is trained anew each time: %s", one_line(error))
        return found

    def _key(self, texts: Sequence[str]) -> str:
        settings = [version("tokenizers"), self.vocab_size, self.lowercase, self.min_frequency]
        digest = hashlib.sha256(json.dumps(settings).encode())
        for text in texts:
            encoded = text.encode()
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
        return f"bpe-{digest.hexdigest()[:32]}"

    def _train(self, texts: Sequence[str]) -> Tokenizer:
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

        backend = Tokenizer(models.BPE())
        steps = [normalizers.NFKC(), *([normalizers.Lowercase()] if self.lowercase else [])]
        backend.normalizer = normalizers.Sequence(steps)
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        backend.decoder = decoders.ByteLevel()
        special = [PAD_TOKEN, UNKNOWN_TOKEN, BEGIN_TOKEN, END_TOKEN]
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        backend.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN_TOKEN} $A {END_TOKEN}",
            special_tokens=[(token, special.index(token)) for token in (BEGIN_TOKEN, END_TOKEN)],
        )
        return backend
