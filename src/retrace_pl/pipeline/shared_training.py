"""Runs the trainings of a stage, or takes their products from the cache; also where several processes train one."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from retrace_pl.errors import InputError
from retrace_pl.files import write_json
from retrace_pl.pipeline.cache import Artefact, ArtefactCache, Files, Job, complete, place_file
from retrace_pl.pipeline.checkpoints import discard_checkpoints
from retrace_pl.pipeline.run_folder import RunFolder
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.strategies import uses_several_devices
from retrace_pl.report.progress import steps

WEIGHTS, SECONDS = "weights.safetensors", "seconds.json"
TAKEN = "RETRACE_TAKEN_FROM_CACHE"
"""Environment variable by which the first process of a training on several devices tells the others, which it starts,
what it took from the cache: all of them must train the same models."""


@dataclass(frozen=True)
class Training:
    """One training of a stage.

    Args:
        name: name of the model.
        file: name of the file of its weights in the run folder.
        artefact: describes the product for the cache; asked only where there is a cache.
        train: trains, and writes the weights into the run folder.
    """

    name: str
    file: str
    artefact: Callable[[], Artefact]
    train: Callable[[], None]


def run_trainings(run: AuditRun, trainings: Sequence[Training]) -> list[str]:
    """Trains every model that the cache does not have, and returns the names of the weights' files.

    Args:
        run: the audit.
        trainings: what to train; none of them needs the product of another.

    Raises:
        InputError: other processes of this training were not started by the first one.
        RunError: the cache cannot be used, or a training failed.
    """
    if run.cache is None:
        for training in steps(trainings):
            _timed(run, training)
    elif not uses_several_devices(run.config.trainer):
        complete([_job(run, run.cache, training) for training in trainings])
    elif run.is_rank_zero:
        _lead(run, run.cache, trainings)
    else:
        _follow(trainings)
    if run.is_rank_zero:
        for training in trainings:
            discard_checkpoints(run.folder, training.name)
    return [training.file for training in trainings]


def _job(run: AuditRun, cache: ArtefactCache, training: Training) -> Job:
    weights = run.folder.path(training.file)

    seconds = seconds_file(run.folder, training.name)

    def make() -> Files:
        _timed(run, training)
        return {WEIGHTS: weights, SECONDS: seconds}

    def take(files: Files) -> None:
        # The curves of an earlier training in this folder would pass for those of the model taken.
        shutil.rmtree(run.folder.path("tensorboard") / training.name, ignore_errors=True)
        place_file(files[WEIGHTS], weights)
        seconds.unlink(missing_ok=True)
        if SECONDS in files:  # entries of the first version have none
            place_file(files[SECONDS], seconds)

    return Job(cache, training.artefact(), make, take, run.console.print)


def seconds_file(folder: RunFolder, name: str) -> Path:
    """Where it says how long a model's training took, wherever it was trained; of one that was interrupted, the rest.

    Args:
        folder: the run folder.
        name: name of the model.
    """
    return folder.path("seconds") / f"{name}.json"


def _timed(run: AuditRun, training: Training) -> None:
    start = time.perf_counter()
    training.train()
    if run.is_rank_zero:
        write_json(seconds_file(run.folder, training.name), {"seconds": round(time.perf_counter() - start, 3)})


def _lead(run: AuditRun, cache: ArtefactCache, trainings: Sequence[Training]) -> None:
    """The first process decides everything before its first training starts the other processes."""
    with ExitStack() as locks:
        missing: list[tuple[Training, Job]] = []
        for training in trainings:
            job = _job(run, cache, training)
            if not job.taken():
                locks.enter_context(cache.locked(job.artefact))
                if not job.taken():
                    missing.append((training, job))
        trained = {training.name for training, _ in missing}
        os.environ[TAKEN] = ",".join(training.name for training in trainings if training.name not in trained)
        for _, job in missing:
            cache.store(job.artefact, job.make())


def _follow(trainings: Sequence[Training]) -> None:
    if TAKEN not in os.environ:
        raise InputError(
            "--cache: with several devices retrace has to start the processes itself; run it once, without torchrun or "
            "srun, or leave --cache out"
        )
    taken = os.environ[TAKEN].split(",")
    for training in trainings:
        if training.name not in taken:
            training.train()
