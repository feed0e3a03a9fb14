"""The audit from Python, for notebooks and scripts; the command line runs the same stages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrace_pl.attacks import Reconstruction
from retrace_pl.data import AuditDataModule
from retrace_pl.errors import InputError
from retrace_pl.models import Classifier, Generator
from retrace_pl.pipeline.config import STAGES, AuditConfig
from retrace_pl.pipeline.parsing import Request, parse
from retrace_pl.pipeline.runner import AuditRun, run_stages
from retrace_pl.report import RunData
from retrace_pl.traces import Access, ModelPair

__all__ = ["Audit"]


class Audit:
    """One audit: all of it by :meth:`run`, or stage by stage.

    The same as `retrace audit`: a finished stage whose settings did not change is skipped, and an interrupted one
    continues. Every stage reads the files of the earlier ones, so a stage alone needs them in the run folder, and
    returns what it is about. Nothing is written before the first stage runs. `trainer.threads` sets torch's threads
    for the whole process.

    Args:
        request: Parsed settings; :meth:`from_config` makes them from a configuration and options.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self._run: AuditRun | None = None

    @classmethod
    def from_config(
        cls,
        config: str | Path,
        output: str | Path | None = None,
        overrides: Mapping[str, Any] | None = None,
        *,
        quiet: bool = True,
        cache: str | Path | None = None,
        jobs: int = 1,
        **settings: Any,
    ) -> Audit:
        """Reads a configuration and changes some of its settings.

        Args:
            config: A configuration file, or the bare name of a packaged one such as `digits`.
            output: The run folder; `runs/NAME` of the configuration where none is given.
            overrides: Settings by dotted name, as on the command line, such as `{"generator.epochs": 20}`.
            quiet: No progress output.
            cache: Folder of models and searches that this audit shares with others.
            jobs: Searches that run at once, each in a process and on a GPU of its own; results do not depend on it. As
                with every use of processes, a script must start its work below `if __name__ == "__main__":`.
            **settings: Settings of the first level by keyword, such as `queries=4096, access="black"`. Values are plain
                Python ones; where a setting takes a class, its name, the class itself, or a mapping of `class_path` and
                `init_args`.

        Raises:
            InputError: A file, a setting or a value cannot be used.

        Example:
            >>> audit = Audit.from_config("digits", queries=4096, access="black", overrides={"generator.epochs": 20})
            >>> audit.config.queries, audit.config.generator.epochs, audit.folder.as_posix()
            (4096, 20, 'runs/digits')
        """
        changed = {**(overrides or {}), **settings}
        places = {"config": config, "output": output, "cache": cache}
        taken = {*places, "jobs", "quiet", "json"} & changed.keys()
        if taken:
            raise InputError(f"overrides: {min(taken)} is no setting; give it to Audit.from_config by its own name")
        arguments = [f"--{name}={value}" for name, value in places.items() if value is not None]
        arguments += [f"--jobs={jobs}", *(["--quiet"] if quiet else [])]
        return cls(parse("audit", "", arguments + override_options(changed)))

    @property
    def config(self) -> AuditConfig:
        """The settings, instantiated."""
        return self.request.config

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.request.output

    @property
    def data(self) -> AuditDataModule:
        """The data, set up: `data.split("forget").inputs` are the deleted records."""
        return self._opened().data

    def run(self, stages: Sequence[str] = STAGES) -> RunData:
        """Runs the audit.

        Args:
            stages: The stages to run, out of `pretrain`, `generator`, `unlearn`, `attack`, `evaluate` and `report`.
                They run in this order and must leave metrics behind: leave out `report` where nobody will look at it,
                or stages that have run in this folder with the same settings before.

        Returns:
            What :meth:`result` reads.

        Raises:
            InputError: A stage is unknown, or a setting cannot be used.
            RunError: A stage failed.
        """
        unknown = [stage for stage in stages if stage not in STAGES]
        if unknown:
            raise InputError(f"stages: there is no stage {unknown[0]!r}; choose from {', '.join(STAGES)}")
        run_stages(self._opened(), tuple(stage for stage in STAGES if stage in stages), own_process=False)
        return self.result()

    def pretrain(self) -> tuple[Classifier, Classifier]:
        """Trains the audited model f+ and the independent evaluator.

        Returns:
            Both models, in eval mode on the CPU.

        Raises:
            InputError: A setting cannot be used.
            RunError: Training failed.
        """
        from retrace_pl.pipeline.train_stages import EVALUATOR, ORIGINAL, load_classifier

        run = self._stage("pretrain")
        return load_classifier(run, ORIGINAL), load_classifier(run, EVALUATOR)

    def generator(self) -> Generator:
        """Trains the generator G on the public records; needs :meth:`pretrain`.

        Returns:
            The generator, in eval mode on the CPU.

        Raises:
            InputError: A setting cannot be used.
            RunError: Training failed, or an earlier stage is missing.
        """
        from retrace_pl.pipeline.train_stages import load_generator

        return load_generator(self._stage("generator"))

    def unlearn(self) -> ModelPair:
        """Makes f+ forget the deleted records, and trains the models of the controls; needs :meth:`generator`.

        Returns:
            The audited pair (f+, f-) at the audit's access level, on the CPU.

        Raises:
            InputError: A setting cannot be used.
            RunError: Unlearning failed, or an earlier stage is missing.
        """
        from retrace_pl.pipeline.train_stages import ORIGINAL, UNLEARNED, load_classifier

        run = self._stage("unlearn")
        return ModelPair(load_classifier(run, ORIGINAL), load_classifier(run, UNLEARNED), Access(self.config.access))

    def attack(self) -> list[Reconstruction]:
        """Searches for the deleted records, and runs the controls at the same query budget; needs :meth:`unlearn`.

        Returns:
            What the audited attack found, one reconstruction for each repeat; only the first has a curve.

        Raises:
            InputError: A setting cannot be used.
            RunError: The attack failed, or an earlier stage is missing.
        """
        from retrace_pl.pipeline.attack_stage import read_reconstructions

        return read_reconstructions(self._stage("attack").folder)

    def evaluate(self) -> RunData:
        """Compares what was found with the deleted records, and decides the verdict; needs :meth:`attack`.

        Returns:
            What :meth:`result` reads.

        Raises:
            InputError: A setting cannot be used.
            RunError: The evaluation failed, or an earlier stage is missing.
        """
        self._stage("evaluate")
        return self.result()

    def report(self) -> Path:
        """Writes the HTML report and an overview picture; needs :meth:`evaluate`.

        Returns:
            The report.

        Raises:
            RunError: An earlier stage is missing.
        """
        return self._stage("report").folder.path("report.html")

    def result(self) -> RunData:
        """Reads the metrics, curves and candidates that are in the run folder; runs nothing.

        Raises:
            InputError: The audit was not evaluated yet.
            RunError: A file is damaged.
        """
        return RunData.load(self.folder)

    def _opened(self) -> AuditRun:
        if self._run is None:
            self._run = AuditRun.start(self.request)
        return self._run

    def _stage(self, name: str) -> AuditRun:
        run = self._opened()
        run_stages(run, (name,), own_process=False)
        return run

    def __repr__(self) -> str:
        return f"Audit({self.config.name!r}, folder={str(self.folder)!r})"


def override_options(overrides: Mapping[str, Any]) -> list[str]:
    """Settings by dotted name as the command line would be given them: text as it is, everything else as JSON.

    Raises:
        InputError: A value is neither plain nor a class.
    """
    return [f"--{name}={_text(name, value)}" for name, value in overrides.items()]


def _text(name: str, value: Any) -> str:
    if isinstance(value, str | Path):
        return str(value)
    try:
        return _dotted(value) if isinstance(value, type) else json.dumps(value, default=_plain)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name}: {type(value).__name__} cannot be written into a run's settings; give a plain value, a class, or "
            "{'class_path': ..., 'init_args': {...}}"
        ) from error


def _plain(value: Any) -> str:
    """Classes and paths inside lists and mappings."""
    if isinstance(value, type):
        return _dotted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not plain")


def _dotted(value: type) -> str:
    return f"{value.__module__}.{value.__qualname__}"
