"""TensorBoard log of a search: scalars under stable tags, candidates, trace scores and latents over time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from retrace_pl.envs import CandidatePool
from retrace_pl.errors import InputError
from retrace_pl.report.tensorboard_tags import LAYOUT

__all__ = ["TensorBoardSearchObserver", "scalar_tag", "search_log"]

_TAGS = {
    "reward/mean": "reward",
    "kl/prior": "kl_to_prior",
    "score/top64": "topk_score",
    "score/best": "best_score",
    "score/batch": "batch_score",
    "latent/norm": "latent_norm",
}


def scalar_tag(name: str) -> str:
    """Tag of a search's scalar: ``search/<what>``, with these two levels."""
    return f"search/{_TAGS.get(name, name.replace('/', '_'))}"


def search_log(log_dir: Path, name: str) -> Path:
    """Folder of one search's log: a TensorBoard run of its own, so that its curves lie over those of its controls.

    Args:
        log_dir: Folder of the log of all searches.
        name: Label of the search; characters that a file name should not have are replaced.
    """
    return log_dir / (re.sub(r"[^\w.+-]", "_", name).lstrip(".") or "_")


class TensorBoardSearchObserver:
    """Writes a search into a TensorBoard run; watches and changes nothing.

    Every search is a run of its own, so that its curves are drawn over those of its controls. Tags: ``search/reward``,
    ``kl_to_prior``, ``topk_score``, ``best_score``, ``batch_score``, ``latent_norm`` and every further scalar the
    searcher reports; ``search/candidates`` holds grids of the best candidates so far, or their texts, and
    ``search/scores`` and ``search/latent_norms`` histograms of what was queried since the last grid. The step axis
    counts queries. See `TAGS`.

    Args:
        log_dir: Folder of the TensorBoard runs of all searches.
        name: Name of the search and of its run, e.g. ``attack-0``.
        render: Turns latents [n, d] into inputs [n, ...]; pictures [n, 1|3, H, W] become grids, anything else is left
            out unless `describe` says it in words.
        describe: What inputs [n, ...] say, or None for inputs that are looked at.
        grids: How many grids and histograms to write over the whole budget.
        grid_size: Candidates in a grid.

    Raises:
        InputError: If ``grids`` is negative or ``grid_size`` below 1.
    """

    def __init__(
        self,
        log_dir: Path | str,
        name: str = "attack",
        render: Callable[[Tensor], Tensor] | None = None,
        *,
        describe: Callable[[Tensor], list[str] | None] | None = None,
        grids: int = 8,
        grid_size: int = 36,
    ) -> None:
        if grids < 0 or grid_size < 1:
            raise InputError(f"TensorBoard needs grids >= 0 and grid_size >= 1, not {grids} and {grid_size}")
        self.log_dir = Path(log_dir)
        self.name = name
        self.render = render
        self.describe = describe
        self.grids = grids
        self.grid_size = grid_size
        self._writer: SummaryWriter | None = None
        self._budget = 1
        self._drawn = 0
        self._logged = 0
        self._step = -1

    def on_start(self, budget: int) -> None:
        """Opens the event file."""
        self.on_end()
        self._writer = SummaryWriter(str(search_log(self.log_dir, self.name)), flush_secs=30)
        self._writer.add_custom_scalars(LAYOUT)
        self._budget, self._drawn, self._logged, self._step = max(1, budget), 0, 0, -1

    def on_update(self, queries: int, pool: CandidatePool, scalars: dict[str, float]) -> None:
        """Writes the scalars, and a grid and a histogram where the next share of the budget is used up."""
        if self._writer is None or queries <= self._step:
            return
        self._step = queries
        for name, value in scalars.items():
            if math.isfinite(value):
                self._writer.add_scalar(scalar_tag(name), value, queries)
        due = min(self.grids, queries * self.grids // self._budget)
        if due > self._drawn:
            self._drawn = due
            self._snapshot(self._writer, queries, pool)

    def on_end(self) -> None:
        """Closes the event file, also after an error; safe to call twice."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _snapshot(self, writer: SummaryWriter, queries: int, pool: CandidatePool) -> None:
        recent, scores = pool.latents[self._logged :], pool.scores[self._logged :]
        self._logged = len(pool)
        if len(recent):
            # On a sphere all norms are the same but for rounding, which must not be all that the histogram shows.
            writer.add_histogram("search/latent_norms", recent.norm(dim=1).round(decimals=4), queries)
            finite = scores[torch.isfinite(scores)]
            if len(finite):
                writer.add_histogram("search/scores", finite, queries)
        if self.render is None or not len(pool):
            return
        rendered = self.render(pool.latents[pool.top_k(self.grid_size)]).detach().cpu()
        texts = None if self.describe is None else self.describe(rendered)
        if texts is not None:
            writer.add_text("search/candidates", as_code(texts), queries)
            return
        inputs = rendered.to(torch.float32)
        if inputs.ndim == 4 and inputs.shape[1] in (1, 3) and bool(torch.isfinite(inputs).all()):
            grid = tile(inputs.clamp(0, 1))
            writer.add_image("search/candidates", grid, queries)


def as_code(texts: Sequence[str]) -> str:
    """Texts as one Markdown code block, a numbered line each, in which nothing is markup."""
    return "\n".join(f"    {index}. {' '.join(text.split())}" for index, text in enumerate(texts, 1))


def tile(images: Tensor, gap: int = 2) -> Tensor:
    """Lays pictures [n, C, H, W] out in a square grid [C, H2, W2] on grey, with ``gap`` pixels between them."""
    n, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    grid = torch.full((channels, rows * (height + gap) + gap, columns * (width + gap) + gap), 0.5)
    for index, image in enumerate(images):
        top, left = gap + (index // columns) * (height + gap), gap + (index % columns) * (width + gap)
        grid[:, top : top + height, left : left + width] = image
    return grid
