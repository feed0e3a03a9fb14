"""The data of an audit of text classifiers: what is trained on, deleted, public, and held back."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from retrace_pl.data.base import AuditDataModule
from retrace_pl.data.loading import Batch
from retrace_pl.data.text.checks import check_text_model
from retrace_pl.data.text.loading import build_text_loader
from retrace_pl.data.text.preparation import PreparedTexts, TextSettings, prepare_texts
from retrace_pl.data.text.records import LabelledTexts
from retrace_pl.data.text.sources import SourceTexts, TextSource
from retrace_pl.data.text.tokenizer import TextTokenizer
from retrace_pl.data.text.tokenizer_sources import TokenizerSource
from retrace_pl.errors import InputError
from retrace_pl.metrics.text import TextDomain


class TextUnlearningDataModule(AuditDataModule):
    """Disjoint, seeded splits of a labelled text data set: train = retain + forget, public, evaluator and test.

    A text is a row of token ids int64 [L], L = ``max_length``, padded on the right; loaders cut a batch to its longest
    text. All splits are stratified by class. ``test`` comes from the source's test partition where it has one,
    everything else from its train partition. Of equal texts (but for case, white space and compatibility forms of
    characters, or by their tokens) one stays: in the first of forget, retain, test, evaluator, public that holds it.
    So a split may end up smaller than asked for (see ``dropped_copies``).

    Args:
        source: Where the texts come from.
        tokenizer: The tokenizer of the audit: a pretrained one, or one trained on the public split.
        forget_class: Delete every train record of these classes: an index, a name, or a list of them. Set exactly one
            of the three ``forget_`` settings.
        forget_fraction: Delete this share of the train records, strictly between 0 and 1, drawn at random (seeded,
            stratified by class).
        forget_indices: Delete the records at these positions of the train split, which is ordered as the source is;
            positions are counted before copies are dropped.
        public_includes_deleted: Whether the public set may hold other texts of the deleted classes. Only for
            ``forget_class``: after deletion of single records it always holds texts of every class.
        train_size: Records to train on, retained and deleted together. None: 60 % of the source's train partition,
            or 50 % if it has no test partition.
        public_size: Public records. None: 20 % of what it may hold.
        evaluator_size: Records that the independent evaluation classifier is trained on. None: 20 %, or 15 % if the
            source has no test partition.
        test_size: Test records. None: the source's whole test partition, or 15 % if it has none.
        max_length: Tokens per text, special tokens included; no more than the tokenizer and the models take.
        truncate: Cut longer texts off (``truncated`` says how many were); false makes a longer text an error.
        batch_size: Records per batch.
        bucket_batches: In training, so many batches' records are sorted together by length before they are cut into
            batches, so that a batch has little padding; 1 turns it off.
        num_workers: Processes that assemble batches. The texts are in memory, so 0 is usually fastest.
        seed: Seed of the splits and of shuffling; at least 0.
        span_words: Shortest span in words that counts as a verbatim copy of a deleted text when candidates are judged,
            at least 1. Nothing is trained with it, so changing it repeats the evaluation alone.

    Raises:
        InputError: If the settings contradict each other; on ``setup`` also if they do not fit the data.
    """

    noun = "text"
    judging_settings = ("span_words",)

    def __init__(
        self,
        source: TextSource,
        tokenizer: TokenizerSource,
        forget_class: int | str | list[int] | list[str] | None = None,
        forget_fraction: float | None = None,
        forget_indices: list[int] | None = None,
        public_includes_deleted: bool = False,
        train_size: int | None = None,
        public_size: int | None = None,
        evaluator_size: int | None = None,
        test_size: int | None = None,
        max_length: int = 64,
        truncate: bool = True,
        batch_size: int = 64,
        bucket_batches: int = 16,
        num_workers: int = 0,
        seed: int = 0,
        span_words: int = 6,
    ) -> None:
        settings = TextSettings(
            forget_class=forget_class,
            forget_fraction=forget_fraction,
            forget_indices=forget_indices,
            public_includes_deleted=public_includes_deleted,
            sizes={"train": train_size, "test": test_size, "evaluator": evaluator_size, "public": public_size},
            tokenizer=tokenizer,
            max_length=max_length,
            truncate=truncate,
            seed=seed,
        )
        if bucket_batches < 1:
            raise InputError(f"bucket_batches: {bucket_batches} is below 1, which turns bucketing by length off")
        super().__init__(
            source,
            settings,
            public_includes_deleted=public_includes_deleted,
            batch_size=batch_size,
            num_workers=num_workers,
        )
        if span_words < 1:
            raise InputError(f"span_words: {span_words} is below 1; it is the length of a copied span in words")
        self.span_words = span_words
        self.text_settings = settings
        self.max_length = max_length
        self.bucket_batches = bucket_batches

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer whose ids the texts are."""
        return self._prepared_texts().tokenizer

    @property
    def truncated(self) -> dict[str, float]:
        """Share of texts per split that were cut off at ``max_length``, in [0, 1]."""
        return dict(self._prepared_texts().truncated)

    @property
    def input_size(self) -> int:
        """Size of the vocabulary."""
        return self.tokenizer.vocab_size

    @property
    def sample_space(self) -> tuple[int, ...]:
        """Longest text in tokens and size of the vocabulary, (L, V)."""
        return (self.max_length, self.tokenizer.vocab_size)

    @property
    def domain(self) -> TextDomain:
        """Distances, metrics and words of texts."""
        return TextDomain(self.tokenizer, span_words=self.span_words)

    @property
    def batching(self) -> dict[str, Any]:
        """Vocabulary and special tokens, which the ids alone do not tell, and how batches are drawn."""
        tokenizer = self.tokenizer
        return {
            "vocabulary": tokenizer.vocab_size,
            "special": [tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id],
            "bucket_batches": self.bucket_batches,
            "data_seed": self.seed,
        }

    @property
    def encoding(self) -> dict[str, Any]:
        """Tokenizer, its vocabulary, tokens per text, and the share of texts per split that were cut off."""
        return {
            "tokenizer": self.tokenizer.name,
            "vocabulary": self.tokenizer.vocab_size,
            "max_length": self.max_length,
            "truncated": self.truncated,
        }

    def check_model(self, model: nn.Module) -> None:
        """Make sure that a model has the special tokens of the tokenizer and takes texts of ``max_length``.

        What a model says of itself is compared: ``pad_id``, ``bos_id``, ``eos_id`` and ``window``, where it has them.

        Raises:
            InputError: If it was built for another tokenizer or for shorter texts.
        """
        check_text_model(model, self.tokenizer, self.max_length)

    def loader_of(
        self,
        records: LabelledTexts,
        *,
        batch_size: int | None = None,
        shuffle: bool = False,
        augment: bool = False,
        batches: int | None = None,
        epoch: int = 0,
    ) -> DataLoader[Batch]:
        """A loader of any texts: batches ``(token ids int64 [b, longest text], labels int64 [b])``.

        Arguments are those of :func:`build_text_loader`; texts have no augmentation, so ``augment`` changes nothing.
        """
        return build_text_loader(
            records,
            self.batch_size if batch_size is None else batch_size,
            shuffle=shuffle,
            seed=self.seed,
            bucket_batches=self.bucket_batches,
            num_workers=self.num_workers,
            batches=batches,
            epoch=epoch,
        )

    def _prepare(self, opened: SourceTexts) -> PreparedTexts:
        return prepare_texts(opened, self.text_settings)

    def _prepared_texts(self) -> PreparedTexts:
        prepared = self._ready()
        assert isinstance(prepared, PreparedTexts)
        return prepared
