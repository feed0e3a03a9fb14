"""The settings of an arena, and the command line that fills them in."""

from __future__ import annotations

import shlex
from argparse import ArgumentError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

from retrace_pl.errors import InputError
from retrace_pl.pipeline.parsing import locate_configs, one_line

RESERVED = {
    "seed": "seeds",
    "data.seed": "seeds",
    "data.init_args.seed": "seeds",
    "data.forget_class": "forget_classes",
    "data.init_args.forget_class": "forget_classes",
    "access": "access",
    "unlearning": "methods",
    "searcher": "attacks",
}
"""Setting of an audit -> setting of the arena that decides it in every cell."""

OPTIONS = ("config", "output", "cache", "jobs", "quiet", "json")
"""Options of `retrace audit` that are no settings; as overrides they would lead every cell to the same place."""


@dataclass
class GateSettings:
    """How far from the retrained reference a method may be and still be ranked.

    A method that broke the model, or forgot nothing, is no better at unlearning for leaking less: it is shown, with
    the reason, but has no rank.

    Args:
        retain_margin: how far its accuracy on the retained records may lie below the reference's, in [0, 1].
        mia_margin: how far the AUC of the membership attack may lie from the reference's, either way, in [0, 1].
        forget_margin: how far its accuracy on the deleted records may lie above the reference's, in [0, 1].

    Raises:
        InputError: a margin is out of range.
    """

    retain_margin: float = 0.05
    mia_margin: float = 0.1
    forget_margin: float = 0.1

    def __post_init__(self) -> None:
        for name in ("retain_margin", "mia_margin", "forget_margin"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"gate.{name} is {getattr(self, name)}; it lies in [0, 1]")


@dataclass
class SlurmSettings:
    """What each cell asks a SLURM cluster for; `--jobs` bounds how many run at once.

    Args:
        partition: partition; the cluster's default where none is given.
        time: minutes after which a cell is ended.
        gpus: GPUs of a cell.
        cpus: CPU cores of a cell.
        memory_gb: memory of a cell in GB.
        extra: further options of `sbatch` by their long names, for example `{account: vision, qos: low}`.

    Raises:
        InputError: a number is out of range.
    """

    partition: str | None = None
    time: int = 60
    gpus: int = 0
    cpus: int = 1
    memory_gb: float = 8.0
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in (("time", 1), ("gpus", 0), ("cpus", 1)):
            if getattr(self, name) < least:
                raise InputError(f"slurm.{name} is {getattr(self, name)}; set it to {least} or more")
        if not 0 < self.memory_gb < float("inf"):
            raise InputError(f"slurm.memory_gb is {self.memory_gb}; set it above 0")


@dataclass
class ArenaConfig:
    """Methods x strengths x seeds x forget classes x access levels x attacks; every combination is an audit.

    Args:
        audit: the audit that every cell varies: a file (relative to the arena's), or the name of a packaged one.
        methods: unlearning methods: names (of a preset, or of the zoo), YAML files (relative to the arena's), objects
            with `class_path`, `init_args` and a `name` for the tables; `all` stands for every preset of `presets`.
        presets: folder of tuned presets that names are looked up in first: that of a packaged setting, such as
            `digits`, or a path.
        strengths: factors on each method's own `strength`; `Retrain` and `Identity`, which have no use for it, run
            once.
        seeds: seeds of the audit and of its splits.
        forget_classes: classes to delete, by index or name, one at a time; empty: what the audit deletes.
        access: what the auditor may see: `black`, `gray`, `white`.
        attacks: names of packaged searchers, or name -> `searcher` and `attack` settings in place of the audit's.
        overrides: settings of the audit for every cell, by dotted name, for example `{queries: 4096}`.
        gate: how far from the retrained reference a method may be and still be ranked.
        level: confidence level of the intervals over seeds.
        bootstrap_samples: resamples behind each interval.
        slurm: what each cell asks a SLURM cluster for.
        name: title of the page, and name of the output folder.

    Raises:
        InputError: a setting is out of range, repeated, or decided twice.
    """

    audit: str
    methods: list[str | dict[str, Any]] | Literal["all"] = "all"
    presets: str | None = None
    strengths: list[float] = field(default_factory=lambda: [1.0])
    seeds: list[int] = field(default_factory=lambda: [0])
    forget_classes: list[int | str] = field(default_factory=list)
    access: list[Literal["black", "gray", "white"]] = field(default_factory=lambda: ["white"])
    attacks: dict[str, dict[str, Any] | None] | list[str] = field(default_factory=lambda: ["ppo"])
    overrides: dict[str, Any] = field(default_factory=dict)
    gate: GateSettings = field(default_factory=GateSettings)
    level: float = 0.95
    bootstrap_samples: int = 2000
    slurm: SlurmSettings = field(default_factory=SlurmSettings)
    name: str = "arena"

    def __post_init__(self) -> None:
        for name in ("strengths", "seeds", "access", "methods", "attacks"):
            if not getattr(self, name):
                raise InputError(f"{name} is empty; give at least one")
        for name in ("strengths", "seeds", "access", "forget_classes"):
            values = getattr(self, name)
            repeated = [value for value in values if values.count(value) > 1]
            if repeated:
                raise InputError(f"{name} holds {repeated[0]!r} twice; name every one once")
        self._check_numbers()
        for setting in self.overrides:
            if setting in OPTIONS:
                raise InputError(f"overrides.{setting}: no setting of an audit; give --{setting} to `retrace arena`")
            axis = _axis_of(setting)
            if axis is not None:
                raise InputError(f"overrides.{setting}: `{axis}` decides it in every cell; set it there")

    def _check_numbers(self) -> None:
        if not all(0 <= strength < float("inf") for strength in self.strengths):
            raise InputError(f"strengths is {self.strengths}; a strength is 0 or more, 1 is the preset's own")
        if min(self.seeds) < 0:
            raise InputError(f"seeds holds {min(self.seeds)}; a seed is 0 or more")
        if not 0 < self.level < 1:
            raise InputError(f"level is {self.level}; it lies between 0 and 1")
        if self.bootstrap_samples < 1:
            raise InputError(f"bootstrap_samples is {self.bootstrap_samples}; set it to 1 or more")


def _axis_of(setting: str) -> str | None:
    """The setting of the arena that decides a setting of the audit, or None."""
    parent = setting.partition(".")[0]
    return RESERVED.get(setting) or (RESERVED.get(parent) if parent in ("unlearning", "searcher") else None)


@dataclass(frozen=True)
class ArenaRequest:
    """A parsed command line.

    Args:
        config: the settings.
        settings: the same as plain values, for `arena.json`.
        folder: folder of the configuration file, which relative paths start from.
        output: the arena's folder.
        cache: folder of the artefacts that cells share.
        jobs: cells that run at once.
        launcher: where they run.
        cell: id of the one cell to run, or None for all.
        dry_run: list the cells and run none.
        quiet: no progress output.
        as_json: print the result as JSON.
        command: the command line as it was given.
    """

    config: ArenaConfig
    settings: dict[str, Any]
    folder: Path
    output: Path
    cache: Path
    jobs: int
    launcher: Literal["local", "slurm"]
    cell: str | None
    dry_run: bool
    quiet: bool
    as_json: bool
    command: str


def make_parser(description: str) -> ArgumentParser:
    """The parser of `retrace arena`."""
    parser = ArgumentParser(prog="retrace arena", description=description, exit_on_error=False, allow_abbrev=False)
    parser.add_argument(
        "--config", action="config", help="configuration file, or the bare name of a packaged one; repeatable"
    )
    parser.add_argument("--output", type=str, default=None, help="arena folder (default: runs/arena/NAME of the file)")
    parser.add_argument("--cache", type=str, default=None, help="artefacts that cells share (default: OUTPUT/cache)")
    parser.add_argument("--jobs", type=int, default=1, help="cells that run at once (default: 1)")
    parser.add_argument("--launcher", type=Literal["local", "slurm"], default="local", help="where cells run")
    parser.add_argument("--cell", type=str, default=None, help="run this one cell, in this process, and nothing else")
    parser.add_argument("--dry-run", action="store_true", help="list the cells and run none")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors, and with --json the result")
    parser.add_argument("--json", action="store_true", help="print the result as JSON on standard output")
    parser.add_class_arguments(ArenaConfig, sub_configs=True)
    return parser


def parse(description: str, arguments: list[str]) -> ArenaRequest:
    """Parses a command line.

    Args:
        description: the command's description, for the help text.
        arguments: the options after `retrace arena`.

    Raises:
        InputError: an option, a file or a value cannot be used.
        SystemExit: help was asked for.
    """
    parser = make_parser(description)
    resolved, files = locate_configs("arena", arguments, "arena")
    try:
        values = parser.parse_args(resolved)
        options = {name: values.pop(name) for name in ("output", "cache", "jobs", "launcher", "cell")}
        dry_run, quiet, as_json = values.pop("dry_run"), values.pop("quiet"), values.pop("json")
        values.pop("config", None)
        settings = values.clone().as_dict()
        instances = parser.instantiate(values)
    except ArgumentError as error:
        raise InputError(one_line(error)) from error
    except (TypeError, ValueError) as error:
        raise InputError(f"settings cannot be used: {one_line(error)}") from error
    config = ArenaConfig(**{name: instances[name] for name in ArenaConfig.__dataclass_fields__})
    if options["jobs"] < 1:
        raise InputError(f"--jobs is {options['jobs']}; set it to 1 or more")
    if options["cell"] is not None and options["launcher"] != "local":
        raise InputError(f"--launcher {options['launcher']}: --cell runs in this process; leave one of them out")
    output = Path(options["output"] or Path("runs") / "arena" / files[-1].stem).resolve()
    return ArenaRequest(
        config=config,
        settings=settings,
        folder=files[-1].resolve().parent,
        output=output,
        cache=Path(options["cache"]).resolve() if options["cache"] else output / "cache",
        jobs=options["jobs"],
        launcher=options["launcher"],
        cell=options["cell"],
        dry_run=dry_run,
        quiet=quiet,
        as_json=as_json,
        command=shlex.join(["retrace", "arena", *arguments]),
    )
