"""Decides which stages run, in which process, and records what they leave behind."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from retrace_pl.data import AuditDataModule
from retrace_pl.errors import RunError
from retrace_pl.files import atomic_path
from retrace_pl.pipeline.cache import ArtefactCache
from retrace_pl.pipeline.code import own_code
from retrace_pl.pipeline.config import STAGES, AuditConfig
from retrace_pl.pipeline.needs import further_models, judging_apart, retrained_models
from retrace_pl.pipeline.parsing import Request
from retrace_pl.pipeline.processes import alone, check_launch, launched
from retrace_pl.pipeline.run_folder import RunFolder, fingerprint
from retrace_pl.pipeline.scoring import trace_key
from retrace_pl.pipeline.strategies import uses_several_devices
from retrace_pl.pipeline.training import calm_lightning
from retrace_pl.report.progress import StageProgress, terminal

ARTEFACT_VERSION = 1
"""Raised whenever a stage's files change their meaning, so that older ones are not reused."""

STAGE_FUNCTIONS = {
    "pretrain": "retrace_pl.pipeline.train_stages:pretrain",
    "generator": "retrace_pl.pipeline.train_stages:generator",
    "unlearn": "retrace_pl.pipeline.unlearn_stage:unlearn",
    "attack": "retrace_pl.pipeline.attack_stage:attack",
    "evaluate": "retrace_pl.pipeline.evaluate_stage:evaluate",
    "report": "retrace_pl.pipeline.report_stage:report",
}
"""Stage -> function that takes the AuditRun, writes files and returns their names."""

SHARED_STAGES = ("pretrain", "generator", "unlearn", "evaluate")
"""Stages whose work several devices share; every other one is the work of one process, however many there are."""

POLL_SECONDS = 0.5


@dataclass
class AuditRun:
    """Everything a stage needs: settings, run folder, data, console.

    Args:
        config: the settings, instantiated.
        settings: the same as plain values; the stages' keys are hashes of parts of it.
        text: the same as YAML.
        folder: the run folder.
        quiet: no progress output.
        console: progress output (standard error).
        cache: artefacts shared with other audits; None: everything is made here.
        jobs: searches that run at once, each in a process of its own where there are several.
    """

    config: AuditConfig
    settings: dict[str, Any]
    text: str
    folder: RunFolder
    quiet: bool
    console: Console
    cache: ArtefactCache | None = None
    jobs: int = 1
    _data_ready: bool = False

    @classmethod
    def start(cls, request: Request) -> AuditRun:
        """Creates the run folder, or opens it again.

        Raises:
            InputError: the folder cannot be used, or more or fewer processes were started than the settings ask for.
        """
        check_launch(request.config.trainer)
        console = terminal(request.quiet or not is_rank_zero())
        calm_lightning()
        if request.config.trainer.threads is not None:
            torch.set_num_threads(request.config.trainer.threads)
        cache = ArtefactCache(request.cache) if request.cache is not None else None
        folder = RunFolder(request.output)
        return cls(request.config, request.settings, request.text, folder, request.quiet, console, cache, request.jobs)

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process is the one that writes files."""
        return is_rank_zero()

    def store_config(self) -> None:
        """Writes the resolved configuration; only once a stage is about to run with it."""
        with atomic_path(self.folder.path("config.yaml")) as temporary:
            temporary.write_text(self.text, encoding="utf-8")

    @property
    def data(self) -> AuditDataModule:
        """The data module, set up on first use."""
        if not self._data_ready:
            self.config.data.prepare_data()
            self.config.data.setup()
            self._data_ready = True
        return self.config.data

    def key(self, stage: str) -> str:
        """Hash of every setting and earlier stage that `stage` depends on."""
        return stage_keys(self.settings)[stage]


def is_rank_zero() -> bool:
    """Whether this process is the first of those that Lightning started for one stage."""
    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


def stage_keys(settings: dict[str, Any]) -> dict[str, str]:
    """Hash per stage of its settings and of the user's own classes that they name.

    What decides the batch of a training step is among them: `batch_size`, the number of processes that share it, and
    `accumulate_grad_batches`. The kind of device and the strategy are left out: they change the last digits alone.
    """

    def part(*names: str) -> dict[str, Any]:
        return {name: settings[name] for name in names}

    def key(*parts: Any) -> str:
        return fingerprint([*parts, *own_code(list(parts))])

    audit = settings["audit"]
    data, judging = judging_apart(settings["data"])
    settings = {**settings, "data": data}
    precision = arithmetic(settings["trainer"])
    pretrain = key(ARTEFACT_VERSION, part("seed", "data", "classifier", "evaluator"), precision)
    generator = key(ARTEFACT_VERSION, part("seed", "data", "generator"), pretrain, precision)
    unlearn = key(pretrain, part("unlearning"), retrained_models(settings), *further_models(settings))
    search = part("access", "latent", "searcher", "attack", "rivals", "queries")
    search["traces"] = trace_key(settings["traces"])
    others = {name: settings[name] for name in ("baselines", "inferences") if settings.get(name)}
    if others:
        search |= others | {"baseline_controls": audit["baseline_controls"]}
    else:  # the setting says nothing, and keys of audits without other attacks are those of earlier versions
        audit = {name: value for name, value in audit.items() if name != "baseline_controls"}
    attack = key(unlearn, generator, search, audit["controls"], audit["repeats"])
    evaluate = key(attack, audit, part("name"), *([judging] if judging else []))
    report = fingerprint([evaluate])
    return dict(zip(STAGES, (pretrain, generator, unlearn, attack, evaluate, report), strict=True))


def arithmetic(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's settings that change what a training computes; one that is unset is left out of keys.

    Args:
        trainer: the settings of the section `trainer`.
    """
    found = {name: trainer[name] for name in ("precision", "accumulate_grad_batches")}
    # Each device has batches of its own. One device is what earlier versions meant by saying nothing.
    found |= {name: trainer[name] for name in ("devices", "num_nodes") if trainer[name] != 1}
    optional = ("gradient_clip_val", "sync_batchnorm", "compile")
    return found | {name: trainer[name] for name in optional if trainer.get(name)}


def run_stages(run: AuditRun, stages: tuple[str, ...], *, own_process: bool) -> None:
    """Runs stages in order and skips those whose outputs and settings' hash are there already.

    Args:
        run: the audit.
        stages: names out of STAGES.
        own_process: whether this process belongs to the stage alone; otherwise a training stage that uses several
            devices is given a process of its own, because Lightning's launchers run the whole command once per device.

    Where torchrun or srun started several processes, all of them come here: they share the work of `SHARED_STAGES`, the
    first one does the rest, and the others wait for it.

    Raises:
        RunError: an earlier stage is missing, or a stage failed.
    """
    starts_processes = uses_several_devices(run.config.trainer) and not own_process and launched() is None
    for position, stage in enumerate(stages):
        if run.folder.is_done(stage, run.key(stage)):
            run.console.print(f"[dim]{stage:<10} done already[/dim]")
            continue
        _require_earlier(run, stage, stages)
        if not run.is_rank_zero:
            if stage in SHARED_STAGES:
                _wait_for(run, stages[:position])
                _stage_function(stage)(run)
            continue
        run.store_config()
        if starts_processes and stage in SHARED_STAGES:
            _run_in_own_process(run, stage)
        else:
            _run(run, stage)


def _run(run: AuditRun, stage: str) -> None:
    start = time.perf_counter()
    later = STAGES[STAGES.index(stage) + 1 :]
    run.folder.begin(stage, tuple(name for name in later if not run.folder.is_done(name, run.key(name))))
    run.console.print(f"[bold]{stage}[/bold]")
    with StageProgress(stage, run.console), nullcontext() if stage in SHARED_STAGES else alone():
        outputs = _stage_function(stage)(run)
    seconds = time.perf_counter() - start
    run.folder.finish(stage, run.key(stage), outputs, seconds)
    run.console.print(f"{stage:<10} {seconds:.1f} s")


def _wait_for(run: AuditRun, stages: Sequence[str]) -> None:
    """Until the first process has finished stages; files tell, so that no device is kept busy by waiting."""
    while not all(run.folder.is_done(stage, run.key(stage)) for stage in stages):
        time.sleep(POLL_SECONDS)


def _stage_function(stage: str) -> Callable[[AuditRun], list[str]]:
    module, function = STAGE_FUNCTIONS[stage].split(":")
    return getattr(import_module(module), function)  # type: ignore[no-any-return]


def _require_earlier(run: AuditRun, stage: str, planned: tuple[str, ...]) -> None:
    for earlier in STAGES[: STAGES.index(stage)]:
        if earlier not in planned and not run.folder.is_done(earlier, run.key(earlier)):
            raise RunError(
                f"stage {stage} needs stage {earlier}, which has not run with these settings in {run.folder.root}; "
                f"run `retrace {earlier}` with the same options first, or `retrace audit` for all of them"
            )


def _run_in_own_process(run: AuditRun, stage: str) -> None:
    command = [sys.executable, "-m", "retrace_pl", stage, "--config", str(run.folder.path("config.yaml"))]
    command += ["--output", str(run.folder.root), *(["--quiet"] if run.quiet else [])]
    command += ["--cache", str(run.cache.root)] if run.cache is not None else []
    code = subprocess.run(command, check=False, stdout=sys.stderr).returncode
    if code != 0:
        raise RunError(f"stage {stage} failed in its own process (exit code {code}); its message is above")
