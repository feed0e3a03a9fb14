"""The command `retrace completion`: a script that completes commands, options, configurations and paths in a shell.

The script is made once and holds every word, so that pressing TAB starts no Python. The words come from the parsers of
the commands themselves; shtab writes them down.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import shtab

from retrace_pl.arena.config import make_parser as arena_parser
from retrace_pl.cli import COMMANDS, first_docstring_line
from retrace_pl.errors import InputError
from retrace_pl.external.parsing import make_pair_parser
from retrace_pl.mls_bench.commands import make_parser as bench_parser
from retrace_pl.pipeline import doctor, parts, pool
from retrace_pl.pipeline.config import STAGES, AuditConfig
from retrace_pl.pipeline.parsing import LISTED, config_folders, make_parser
from retrace_pl.tuning.commands import make_parser as tune_parser
from retrace_pl.unlearning import METHODS

SHELLS = ("bash", "zsh", "fish")
FOLDERS = ("--output", "--cache", "--folder", "runs")
"""Arguments that are folders."""

FILES = (
    "--original",
    "--unlearned",
    "--reference",
    "--null",
    "--evaluator",
    "--generator-weights",
    "--public",
    "--deleted",
)
"""Arguments that are files or folders."""


BASH_FILES = 'compgen -f -X "!*.y*ml" -- "$1"; compgen -d -- "$1"'


def completion(arguments: list[str]) -> None:
    """Print a script that completes commands, options and configurations in bash, zsh or fish."""
    parser = make_completion_parser()
    try:
        shell = parser.parse_args(arguments).shell
    except argparse.ArgumentError as error:
        raise InputError(f"retrace completion: {error}") from error
    sys.stdout.write(script(shell).rstrip() + "\n")


def make_completion_parser() -> argparse.ArgumentParser:
    """The options of `retrace completion`."""
    parser = argparse.ArgumentParser(
        prog="retrace completion",
        description=completion.__doc__,
        epilog='bash: eval "$(retrace completion bash)" in ~/.bashrc, or once into a file that is read there; '
        "zsh: retrace completion zsh > FOLDER/_retrace with FOLDER in $fpath; "
        "fish: retrace completion fish > ~/.config/fish/completions/retrace.fish",
        exit_on_error=False,
    )
    parser.add_argument("shell", choices=SHELLS, help="shell to print the script for")
    return parser


def script(shell: str) -> str:
    """The completion script.

    Args:
        shell: `bash`, `zsh` or `fish`.
    """
    root = argparse.ArgumentParser(prog="retrace", add_help=False)
    commands = root.add_subparsers()
    audit = make_parser("audit", "")
    parsers = {name: [audit] for name in (*STAGES, "audit")} | own_parsers()
    parsers["attack"].append(
        make_pair_parser("")
    )  # its second form, whose options are offered beside those of the first
    words = choices()
    for name, target in COMMANDS.items():
        made = commands.add_parser(name, help=first_docstring_line(target))
        _copy(parsers[name], made, "arena" if name == "arena" else "audit", words)
    return str(shtab.complete(root, shell))


def own_parsers() -> dict[str, list[argparse.ArgumentParser]]:
    """The parsers of the commands that are no stage of an audit."""
    return {
        "arena": [arena_parser("")],
        "tune": [tune_parser(), make_parser("tune", "")],
        "mls-bench": [bench_parser()],
        "pool": [pool.make_parser()],
        "list": [parts.make_parser()],
        "doctor": [doctor.make_parser()],
        "completion": [make_completion_parser()],
    }


def choices() -> dict[str, list[str]]:
    """Words for the values of an audit's settings: those of a fixed set, and the names of classes."""
    found = {**dict(_literals(AuditConfig)), "method": list(METHODS)}
    for setting, kind in LISTED.items():
        if setting in AuditConfig.__dataclass_fields__ and setting != "data":
            found[setting] = [part["name"] for part in parts.parts(kind)]
    return found


def _literals(section: Any, prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    for name, hint in get_type_hints(section).items():
        if get_origin(hint) is Literal:
            yield prefix + name, [str(value) for value in get_args(hint)]
        elif is_dataclass(hint):
            yield from _literals(hint, f"{prefix}{name}.")


def _copy(
    parsers: Sequence[argparse.ArgumentParser], made: argparse.ArgumentParser, kind: str, words: Mapping[str, list[str]]
) -> None:
    """Adds what completion needs to know of every argument to a parser without any of their actions."""
    known = words if kind == "audit" else {}
    seen = {"-h", "--help"}
    for action in (action for parser in parsers for action in parser._actions):
        name = action.option_strings[0] if action.option_strings else action.dest
        if action.help == argparse.SUPPRESS or name in seen or name.endswith(".help"):
            continue
        seen.add(name)
        options: dict[str, Any] = {"help": (action.help or "").replace("%", "%%")}
        if action.nargs == 0:
            options["action"] = "store_true"
        elif action.choices or name.lstrip("-") in known:
            options["choices"] = list(action.choices or known[name.lstrip("-")])
        if not action.option_strings and action.nargs is not None:
            options["nargs"] = action.nargs
        added = made.add_argument(*(action.option_strings or [action.dest]), **options)
        if name == "--config":
            added.complete = config_words(kind)  # type: ignore[attr-defined]
        elif name in FOLDERS:
            added.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif name in FILES:
            added.complete = shtab.FILE  # type: ignore[attr-defined]


def config_words(kind: str) -> Mapping[str, Any]:
    """How each shell completes a configuration: the packaged names, and files.

    Args:
        kind: `audit` or `arena`.
    """
    names = sorted({file.stem for folder in config_folders() for file in (folder / kind).glob("*.yaml")})
    words, function = " ".join(names), f"_retrace_{kind}_configs"
    return {
        "bash": function,
        "zsh": function,
        "fish": f"(printf '%s\\n' {words}; __fish_complete_path (commandline -ct))",
        "preamble": {
            "bash": f'{function}() {{ compgen -W "{words}" -- "$1"; {BASH_FILES}; }}',
            "zsh": f"{function}() {{ _alternative 'packaged:packaged configuration:({words})' 'files:file:_files' }}",
        },
    }
