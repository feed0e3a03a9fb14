import pytest
import torch

from retrace_pl.envs import LatentSettings
from retrace_pl.envs.toys import toy_core
from retrace_pl.errors import InputError, RunError
from retrace_pl.searchers import CEMSearcher, NullObserver, RandomSearcher, SB3Searcher, Searcher, SearchObserver

PLAIN = LatentSettings(projection="none", tau=0.0)


def small_ppo(**settings):
    return SB3Searcher(num_envs=64, n_epochs=4, batch_size=64, **settings)


SEARCHERS = [RandomSearcher, CEMSearcher, small_ppo]


class Recorder:
    def __init__(self):
        self.started, self.ended, self.updates = [], 0, []

    def on_start(self, budget):
        self.started.append(budget)

    def on_update(self, queries, pool, scalars):
        self.updates.append((queries, len(pool), scalars))

    def on_end(self):
        self.ended += 1


@pytest.mark.parametrize("make", SEARCHERS)
@pytest.mark.parametrize("budget", [512, 1001])
def test_uses_exactly_the_budget(make, budget):
    core = toy_core()
    pool = make().search(core, budget, seed=0)
    assert core.scorer.seen == core.queries == len(pool) == budget
    assert core.curve[-1][0] == budget


@pytest.mark.parametrize("make", SEARCHERS)
def test_the_same_seed_gives_the_same_search(make):
    first, again, other = (make().search(toy_core(), 700, seed) for seed in (1, 1, 2))
    assert torch.equal(first.latents, again.latents)
    assert torch.equal(first.scores, again.scores)
    assert not torch.equal(first.latents, other.latents)


@pytest.mark.parametrize("make", SEARCHERS)
def test_leaves_the_global_random_state_alone(make):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    make().search(toy_core(), 512, seed=0)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("projection", ["none", "sphere"])
@pytest.mark.parametrize("make", [CEMSearcher, small_ppo])
def test_learning_beats_random_search_at_the_same_budget(make, projection):
    settings = LatentSettings(projection=projection)
    random = RandomSearcher().search(toy_core(settings), 4096, seed=0)
    learned = make().search(toy_core(settings), 4096, seed=0)
    assert learned.top_mean(64) > random.top_mean(64) + 0.05
    assert learned.scores[-512:].mean() > learned.scores[:512].mean() + 0.2


@pytest.mark.parametrize("make", SEARCHERS)
def test_the_observer_sees_the_whole_search(make):
    observer = Recorder()
    assert isinstance(observer, SearchObserver)
    make().search(toy_core(), 1024, 0, observer)
    assert observer.started == [1024]
    assert observer.ended == 1
    assert observer.updates[-1][0] == 1024
    assert all(queries == size for queries, size, _ in observer.updates)
    assert {"score/best", "score/top64", "score/batch", "latent/norm"} <= observer.updates[0][2].keys()


def test_watching_changes_nothing():
    watched = small_ppo().search(toy_core(), 1000, 0, Recorder())
    assert torch.equal(watched.latents, small_ppo().search(toy_core(), 1000, 0, NullObserver()).latents)


def test_a_searcher_that_wastes_queries_is_caught():
    class Lazy(Searcher):
        def _search(self, core, budget, seed, observer):
            core.evaluate(core.prior(1))

    observer = Recorder()
    with pytest.raises(RunError, match="Lazy used 1 of 10 queries"):
        Lazy().search(toy_core(), 10, 0, observer)
    assert observer.ended == 1
    assert Lazy().policy_state() is None


def test_random_search_draws_the_prior():
    pool = RandomSearcher().search(toy_core(PLAIN), 20_000, seed=0)
    assert pool.latents.mean(0).abs().max() < 0.05
    assert pool.latents.std(0).sub(1).abs().max() < 0.05


def test_cem_ends_at_the_target():
    core = toy_core(PLAIN)
    CEMSearcher(population=256).search(core, 5120, seed=0)
    assert (core.pool.latents[-256:].mean(0) - core.scorer.target).abs().max() < 0.1


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (lambda: RandomSearcher(batch_size=0), "batch_size"),
        (lambda: CEMSearcher(population=1), "population"),
        (lambda: CEMSearcher(elite_fraction=1.0), "elite_fraction"),
        (lambda: CEMSearcher(smoothing=0.0), "smoothing"),
        (lambda: CEMSearcher(min_std=-1.0), "min_std"),
        (lambda: SB3Searcher(num_envs=0), "num_envs"),
    ],
)
def test_bad_settings_are_named(make, setting):
    with pytest.raises(InputError, match=f"searcher.{setting}"):
        make()
