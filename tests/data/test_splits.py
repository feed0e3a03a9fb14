import numpy as np
import pytest

from retrace_pl.data.splits import (
    SHARES_WITH_TEST,
    SHARES_WITHOUT_TEST,
    apportion,
    draw_splits,
    forget_by_class,
    forget_by_fraction,
    forget_by_index,
    plan_sizes,
    resolve_classes,
)
from retrace_pl.errors import InputError

NAMES = ("train", "test", "evaluator", "public")


def random_case(case):
    """Random class counts, sizes and deleted classes that fit together."""
    rng = np.random.default_rng(case)
    classes = int(rng.integers(2, 12))
    counts = rng.integers(5, 60, classes)
    labels = rng.permutation(np.repeat(np.arange(classes), counts))
    deleted = tuple(rng.choice(classes, int(rng.integers(1, classes)), replace=False).tolist())
    shares = rng.dirichlet(np.ones(5))[:4]  # the fifth share stays unused
    sizes = {name: max(1, int(share * len(labels))) for name, share in zip(NAMES, shares, strict=True)}
    others = len(labels) - sizes["train"] - sizes["test"] - sizes["evaluator"]
    kept = others - sum(counts[list(deleted)])  # at least this many public records are left, whatever the rest took
    sizes["public"] = max(1, min(sizes["public"], int(kept)))
    return labels, sizes, classes, deleted, kept >= 1


@pytest.mark.parametrize("case", range(60))
def test_splits_are_disjoint_sized_stratified_and_seeded(case):
    labels, sizes, classes, deleted, feasible = random_case(case)
    excludes = deleted if feasible else ()
    splits = draw_splits(labels, sizes, classes, seed=case, public_excludes=excludes)

    assert {name: len(split) for name, split in splits.items()} == sizes
    together = np.concatenate(list(splits.values()))
    assert len(np.unique(together)) == len(together)
    assert together.min() >= 0
    assert together.max() < len(labels)
    for split in splits.values():
        assert np.all(np.diff(split) > 0)
    assert not np.isin(labels[splits["public"]], excludes).any()

    # Each split is drawn in proportion to what was left, so it is within one record of it in every class.
    left = np.bincount(labels, minlength=classes)
    for name in NAMES:
        available = left.copy()
        if name == "public":
            available[list(excludes)] = 0
        got = np.bincount(labels[splits[name]], minlength=classes)
        assert np.abs(got - available * sizes[name] / available.sum()).max() < 1
        left = left - got

    again = draw_splits(labels, sizes, classes, seed=case, public_excludes=excludes)
    assert all(np.array_equal(splits[name], again[name]) for name in NAMES)


def test_another_seed_draws_other_records():
    labels = np.repeat(np.arange(3), 50)
    first, second = (draw_splits(labels, {"train": 60}, 3, seed)["train"] for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_train_does_not_depend_on_what_is_drawn_after_it():
    labels = np.repeat(np.arange(4), 50)
    small = draw_splits(labels, {"train": 80, "evaluator": 10, "public": 10}, 4, 0, (2,))
    large = draw_splits(labels, {"train": 80, "evaluator": 40, "public": 40}, 4, 0)
    assert np.array_equal(small["train"], large["train"])


def test_every_record_can_be_used():
    labels = np.repeat(np.arange(3), [10, 11, 12])
    splits = draw_splits(labels, {"train": 17, "evaluator": 9, "public": 7}, 3, 0)
    assert np.array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(33))


@pytest.mark.parametrize(
    ("counts", "total", "expected"),
    [
        ([50, 30, 20], 10, [5, 3, 2]),
        ([1, 1, 1], 2, [1, 1, 0]),  # ties go to the lower class
        ([10, 20, 3], 33, [10, 20, 3]),
        ([7, 0, 3], 5, [4, 0, 1]),  # quotas 3.5 and 1.5: one record is over, and the tie goes to the first
        ([0, 0], 0, [0, 0]),
    ],
)
def test_apportion_by_hand(counts, total, expected):
    assert apportion(np.array(counts), total).tolist() == expected


def test_default_sizes():
    none = dict.fromkeys(NAMES)
    assert plan_sizes(none, SHARES_WITH_TEST, 1000, 1000) == {"train": 600, "evaluator": 200, "public": 200}
    assert plan_sizes(none, SHARES_WITHOUT_TEST, 1000, 1000) == {
        "train": 500,
        "test": 150,
        "evaluator": 150,
        "public": 200,
    }
    # Nine of ten classes may be public: their fifth.
    assert plan_sizes(none, SHARES_WITH_TEST, 1000, 900)["public"] == 180
    # A small train set leaves the defaults alone, a large one shrinks them in proportion.
    assert plan_sizes(none | {"train": 100}, SHARES_WITH_TEST, 1000, 1000) == {
        "train": 100,
        "evaluator": 200,
        "public": 200,
    }
    assert plan_sizes(none | {"train": 900}, SHARES_WITH_TEST, 1000, 1000) == {
        "train": 900,
        "evaluator": 50,
        "public": 50,
    }


def test_sizes_that_do_not_fit_are_refused():
    none = dict.fromkeys(NAMES)
    with pytest.raises(InputError, match=r"train_size 90 \+ public_size 20 is more than the 100 records"):
        plan_sizes(none | {"train": 90, "public": 20}, SHARES_WITH_TEST, 100, 100)
    with pytest.raises(InputError, match=r"evaluator_size: the split would be empty, because 0 of 100"):
        plan_sizes(none | {"train": 100}, SHARES_WITH_TEST, 100, 100)
    with pytest.raises(
        InputError, match="public_size: 8 records of classes that are not deleted were asked for, but only 5"
    ):
        draw_splits(np.repeat([0, 1], 10), {"train": 10, "public": 8}, 2, 0, (1,))


def test_forget_by_class():
    labels = np.array([0, 1, 2, 1, 0, 2])
    assert forget_by_class(labels, (1,), "abc").tolist() == [1, 3]
    assert forget_by_class(labels, (0, 2), "abc").tolist() == [0, 2, 4, 5]
    with pytest.raises(InputError, match="every class would be deleted"):
        forget_by_class(labels, (0, 1, 2), "abc")
    with pytest.raises(InputError, match=r"no record of class 'd'; raise train_size"):
        forget_by_class(labels, (3,), "abcd")


def test_forget_by_fraction_is_a_stratified_seeded_share():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    chosen = forget_by_fraction(labels, 0.1, 3, seed=4)
    assert np.bincount(labels[chosen]).tolist() == [5, 3, 2]
    assert np.array_equal(chosen, forget_by_fraction(labels, 0.1, 3, seed=4))
    assert not np.array_equal(chosen, forget_by_fraction(labels, 0.1, 3, seed=5))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_forget_fraction_outside_its_range(fraction):
    with pytest.raises(InputError, match=r"forget_fraction: .* is outside \(0, 1\)"):
        forget_by_fraction(np.zeros(10, dtype=np.int64), fraction, 1, 0)


def test_forget_fraction_that_rounds_to_nothing_or_everything():
    labels = np.zeros(10, dtype=np.int64)
    with pytest.raises(InputError, match="no record is deleted"):
        forget_by_fraction(labels, 0.01, 1, 0)
    with pytest.raises(InputError, match="no record is retained"):
        forget_by_fraction(labels, 0.99, 1, 0)


def test_forget_by_index():
    assert forget_by_index(10, [7, 0, 3]).tolist() == [0, 3, 7]
    for indices, message in (
        ([], "list is empty"),
        ([1, 1], "more than once"),
        ([10], r"10 is not a position in the train split \(0 to 9\)"),
        ([-1], r"-1 is not a position"),
        (list(range(10)), "every train record would be deleted"),
    ):
        with pytest.raises(InputError, match=message):
            forget_by_index(10, indices)


def test_classes_by_index_and_name():
    classes = ("Bag", "Coat", "shirt")
    assert resolve_classes(2, classes) == (2,)
    assert resolve_classes("Coat", classes) == (1,)
    assert resolve_classes("bag", classes) == (0,)
    assert resolve_classes(["shirt", 0, "Bag"], classes) == (0, 2)
    assert resolve_classes("A", ("a", "A")) == (1,)  # an exact name wins


@pytest.mark.parametrize("wanted", [3, -1, "hat", ["Bag", "hat"]])
def test_a_class_that_does_not_exist_names_those_that_do(wanted):
    with pytest.raises(InputError, match=r"there is no class .*; the classes are 0 'Bag', 1 'Coat', 2 'shirt'"):
        resolve_classes(wanted, ("Bag", "Coat", "shirt"))


def test_unclear_and_empty_class_lists():
    with pytest.raises(InputError, match="the list is empty"):
        resolve_classes([], ("a",))
    with pytest.raises(InputError, match="no class 'BAG'"):
        resolve_classes("BAG", ("bag", "Bag"))
    with pytest.raises(InputError, match="19 '19' and 80 more"):
        resolve_classes(100, [str(number) for number in range(100)])
