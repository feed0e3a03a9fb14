"""Which searches an audit runs: the audited pair, the controls and the rival searchers, all at one query budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from retrace_pl.audit import parse_controls
from retrace_pl.pipeline.control_models import control_pairs
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.train_stages import ORIGINAL, UNLEARNED
from retrace_pl.searchers import Searcher

AUDITED, PRIOR = "attack", "prior"


@dataclass(frozen=True)
class Search:
    """One search of the plan.

    Args:
        name: `attack`, the id of a control, or `rival.NAME`.
        repeat: number of the repeat; the audited pair and the pairs of most controls have several.
        second: name of the model that takes f-'s place.
        searcher: who searches.
        settings: the same as plain values.
        first: name of the model that takes f+'s place; another one only in a control.
    """

    name: str
    repeat: int
    second: str
    searcher: Searcher
    settings: Any
    first: str = ORIGINAL

    @property
    def label(self) -> str:
        """Unique name of the search in files, logs and progress bars."""
        return f"{self.name}-{self.repeat}"


def planned_searches(run: AuditRun) -> Iterator[Search]:
    """Every search of the audit, in order: repeats of the audited pair, of the controls' pairs, then the rivals."""
    config, settings = run.config, run.settings
    for repeat in range(config.audit.repeats):
        yield Search(AUDITED, repeat, UNLEARNED, config.searcher, settings["searcher"])
    for control in parse_controls(config.audit.controls):
        if control.searched:
            for repeat, (first, second) in enumerate(control_pairs(run, control.id)):
                yield Search(control.id, repeat, second, config.searcher, settings["searcher"], first)
    for name, rival, values in zip(rival_names(config.rivals), config.rivals, settings["rivals"], strict=True):
        yield Search(f"rival.{name}", 0, UNLEARNED, rival, values)


def searcher_name(searcher: Searcher) -> str:
    """What a searcher is called: its algorithm's name, or its own."""
    algorithm = getattr(searcher, "algorithm", None)
    return algorithm.__name__.lower() if isinstance(algorithm, type) else searcher.name


def rival_names(rivals: Sequence[Searcher]) -> list[str]:
    """A name of its own for every rival: its algorithm's or its own, numbered where another rival has it too."""
    names: list[str] = []
    seen: Counter[str] = Counter()
    for rival in rivals:
        name = searcher_name(rival)
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names
