"""Turns files and command-line options into an AuditConfig, with errors that name the setting at fault."""

from __future__ import annotations

import os
import re
from argparse import ArgumentError
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, set_parsing_settings

from retrace_pl.errors import InputError
from retrace_pl.pipeline.config import AuditConfig
from retrace_pl.pipeline.processes import devices_here

MAX_MESSAGE = 600

NO_PART = re.compile(
    r"(--[\w.]+): - Expected a path but (\S+) either not accessible or invalid "
    r"- (?:Expected a dot import path string: \2|Problem with given class_path '\2': No module named \S+)$"
)
"""What the parser says of a name that is neither a file nor a class."""

LISTED = {"data": "data", "source": "data", "model": "models", "unlearning": "unlearning", "searcher": "searchers"} | {
    "attack": "attacks",
    "rivals": "searchers",
    "baselines": "attacks",
    "inferences": "inferences",
}
"""Setting -> what `retrace list` calls the classes it takes."""

PACKAGED = {"data": "data", "model": "model", "unlearning": "unlearning", "searcher": "searcher", "attack": "attack"}
"""Last part of a setting's name -> folder of the packaged files that it may be given by their bare name."""

# A configuration may come from a stranger: jsonargparse's list of dangerous modules is enforced for class paths, only
# subclasses of what a setting expects are built, and `Any` values stay plain values.
set_parsing_settings(import_path_denylist=[], instantiate_subclass_spec_in_any=False)


@dataclass(frozen=True)
class Request:
    """A parsed command line.

    Args:
        config: the settings, instantiated.
        settings: the same settings as plain values, complete and in class_path/init_args form.
        text: the same settings as YAML.
        output: the run folder.
        quiet: no progress output.
        as_json: print the result as JSON.
        cache: folder of artefacts shared with other audits, if there is one.
        jobs: searches that run at once.
    """

    config: AuditConfig
    settings: dict[str, Any]
    text: str
    output: Path
    quiet: bool
    as_json: bool
    cache: Path | None = None
    jobs: int = 1


def config_folders() -> list[Path]:
    """Folders that hold the packaged configurations: beside the package in a wheel, in the project root otherwise."""
    package = Path(__file__).parents[1]
    return [folder for folder in (package / "configs", package.parents[1] / "configs") if folder.is_dir()]


def find_config(name: str, kind: str = "audit") -> Path:
    """Finds a configuration by path or, for a bare name, among the packaged ones of its kind.

    Args:
        name: a path, or a bare name such as `digits`.
        kind: folder of the packaged configurations: `audit` or `arena`.

    Raises:
        InputError: nothing has that name.
    """
    if os.path.isfile(name):  # Path.is_file raises where the name is too long for one
        return Path(name)
    packaged = sorted(file for folder in config_folders() for file in (folder / kind).glob("*.yaml"))
    for file in packaged:
        if name in (file.stem, file.name):
            return file
    known = ", ".join(dict.fromkeys(file.stem for file in packaged))
    raise InputError(f"--config {name}: no such file and no packaged configuration; packaged are: {known}")


def make_parser(command: str, description: str) -> ArgumentParser:
    """The parser of every command that takes an audit's configuration."""
    parser = ArgumentParser(prog=f"retrace {command}", description=description, exit_on_error=False, allow_abbrev=False)
    parser.add_argument(
        "--config", action="config", help="configuration file, or the bare name of a packaged one; repeatable"
    )
    parser.add_argument("--output", type=str, default=None, help="run folder (default: runs/NAME of the configuration)")
    parser.add_argument(
        "--cache", type=str, default=None, help="folder through which audits share models and searches (default: none)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="searches that run at once, on a GPU each (default: 1)")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors, and with --json the result")
    parser.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
    parser.add_class_arguments(AuditConfig, sub_configs=True)
    return parser


def parse(command: str, description: str, arguments: list[str]) -> Request:
    """Parses a command line.

    Args:
        command: the command's name, for the help text.
        description: the command's description, for the help text.
        arguments: the options after the command.

    Raises:
        InputError: an option, a file or a value cannot be used.
        SystemExit: help was asked for.
    """
    parser = make_parser(command, description)
    resolved, files = locate_configs(command, arguments)
    resolved = [*locate_parts(resolved)]
    try:
        values = parser.parse_args(resolved)
        options = {name: values.pop(name) for name in ("output", "cache", "jobs", "quiet", "json")}
        values.pop("config", None)
        if values.trainer.devices == -1:  # a number decides whether a run can go on here, so the run is told it
            values.trainer.devices = devices_here(values.trainer.accelerator)
        text = parser.dump(values, skip_validation=True)
        settings = _without_origins(values.clone().as_dict())
        instances = parser.instantiate(values)
    except ArgumentError as error:
        raise InputError(one_line(error)) from error
    except (TypeError, ValueError) as error:
        raise InputError(f"settings cannot be used: {one_line(error)}") from error
    config = AuditConfig(**{name: instances[name] for name in AuditConfig.__dataclass_fields__})
    settings["audit"]["controls"] = config.audit.controls  # as ids: what the stages' keys are made of
    if options["jobs"] < 1:
        raise InputError(f"--jobs is {options['jobs']}; set it to 1 or more")
    folder = Path(options["output"]) if options["output"] else Path("runs") / files[-1].stem
    cache = Path(options["cache"]) if options["cache"] else None
    return Request(config, settings, text, folder, options["quiet"], options["json"], cache, options["jobs"])


def _without_origins(value: Any) -> Any:
    """Settings without the note from which file each part came: the same settings are the same from anywhere."""
    if isinstance(value, dict):
        return {name: _without_origins(item) for name, item in value.items() if name != "__path__"}
    return [_without_origins(item) for item in value] if isinstance(value, list) else value


def locate_configs(command: str, arguments: list[str], kind: str = "audit") -> tuple[list[str], list[Path]]:
    """Replaces the bare names after `--config` by paths.

    Args:
        command: the command's name, for messages.
        arguments: the options after the command.
        kind: folder of the packaged configurations.

    Returns:
        The options with paths, and the paths in order; none where help is asked for.

    Raises:
        InputError: there is no configuration, or none of that name.
    """
    names = list(config_values(arguments))
    if not names and not {"-h", "--help"} & set(arguments):
        raise InputError(f"no configuration: use `retrace {command} --config digits` or give a file")
    found = {name: find_config(name, kind) for name in names}
    for path in found.values():
        read_mapping(path, "--config")  # the parser does not say which file is damaged
    return list(_with_paths(arguments, found)), [found[name] for name in names]


def config_values(arguments: list[str]) -> Iterator[str]:
    """What a command line gives after `--config`, in order."""
    for position, argument in enumerate(arguments):
        if argument == "--config" and position + 1 < len(arguments):
            yield arguments[position + 1]
        elif argument.startswith("--config="):
            yield argument.partition("=")[2]


def _with_paths(arguments: list[str], found: dict[str, Path]) -> Iterator[str]:
    for position, argument in enumerate(arguments):
        if argument.startswith("--config="):
            yield f"--config={found[argument.partition('=')[2]]}"
        elif position and arguments[position - 1] == "--config":  # another option may have the same value
            yield str(found[argument])
        else:
            yield argument


def locate_parts(arguments: list[str]) -> Iterator[str]:
    """Replaces the bare names of packaged parts, such as `--searcher ppo_mixture`, by the paths of their files.

    A file of that name in the working folder goes first; what is no packaged part stays as it is (a class, or an error
    that the parser explains).

    Args:
        arguments: the options after the command.
    """
    previous = ""
    for argument in arguments:
        setting, given, name = argument.partition("=") if argument.startswith("--") else (previous, "", argument)
        kind = PACKAGED.get(setting.lstrip("-").rpartition(".")[2]) if setting.startswith("--") else None
        path = _packaged_part(kind, name) if kind and name else None
        yield argument if path is None else f"{setting}={path}" if given else str(path)
        previous = argument


def _packaged_part(kind: str, name: str) -> Path | None:
    """The packaged file `KIND/NAME.yaml`; None where the working folder has a file of that name, or nobody has."""
    # Whole settings are given as JSON too: what is longer than a file's name may be is no file's.
    if not re.fullmatch(r"\w{1,99}(/\w{1,99})?", name) or Path(name).is_file():
        return None
    files = (folder / kind / f"{name}.yaml" for folder in config_folders())
    return next((file for file in files if file.is_file()), None)


def read_mapping(path: Path, where: str) -> dict[str, Any]:
    """Reads a YAML file that must hold settings.

    Args:
        path: the file.
        where: the option or setting that named it, for messages.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{where}: {path} cannot be read: {one_line(error)}") from error
    if not isinstance(found, dict):
        raise InputError(f"{where}: {path} holds no settings; write them as `name: value`")
    return found


def _kind_of(setting: str) -> str:
    """How to find the classes that a setting takes."""
    name = setting.rpartition(".")[2].lstrip("-")
    words = f"`retrace list {LISTED[name]}` prints the classes" if name in LISTED else "give one of them by its path"
    folders = [folder / PACKAGED[name] for folder in config_folders()] if name in PACKAGED else []
    files = dict.fromkeys(file.stem for folder in folders for file in sorted(folder.glob("*.yaml")))
    return f"{words}, packaged files are {', '.join(files)}" if files else words


def one_line(error: BaseException) -> str:
    """Condenses a parser's message to one line that begins with the setting's name."""
    text = " ".join(str(error).split())
    text = re.sub(r'^(?:argument )?Parser key "([^"]+)":', r"--\1:", text)
    unknown = NO_PART.match(text)
    if unknown:
        setting, name = unknown.groups()
        text = f"{setting} {name} is neither a file nor a class that can be used here; {_kind_of(setting)}"
    text = re.sub(r" Add the import path to import_path_allowlist in set_parsing_settings to allow it\.", "", text)
    home = os.path.expanduser("~")
    text = text.replace(home, "~") if len(home) > 1 else text
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]} ..."
