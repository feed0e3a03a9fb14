import numpy as np
import pytest
import torch
from cmaes import SepCMA

from retrace_pl.envs import LatentSettings
from retrace_pl.envs.toys import toy_core
from retrace_pl.errors import InputError
from retrace_pl.searchers import CMAESSearcher, RandomSearcher
from retrace_pl.searchers.cma_es import diagonal_rate

PLAIN = LatentSettings(projection="none")


class Scalars:
    def __init__(self):
        self.seen = []

    def on_start(self, budget):
        pass

    def on_update(self, queries, pool, scalars):
        self.seen.append((queries, len(pool), scalars))

    def on_end(self):
        pass


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize("budget", [100, 512, 1001])
def test_uses_exactly_the_budget(covariance, budget):
    core, observer = toy_core(), Scalars()
    pool = CMAESSearcher(32, covariance=covariance).search(core, budget, 0, observer)
    assert core.scorer.seen == core.queries == len(pool) == budget
    assert core.curve[-1][0] == budget
    assert all(queries == size for queries, size, _ in observer.seen)
    assert {"cma_es/std", "cma_es/mean_norm", "cma_es/restarts", "score/best"} <= observer.seen[0][2].keys()


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_the_same_seed_gives_the_same_search(covariance):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = (CMAESSearcher(32, covariance=covariance).search(toy_core(), 700, seed) for seed in (1, 1, 2))
    assert torch.equal(first.latents, again.latents)
    assert torch.equal(first.scores, again.scores)
    assert not torch.equal(first.latents, other.latents)
    assert torch.equal(before, torch.get_rng_state())


def test_the_first_generation_is_the_prior():
    pool = CMAESSearcher(population=8000).search(toy_core(PLAIN), 8000, seed=0)
    assert pool.latents.mean(0).abs().max() < 0.05
    assert pool.latents.std(0).sub(1).abs().max() < 0.05


@pytest.mark.parametrize("projection", ["none", "sphere"])
@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_it_beats_random_search_and_ends_at_the_target(covariance, projection):
    settings = LatentSettings(projection=projection)
    random = RandomSearcher().search(toy_core(settings), 4096, seed=0)
    core, observer = toy_core(settings), Scalars()
    learned = CMAESSearcher(32, covariance=covariance).search(core, 4096, 0, observer)
    assert learned.top_mean(64) > random.top_mean(64) + 0.05
    assert learned.best > 0.999  # the target has the length sqrt(8): it lies on the sphere
    assert (learned.latents[learned.top_k(1)] - core.scorer.target).abs().max() < 0.1
    if projection == "sphere":
        assert max(scalars["cma_es/mean_norm"] for _, _, scalars in observer.seen[:-1]) < 1.1 * 8**0.5
        assert learned.latents.norm(dim=1).sub(8**0.5).abs().max() < 1e-4


def test_a_converged_run_is_followed_by_a_fresh_one():
    observer = Scalars()
    pool = CMAESSearcher(population=None, covariance="full").search(toy_core(PLAIN, latent_dim=4), 2000, 0, observer)
    assert observer.seen[-2][2]["cma_es/restarts"] >= 1
    assert len(pool) == 2000


def test_the_covariance_follows_the_latent_size():
    searcher = CMAESSearcher(full_up_to=8)
    assert searcher.is_full(8)
    assert not searcher.is_full(9)
    assert CMAESSearcher(covariance="full", full_up_to=8).is_full(9)
    assert not CMAESSearcher(covariance="diagonal").is_full(2)


def test_a_diagonal_covariance_that_would_turn_negative_is_refused():
    with pytest.raises(InputError, match=r"population: 128 is too large for a diagonal covariance of 8 coordinates"):
        CMAESSearcher(128, covariance="diagonal").search(toy_core(), 1000)
    library = SepCMA(np.zeros(8), 1.0, population_size=32)
    assert diagonal_rate(8, 32) == pytest.approx(library._c1 + library._cmu)
    assert all(diagonal_rate(size, 128) < 0.5 for size in (64, 100, 256, 512))


def test_equal_scores_do_not_stop_the_search():
    core = toy_core()
    core.scorer.target = torch.full((8,), float("inf"))  # every score is exp(-inf) = 0
    assert len(CMAESSearcher().search(core, 2000)) == 2000


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"population": 3}, "population"),
        ({"initial_std": 0.0}, "initial_std"),
        ({"covariance": "banded"}, "covariance"),
    ],
)
def test_bad_settings_are_named(settings, name):
    with pytest.raises(InputError, match=f"searcher.{name}"):
        CMAESSearcher(**settings)
