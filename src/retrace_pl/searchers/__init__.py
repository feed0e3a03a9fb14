"""Who moves in latent space. Every searcher takes the same problem and uses the same number of queries."""

from retrace_pl.searchers.base import NullObserver, PolicyState, Searcher, SearchObserver
from retrace_pl.searchers.cem import CEMSearcher
from retrace_pl.searchers.cma_es import CMAESSearcher
from retrace_pl.searchers.gradient_ascent import GradientAscentSearcher
from retrace_pl.searchers.mixture import MixtureSearcher
from retrace_pl.searchers.policy import LatentPolicy, load_policy, rebuild_policy, save_policy
from retrace_pl.searchers.random import RandomSearcher
from retrace_pl.searchers.sb3 import SB3Searcher, resolve_algorithm

__all__ = [
    "CEMSearcher",
    "CMAESSearcher",
    "GradientAscentSearcher",
    "LatentPolicy",
    "MixtureSearcher",
    "NullObserver",
    "PolicyState",
    "RandomSearcher",
    "SB3Searcher",
    "SearchObserver",
    "Searcher",
    "load_policy",
    "rebuild_policy",
    "resolve_algorithm",
    "save_policy",
]
