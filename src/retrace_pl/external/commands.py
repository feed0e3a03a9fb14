"""The command `retrace attack` in both of its forms."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from retrace_pl.pipeline.processes import refuse_launch

__all__ = ["attack"]

_OWN = {"--original", "--unlearned"}

_FORMS = """\
retrace attack has two forms.

  retrace attack --original A --unlearned B --public DATA --output DIR
      attacks two models of yours: .pt2, safetensors, TorchScript, Hugging Face folders, Python functions, HTTP
      endpoints. `retrace attack --original --help` lists its options.
  retrace attack --config NAME --output DIR
      is one stage of `retrace audit`: it searches with the models that the earlier stages have trained.

The options of the second form:

"""


def attack(arguments: list[str]) -> None:
    """Attack two models of yours (--original A --unlearned B --public DATA), or run an audit's attack stage.

    Args:
        arguments: The options after the command.
    """
    if _is_pair(arguments):
        _attack_pair(arguments)
        return
    from retrace_pl.pipeline import commands

    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(_FORMS)
    commands.attack(arguments)


def _is_pair(arguments: Sequence[str]) -> bool:
    """Whether the command line, or a file it gives after --config, names models of the user's own."""
    names = {argument.partition("=")[0] for argument in arguments}
    return bool(names & _OWN) or any(_names_models(Path(path)) for path in _config_files(arguments))


def _config_files(arguments: Sequence[str]) -> Iterator[str]:
    for option, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if option == "--config":
            yield value
        elif option.startswith("--config="):
            yield option.partition("=")[2]


def _names_models(path: Path) -> bool:
    if not path.is_file():
        return False  # a bare name; the stage's packaged configurations name none
    import yaml

    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(settings, dict) and "original" in settings


def _attack_pair(arguments: list[str]) -> None:
    """Search for what two models of yours differ in, with the controls that can be run without knowing more."""
    from retrace_pl.external.opening import ModelOpener
    from retrace_pl.external.parsing import parse_pair
    from retrace_pl.external.run import ANSWERS
    from retrace_pl.external.stages import run_pair
    from retrace_pl.report.findings import result_alone

    refuse_launch("attack")
    wants_help = bool({"-h", "--help"} & set(arguments))
    request = parse_pair(_attack_pair.__doc__ or "", ["--help"] if wants_help else arguments)
    opener = ModelOpener(request.settings.models, request.output / ANSWERS)
    try:
        with result_alone(request.as_json):
            run = run_pair(request, opener)
    finally:
        opener.close()
    _print(run, as_json=request.as_json)


def _print(run: Any, *, as_json: bool) -> None:
    from retrace_pl.external.summary import print_pair_summary
    from retrace_pl.files import read_json

    if not as_json:
        if not run.quiet:
            print_pair_summary(run)
        return
    found = {
        "output": str(run.folder.root),
        "metrics": read_json(run.folder.path("metrics.json")),
        "report": str(run.folder.path("report.html")),
    }
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
