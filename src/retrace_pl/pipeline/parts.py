"""What can be plugged into an audit, listed from the packages themselves."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from importlib import import_module

from rich.table import Table

from retrace_pl.errors import InputError
from retrace_pl.report.findings import output_console

KINDS = {
    "data": ("retrace_pl.data", "DataSource TokenizerSource"),
    "models": ("retrace_pl.models", "Classifier Generator"),
    "unlearning": ("retrace_pl.unlearning", "UnlearningMethod"),
    "searchers": ("retrace_pl.searchers", "Searcher"),
    "attacks": ("retrace_pl.attacks", "Attack"),
    "inferences": ("retrace_pl.attacks", "InferenceAttack"),
    "metrics": ("retrace_pl.metrics retrace_pl.metrics.text", "torchmetrics.Metric"),
}
"""Kind -> packages whose public names are searched, and the base classes of that kind."""


def list_parts(arguments: list[str]) -> None:
    """List what a configuration can name: data, models, unlearning, searchers, attacks, inferences or metrics."""
    try:
        options = make_parser().parse_args(arguments)
    except argparse.ArgumentError as error:
        raise InputError(f"retrace list: {error}") from error
    found = parts(options.kind)
    if options.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    short = ["short"] * (options.kind == "unlearning")
    table = Table("name", *short, "what it is", box=None)
    for part in found:
        table.add_row(part["name"], *(part[column] for column in short), part["description"])
    output_console().print(table)


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="retrace list", description=list_parts.__doc__, exit_on_error=False)
    parser.add_argument("kind", choices=list(KINDS), help="what to list")
    parser.add_argument("--json", action="store_true", help="print a list of objects with `name` and `description`")
    return parser


def parts(kind: str) -> list[dict[str, str]]:
    """Every public concrete class of a kind.

    Args:
        kind: a key of KINDS.

    Returns:
        Objects with `name`, `class_path` and `description` (the first line of the docstring), by name; those of an
        unlearning method also have `short`, the name that tune, arena and mls-bench know it by.
    """
    packages, bases = (words.split() for words in KINDS[kind])
    parents = tuple(_resolve(packages[0], base) for base in bases)
    found = [
        {
            "name": name,
            "class_path": f"{package}.{name}",
            "description": (inspect.getdoc(value) or "").partition("\n")[0],
        }
        for package in packages
        for name in sorted(import_module(package).__all__)
        if inspect.isclass(value := getattr(import_module(package), name))
        and issubclass(value, parents)
        and value not in parents
        and not inspect.isabstract(value)
    ]
    if kind == "unlearning":
        names = {method.__name__: name for name, method in import_module(f"{packages[0]}.registry").METHODS.items()}
        found = [part | {"short": names[part["name"]]} for part in found]
    return found


def _resolve(package: str, base: str) -> type:
    owner, _, name = base.rpartition(".")
    found: type = getattr(import_module(owner or package), name)
    return found
