"""Copies: records with the same content under different positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from retrace_pl.data.records import LabelledRecords

Records = TypeVar("Records", bound=LabelledRecords)


def drop_copies(splits: Mapping[str, Records], *, within: bool = False) -> tuple[dict[str, Records], dict[str, int]]:
    """Keep every record in one split only: the first, in the order given, that holds it.

    Records are compared as the models see them (images byte by byte after resizing, texts token by token after
    truncation; through a 128-bit hash) and whatever their labels.

    Args:
        splits: The splits, those that must stay complete first.
        within: Whether of copies within one split only the first stays, too.

    Returns:
        The splits without the copies of earlier ones, and how many each lost.
    """
    fresh = first_occurrences({name: records.fingerprints() for name, records in splits.items()}, within=within)
    dropped = {name: len(records) - int(fresh[name].sum()) for name, records in splits.items()}
    kept = {name: records.subset(fresh[name]) if dropped[name] else records for name, records in splits.items()}
    return kept, dropped


def repetitions(prints: Mapping[str, Sequence[bytes]]) -> dict[str, int]:
    """How many fingerprints of each split are in no split before it, but earlier in the same one.

    Args:
        prints: Fingerprints per split, in the order in which splits may claim them.
    """
    fresh, first = (first_occurrences(prints, within=within) for within in (False, True))
    return {name: int(fresh[name].sum()) - int(first[name].sum()) for name in prints}


def first_occurrences(prints: Mapping[str, Sequence[bytes]], *, within: bool) -> dict[str, Tensor]:
    """Which fingerprints of each split are in no split before it.

    Args:
        prints: Fingerprints per split, in the order in which splits may claim them.
        within: Whether a repetition within one split does not count as fresh either.

    Returns:
        bool [n] per split.
    """
    seen: set[bytes] = set()
    fresh: dict[str, Tensor] = {}
    for name, members in prints.items():
        if within:
            flags = []
            for fingerprint in members:
                flags.append(fingerprint not in seen)
                seen.add(fingerprint)
        else:
            flags = [fingerprint not in seen for fingerprint in members]
            seen.update(members)
        fresh[name] = torch.tensor(flags, dtype=torch.bool)
    return fresh
