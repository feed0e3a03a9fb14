"""ReTrace: what can still be recovered from a model that was told to forget.

The names below are imported on first use, so that `import retrace_pl` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from retrace_pl._version import __version__

if TYPE_CHECKING:
    from retrace_pl.attacks import AttackContext, Reconstruction, ReTrace
    from retrace_pl.envs import CandidatePool, LatentCore, LatentSettings
    from retrace_pl.errors import InputError, RetraceError, RunError
    from retrace_pl.external.api import attack_pair
    from retrace_pl.pipeline.api import Audit
    from retrace_pl.report import RunData
    from retrace_pl.searchers import CEMSearcher, RandomSearcher, SB3Searcher, Searcher
    from retrace_pl.traces import Access, ModelPair, TraceScorer, TraceWeights

_PLACES = {
    "attacks": ("AttackContext", "ReTrace", "Reconstruction"),
    "envs": ("CandidatePool", "LatentCore", "LatentSettings"),
    "errors": ("InputError", "RetraceError", "RunError"),
    "external.api": ("attack_pair",),
    "pipeline.api": ("Audit",),
    "report": ("RunData",),
    "searchers": ("CEMSearcher", "RandomSearcher", "SB3Searcher", "Searcher"),
    "traces": ("Access", "ModelPair", "TraceScorer", "TraceWeights"),
}
"""Module -> public names that are found here too."""

_MODULES = {name: f"retrace_pl.{module}" for module, names in _PLACES.items() for name in names}

__all__ = [
    "Access",
    "AttackContext",
    "Audit",
    "CEMSearcher",
    "CandidatePool",
    "InputError",
    "LatentCore",
    "LatentSettings",
    "ModelPair",
    "RandomSearcher",
    "ReTrace",
    "Reconstruction",
    "RetraceError",
    "RunData",
    "RunError",
    "SB3Searcher",
    "Searcher",
    "TraceScorer",
    "TraceWeights",
    "__version__",
    "attack_pair",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'retrace_pl' has no attribute {name!r}")
    found = getattr(import_module(_MODULES[name]), name)
    globals()[name] = found  # the next access finds it without this function
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
