import pytest
import torch

from retrace_pl.data import DigitsSource, UnlearningDataModule
from retrace_pl.data.second_deletion import other_class, shadow_data, without_class
from retrace_pl.errors import InputError


def module(**settings):
    settings = {"image_size": 8, "channels": 1, "public_size": 281} | settings
    if not any(name.startswith("forget_") for name in settings):
        settings["forget_class"] = 3
    return UnlearningDataModule(DigitsSource(), **settings)


def rows(tensors):
    return {image.numpy().tobytes() for image in tensors.pixels}


def test_rearranged_splits_leave_the_module_as_it_was():
    data = module()
    before = data.split("forget")
    other = data.rearranged({"forget": data.split("test")}, "records", (5, 1))
    assert other.split("forget") is data.split("test")
    assert other.split("retain") is data.split("retain")
    assert (other.deletion, other.deleted_classes) == ("records", (1, 5))
    assert data.split("forget") is before
    assert (data.deletion, data.deleted_classes) == ("class", (3,))


def test_another_class_of_the_same_training_records():
    data = module()
    other = without_class(data, 4)
    assert other.split("train") is data.split("train")
    assert set(other.split("forget").labels.tolist()) == {4}
    assert len(other.split("forget")) + len(other.split("retain")) == len(data.split("train"))
    assert 3 in other.split("retain").labels
    batch = next(iter(other.unlearning_view(batch_size=16).train_dataloader()))[0]
    assert set(batch["forget"][1].tolist()) == {4}
    kept, gone = other.unlearning_view().val_dataloader()
    assert set(gone.dataset.tensors.labels.tolist()) == {4}
    assert 3 in kept.dataset.tensors.labels


@pytest.mark.parametrize(
    ("deleted", "wanted", "chosen"),
    [(3, None, 2), (0, None, 1), (9, None, 8), ([3, 4], None, 2), (3, 7, 7), (3, "8", 8)],
)
def test_the_other_class_is_the_nearest_retained_one_or_the_named_one(deleted, wanted, chosen):
    assert other_class(module(forget_class=deleted), wanted) == chosen


@pytest.mark.parametrize(("wanted", "said"), [(3, "deleted by the audit itself"), ("zebra", "there is no class")])
def test_a_class_that_cannot_be_deleted_instead(wanted, said):
    with pytest.raises(InputError, match=rf"audit\.wrong_class: .*{said}"):
        other_class(module(), wanted)


def check_halves(data, shadow):
    first, second = (shadow.data.split(name) for name in ("train", "test"))
    public = rows(data.split("public"))
    assert rows(first) | rows(second) == public
    assert not rows(first) & rows(second)
    assert abs(len(shadow.deleted) + len(shadow.retained) - len(second)) <= 11
    assert rows(shadow.deleted) | rows(shadow.retained) == rows(first)
    assert not rows(shadow.deleted) & rows(shadow.retained)
    for name, once in (("forget", shadow.deleted), ("retain", shadow.retained)):
        assert rows(shadow.data.split(name)) == rows(once)
    times = len(first) / (len(shadow.deleted) + len(shadow.retained))
    assert times == round(len(data.split("train")) / (len(shadow.deleted) + len(shadow.retained))) > 1
    assert rows(shadow.unseen) | rows(shadow.unseen_retained) == rows(second)
    assert not rows(shadow.unseen) & rows(shadow.unseen_retained)


def test_a_class_that_the_public_set_lacks_is_replaced_by_another():
    data = module()
    shadow = shadow_data(data, 7)
    check_halves(data, shadow)
    [drawn] = shadow.data.deleted_classes
    assert drawn != 3
    assert shadow.data.deletion == "class"
    for tensors in (shadow.deleted, shadow.unseen):
        assert set(tensors.labels.tolist()) == {drawn}
    for tensors in (shadow.retained, shadow.unseen_retained):
        assert drawn not in tensors.labels
    assert f"class {drawn}, drawn at random" in shadow.deletion
    halves = (shadow.deleted, shadow.retained), (shadow.unseen, shadow.unseen_retained)
    counts = [sum(torch.bincount(part.labels, minlength=10) for part in half) for half in halves]
    assert int((counts[0] - counts[1]).abs().max()) <= 2, "stratified"
    again = shadow_data(data, 7)
    assert torch.equal(again.data.split("train").records, shadow.data.split("train").records)
    assert len({shadow_data(data, seed).data.deleted_classes for seed in range(12)}) > 3


def test_a_class_that_the_public_set_holds_is_deleted_itself():
    data = module(public_includes_deleted=True)
    shadow = shadow_data(data, 7)
    check_halves(data, shadow)
    assert shadow.data.deleted_classes == (3,)
    assert shadow.deletion == "class 3, as in the audit"


def test_single_records_are_imitated_by_the_same_share():
    data = module(forget_fraction=0.2)
    shadow = shadow_data(data, 7)
    check_halves(data, shadow)
    assert shadow.data.deletion == "records"
    share = len(shadow.data.split("forget")) / len(shadow.data.split("train"))
    assert share == pytest.approx(0.2, abs=0.01)
    assert abs(len(shadow.unseen) - len(shadow.unseen_retained)) <= 11
    assert "public records at random, 20.0% as in the audit" in shadow.deletion


def test_a_public_split_that_is_too_small_is_refused(array_source):
    data = UnlearningDataModule(
        array_source(counts=(30, 30)),
        forget_class=0,
        public_includes_deleted=True,
        public_size=1,
        image_size=8,
        channels=1,
    )
    with pytest.raises(InputError, match="public_size: a shadow unlearning needs"):
        shadow_data(data, 0)
