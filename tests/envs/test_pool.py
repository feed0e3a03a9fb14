import doctest

import pytest
import torch
from safetensors.torch import load_file, save_file

from retrace_pl.envs import CandidatePool, farthest_points, toys
from retrace_pl.envs import pool as pool_module
from retrace_pl.errors import InputError, RunError


def filled(scores, latents=None):
    scores = torch.tensor(scores)
    pool = CandidatePool(2 if latents is None else latents.shape[1])
    pool.add(torch.arange(2.0 * len(scores)).view(-1, 2) if latents is None else latents, scores)
    return pool


def test_keeps_every_candidate_in_order_across_growth():
    random = torch.Generator().manual_seed(0)
    latents, scores = torch.randn(10_000, 3, generator=random), torch.rand(10_000, generator=random)
    pool = CandidatePool(3, capacity=1)
    for part in torch.arange(10_000).split(977):
        pool.add(latents[part], scores[part])
    assert len(pool) == 10_000
    assert torch.equal(pool.latents, latents)
    assert torch.equal(pool.scores, scores)
    assert pool.best == scores.max()
    assert pool.top_mean(64) == pytest.approx(scores.topk(64).values.mean().item())


def test_a_million_candidates_stay_below_half_a_gigabyte():
    pool = CandidatePool(64, capacity=1_000_000)
    assert pool._latents.nbytes + pool._scores.nbytes < 300e6
    # Without a known budget: the storage while the last growth step copies.
    rows, peak = 4096, 0
    while rows < 1_000_000:
        peak, rows = rows + min(int(rows * 1.5), 1_000_000), int(rows * 1.5)
    assert peak * 65 * 4 < 500e6


def test_top_k_is_sorted_and_exact():
    pool = filled([0.1, 0.9, 0.5, 0.7])
    assert pool.top_k(3).tolist() == [1, 3, 2]
    assert len(pool.top_k(99)) == 4


def test_ties_are_broken_at_random_by_the_seed():
    pool = filled([1.0] * 1000 + [0.5])
    first, again, other = pool.top_k(10, seed=0), pool.top_k(10, seed=0), pool.top_k(10, seed=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    drawn = torch.cat([pool.top_k(10, seed=s) for s in range(100)])
    assert 1000 not in drawn
    assert 400 < drawn.float().mean() < 600  # uniform over positions 0..999, not the first ones


def test_diverse_top_k_spreads_over_equal_candidates():
    # Ten clusters of a hundred equal candidates: a diverse ten takes one of each, a plain ten hardly ever.
    centres = torch.arange(10.0).repeat_interleave(100)[:, None] * torch.tensor([[10.0, 0.0]])
    latents = centres + 0.1 * torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    pool = filled([1.0] * 1000, latents)
    clusters = {int(i) // 100 for i in pool.diverse_top_k(10, max_candidates=1000)}
    assert clusters == set(range(10))
    assert len({int(i) // 100 for i in pool.top_k(10)}) < 10


def test_diverse_top_k_gives_up_at_most_the_tolerance():
    scores = torch.linspace(0, 1, 1001)
    pool = filled(scores.tolist(), torch.randn(1001, 2, generator=torch.Generator().manual_seed(0)))
    chosen = pool.diverse_top_k(20, tolerance=0.05)
    kth = scores.sort(descending=True).values[19]
    assert pool.scores[chosen].min() >= kth - 0.05
    assert chosen[0] == 1000
    assert torch.equal(pool.diverse_top_k(20, tolerance=0.0).sort().values, pool.top_k(20).sort().values)


def test_diverse_top_k_measures_the_given_features():
    latents = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 1.0]])
    pool = filled([1.0, 0.9, 0.9], latents)
    assert pool.diverse_top_k(2, tolerance=1.0).tolist() == [0, 1]
    assert pool.diverse_top_k(2, tolerance=1.0, features=lambda z: z[:, 1:]).tolist() == [0, 2]


def test_farthest_points_takes_duplicates_last():
    points = torch.tensor([[0.0], [0.0], [1.0], [0.4]])
    assert farthest_points(points, 3).tolist() == [0, 2, 3]
    assert sorted(farthest_points(points, 4).tolist()) == [0, 1, 2, 3]
    with pytest.raises(InputError, match="cannot select"):
        farthest_points(points, 5)


def test_round_trip_through_safetensors(tmp_path):
    pool = filled([0.1, 0.9, 0.5])
    save_file(pool.state(), tmp_path / "pool.safetensors")
    again = CandidatePool.from_state(load_file(tmp_path / "pool.safetensors"))
    assert torch.equal(again.latents, pool.latents)
    assert torch.equal(again.scores, pool.scores)
    assert again.top_mean() == pool.top_mean()
    again.add(torch.ones(1, 2), torch.tensor([2.0]))
    assert (len(again), again.best) == (4, 2.0)
    with pytest.raises(InputError, match="3 latents and scores of shape"):
        CandidatePool.from_state({"latents": torch.zeros(3, 2), "scores": torch.zeros(4)})
    with pytest.raises(InputError, match="not a candidate pool"):
        CandidatePool.from_state({"scores": torch.zeros(3)})


def test_refuses_what_does_not_fit():
    pool = CandidatePool(2)
    with pytest.raises(InputError, match="pool takes latents"):
        pool.add(torch.zeros(3, 3), torch.zeros(3))
    with pytest.raises(RunError, match="not a finite number"):
        pool.add(torch.zeros(1, 2), torch.tensor([float("nan")]))
    with pytest.raises(InputError, match="top_mean follows"):
        pool.top_mean(65)
    assert len(pool.top_k(5)) == 0
    assert len(pool.diverse_top_k(5)) == 0


@pytest.mark.parametrize("module", [pool_module, toys])
def test_examples(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
