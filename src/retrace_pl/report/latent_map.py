"""The latents of an audit for TensorBoard's projector: where every search looked, and what it picked there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter

__all__ = ["PROJECTOR_TAG", "LatentMap", "collect_latents"]

PROJECTOR_TAG = "latents"
"""Name of the embedding in the Projector tab."""

HEADER = ("search", "kind", "score", "outcome", "query", "text")
QUERIED, SELECTED = "queried", "selected"
_THUMBNAIL = 64


@dataclass(frozen=True)
class LatentMap:
    """Points for the projector.

    Args:
        latents: The points [n, d].
        rows: For each point its search, whether it was queried or selected, its trace score, its outcome under the
            judge, the query it was, and what it says; empty where that is not known.
        images: A picture of each point [n, 1|3, H, W] in [0, 1], or None for what is not looked at.
    """

    latents: Tensor
    rows: tuple[tuple[str, ...], ...]
    images: Tensor | None = None

    def write(self, writer: SummaryWriter) -> None:
        """Writes the points, their table and their thumbnails beside the writer's event file."""
        said = any(row[-1] for row in self.rows)
        width = len(HEADER) if said else len(HEADER) - 1  # an empty column would only be in the way
        writer.add_embedding(
            self.latents,
            metadata=[[" ".join(cell.split()) for cell in row[:width]] for row in self.rows],
            metadata_header=list(HEADER[:width]),
            label_img=None if self.images is None else thumbnails(self.images),
            tag=PROJECTOR_TAG,
        )


def collect_latents(
    candidates: Mapping[str, Tensor],
    outcomes: Mapping[str, NDArray[np.float32]],
    render: Callable[[Tensor], Tensor],
    *,
    describe: Callable[[Tensor], list[str] | None] | None = None,
    queried: int = 256,
    selected: int = 64,
) -> LatentMap | None:
    """Collects the points of an audit.

    Args:
        candidates: Tensors of ``candidates.safetensors``, named ``SEARCH/latents``, ``SEARCH/inputs``,
            ``SEARCH/scores``, ``SEARCH/pool_latents`` and ``SEARCH/pool_scores``.
        outcomes: Outcome of every selected candidate by search, where it was judged.
        render: Turns latents [n, d] into inputs [n, ...].
        describe: What inputs say, or None for inputs that are looked at.
        queried: Most points of the first search that keeps every query, evenly spaced over its queries.
        selected: Most selected candidates of each search.

    Returns:
        The points, or None where no search moved in a latent space.
    """
    searches = [name.removesuffix("/latents") for name in candidates if name.endswith("/latents")]
    pools = [name.removesuffix("/pool_latents") for name in candidates if name.endswith("/pool_latents")]
    latents: list[Tensor] = []
    inputs: list[Tensor] = []
    rows: list[tuple[str, ...]] = []
    for name in pools[:1]:
        pool, scores = candidates[f"{name}/pool_latents"], candidates[f"{name}/pool_scores"]
        order = torch.linspace(0, len(pool) - 1, min(queried, len(pool))).round().long()
        latents.append(pool[order])
        inputs.append(render(pool[order]).detach().cpu())
        rows += [(name, QUERIED, f"{scores[index]:.4f}", "", str(int(index) + 1)) for index in order]
    for name in searches:
        latents.append(candidates[f"{name}/latents"][:selected])
        inputs.append(candidates[f"{name}/inputs"][:selected])
        rows += _selected(name, candidates.get(f"{name}/scores"), outcomes.get(name), len(latents[-1]))
    if not rows:
        return None
    shown = torch.cat(inputs)
    texts = None if describe is None else describe(shown)
    told = texts if texts is not None else [""] * len(rows)
    drawn = texts is None and shown.ndim == 4 and shown.shape[1] in (1, 3)
    return LatentMap(
        torch.cat(latents),
        tuple((*row, text) for row, text in zip(rows, told, strict=True)),
        shown.float().nan_to_num().clamp(0, 1) if drawn else None,
    )


def _selected(
    name: str, scores: Tensor | None, outcomes: NDArray[np.float32] | None, count: int
) -> list[tuple[str, ...]]:
    """Rows of a search's selected candidates; the prior's samples have no score, because no model was asked."""
    asked = scores is not None and not name.startswith("prior-")
    return [
        (
            name,
            SELECTED,
            f"{scores[index]:.4f}" if asked and scores is not None else "",
            f"{outcomes[index]:g}" if outcomes is not None and index < len(outcomes) else "",
            "",
        )
        for index in range(count)
    ]


def thumbnails(images: Tensor) -> Tensor:
    """Pictures [n, C, H, W] at most 64 pixels high and wide: browsers refuse the sheet of many larger ones."""
    longest = max(images.shape[-2:])
    if longest <= _THUMBNAIL:
        return images
    size = [max(1, round(side * _THUMBNAIL / longest)) for side in images.shape[-2:]]
    return functional.interpolate(images, size=size, mode="area")
