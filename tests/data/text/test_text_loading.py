from itertools import chain, pairwise

import pytest
import torch
from torch import distributed

from retrace_pl.data.loading import EpochShuffle
from retrace_pl.data.text import BucketedShuffle, LabelledTexts, build_text_loader
from retrace_pl.errors import InputError


def _texts(count=200, longest=30):
    lengths = torch.randint(1, longest + 1, (count,), generator=torch.Generator().manual_seed(0))
    tokens = torch.where(torch.arange(longest) < lengths[:, None], torch.arange(1, count + 1)[:, None], 0)
    return LabelledTexts(tokens.to(torch.int32), torch.arange(count), torch.arange(count), 0)


def _loader(texts=None, **options):
    options = {"shuffle": True, "seed": 0, "bucket_batches": 4} | options
    return build_text_loader(_texts() if texts is None else texts, options.pop("batch_size", 8), **options)


def _labels(loader):
    return [labels.tolist() for _, labels in loader]


def test_a_batch_is_as_long_as_its_longest_text():
    texts = _texts()
    for shuffle in (True, False):
        for inputs, labels in _loader(texts, shuffle=shuffle):
            longest = int(texts.lengths[labels].max())
            assert inputs.dtype == torch.int64
            assert torch.equal(inputs, texts.inputs[labels][:, :longest])


def test_without_shuffling_the_order_is_kept():
    assert list(chain.from_iterable(_labels(_loader(shuffle=False)))) == list(range(200))


def test_an_epoch_holds_every_text_once_and_depends_on_seed_and_epoch_alone():
    loader, twin = _loader(_texts(203)), _loader(_texts(203))
    first = _labels(loader)
    assert sorted(chain.from_iterable(first)) == list(range(203))
    assert [len(batch) for batch in first] == [8] * 25 + [3]
    assert first == _labels(loader) == _labels(twin)
    loader.sampler.set_epoch(1)
    assert _labels(loader) != first
    assert _labels(_loader(_texts(203), epoch=1)) == _labels(loader)
    assert _labels(_loader(_texts(203), seed=1)) != first


def test_bucketing_saves_padding_and_keeps_the_batches_in_random_order():
    texts = _texts(800)
    tokens = {size: sum(inputs.numel() for inputs, _ in _loader(texts, bucket_batches=size)) for size in (1, 20)}
    real = int(texts.lengths.sum())
    assert tokens[20] - real < 0.25 * (tokens[1] - real)
    longest = [inputs.shape[1] for inputs, _ in _loader(texts, bucket_batches=20)]
    steps = [abs(after - before) for before, after in pairwise(longest)]
    assert sum(steps) / len(steps) > 4  # sorted batches would grow by about a token


def test_bucketing_off_is_the_plain_shuffle():
    plain = EpochShuffle(200, 8, shuffle=True, seed=3)
    sampler = BucketedShuffle(_texts().lengths, 8, seed=3, bucket_batches=1)
    assert [r.positions.tolist() for r in sampler] == [r.positions.tolist() for r in plain]


@pytest.mark.parametrize("records", [1, 5, 9, 17, 33])
def test_few_texts_make_other_batches_each_epoch(records):
    loader = _loader(_texts(records), bucket_batches=16)
    seen = set()
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        batches = _labels(loader)
        assert sorted(chain.from_iterable(batches)) == list(range(records))
        assert len(batches) == 1 or min(map(len, batches)) > 1  # as for images: no batch of one record
        seen.add(frozenset(frozenset(batch) for batch in batches))
    assert len(seen) == (1 if records <= 8 else 4)


def test_more_batches_than_one_pass():
    batches = _labels(_loader(_texts(40), bucket_batches=2, batches=12))
    assert len(batches) == 12
    assert sorted(chain.from_iterable(batches[:5])) == sorted(chain.from_iterable(batches[5:10])) == list(range(40))
    assert batches[:5] != batches[5:10]


@pytest.mark.parametrize(("records", "world"), [(200, 2), (203, 2), (50, 3)])
def test_processes_share_an_epoch_evenly_and_in_step(monkeypatch, records, world):
    texts = _texts(records)
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: world)
    shares = []
    for rank in range(world):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        sampler = BucketedShuffle(texts.lengths, 8, seed=0, bucket_batches=4)
        shares.append([request.positions for request in sampler])
    assert len({tuple(map(len, share)) for share in shares}) == 1
    everything = [position for share in shares for batch in share for position in batch.tolist()]
    assert set(everything) == set(range(records))
    assert len(everything) == -(-records // world) * world
    if records >= 200:  # the batches of one step come from the same stretch of sorted texts
        gaps = [
            abs(float(texts.lengths[a].float().mean() - texts.lengths[b].float().mean()))
            for a, b in zip(*shares, strict=True)
        ]
        assert sum(gaps) / len(gaps) < 1.5


def test_nothing_to_load():
    with pytest.raises(InputError, match="without records"):
        _loader(_texts(0))
    with pytest.raises(InputError, match="batch_size: 0 is below one"):
        _loader(batch_size=0)
