"""Writes a tuned preset: the YAML of a method with a comment that says how it was found and what it reached."""

from __future__ import annotations

import textwrap
from importlib import import_module
from inspect import signature
from pathlib import Path

import yaml

from retrace_pl.files import atomic_path
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.tuning.objective import MEASURES, shortcomings
from retrace_pl.tuning.search import Outcome

WIDTH = 118


def write_preset(path: Path, outcome: Outcome, config: str, run: AuditRun) -> None:
    """Writes the best settings of a search as a preset, atomically.

    Args:
        path: The file.
        outcome: What the search found.
        config: Name of the audit configuration it was tuned for.
        run: That audit, which the comment describes.

    Raises:
        RunError: The file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(preset_text(outcome, config, run), encoding="utf-8")


def preset_text(outcome: Outcome, config: str, run: AuditRun) -> str:
    """The content of a preset file; arguments as `write_preset`."""
    comment = "\n".join(
        textwrap.fill(sentence, WIDTH, initial_indent="# ", subsequent_indent="#   ", break_long_words=False)
        for sentence in _comment(outcome, config, run)
    )
    settings = yaml.safe_dump(outcome.target.settings(outcome.knobs), sort_keys=False, allow_unicode=True)
    return f"{comment}\n{settings}"


def describe_setting(config: str, run: AuditRun) -> str:
    """The data and architecture of an audit in a few words."""
    model = run.settings["classifier"]["model"]
    module, _, name = model["class_path"].rpartition(".")
    defaults = signature(getattr(import_module(module), name)).parameters
    chosen = {key: value for key, value in model.get("init_args", {}).items() if value != defaults[key].default}
    architecture = " ".join([name, *(f"{key} {value}" for key, value in chosen.items())])
    if run.data.deletion == "class":
        deleted = ", ".join(str(run.data.classes[index]) for index in run.data.deleted_classes)
        deletion = f"deleted: class {deleted}"
    else:
        deletion = f"deleted: {len(run.data.split('forget'))} single records"
    title = run.config.data.source.title
    return f"{config if title == config else f'{config}: {title}'}, {architecture}, {deletion}"


def _comment(outcome: Outcome, config: str, run: AuditRun) -> list[str]:
    failed = f", {outcome.failed} of them failed" if outcome.failed else ""
    start = "" if outcome.start is None else f" (the first settings tried: {outcome.start:.3f})"
    measures = ", ".join(
        f"{name} {outcome.quality[name]:.3f} / {outcome.reference[name]:.3f} / {outcome.original[name]:.3f}"
        for name in MEASURES
    )
    lines = [
        f"Tuned by `retrace tune` for {describe_setting(config, run)}.",
        f"{outcome.trials} trials{failed}; seeds {', '.join(map(str, outcome.seeds))}; knobs: "
        f"{', '.join(outcome.target.space)}.",
        f"Summed absolute difference to retraining in {', '.join(MEASURES)}, mean over the seeds: "
        f"{outcome.value:.3f}{start}.",
        f"Unlearned / retrained / original model: {measures}.",
    ]
    missed = shortcomings(outcome.quality, outcome.reference)
    if missed:
        lines.append(f"Does not reach retraining: {'; '.join(missed)}.")
    return lines
