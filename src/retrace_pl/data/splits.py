"""Disjoint, stratified and seeded splits of a labelled data set. Pure numpy: no pixels, no files."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from retrace_pl.errors import InputError

IntArray = NDArray[np.int64]

#: Per cent of a source's train partition that each split takes where its size is not set.
SHARES_WITH_TEST: Mapping[str, int] = {"train": 60, "evaluator": 20, "public": 20}
SHARES_WITHOUT_TEST: Mapping[str, int] = {"train": 50, "test": 15, "evaluator": 15, "public": 20}

_FORGET_STREAM = 1 << 32  # keeps the draw of forget records apart from the per-class draws, whose streams are classes


def apportion(counts: IntArray, total: int) -> IntArray:
    """Share ``total`` among classes in proportion to ``counts`` (largest remainders, ties to the lower class).

    Args:
        counts: Records available per class, int64 [classes].
        total: Records wanted, at most ``counts.sum()``.

    Returns:
        Records per class, int64 [classes]; sums to ``total`` and never exceeds ``counts``.
    """
    available = int(counts.sum())
    if available == 0:
        return np.zeros_like(counts)
    shares, remainders = np.divmod(counts * total, available)
    order = np.argsort(-remainders, kind="stable")
    shares[order[: total - int(shares.sum())]] += 1
    return shares


def plan_sizes(
    requested: Mapping[str, int | None], shares: Mapping[str, int], available: int, public_available: int
) -> dict[str, int]:
    """Fill in the sizes that were not set.

    A split without a size takes its default share, or, where the sizes that are set leave less than that, its
    proportion of what they leave. The default share of ``public`` counts only the records it may hold.

    Args:
        requested: Size per split, None where the user set none.
        shares: Default share per split, per cent of ``available``; also the splits to plan.
        available: Records that all these splits share.
        public_available: The records among them that the public split may hold.

    Returns:
        A size of at least one record per split.

    Raises:
        InputError: If the sizes together ask for more than there is, or leave nothing for a split without one.
    """
    fixed = {name: size for name in shares if (size := requested.get(name)) is not None}
    spare = available - sum(fixed.values())
    if spare < 0:
        asked = " + ".join(f"{name}_size {size}" for name, size in fixed.items())
        raise InputError(f"{asked} is more than the {available} records that these splits share; lower the sizes")
    weight = sum(share for name, share in shares.items() if name not in fixed)
    sizes = {}
    for name, share in shares.items():
        if name in fixed:
            sizes[name] = fixed[name]
            continue
        size = min(available * share // 100, spare * share // weight)
        sizes[name] = size * public_available // available if name == "public" and available else size
        if sizes[name] < 1:
            raise InputError(
                f"{name}_size: the split would be empty, because {spare} of {available} records are left for the splits"
                " without a size; lower the other sizes or use more data"
            )
    return sizes


def draw_splits(
    labels: IntArray, sizes: Mapping[str, int], num_classes: int, seed: int, public_excludes: Collection[int] = ()
) -> dict[str, IntArray]:
    """Draw disjoint splits, each stratified by class.

    Every class is shuffled once by ``(seed, class)`` and the splits take consecutive pieces of it in the order of
    ``sizes``. So ``train``, which comes first, does not change when what comes after it does.

    Args:
        labels: Class of every record, int64 [n].
        sizes: Records per split, in the order of drawing.
        num_classes: Number of classes; labels lie in ``[0, num_classes)``.
        seed: Seed of the shuffle.
        public_excludes: Classes that the split named ``public`` must not hold.

    Returns:
        Positions in ``labels`` per split, ascending.

    Raises:
        InputError: If a split asks for more records than are left for it.
    """
    shuffled = [
        np.random.default_rng([seed, index]).permutation(np.flatnonzero(labels == index))
        for index in range(num_classes)
    ]
    left = np.array([len(members) for members in shuffled], dtype=np.int64)
    taken = np.zeros(num_classes, dtype=np.int64)
    splits: dict[str, IntArray] = {}
    for name, size in sizes.items():
        allowed = left.copy()
        if name == "public":
            allowed[list(public_excludes)] = 0
        if size > allowed.sum():
            kind = " of classes that are not deleted" if name == "public" and len(public_excludes) else ""
            raise InputError(
                f"{name}_size: {size} records{kind} were asked for, but only {int(allowed.sum())} are left;"
                " lower it or the other sizes"
            )
        share = apportion(allowed, size)
        pieces = [members[start : start + count] for members, start, count in zip(shuffled, taken, share, strict=True)]
        splits[name] = np.sort(np.concatenate(pieces)).astype(np.int64)
        taken += share
        left -= share
    return splits


def forget_by_class(train_labels: IntArray, deleted: Sequence[int], classes: Sequence[str]) -> IntArray:
    """Positions in the train split of every record of the deleted classes, ascending.

    Raises:
        InputError: If the train split holds no record of one of them, or of no other class.
    """
    for index in deleted:
        if not np.any(train_labels == index):
            raise InputError(
                f"forget_class: the train split holds no record of class {classes[index]!r}; raise train_size"
            )
    chosen = np.flatnonzero(np.isin(train_labels, np.asarray(deleted)))
    if len(chosen) == len(train_labels):
        raise InputError("forget_class: every class would be deleted and nothing retained; name fewer classes")
    return chosen


def check_fraction(fraction: float) -> None:
    """Make sure that a share of records to delete deletes some and not all.

    Raises:
        InputError: If it is outside (0, 1).
    """
    if not 0 < fraction < 1:
        raise InputError(f"forget_fraction: {fraction} is outside (0, 1); give the share of records to delete")


def forget_by_fraction(train_labels: IntArray, fraction: float, num_classes: int, seed: int) -> IntArray:
    """A seeded share of the train records, stratified by class: positions in the train split, ascending.

    Raises:
        InputError: If the fraction is outside (0, 1), or so small or large that nothing is deleted or retained.
    """
    check_fraction(fraction)
    size = round(fraction * len(train_labels))
    if not 0 < size < len(train_labels):
        left = "no record is deleted" if size == 0 else "no record is retained"
        raise InputError(f"forget_fraction: with {fraction} of {len(train_labels)} train records {left}; change it")
    return draw_splits(train_labels, {"forget": size}, num_classes, seed + _FORGET_STREAM)["forget"]


def forget_by_index(train_size: int, indices: Sequence[int]) -> IntArray:
    """Explicit positions in the train split, checked and sorted.

    Raises:
        InputError: If there are none, one occurs twice or does not exist, or nothing would be retained.
    """
    chosen = np.unique(np.asarray(indices, dtype=np.int64))
    if len(chosen) == 0:
        raise InputError("forget_indices: the list is empty; name at least one position in the train split")
    if len(chosen) != len(indices):
        raise InputError("forget_indices: a position occurs more than once; name each record once")
    if chosen[0] < 0 or chosen[-1] >= train_size:
        wrong = chosen[0] if chosen[0] < 0 else chosen[-1]
        raise InputError(f"forget_indices: {wrong} is not a position in the train split (0 to {train_size - 1})")
    if len(chosen) == train_size:
        raise InputError("forget_indices: every train record would be deleted and nothing retained; name fewer")
    return chosen


def resolve_classes(wanted: int | str | Sequence[int | str], classes: Sequence[str]) -> tuple[int, ...]:
    """Indices of classes given by index or by name, ascending and without repeats.

    Raises:
        InputError: If none is given or one does not exist; the message says which exist.
    """
    items = [wanted] if isinstance(wanted, int | str) else list(wanted)
    if not items:
        raise InputError("forget_class: the list is empty; name at least one class")
    return tuple(sorted({resolve_class(item, classes, "forget_class") for item in items}))


def resolve_class(item: int | str, classes: Sequence[str], setting: str) -> int:
    """Index of a class given by index or by name (exact, else regardless of case).

    Args:
        item: Index or name.
        classes: All class names.
        setting: How to call the setting in an error.

    Raises:
        InputError: If it does not exist; the message says which do.
    """
    if isinstance(item, int) and 0 <= item < len(classes):
        return item
    if isinstance(item, str):
        exact = [index for index, name in enumerate(classes) if name == item]
        loose = [index for index, name in enumerate(classes) if name.casefold() == item.casefold()]
        found = exact or loose
        if len(found) == 1:
            return found[0]
    shown = ", ".join(f"{index} {name!r}" for index, name in list(enumerate(classes))[:20])
    more = f" and {len(classes) - 20} more" if len(classes) > 20 else ""
    raise InputError(f"{setting}: there is no class {item!r}; the classes are {shown}{more}")
