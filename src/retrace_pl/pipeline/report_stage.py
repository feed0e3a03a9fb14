"""The stage that writes what a person looks at: report.html, an overview picture, TensorBoard's evaluation runs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from retrace_pl.files import read_tensors
from retrace_pl.pipeline.attack_stage import CANDIDATES
from retrace_pl.pipeline.judge import shown_name
from retrace_pl.pipeline.run_folder import RunFolder
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.train_stages import load_generator
from retrace_pl.report import LatentMap, RunData, collect_latents, overview_figure, write_evaluation_log, write_report
from retrace_pl.report.progress import counted, steps

RENDERED = 64
"""Latents that are turned into inputs at a time."""


def report(run: AuditRun) -> list[str]:
    """Writes report.html, overview.png and TensorBoard's evaluation runs from the files of the earlier stages."""
    return write_views(run.folder, load_generator(run), run.data.domain.texts)


def write_views(
    folder: RunFolder, generator: nn.Module, texts: Callable[[Tensor], list[str] | None] | None = None
) -> list[str]:
    """Writes everything that a person looks at into a run folder that has been evaluated, and returns the files' names.

    Args:
        folder: the run folder.
        generator: draws the pictures of queried latents, on the CPU.
        texts: what inputs say, or None for inputs that are looked at.

    Raises:
        InputError: there are no metrics.
        RunError: a file is missing or damaged.
    """
    written = [make(folder.root) for make in steps((write_report, overview_figure))]
    count, results = counted(1), RunData.load(folder.root)
    written += write_evaluation_log(results, read_latents(folder, results, generator, texts))
    count()
    return [str(path.relative_to(folder.root)) for path in written]


@torch.no_grad()
def read_latents(
    folder: RunFolder,
    results: RunData,
    generator: nn.Module,
    texts: Callable[[Tensor], list[str] | None] | None = None,
) -> LatentMap | None:
    """The latents that a run's searches queried and selected, for TensorBoard's projector.

    Args:
        folder: the run folder.
        results: what was judged.
        generator: as in `write_views`.
        texts: as in `write_views`.

    Returns:
        The points, or None where no search moved in a latent space.

    Raises:
        RunError: the candidates are missing or damaged.
    """

    def render(latents: Tensor) -> Tensor:
        return torch.cat([torch.as_tensor(generator(part)) for part in torch.split(latents, RENDERED)])

    candidates = read_tensors(folder.path(CANDIDATES))
    outcomes = {}
    for label in (name.removesuffix("/latents") for name in candidates if name.endswith("/latents")):
        name, _, repeat = label.rpartition("-")
        found = results.tensors.get(f"outcomes.{label}")
        if found is None and repeat == "0":
            found = results.tensors.get(f"{shown_name(name)}.success")
        if found is not None:
            outcomes[label] = found
    return collect_latents(candidates, outcomes, render, describe=texts)
