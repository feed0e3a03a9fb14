"""An attack on two models of the user's own from Python; `retrace attack --original ...` runs the same stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from retrace_pl.external.config import SearchSettings
from retrace_pl.external.opening import ModelOpener
from retrace_pl.external.parsing import PairRequest, parse_pair
from retrace_pl.external.run import ANSWERS
from retrace_pl.external.stages import run_pair
from retrace_pl.pipeline.api import override_options
from retrace_pl.report import RunData

__all__ = ["attack_pair"]

Model = str | Path | nn.Module
"""A file, folder, function or endpoint as the command line names it, or a network of this process."""


def attack_pair(
    original: Model,
    unlearned: Model,
    public: str | Path,
    output: str | Path | None = None,
    *,
    reference: Model | None = None,
    null: Model | None = None,
    evaluator: Model | None = None,
    quiet: bool = True,
    overrides: Mapping[str, Any] | None = None,
    **settings: Any,
) -> RunData:
    """Searches for what two models differ in, beside the controls that can be run without knowing more.

    The same as `retrace attack --original ORIGINAL --unlearned UNLEARNED --public PUBLIC ...`: finished stages whose
    models, data and settings did not change are skipped, and an interrupted run continues. A network that is handed
    over is copied, run in eval mode, and stays as it is.

    Args:
        original: The model before unlearning.
        unlearned: The model after it.
        public: Public images or texts: a folder, a file, or a registered data set such as `digits`.
        output: The run folder; `runs/attack` where none is given.
        reference: Control: a model trained without the deleted data.
        null: Control: `original` trained again with another seed.
        evaluator: An independent classifier that judges candidates; needs `deleted`.
        quiet: No progress output.
        overrides: Settings by dotted name, such as `{"generator.epochs": 20}`; they come after `settings`.
        **settings: Options of the command line with underscores, such as `deleted="deleted.npz"`, `image_size=16`,
            `exclude_classes=[3]` or `queries=4096`.

    Returns:
        The run: its folder, `metrics`, `curves`, and the pictures of `images(name)`.

    Raises:
        InputError: A model, a data set or a setting cannot be used.
        RunError: A stage failed.
    """
    named = {"original": original, "unlearned": unlearned, "reference": reference, "null": null, "evaluator": evaluator}
    given = {role: model for role, model in named.items() if isinstance(model, nn.Module)}
    options: dict[str, Any] = {role: _name(model) for role, model in named.items() if model is not None}
    options |= {"public": public} if output is None else {"public": public, "output": output}
    options |= {**settings, **(overrides or {})}
    request = parse_pair("", [*_arguments(options), *(["--quiet"] if quiet else [])])
    return _run(request, given)


def _run(request: PairRequest, given: Mapping[str, nn.Module]) -> RunData:
    opener = ModelOpener(request.settings.models, request.output / ANSWERS, given)
    try:
        run = run_pair(request, opener)
    finally:
        opener.close()
    return RunData.load(run.folder.root)


def _name(model: Model) -> str:
    """What the settings of the run call a model."""
    return f"module:{type(model).__name__}" if isinstance(model, nn.Module) else str(model)


def _arguments(options: Mapping[str, Any]) -> Iterator[str]:
    """The options as a command line has them: those of a search with underscores, all others with hyphens."""
    for name, value in options.items():
        if name.partition(".")[0] in SearchSettings.__dataclass_fields__:
            yield from override_options({name: value})
        elif isinstance(value, Sequence) and not isinstance(value, str):
            option = f"--{name.replace('_', '-')}"
            repeated = name == "endpoint_header"
            yield from [f"{option}={part}" for part in value] if repeated else [f"{option}={','.join(map(str, value))}"]
        else:
            yield from override_options({name.replace("_", "-"): value})
