import torch

from retrace_pl.data import LabelledTensors
from retrace_pl.data.duplicates import drop_copies, repetitions


def _split(values, labels=None):
    pixels = torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    labels = torch.zeros(len(values), dtype=torch.int64) if labels is None else torch.tensor(labels)
    return LabelledTensors(pixels, labels, torch.arange(len(values)))


def test_an_image_stays_in_the_first_split_that_holds_it():
    splits = {"forget": _split([1, 2]), "test": _split([3, 2, 4, 4]), "public": _split([4, 5, 1, 6], [0, 1, 2, 3])}
    kept, dropped = drop_copies(splits)
    assert dropped == {"forget": 0, "test": 1, "public": 2}
    assert kept["forget"] is splits["forget"]
    assert kept["test"].pixels[:, 0, 0, 0].tolist() == [3, 4, 4]  # copies within a split stay
    assert kept["public"].pixels[:, 0, 0, 0].tolist() == [5, 6]
    assert kept["public"].labels.tolist() == [1, 3]
    assert kept["public"].records.tolist() == [1, 3]


def test_images_that_differ_in_one_pixel_by_one_are_not_copies():
    other = _split([1])
    other.pixels[0, 0, 1, 1] = 2
    assert drop_copies({"train": _split([1]), "test": other})[1] == {"train": 0, "test": 0}


def test_no_split_shares_an_image_with_another():
    generator = torch.Generator().manual_seed(0)
    splits = {name: _split(torch.randint(0, 60, (30,), generator=generator).tolist()) for name in "abc"}
    kept, dropped = drop_copies(splits)
    sets = [set(tensors.pixels[:, 0, 0, 0].tolist()) for tensors in kept.values()]
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]
    assert set().union(*sets) == set().union(*(set(s.pixels[:, 0, 0, 0].tolist()) for s in splits.values()))
    assert {name: len(splits[name]) - len(kept[name]) for name in "abc"} == dropped


def test_repetitions_within_a_split_are_told_from_copies_of_others():
    prints = {"forget": [b"1", b"2", b"1"], "test": [b"3", b"2", b"2", b"3", b"3"], "public": [b"4"]}
    assert repetitions(prints) == {"forget": 1, "test": 2, "public": 0}
