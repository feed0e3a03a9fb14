"""The fixed side of tuning: for every seed the data, the original model and its retrained references."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock

from retrace_pl.data import AuditDataModule
from retrace_pl.errors import InputError
from retrace_pl.models import Classifier
from retrace_pl.pipeline.parsing import parse
from retrace_pl.pipeline.run_folder import fingerprint, seed_for
from retrace_pl.pipeline.runner import ARTEFACT_VERSION, AuditRun, arithmetic
from retrace_pl.pipeline.shared_training import run_trainings
from retrace_pl.pipeline.train_stages import (
    ORIGINAL,
    UNLEARNED,
    classifier_training,
    load_classifier,
    retrained_name,
    weights_file,
)
from retrace_pl.pipeline.training import make_trainer, torch_device
from retrace_pl.tasks import UnlearningTask, unlearning_quality
from retrace_pl.tuning.objective import mean_measures
from retrace_pl.unlearning import UnlearningMethod


@dataclass
class SeedSetting:
    """One seed's data, original model and retrained references; trained on first use and kept in the run folder.

    The seeds of every training are those of an audit with the same `seed`, so the models are the audit's own.

    Args:
        run: The audit's settings with this seed, and the folder that keeps its models.
    """

    run: AuditRun

    @property
    def seed(self) -> int:
        """The seed of the audit and of its data."""
        return self.run.config.seed

    @property
    def data(self) -> AuditDataModule:
        """The splits of this seed."""
        return self.run.data

    @cached_property
    def original(self) -> Classifier:
        """f+, in eval mode; copy it before changing it."""
        self._train(ORIGINAL, "train")
        return load_classifier(self.run, ORIGINAL)

    @cached_property
    def original_quality(self) -> dict[str, float]:
        """Measures of f+."""
        return self.quality(self.original)

    @cached_property
    def reference(self) -> dict[str, float]:
        """Mean measures of the retrained models, one per repeat of the audit (`audit.repeats`)."""
        rows = []
        for repeat in range(self.run.config.audit.repeats):
            self._train(retrained_name(repeat), "retain")
            rows.append(self.quality(load_classifier(self.run, retrained_name(repeat))))
        return mean_measures(rows)

    def quality(self, model: Classifier) -> dict[str, float]:
        """Measures of a model on this seed's splits; see `unlearning_quality`."""
        return unlearning_quality(model, self.data, device=torch_device(self.run.config.trainer))

    def unlearn(self, method: UnlearningMethod) -> Classifier:
        """Runs a method on a copy of f+, exactly as the audit's stage does but without curves and checkpoints.

        Args:
            method: The method; one that starts from scratch gives the first retrained reference.

        Returns:
            The unlearned model.

        Raises:
            RunError: The method diverged.
            KeyboardInterrupt: The user pressed Ctrl-C.
        """
        if method.from_scratch:
            self._train(retrained_name(0), "retain")
            return load_classifier(self.run, retrained_name(0))
        model = copy.deepcopy(self.original)
        task = UnlearningTask(model, method, self.data.num_classes, seed=seed_for(self.run.config.seed, UNLEARNED))
        trainer = make_trainer(
            self.run.config.trainer,
            quiet=True,
            max_epochs=method.epochs,
            logger=False,
            enable_checkpointing=False,
            limit_val_batches=0,
            num_sanity_val_steps=0,
        )
        try:
            trainer.fit(task, datamodule=self.data.unlearning_view(batch_size=method.batch_size))
        except SystemExit as error:  # Lightning turns Ctrl-C into an exit
            raise KeyboardInterrupt from error
        if trainer.interrupted:
            raise KeyboardInterrupt
        return model.eval()

    def _train(self, name: str, split: str) -> None:
        run = self.run
        key = fingerprint([ARTEFACT_VERSION, reference_settings(run.settings), name, split])
        with FileLock(run.folder.path(f".{name}.lock")):  # another tuning may want the same model at the same time
            if run.folder.is_done(name, key):
                return
            run.console.print(f"seed {self.seed}:")
            start, stage = time.perf_counter(), "pretrain" if split == "train" else "unlearn"
            run_trainings(run, [classifier_training(run, name, "classifier", split, stage)])
            run.folder.finish(name, key, [weights_file(name)], time.perf_counter() - start)


def reference_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The part of an audit's settings that f+ and its retrained references depend on."""
    trainer = arithmetic(settings["trainer"])
    return {name: settings[name] for name in ("seed", "data", "classifier")} | {"trainer": trainer}


def open_settings(arguments: Sequence[str], seeds: Sequence[int], folder: Path, *, quiet: bool) -> list[SeedSetting]:
    """Reads an audit's configuration once per seed; nothing is trained yet.

    Args:
        arguments: `--config` and overrides, as on the command line of `retrace audit`.
        seeds: Each becomes the seed of the audit and of its data.
        folder: Where the models go, in `seed-N` each.
        quiet: No progress output.

    Returns:
        One setting per seed.

    Raises:
        InputError: The configuration or an override cannot be used.
    """
    for option in ("--seed", "--data.seed", "--data.init_args.seed"):
        if any(argument == option or argument.startswith(f"{option}=") for argument in arguments):
            raise InputError(
                f"{option}: every seed of --seeds sets the seeds of the audit and of its data; drop {option}"
            )
    extra = ["--quiet"] if quiet else []
    return [
        SeedSetting(
            AuditRun.start(
                parse(
                    "tune",
                    "",
                    [
                        *arguments,
                        f"--seed={seed}",
                        f"--data.seed={seed}",
                        f"--output={folder / f'seed-{seed}'}",
                        *extra,
                    ],
                )
            )
        )
        for seed in seeds
    ]
