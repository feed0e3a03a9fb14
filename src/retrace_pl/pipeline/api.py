"""The audit as one Python call, for notebooks and scripts; the command line runs the same stages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrace_pl.errors import InputError
from retrace_pl.pipeline.config import STAGES
from retrace_pl.pipeline.parsing import parse
from retrace_pl.pipeline.runner import AuditRun, run_stages
from retrace_pl.report import RunData

__all__ = ["run_audit"]


def run_audit(
    config: str | Path,
    output: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    quiet: bool = True,
    cache: str | Path | None = None,
    stages: Sequence[str] = STAGES,
) -> RunData:
    """Runs a whole audit and reads what it left behind.

    The same as `retrace audit --config CONFIG --output OUTPUT --KEY VALUE ...`: finished stages whose settings did not
    change are skipped, and an interrupted run continues. `trainer.threads` sets torch's threads for the whole process.

    Args:
        config: a configuration file, or the bare name of a packaged one such as `digits`.
        output: the run folder; `runs/NAME` of the configuration where none is given.
        overrides: settings by dotted name, as on the command line; values are plain Python ones, for example
            `{"queries": 4096, "access": "black", "generator.epochs": 20}`.
        quiet: no progress output.
        cache: folder of models and searches that this audit shares with others; see `ArtefactCache`.
        stages: the stages to run, out of `pretrain`, `generator`, `unlearn`, `attack`, `evaluate` and `report`. They
            run in this order and must leave metrics behind: leave out `report` where nobody will look at it, or stages
            that have run in this folder with the same settings before.

    Returns:
        The run: its folder, `metrics` (the content of `metrics.json`), the score-versus-queries `curves`, and the
        `tensors` of `evaluation.safetensors`, whose pictures [k, C, H, W] in [0, 1] come from `images(name)`.

    Raises:
        InputError: a file, setting, stage or value cannot be used.
        RunError: a stage failed.
    """
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise InputError(f"stages: there is no stage {unknown[0]!r}; choose from {', '.join(STAGES)}")
    arguments = [f"--config={config}"]
    if output is not None:
        arguments.append(f"--output={output}")
    if cache is not None:
        arguments.append(f"--cache={cache}")
    if quiet:
        arguments.append("--quiet")
    arguments += override_options(overrides or {})
    run = AuditRun.start(parse("audit", "", arguments))
    run_stages(run, tuple(stage for stage in STAGES if stage in stages), own_process=False)
    return RunData.load(run.folder.root)


def override_options(overrides: Mapping[str, Any]) -> list[str]:
    """Settings by dotted name as the command line would be given them: text as it is, everything else as JSON."""
    return [
        f"--{name}={value}" if isinstance(value, str | Path) else f"--{name}={json.dumps(value)}"
        for name, value in overrides.items()
    ]
