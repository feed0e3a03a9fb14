from itertools import combinations

import numpy as np
import pytest
import torch

from retrace_pl.data import SPLITS, DigitsSource, UnlearningDataModule
from retrace_pl.errors import InputError

PARTS = ("retain", "forget", "public", "evaluator", "test")


def _module(source, **settings):
    settings = {"image_size": 8, "channels": 1, "batch_size": 16} | settings
    if not any(name.startswith("forget_") for name in settings):
        settings["forget_class"] = 0
    return UnlearningDataModule(source, **settings)


@pytest.fixture(scope="module")
def digits():
    return UnlearningDataModule(DigitsSource(), forget_class=3, image_size=16, channels=1, batch_size=64)


def test_digits_by_default(digits):
    assert digits.num_classes == 10
    assert digits.classes == tuple("0123456789")
    assert digits.input_shape == (1, 16, 16)
    assert digits.deletion == "class"
    assert digits.deleted_classes == (3,)
    assert not digits.public_includes_deleted
    sizes = {name: len(digits.split(name)) for name in SPLITS}
    assert sizes["train"] == sizes["retain"] + sizes["forget"] == 1797 * 50 // 100
    assert sizes["test"] == sizes["evaluator"] == 1797 * 15 // 100
    counts = digits.class_counts()
    assert counts["public"]["3"] == counts["retain"]["3"] == 0
    assert counts["forget"] == {name: (91 if name == "3" else 0) for name in digits.classes}
    assert all(26 <= number <= 28 for number in counts["test"].values())
    assert {name: sum(per_class.values()) for name, per_class in counts.items()} == sizes


def test_digits_pixels_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    module = UnlearningDataModule(DigitsSource(), forget_class=3, image_size=8, channels=1)
    bunch = load_digits()
    for name in SPLITS:
        split = module.split(name)
        assert np.array_equal(split.labels, bunch.target[split.records])
        assert np.abs(split.inputs[:, 0].numpy() - bunch.images[split.records] / 16).max() < 0.5 / 255 + 1e-6


@pytest.mark.parametrize("test_counts", [None, (10, 12, 8)])
@pytest.mark.parametrize(
    "forget", [{"forget_class": "b"}, {"forget_fraction": 0.2}, {"forget_indices": [0, 5, 7]}, {"forget_class": [0, 2]}]
)
@pytest.mark.parametrize("public_includes_deleted", [False, True])
def test_no_record_and_no_image_is_in_two_splits(array_source, test_counts, forget, public_includes_deleted):
    module = _module(array_source(test_counts=test_counts), public_includes_deleted=public_includes_deleted, **forget)
    images = {name: {row.tobytes() for row in module.split(name).pixels.numpy()} for name in PARTS}
    for first, second in combinations(PARTS, 2):
        assert not images[first] & images[second]
    same_partition = PARTS if test_counts is None else PARTS[:-1]
    records = {name: set(module.split(name).records.tolist()) for name in PARTS}
    for first, second in combinations(same_partition, 2):
        assert not records[first] & records[second]
    assert records["retain"] | records["forget"] == set(module.split("train").records.tolist())
    assert all(len(module.split(name)) for name in SPLITS)


def test_the_public_set_holds_deleted_classes_only_if_told_to(array_source):
    without, with_deleted = (
        _module(array_source(), forget_class="b", public_includes_deleted=flag) for flag in (False, True)
    )
    assert without.class_counts()["public"] == {"a": 8, "b": 0, "c": 6}
    assert with_deleted.class_counts()["public"] == {"a": 8, "b": 6, "c": 6}
    assert torch.equal(without.split("train").pixels, with_deleted.split("train").pixels)
    assert torch.equal(without.split("evaluator").pixels, with_deleted.split("evaluator").pixels)


def test_a_test_partition_is_used_whole_or_in_part(array_source):
    source = array_source(test_counts=(10, 20, 10))
    assert len(_module(source).split("test")) == 40
    part = _module(source, test_size=8)
    assert part.class_counts()["test"] == {"a": 2, "b": 4, "c": 2}
    picked = part.split("test")
    assert np.array_equal(picked.pixels[:, 0], source.test.pixels[picked.records])
    assert np.array_equal(picked.labels, source.test.labels[picked.records])


def test_sizes_are_honoured(array_source):
    module = _module(array_source(), train_size=30, public_size=20, evaluator_size=10, test_size=15)
    assert {name: len(module.split(name)) for name in SPLITS if name not in ("retain", "forget")} == {
        "train": 30,
        "public": 20,
        "evaluator": 10,
        "test": 15,
    }


def test_deleted_records(array_source):
    fraction = _module(array_source(), forget_fraction=0.1)
    assert fraction.deletion == "records"
    assert fraction.public_includes_deleted
    assert fraction.class_counts()["forget"] == {"a": 2, "b": 2, "c": 1}  # a tenth of 20, 15 and 15
    assert fraction.deleted_classes == (0, 1, 2)
    assert all(fraction.class_counts()["public"].values())

    chosen = _module(array_source(), forget_indices=[4, 1])
    assert torch.equal(chosen.split("forget").pixels, chosen.split("train").pixels[[1, 4]])
    assert chosen.split("train").records.diff().gt(0).all()  # the train split is in the order of the source


def test_the_seed_decides(array_source):
    first, same, other = (_module(array_source(), forget_fraction=0.2, seed=seed) for seed in (1, 1, 2))
    for name in SPLITS:
        assert torch.equal(first.split(name).records, same.split(name).records)
        assert not torch.equal(first.split(name).records, other.split(name).records)


def test_copies_are_dropped_and_counted(array_source, caplog):
    source = array_source(counts=(40, 40), test_counts=(10, 10))
    plain = _module(source, forget_class="a")
    forget = plain.split("forget").records[0]
    source.train.pixels[plain.split("retain").records[:2]] = source.train.pixels[forget]
    source.train.pixels[plain.split("public").records[0]] = source.train.pixels[forget]
    source.test.pixels[3] = source.train.pixels[plain.split("retain").records[5]]
    source.train.pixels[plain.split("evaluator").records[4]] = source.test.pixels[7]
    with caplog.at_level("INFO"):
        module = _module(source, forget_class="a")
        assert module.dropped_copies == {"forget": 0, "retain": 2, "test": 1, "evaluator": 1, "public": 1}
    assert "dropped copies of images that are in another split: 2 from retain, 1 from test" in caplog.text
    assert len(module.split("train")) == len(plain.split("train")) - 2
    assert 3 not in module.split("test").records
    assert plain.dropped_copies == dict.fromkeys(PARTS, 0)


def test_a_split_of_nothing_but_copies(array_source):
    source = array_source(test_counts=(5, 5, 5))
    source.test.pixels[:] = source.train.pixels[_module(source).split("train").records[0]]
    with pytest.raises(InputError, match="all 15 images of the test split are copies of images in other splits"):
        _module(source).setup()


def test_the_source_is_opened_and_decoded_once(array_source):
    source = array_source()
    module = _module(source)
    module.prepare_data()
    for stage in ("fit", "validate", "test"):
        module.setup(stage)
    before = module.split("train")
    module.setup()
    assert source.opened == 1
    assert module.split("train") is before
    assert before.pixels.dtype == torch.uint8


def test_channels_follow_the_setting(array_source):
    grey = _module(array_source(), channels=3).split("train").pixels
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert _module(array_source(colours=3), channels=1).split("train").pixels.shape[1:] == (1, 8, 8)
    assert _module(array_source(), image_size=12).split("public").inputs.shape[1:] == (1, 12, 12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"forget_class": None},
            "set exactly one of forget_class, forget_fraction and forget_indices; none of them is",
        ),
        ({"forget_class": 0, "forget_fraction": 0.5}, "exactly one of .*; forget_class and forget_fraction are set"),
        ({"forget_fraction": 0.5, "forget_indices": [1]}, "forget_fraction and forget_indices are set"),
        ({"forget_fraction": 1.0}, r"forget_fraction: 1.0 is outside \(0, 1\)"),
        ({"forget_fraction": 0.0}, r"forget_fraction: 0.0 is outside \(0, 1\)"),
        ({"train_size": 0}, "train_size: 0 leaves the split empty"),
        ({"test_size": -1}, "test_size: -1 leaves the split empty"),
        ({"channels": 2}, "channels: 2 is neither 1"),
        ({"image_size": 0}, "image_size: 0 is below 4"),
        ({"seed": -1}, "seed: -1 is below 0"),
        ({"batch_size": 0}, "batch_size 0 must be at least 1"),
        ({"num_workers": -1}, "num_workers -1 at least 0"),
        ({"augmentation": "blur"}, "augmentation: 'blur' is none of none, crop, crop_flip"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_at_once(array_source, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        _module(array_source(), **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"forget_class": "zebra"}, "no class 'zebra'; the classes are 0 'a', 1 'b', 2 'c'"),
        ({"forget_class": 7}, "no class 7; the classes are 0 'a'"),
        ({"forget_class": [0, 1, 2]}, "every class would be deleted|would be empty"),
        ({"train_size": 90, "public_size": 50}, r"train_size 90 \+ public_size 50 is more than the 100 records"),
        ({"test_size": 16}, "test_size 16 is more than the 15 records"),
        (
            {"public_size": 58, "train_size": 20},
            "public_size: 58 records of classes that are not deleted were asked for, but only 3. are left",
        ),
        ({"train_size": 1, "forget_class": "c"}, "the train split holds no record of class 'c'; raise train_size"),
        ({"forget_indices": [60]}, r"60 is not a position in the train split \(0 to 59\)"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused_on_setup(array_source, settings, message):
    module = _module(array_source(test_counts=(5, 5, 5)), **settings)
    with pytest.raises(InputError, match=message) as caught:
        module.setup()
    assert "\n" not in str(caught.value)


def test_splits_that_do_not_exist(array_source):
    module = _module(array_source())
    for ask in (module.split, module.loader, module.view):
        with pytest.raises(InputError, match="no split 'val'; the splits are train, retain, forget, public, evaluator"):
            ask("val")


def test_loaders_of_the_module_itself(digits):
    inputs, labels = next(iter(digits.loader("evaluator", batch_size=10)))
    assert inputs.shape == (10, 1, 16, 16)
    assert torch.equal(labels, digits.split("evaluator").labels[:10])
    assert len(digits.loader("train").dataset) == len(digits.split("train"))
    assert torch.equal(torch.cat([y for _, y in digits.val_dataloader()]), digits.split("test").labels)
    assert torch.equal(torch.cat([y for _, y in digits.test_dataloader()]), digits.split("test").labels)
    assert sorted(torch.cat([y for _, y in digits.train_dataloader()])) == sorted(digits.split("train").labels)
