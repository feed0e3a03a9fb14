"""Watches every search of an audit: a progress bar for the terminal, scalars and candidate grids for TensorBoard."""

from __future__ import annotations

import torch
from torch import Tensor

from retrace_pl.envs import CandidatePool
from retrace_pl.models import Generator
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.report import RichSearchProgress, TensorBoardSearchObserver
from retrace_pl.searchers import SearchObserver

SEARCH_LOG = "tensorboard/search"
"""Folder of the searches' TensorBoard log in a run."""


class Observers:
    """Passes what happens in a search on to several observers, in order.

    Args:
        members: the observers.
    """

    def __init__(self, *members: SearchObserver) -> None:
        self.members = members

    def on_start(self, budget: int) -> None:
        """The search begins with this query budget."""
        for member in self.members:
            member.on_start(budget)

    def on_update(self, queries: int, pool: CandidatePool, scalars: dict[str, float]) -> None:
        """Some queries were made."""
        for member in self.members:
            member.on_update(queries, pool, scalars)

    def on_end(self) -> None:
        """The search is over, also after an error."""
        for member in self.members:
            member.on_end()


def search_observer(run: AuditRun, generator: Generator, label: str) -> Observers:
    """The observers of one search: its progress bar and its part of the audit's TensorBoard folder.

    Args:
        run: the audit.
        generator: renders latents for the candidate grids.
        label: name of the search.
    """
    device = next(generator.parameters()).device

    @torch.no_grad()
    def render(latents: Tensor) -> Tensor:
        pictures: Tensor = generator(latents.to(device))
        return pictures

    return Observers(
        RichSearchProgress(label, quiet=run.quiet, console=run.console),
        TensorBoardSearchObserver(run.folder.path(SEARCH_LOG), label, render, describe=run.data.domain.texts),
    )
