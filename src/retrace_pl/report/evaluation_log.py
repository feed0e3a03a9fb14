"""What an evaluation found, in TensorBoard: metrics beside those of controls, leakage, trace histograms, latents."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from retrace_pl.report.figures import arm_path, rivals
from retrace_pl.report.latent_map import LatentMap
from retrace_pl.report.run_data import RunData
from retrace_pl.report.tensorboard_tags import LAYOUT

__all__ = ["EVALUATION_LOG", "write_evaluation_log"]

EVALUATION_LOG = "tensorboard/evaluation"
"""Folder of the log in a run."""

_MODELS = {"original": "original", "unlearned": "unlearning", "retrained": "retrained"}
_ENDS = ("value", "low", "high")


def write_evaluation_log(run: RunData, latents: LatentMap | None = None) -> list[Path]:
    """Writes the results of a run as TensorBoard runs, in place of those of an earlier call.

    Every arm of the comparison is a run of its own, so that its metrics are drawn over those of the attack; `TAGS`
    lists what is in them. Figures that are missing or not finite are left out.

    Args:
        run: The results.
        latents: Points for the projector; None leaves it out.

    Returns:
        The files.
    """
    root = run.folder / EVALUATION_LOG
    shutil.rmtree(root, ignore_errors=True)
    with SummaryWriter(str(root)) as writer:
        writer.add_custom_scalars(LAYOUT)
        for tag, value in _whole(run):
            writer.add_scalar(tag, value, 0)
        for name in sorted(run.tensors):
            values = run.vector(name) if name.startswith("traces.") else None
            if values is not None and values.size:
                _, group, signal = name.split(".", 2)
                writer.add_histogram(f"traces/{signal}/{group}", values, 0)
        if latents is not None:
            latents.write(writer)
    for name, scalars in _parts(run).items():
        with SummaryWriter(str(root / name)) as writer:
            for tag, value, step in scalars:
                writer.add_scalar(tag, value, step)
    return sorted(path for path in root.rglob("*") if path.is_file())


def _whole(run: RunData) -> Iterator[tuple[str, float]]:
    """Scalars of the audit as a whole: (tag, value)."""
    for kind, found in _mapping(run.get("leakage")).items():
        for end in _ENDS:
            yield from _number(f"leakage/{kind}/{end}", _mapping(found).get(end))
    for signal, auroc in _mapping(run.get("calibration.auroc")).items():
        yield from _number(f"calibration/auroc/{signal}", auroc)


def _parts(run: RunData) -> dict[str, list[tuple[str, float, int]]]:
    """Scalars of every arm and of every model by name: (tag, value, step), without those that have none."""
    arms = ["attack", *_mapping(run.get("controls")), *rivals(run)]
    arms += [f"baselines.{name}" for name in _mapping(run.get("baselines"))]
    parts = {arm.removeprefix("rivals."): _arm(_mapping(run.get(arm_path(arm)))) for arm in arms}
    for model, key in _MODELS.items():
        figures = _mapping(run.get(key)).items()
        parts[model] = [(*found, 0) for name, value in figures for found in _number(f"quality/{name}", value)]
    return {name: scalars for name, scalars in parts.items() if scalars}


def _arm(arm: Mapping[str, Any]) -> list[tuple[str, float, int]]:
    """Metrics of an arm's selected candidates, with the repeat as the step."""
    repeats = [found for found in arm.get("repeats") or [arm] if isinstance(found, Mapping)]
    return [
        (*scalar, step)
        for step, repeat in enumerate(repeats)
        for name, value in _mapping(repeat.get("distribution")).items()
        for scalar in _number(f"evaluate/{name}", value)
    ]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(tag: str, value: Any) -> Iterator[tuple[str, float]]:
    """The scalar, where it is a finite number."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield tag, float(value)
