"""From an opened source of texts to splits of token ids in memory."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

import torch

from retrace_pl.data.duplicates import drop_copies, first_occurrences, repetitions
from retrace_pl.data.preparation import Prepared, SplitSettings, assemble, draw_records
from retrace_pl.data.splits import IntArray
from retrace_pl.data.text.records import LabelledTexts
from retrace_pl.data.text.sources import RawTexts, SourceTexts
from retrace_pl.data.text.tokenizer import Encoded, TextTokenizer
from retrace_pl.data.text.tokenizer_sources import TokenizerSource
from retrace_pl.errors import InputError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TextSettings(SplitSettings):
    """What decides the records and tokens of the splits; further arguments as of :class:`SplitSettings`.

    Args:
        tokenizer: Where the tokenizer comes from.
        max_length: Tokens per text, special tokens included.
        truncate: Whether a longer text is cut off; otherwise it is an error.
    """

    tokenizer: TokenizerSource
    max_length: int
    truncate: bool


@dataclass(frozen=True)
class PreparedTexts(Prepared):
    """Splits in memory; further arguments as of :class:`Prepared`.

    Args:
        tokenizer: What made the token ids.
        truncated: Share of cut off texts per split, in [0, 1].
    """

    tokenizer: TextTokenizer
    truncated: Mapping[str, float]


def prepare_texts(opened: SourceTexts, settings: TextSettings) -> PreparedTexts:
    """Draw the splits, drop copies, open the tokenizer, and encode every text once.

    Of texts that are equal when normalised (see :func:`normalised`) the first stays, also within a split: news are
    printed more than once. So do, afterwards, texts whose tokens are equal up to ``max_length``.

    Raises:
        InputError: If the settings do not fit the data, a text is empty, or too long and not to be truncated.
    """
    draw = draw_records(opened, settings)
    partitions = {name: _partition(opened, name) for name in draw.positions}
    prints = {name: _fingerprints(*partitions[name], where) for name, where in draw.positions.items()}
    fresh = {name: flags.numpy() for name, flags in first_occurrences(prints, within=True).items()}
    positions = {name: where[fresh[name]] for name, where in draw.positions.items()}
    texts = {name: [partitions[name][1].texts[index] for index in where] for name, where in positions.items()}

    tokenizer = settings.tokenizer.open(texts["public"], settings.max_length)
    encoded, truncated = {}, {}
    for name, where in positions.items():
        found = tokenizer.encode_all(texts[name])
        _check(tokenizer, found, where, partitions[name][0], truncate=settings.truncate)
        labels = torch.from_numpy(partitions[name][1].labels[where])
        encoded[name] = LabelledTexts(found.ids.to(torch.int32), labels, torch.from_numpy(where), tokenizer.pad_id)
        truncated[name] = float(found.truncated.double().mean()) if len(where) else 0.0
    _report_truncation(truncated, settings)
    splits, dropped = drop_copies(encoded, within=True)
    dropped = {name: number + int((~fresh[name]).sum()) for name, number in dropped.items()}
    by_text, by_tokens = (
        repetitions(found) for found in (prints, {name: texts.fingerprints() for name, texts in encoded.items()})
    )
    repeated = {name: by_text[name] + by_tokens[name] for name in dropped}
    base = assemble(draw, splits, dropped, noun="text", repeated=repeated)
    return PreparedTexts(base.classes, base.deleted_classes, base.splits, base.dropped, tokenizer, truncated)


def _partition(opened: SourceTexts, split: str) -> tuple[str, RawTexts]:
    """Name and texts of the partition that a split comes from."""
    if split == "test" and opened.test is not None:
        return "test", opened.test
    return "train", opened.train


def normalised(text: str) -> str:
    """A text without what does not make it another one: compatibility forms of characters, case, and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _fingerprints(name: str, partition: RawTexts, positions: IntArray) -> list[bytes]:
    prints = []
    for index in positions:
        text = normalised(partition.texts[index])
        if not text:
            raise InputError(f"text_column: the text of record {index} of the {name} partition is empty; remove it")
        prints.append(blake2b(text.encode(), digest_size=16).digest())
    return prints


def _check(tokenizer: TextTokenizer, found: Encoded, records: IntArray, partition: str, *, truncate: bool) -> None:
    """Refuse texts of which nothing is left, and texts that are too long where none may be truncated."""
    special = torch.tensor([tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id])
    for record in records[torch.isin(found.ids, special).all(dim=1).numpy()]:
        raise InputError(
            f"text_column: {tokenizer.name} leaves nothing of the text of record {record} of the {partition} partition;"
            " remove it"
        )
    long = records[found.truncated.numpy()]
    if len(long) and not truncate:
        raise InputError(
            f"max_length: record {long[0]} of the {partition} partition has more than {tokenizer.max_length} tokens, as"
            f" have {len(long) - 1} others of its split; raise max_length or set truncate to true"
        )


def _report_truncation(truncated: Mapping[str, float], settings: TextSettings) -> None:
    if any(truncated.values()):
        shares = ", ".join(f"{share:.0%} of {name}" for name, share in truncated.items())
        _log.info("texts longer than %d tokens were cut off: %s", settings.max_length, shares)
