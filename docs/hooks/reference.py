"""Writes the reference pages from the parsers and docstrings of the package while the site is built."""

from __future__ import annotations

import contextlib
import io
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from described import PAGES, Setting, arguments_of, described, public_classes, settings, table
from jsonargparse import ArgumentParser
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

FOLDER = "reference"
STAGES = ("audit", "pretrain", "generator", "unlearn", "evaluate", "report")
"""Commands that take the settings of an audit and nothing else."""

KINDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "data": ("Data", "retrace_pl.data", ("AuditDataModule", "DataSource", "TokenizerSource")),
    "models": ("Models", "retrace_pl.models", ("Classifier", "Generator")),
    "unlearning": ("Unlearning methods", "retrace_pl.unlearning", ("UnlearningMethod",)),
    "searchers": ("Searchers", "retrace_pl.searchers", ("Searcher",)),
    "attacks": ("Attacks", "retrace_pl.attacks", ("Attack",)),
    "inferences": ("Inferences", "retrace_pl.attacks", ("InferenceAttack",)),
    "normalisers": ("Normalisers", "retrace_pl.traces", ("Normaliser",)),
    "metrics": ("Metrics", "retrace_pl.metrics retrace_pl.metrics.text", ("torchmetrics.Metric",)),
}
"""Page -> its title, the packages whose public names it lists, and the base classes of what is listed."""

GIVEN = {"Classifier": 2, "Generator": 1}
"""Base class -> leading arguments that the audit gives: channels and classes of the data, or the shape of a sample."""

SECTIONS = {
    "": "The audit itself",
    "classifier": "The audited model",
    "evaluator": "The judge",
    "generator": "The generator",
    "latent": "The search environment",
    "traces": "Traces and score",
    "audit": "Controls, repeats, verdict",
    "trainer": "Devices",
}


def pages() -> dict[str, str]:
    """Path below the documentation -> Markdown of every generated page."""
    found = {"configuration": configuration(), "commands": commands(), "packaged": packaged()}
    found |= {name: classes(name) for name in KINDS}
    return {f"{FOLDER}/{name}.md": text for name, text in found.items()}


def configuration() -> str:
    """Every setting of an audit, of an attack on two models, and of an arena."""
    from retrace_pl.arena.config import make_parser as arena_parser
    from retrace_pl.external.parsing import make_pair_parser
    from retrace_pl.pipeline.config import AuditConfig
    from retrace_pl.pipeline.parsing import make_parser

    audit = ArgumentParser()
    audit.add_class_arguments(AuditConfig, sub_configs=True)
    inside = settings(audit)
    keys = {setting.key for setting in inside}
    options = [setting for setting in settings(make_parser("audit", "")) if setting.key not in keys]
    lines = [
        "# Configuration",
        "Written from the docstrings of the version that these pages belong to. A dotted name is both a place in a "
        "YAML file (`traces: {sign: positive}`) and an option (`--traces.sign positive`). Where a type is a link, the "
        "setting takes `class_path` and `init_args`, a file with these two, or a bare class name; the page behind the "
        "link has the classes of this package, and a dotted path names one of yours. `retrace audit --config digits "
        "--print_config` shows a complete example.",
        "## Options of the commands",
        "Those of `retrace audit` and of the command of each stage, besides the settings below.",
        table(options),
        "## Settings of an audit",
        described(AuditConfig),
        *_sections(inside, SECTIONS, "###"),
        "## An attack on two models",
        "`retrace attack --original A --unlearned B --public DATA`, see [Your own models](../own-models.md).",
        table(settings(make_pair_parser(""))),
        "## An arena",
        "`retrace arena`, see [Arena](../arena.md).",
        table(settings(arena_parser(""))),
    ]
    return "\n\n".join(lines) + "\n"


def classes(name: str) -> str:
    """Every class of a kind with its settings."""
    title, packages, bases = KINDS[name]
    lines = [f"# {title}"]
    for base in bases:
        parent = _resolve(packages.split()[0], base)
        if len(bases) > 1:
            lines += [f"## {parent.__name__}"]
        lines += [_introduction(parent)] if parent.__module__.startswith("retrace_pl.") else []
        heading = "###" if len(bases) > 1 else "##"
        for package in packages.split():
            for public, cls in public_classes(import_module(package), parent):
                rows = arguments_of(cls, GIVEN.get(base, 0))
                lines += [f"{heading} {public}", f"`{package}.{public}`{_short(cls)}", described(cls)]
                lines += [table(rows) if rows else "It has no settings."]
    return "\n\n".join(lines) + "\n"


def packaged() -> str:
    """Every packaged configuration, as it is."""
    from retrace_pl.pipeline.parsing import config_folders

    root = config_folders()[-1]
    lines = [
        "# Packaged configurations",
        "Those of `audit/` and `arena/` are named by their bare name (`--config digits`); files of the other folders "
        "stand where a setting takes a class. They lie in the wheel too.",
    ]
    for folder in sorted({path.parent for path in root.rglob("*.yaml")}):
        lines.append(f"## {folder.relative_to(root).as_posix()}")
        lines += [_file(path) for path in sorted(folder.glob("*.yaml"))]
    return "\n\n".join(lines) + "\n"


def commands() -> str:
    """What every command says of itself."""
    from retrace_pl.cli import COMMANDS, overview

    lines = ["# Commands", _block(overview())]
    for name in COMMANDS:
        if name in STAGES:
            continue
        lines.append(f"## retrace {name}")
        if name == "attack":
            lines.append(
                "Its options are [settings of an attack on two models](configuration.md#an-attack-on-two-models)."
            )
        elif name == "arena":
            lines.append("Its options are [settings of an arena](configuration.md#an-arena).")
        else:
            lines.append(_block(help_of(name)))
    stages = ", ".join(f"`{name}`" for name in STAGES)
    lines += ["## Commands of an audit", f"{stages} take the [settings of an audit](configuration.md)."]
    return "\n\n".join(lines) + "\n"


def help_of(command: str) -> str:
    """What `retrace COMMAND --help` prints."""
    from retrace_pl.cli import main

    shown = io.StringIO()
    before = {name: os.environ.get(name) for name in ("COLUMNS", "NO_COLOR")}
    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1"}
    try:
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            main([command, "--help"])
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
    if "usage:" not in shown.getvalue():
        raise PluginError(f"`retrace {command} --help` printed no usage")
    return shown.getvalue()


def on_files(files: Files, *, config: Any, **_: Any) -> Files:
    """Adds the generated pages, an event of MkDocs."""
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def _sections(rows: list[Setting], titles: dict[str, str], heading: str) -> list[str]:
    grouped: dict[str, list[Setting]] = {}
    for row in rows:
        first, dot, _ = row.key.partition(".")
        grouped.setdefault(first if dot else "", []).append(row)
    if set(grouped) != set(titles):
        raise PluginError(f"reference: sections {sorted(set(grouped) ^ set(titles))} have no title, or no settings")
    return [part for name, title in titles.items() for part in (f"{heading} {title}", table(grouped[name]))]


def _introduction(parent: type) -> str:
    used = [name for name in PAGES if name == parent.__name__]
    given = GIVEN.get(parent.__name__, 0)
    note = {0: "", 1: " The audit gives the shape of a sample.", 2: " The audit gives channels and classes."}[given]
    return f"{described(parent)}{note if used else ''}"


def _short(cls: type) -> str:
    from retrace_pl.unlearning import METHODS

    names = [name for name, method in METHODS.items() if method is cls]
    return f", short name `{names[0]}`" if names else ""


def _file(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    comments = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comments.append(line.lstrip("# "))
    summary = " ".join(comments).replace('"', "'").replace("<", "&lt;")
    first = summary.partition(". ")[0].rstrip(".:")
    body = "\n".join(f"    {line}".rstrip() for line in ["```yaml", *text.splitlines(), "```"])
    return f'??? note "{path.stem}{": " if first else ""}{first}"\n\n{body}'


def _block(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"


def _resolve(package: str, base: str) -> type:
    owner, _, name = base.rpartition(".")
    found: type = getattr(import_module(owner or package), name)
    return found
