"""What an arena names, made complete: presets, methods, searchers and attacks as class paths with every setting."""

from __future__ import annotations

import json
from argparse import ArgumentError
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from retrace_pl.arena.config import ArenaConfig
from retrace_pl.attacks import Attack
from retrace_pl.errors import InputError
from retrace_pl.pipeline.parsing import config_folders, one_line, read_mapping
from retrace_pl.searchers import Searcher
from retrace_pl.unlearning import UnlearningMethod
from retrace_pl.unlearning.registry import METHODS

ALL = "all"
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class MethodChoice:
    """One unlearning method of the arena.

    Args:
        name: its name in the tables.
        settings: `class_path` and every one of its `init_args`; a cell hands both to the audit, so that nothing of the
            base audit's own method is left in it.
    """

    name: str
    settings: dict[str, Any]

    @property
    def class_name(self) -> str:
        """Class of the method."""
        return str(self.settings["class_path"]).rpartition(".")[2]

    def at(self, strength: float) -> dict[str, Any]:
        """The settings with the method's own strength multiplied.

        Args:
            strength: the factor.
        """
        arguments = self.settings["init_args"]
        return {**self.settings, "init_args": {**arguments, "strength": arguments["strength"] * strength}}


@dataclass(frozen=True)
class AttackChoice:
    """One attack of the arena.

    Args:
        name: its name in the tables.
        overrides: settings of the audit it replaces: `searcher`, `attack`, or both.
    """

    name: str
    overrides: dict[str, Any] = field(default_factory=dict)


def choose_methods(config: ArenaConfig, folder: Path) -> list[MethodChoice]:
    """The methods of an arena, in the order of its configuration.

    Args:
        config: the settings.
        folder: where relative paths start.

    Raises:
        InputError: a method is unknown, named twice, or has settings that it does not take.
    """
    presets = _preset_folder(config, folder)
    entries = [config.methods] if isinstance(config.methods, str) else config.methods
    found: dict[str, MethodChoice] = {}
    for entry in entries:
        for name, value in _expanded(entry, presets):
            if name in found and entry == ALL:
                continue  # `[retrain, all]`: what was named before keeps its place
            if name in found:
                raise InputError(f"methods: there are two called {name!r}; give one a `name` of its own")
            settings = _complete("unlearning", UnlearningMethod, _located(value, presets, folder), f"methods: {name}")
            if "strength" not in settings["init_args"]:
                raise InputError(f"methods: {name}: {settings['class_path']} takes no `strength`; let it take one")
            found[name] = MethodChoice(name, settings)
    return list(found.values())


def choose_attacks(config: ArenaConfig, folder: Path) -> list[AttackChoice]:
    """The attacks of an arena, in the order of its configuration.

    Args:
        config: the settings.
        folder: where relative paths start.

    Raises:
        InputError: an attack is unknown, or has settings that it does not take.
    """
    named = config.attacks if isinstance(config.attacks, dict) else dict.fromkeys(config.attacks)
    if len(named) < len(config.attacks):
        raise InputError(f"attacks is {config.attacks}; name every one once")
    return [
        AttackChoice(name, _attack(name, settings or {"searcher": name}, folder)) for name, settings in named.items()
    ]


def _attack(name: str, settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    kinds: dict[str, type] = {"searcher": Searcher, "attack": Attack}
    unknown = sorted(set(settings) - set(kinds))
    if unknown:
        raise InputError(f"attacks.{name}.{unknown[0]}: an attack sets `searcher`, `attack` or both, nothing else")
    found = {}
    for kind, value in settings.items():
        where = f"attacks.{name}.{kind}"
        if isinstance(value, str) and _is_file_name(value):
            value = _existing(value, folder, where)
        elif isinstance(value, str) and "." not in value:
            value = next((file for file in _packaged(kind) if file.stem == value), value)
            if isinstance(value, str) and value == name:  # neither a file nor a class path: a name that nobody has
                known = ", ".join(file.stem for file in _packaged(kind))
                raise InputError(f"attacks: there is no searcher {name!r}; packaged are {known}")
        found[kind] = _complete(kind, kinds[kind], value, where)
    return found


def _expanded(entry: str | dict[str, Any], presets: Path | None) -> Iterator[tuple[str, str | dict[str, Any] | Path]]:
    """Names and values of one entry of `methods`; `all` stands for several."""
    if isinstance(entry, dict):
        settings = {key: value for key, value in entry.items() if key != "name"}
        if not isinstance(settings.get("class_path"), str):
            raise InputError(f"methods: {json.dumps(entry, default=str)} has no `class_path`; name the method's class")
        name = str(entry.get("name", settings["class_path"].rpartition(".")[2]))
        if not name.strip():
            raise InputError(f"methods: the `name` of {settings['class_path']} is empty; give one, or leave it out")
        yield name, settings
    elif entry == ALL:
        files = sorted(presets.glob("*.yaml")) if presets else []
        if not files:
            raise InputError(
                "methods is `all`, and `presets` names no folder with presets; set it, or list the methods"
            )
        for file in files:
            yield file.stem, file
    else:
        yield (Path(entry).stem if _is_file_name(entry) else entry), entry


def _located(value: str | dict[str, Any] | Path, presets: Path | None, folder: Path) -> str | dict[str, Any] | Path:
    """A method's preset file, or its class and settings."""
    if not isinstance(value, str):
        return value
    if _is_file_name(value):
        return _existing(value, folder, "methods")
    tuned = presets / f"{value}.yaml" if presets else None
    if tuned is not None and tuned.is_file():
        return tuned
    published = next((file for file in _packaged("unlearning") if file.stem == value), None)
    if published is not None:
        return published
    if value in METHODS:
        method = METHODS[value]
        return {"class_path": f"{method.__module__}.{method.__qualname__}"}
    known = sorted({*METHODS, *(file.stem for file in _packaged("unlearning"))})
    raise InputError(f"methods: there is no method or preset {value!r}; choose from {', '.join(known)}")


def _preset_folder(config: ArenaConfig, folder: Path) -> Path | None:
    if config.presets is None:
        return None
    for parent in (*(packaged / "unlearning" for packaged in config_folders()), folder, Path.cwd()):
        if (parent / config.presets).is_dir():
            return parent / config.presets
    known = sorted({path.parent.name for packaged in config_folders() for path in packaged.glob("unlearning/*/*.yaml")})
    raise InputError(f"presets: there is no folder {config.presets!r}; packaged are {', '.join(known)}")


def _packaged(kind: str) -> list[Path]:
    return [file for packaged in config_folders() for file in sorted((packaged / kind).glob("*.yaml"))]


def _is_file_name(value: str) -> bool:
    return value.endswith(SUFFIXES) or "/" in value


def _existing(value: str, folder: Path, where: str) -> Path:
    for parent in (folder, Path.cwd()):
        if (parent / value).is_file():
            return parent / value
    raise InputError(f"{where}: there is no file {value} in {folder} or the current folder")


def _complete(name: str, kind: type, value: str | dict[str, Any] | Path, where: str) -> dict[str, Any]:
    """Checks a class path with its settings, and fills in the settings that were left out, also those that are null."""
    if isinstance(value, Path):
        value = read_mapping(value, where)
    unknown = sorted(set(value) - {"class_path", "init_args"}, key=str) if isinstance(value, dict) else []
    if unknown:
        raise InputError(f"{where}: there is no {unknown[0]!r} beside `class_path`; settings belong in `init_args`")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument(f"--{name}", type=kind)
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    try:
        values = parser.parse_args([f"--{name}={text}"])
        parser.instantiate(values)
        found: dict[str, Any] = json.loads(parser.dump(values, format="json", skip_unset=False))[name]
    except (ArgumentError, TypeError, ValueError) as error:
        raise InputError(f"{where}: {one_line(error).removeprefix(f'--{name}: ')}") from error
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return {"class_path": found["class_path"], "init_args": found.get("init_args", {})}
