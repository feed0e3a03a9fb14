"""Settings and classes as Markdown: what the command line's parser knows, in tables."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from jsonargparse import ArgumentParser

PAGES = {
    "AuditDataModule": "data",
    "DataSource": "data",
    "ImageSource": "data",
    "TextSource": "data",
    "TokenizerSource": "data",
    "Classifier": "models",
    "Generator": "models",
    "UnlearningMethod": "unlearning",
    "Searcher": "searchers",
    "Attack": "attacks",
    "InferenceAttack": "inferences",
    "Normaliser": "normalisers",
}
"""Base class -> page of this reference that holds the classes to choose from."""

NO_SETTING = ("_HelpAction", "_ActionHelpClassPath", "_ActionConfigLoad", "_ActionPrintConfig", "ActionConfigFile")
SECTIONS = re.compile(r"^(Args|Raises|Returns|Attributes|Yields|Examples?):\s*$", re.MULTILINE)
CODE = re.compile(r"(``.+?``|`.+?`)", re.DOTALL)


@dataclass(frozen=True)
class Setting:
    """One setting of a parser.

    Args:
        key: Dotted name.
        kind: Its type in words, as Markdown.
        default: Its default as YAML, as Markdown.
        meaning: What its docstring says, as Markdown for a table's cell.
    """

    key: str
    kind: str
    default: str
    meaning: str


def settings(parser: ArgumentParser) -> list[Setting]:
    """Every setting that a parser takes, in its order; the path of a nested section is none."""
    found = []
    for action in parser._actions:
        if type(action).__name__ in NO_SETTING:
            continue
        hint = getattr(action, "_typehint", None) or action.type or (bool if action.nargs == 0 else str)
        default = "**required**" if action.required else f"`{_yaml(action.default)}`"
        found.append(Setting(action.dest, kind(hint), default, cell(action.help or "")))
    return found


def kind(hint: Any) -> str:
    """A type in words: a choice, a class with a link to those that can stand there, or a plain name."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(kind(argument) for argument in arguments))
    if origin is not None and issubclass(origin, Callable):
        return kind(arguments[-1])
    if origin is not None and issubclass(origin, dict):
        return "mapping"
    if origin is not None:
        inner = [kind(argument) for argument in arguments if argument is not Ellipsis]
        return f"list of {inner[0]}" if inner else "list"
    if hint in (None, types.NoneType):
        return "`null`"
    name = getattr(hint, "__name__", str(hint))
    if name == "Any":
        return "anything"
    return f"[`{name}`]({PAGES[name]}.md)" if name in PAGES else f"`{name}`"


def cell(text: str) -> str:
    """Text of a docstring for a cell of a table: one line, with what Markdown would take for markup escaped."""
    return "".join(
        part if part.startswith("`") else part.replace("|", "\\|") for part in CODE.split(prose(" ".join(text.split())))
    )


def prose(text: str) -> str:
    """Text of a docstring as Markdown: roles of Sphinx become plain code, nothing outside code is taken for HTML."""
    text = re.sub(r":\w+:(`[^`]+`)", r"\1", text)
    return "".join(
        part if part.startswith("`") else part.replace("<", "&lt;").replace("*", "\\*") for part in CODE.split(text)
    )


def table(rows: list[Setting]) -> str:
    """Settings as a table."""
    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    lines += [f"| `{row.key}` | {row.kind} | {row.default} | {row.meaning} |" for row in rows]
    return "\n".join(lines)


def described(value: Any) -> str:
    """The docstring of a class or function up to its list of arguments, as Markdown."""
    return prose(SECTIONS.split(inspect.getdoc(value) or "", maxsplit=1)[0].strip())


def public_classes(module: Any, *bases: type) -> Iterator[tuple[str, type]]:
    """The concrete classes that a package exports and that can stand where one of the bases is asked for."""
    for name in sorted(module.__all__):
        value = getattr(module, name)
        concrete = inspect.isclass(value) and not inspect.isabstract(value)
        if concrete and issubclass(value, bases) and value not in bases:
            yield name, value


def arguments_of(cls: type, skipped: int = 0) -> list[Setting]:
    """What can stand under `init_args` of a class, those that it hands to its base class included.

    Args:
        cls: The class.
        skipped: Leading arguments that the audit itself gives, such as the number of classes.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, sub_configs=True, skip={skipped} if skipped else None)
    return settings(parser)


def _yaml(value: Any) -> str:
    plain = getattr(value, "as_dict", lambda: value)()
    if plain is not None and not isinstance(plain, bool | int | float | str | list | tuple | dict):
        return str(plain)
    plain = list(plain) if isinstance(plain, tuple) else plain
    text = yaml.safe_dump(plain, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("...\n").strip() or "''"
