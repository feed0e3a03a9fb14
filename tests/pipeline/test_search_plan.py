from retrace_pl.pipeline.search_plan import rival_names
from retrace_pl.searchers import CEMSearcher, RandomSearcher, SB3Searcher


def test_rivals_of_one_kind_do_not_overwrite_each_other():
    rivals = [RandomSearcher(), SB3Searcher("SAC"), SB3Searcher(), CEMSearcher(), SB3Searcher(n_steps=4), CEMSearcher()]
    assert rival_names(rivals) == ["random", "sac", "ppo", "cem", "ppo_2", "cem_2"]
