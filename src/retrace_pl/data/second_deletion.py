"""Other deletions on the data of an audit: another class for a control, and one on public records for the attacker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from retrace_pl.data import splits as plan
from retrace_pl.data.base import AuditDataModule
from retrace_pl.data.duplicates import drop_copies
from retrace_pl.data.records import LabelledRecords
from retrace_pl.errors import InputError

__all__ = ["ShadowData", "other_class", "shadow_data", "without_class"]

_HALVES, _CLASS, _UNSEEN = 11, 12, 13  # streams of the three draws


def other_class(data: AuditDataModule, wanted: int | str | None = None) -> int:
    """The class that the wrong-class control deletes.

    Args:
        data: The audit's data, which deletes whole classes.
        wanted: A retained class by index or name; None for the retained class nearest to a deleted one by index, the
            lower of two that are as near.

    Raises:
        InputError: If the class does not exist, is deleted already, or has no training record.
    """
    deleted = data.deleted_classes
    present = set(torch.unique(data.split("retain").labels).tolist())
    if wanted is None:
        return int(min(present, key=lambda index: (min(abs(index - other) for other in deleted), index)))
    index = plan.resolve_class(wanted, data.classes, "audit.wrong_class")
    if index not in present:
        what = "deleted by the audit itself" if index in deleted else "without a training record"
        raise InputError(f"audit.wrong_class: class {data.classes[index]!r} is {what}; name a retained class")
    return index


def without_class(data: AuditDataModule, index: int) -> AuditDataModule:
    """The same training records, of which those of another class are deleted instead.

    Args:
        data: The audit's data.
        index: The class to delete.
    """
    train = data.split("train")
    gone = train.labels == index
    return data.rearranged({"forget": train.subset(gone), "retain": train.subset(~gone)}, "class", (index,))


@dataclass(frozen=True)
class ShadowData:
    """A deletion of the attacker's own on one half of the public records.

    Args:
        data: Its splits for training: train, retain and forget are the one half, test is the other. Records of the
            first half are repeated so that an epoch has about as many as the audit's: the recipe, with its epochs and
            its schedule, is the audit's and needs as many steps.
        deleted: Records that are deleted, once each.
        retained: Records that are retained, once each.
        unseen: Records of the other half of the deleted kind.
        unseen_retained: Records of the other half of the retained kind.
        deletion: What it deletes, in words.
    """

    data: AuditDataModule
    deleted: LabelledRecords
    retained: LabelledRecords
    unseen: LabelledRecords
    unseen_retained: LabelledRecords
    deletion: str


def shadow_data(data: AuditDataModule, seed: int) -> ShadowData:
    """Splits the public records in two halves, stratified by class, and deletes from the one as the audit does.

    A class deletion is imitated by deleting the audit's own classes where the public set holds them, and otherwise one
    class drawn at random from those it holds. A deletion of records is imitated by deleting the same share of records
    at random; the other half's records are then split at random into the two kinds, which do not differ.

    Args:
        data: The audit's data.
        seed: Seed of the halves and of what is deleted.

    Raises:
        InputError: If the public split is too small.
    """
    public, count = data.split("public"), data.num_classes
    first, second = _halves(public, count, seed)
    if data.deletion == "records":
        share = len(data.split("forget")) / len(data.split("train"))
        gone = torch.zeros(len(first), dtype=torch.bool)
        gone[torch.from_numpy(plan.forget_by_fraction(first.labels.numpy(), share, count, seed))] = True
        one, other = _halves(second, count, seed + _UNSEEN)
        deleted = tuple(torch.unique(first.labels[gone]).tolist())
        words = f"{int(gone.sum())} public records at random, {share:.1%} as in the audit"
    else:
        deleted = _shadow_classes(data, first, second, seed)
        gone, unseen = (torch.isin(half.labels, torch.tensor(deleted)) for half in (first, second))
        one, other = second.subset(unseen), second.subset(~unseen)
        own = set(deleted) == set(data.deleted_classes)
        names = ", ".join(data.classes[index] for index in deleted)
        words = (
            f"class {names}, {'as in the audit' if own else 'drawn at random: the public set lacks the audited one'}"
        )
    split = {"train": first, "retain": first.subset(~gone), "forget": first.subset(gone)}
    times = max(1, round(len(data.split("train")) / len(first)))
    repeated = {name: tensors.subset(torch.arange(len(tensors)).repeat(times)) for name, tensors in split.items()}
    arranged = data.rearranged({**repeated, "test": second}, data.deletion, deleted)
    return ShadowData(arranged, split["forget"], split["retain"], one, other, words)


def _shadow_classes(
    data: AuditDataModule, first: LabelledRecords, second: LabelledRecords, seed: int
) -> tuple[int, ...]:
    held = sorted(set(first.labels.tolist()) & set(second.labels.tolist()))
    if set(data.deleted_classes) <= set(held):
        return data.deleted_classes
    if data.public_includes_deleted or len(held) < 2:
        raise InputError(
            "public_size: a shadow unlearning needs public records of the class to delete and of another one in both "
            "halves of the public split; raise it"
        )
    return (int(np.random.default_rng([seed, _CLASS]).choice(held)),)


def _halves(tensors: LabelledRecords, num_classes: int, seed: int) -> tuple[LabelledRecords, LabelledRecords]:
    """Two stratified halves without copies of each other's records; the first is never the smaller one."""
    sizes = {"first": (len(tensors) + 1) // 2}
    chosen = plan.draw_splits(tensors.labels.numpy(), sizes, num_classes, seed + _HALVES)["first"]
    inside = torch.zeros(len(tensors), dtype=torch.bool)
    inside[torch.from_numpy(chosen)] = True
    halves, _ = drop_copies({"first": tensors.subset(inside), "second": tensors.subset(~inside)})
    return halves["first"], halves["second"]
