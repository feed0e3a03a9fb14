from itertools import chain

import pytest
import torch
from torch import distributed

from retrace_pl.data import EpochShuffle, LabelledTensors
from retrace_pl.data.loading import build_loader, derived_seed
from retrace_pl.errors import InputError


def _tensors(count=50, size=8):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 1, size, size), generator=generator, dtype=torch.uint8)
    return LabelledTensors(pixels, torch.arange(count), torch.arange(count))


def _loader(**options):
    options = {"shuffle": True, "augmentation": "none", "seed": 0} | options
    return build_loader(options.pop("tensors", _tensors()), options.pop("batch_size", 16), **options)


def _flat(lists):
    return list(chain.from_iterable(lists))


def _labels(loader):
    return [labels.tolist() for _, labels in loader]


def test_batches_are_inputs_in_the_unit_interval_with_their_labels():
    tensors = _tensors()
    inputs, labels = next(iter(_loader(tensors=tensors)))
    assert inputs.dtype == torch.float32
    assert inputs.shape == (16, 1, 8, 8)
    assert torch.equal(inputs, tensors.pixels[labels].float() / 255)
    assert torch.equal(tensors.inputs, tensors.pixels.float() / 255)


def test_without_shuffling_the_order_is_kept():
    loader = _loader(shuffle=False)
    assert len(loader) == 4
    assert _flat(_labels(loader)) == list(range(50))
    assert [len(batch) for batch in _labels(loader)] == [16, 16, 16, 2]


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch_alone():
    loader, twin = _loader(), _loader()
    first = _labels(loader)
    assert sorted(_flat(first)) == list(range(50))
    assert first == _labels(loader) == _labels(twin)
    loader.sampler.set_epoch(1)
    assert _labels(loader) != first
    twin.sampler.set_epoch(1)
    assert _labels(loader) == _labels(twin)
    assert _labels(_loader(seed=1)) != first
    assert _labels(_loader(epoch=1)) == _labels(twin)


def test_augmentation_depends_on_seed_and_epoch_alone():
    def inputs(epoch, **options):
        loader = _loader(augmentation="crop_flip", epoch=epoch, **options)
        return torch.cat([batch for batch, _ in loader])

    assert torch.equal(inputs(0), inputs(0))
    assert torch.equal(inputs(0), inputs(0, num_workers=1))
    assert not torch.equal(inputs(0), inputs(1))
    fixed = {epoch: inputs(epoch, shuffle=False) for epoch in (0, 1)}
    assert not torch.equal(fixed[0], fixed[1])


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    list(_loader(augmentation="crop_flip"))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("records", "batch_size", "shuffle", "sizes"),
    [
        (33, 16, True, [16, 9, 8]),  # else batch normalisation would meet a batch of one
        (33, 16, False, [16, 16, 1]),
        (32, 16, True, [16, 16]),
        (34, 16, True, [16, 16, 2]),
        (1, 16, True, [1]),
        (3, 1, True, [1, 1, 1]),
        (3, 2, True, [2, 1]),
    ],
)
def test_batch_sizes(records, batch_size, shuffle, sizes):
    sampler = EpochShuffle(records, batch_size, shuffle=shuffle, seed=0)
    assert [len(request.positions) for request in sampler] == sizes
    assert len(sampler) == len(sizes)


def test_more_batches_than_one_pass_repeat_the_data_in_new_orders():
    loader = _loader(tensors=_tensors(10), batch_size=4, batches=8)
    batches = _labels(loader)
    assert [len(batch) for batch in batches] == [4, 4, 2, 4, 4, 2, 4, 4]
    first, second = _flat(batches[:3]), _flat(batches[3:6])
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert batches == _labels(loader)


@pytest.mark.parametrize(("records", "world"), [(50, 2), (51, 2), (7, 4), (2, 5)])
def test_processes_share_an_epoch_evenly(monkeypatch, records, world):
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: world)
    shares = []
    for rank in range(world):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        sampler = EpochShuffle(records, 4, shuffle=True, seed=0)
        shares.append([request.positions.tolist() for request in sampler])
    assert len({len(share) for share in shares}) == 1
    everything = _flat(_flat(share) for share in shares)
    assert set(everything) == set(range(records))
    assert len(everything) == -(-records // world) * world  # fewer than `world` records are seen twice


def test_derived_seeds_differ_and_fit_a_generator():
    seeds = {derived_seed(seed, epoch, batch) for seed in range(5) for epoch in range(5) for batch in range(5)}
    assert len(seeds) == 125
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_nothing_to_load():
    with pytest.raises(InputError, match="without records"):
        _loader(tensors=_tensors(0))
    with pytest.raises(InputError, match="batch_size: 0 is below one"):
        _loader(batch_size=0)
