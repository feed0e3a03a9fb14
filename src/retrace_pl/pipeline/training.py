"""Runs Lightning's Trainer for the stages that train: seeded, resumable, logged to the run's TensorBoard folder."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from retrace_pl.errors import DivergenceError, InputError, RunError
from retrace_pl.pipeline.checkpoints import REMEDY, WholeCheckpointIO, check_readable, last_checkpoint
from retrace_pl.pipeline.config import TrainerSettings
from retrace_pl.pipeline.parsing import one_line
from retrace_pl.pipeline.run_folder import RunFolder
from retrace_pl.pipeline.strategies import strategy_for
from retrace_pl.pipeline.training_progress import TrainingProgress
from retrace_pl.tasks import DivergenceGuard
from retrace_pl.traces.execution import require_compiler


def torch_device(settings: TrainerSettings) -> torch.device:
    """The single device of the stages that use one: search, calibration, report."""
    wanted = settings.accelerator
    if wanted in ("gpu", "cuda") or (wanted == "auto" and torch.cuda.is_available()):
        return torch.device("cuda")
    if wanted == "mps" or (wanted == "auto" and torch.backends.mps.is_available()):
        return torch.device("mps")
    return torch.device("cpu")


def calm_lightning() -> None:
    """Silences Lightning's notices about hardware, tips and small data; warnings that a user can act on stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in (
        ".*does not have many workers.*",  # the images are in memory, so worker processes would only slow things down
        ".*isinstance.treespec, LeafSpec.*",  # Lightning's own use of a renamed torch class
        ".*Checkpoint directory .* exists and is not empty.*",  # a resumed training finds its own checkpoint
        ".*is available but not used.*",  # the accelerator is the user's choice
    ):
        warnings.filterwarnings("ignore", message=message)


def make_trainer(settings: TrainerSettings, *, quiet: bool, **options: Any) -> Trainer:
    """Lightning's Trainer with the audit's device settings; `options` are Trainer arguments.

    The only progress bars are those among `callbacks`, and where it is quiet none.

    Raises:
        InputError: this machine has no such device, or Lightning no such setting.
    """
    if settings.sync_batchnorm and torch_device(settings).type != "cuda":
        raise InputError("trainer.sync_batchnorm: torch has it for GPUs only; leave it out here")
    callbacks = list(options.pop("callbacks", []))
    try:
        return Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            strategy=options.pop("strategy", None) or strategy_for(settings),
            num_nodes=settings.num_nodes,
            sync_batchnorm=settings.sync_batchnorm,
            precision=settings.precision,  # type: ignore[arg-type]
            enable_progress_bar=not quiet and any(isinstance(callback, ProgressBar) for callback in callbacks),
            enable_model_summary=False,
            callbacks=callbacks,
            **options,
        )
    except (MisconfigurationException, ValueError) as error:
        raise InputError(f"trainer: these settings cannot be used here: {one_line(error)}") from error


def fit(
    task: LightningModule,
    data: LightningDataModule,
    *,
    name: str,
    key: str,
    epochs: int,
    run: RunFolder,
    settings: TrainerSettings,
    quiet: bool,
    **options: Any,
) -> Trainer:
    """Trains `task`, continuing from the last epoch's checkpoint when an earlier attempt with the same key was cut off.

    Args:
        task: the Lightning task.
        data: its data.
        name: stable name of the training; the TensorBoard folder and the checkpoint folder are called after it.
        key: hash of everything the result depends on; a checkpoint of another key is discarded.
        epochs: passes over the training data.
        run: the run folder.
        settings: devices and precision.
        quiet: no progress bar.
        **options: further Trainer arguments.

    Raises:
        InputError: as `make_trainer`.
        RunError: the checkpoint to resume from is damaged or another model's, or the training diverged; the checkpoint
            of its last good epoch stays.
        KeyboardInterrupt: the user pressed Ctrl-C; the last finished epoch is kept.
    """
    last = last_checkpoint(run, name, key)
    check_readable(last)
    if settings.compile:
        compile_networks(task, torch_device(settings))
    trainer = make_trainer(
        settings,
        quiet=quiet,
        max_epochs=epochs,
        callbacks=[
            ModelCheckpoint(dirpath=last.parent, filename=last.stem, save_top_k=1, enable_version_counter=False),
            DivergenceGuard(),
            *([] if quiet else [TrainingProgress(name)]),
            *options.pop("callbacks", []),
        ],
        plugins=[WholeCheckpointIO()],
        logger=TensorBoardLogger(run.root / "tensorboard", name=name, version="", default_hp_metric=False),
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **options,
    )
    try:
        trainer.fit(task, datamodule=data, ckpt_path=last if last.is_file() else None, weights_only=True)
    except SystemExit as error:  # Lightning turns Ctrl-C into an exit
        if trainer.interrupted:
            raise KeyboardInterrupt from error
        raise
    except DivergenceError as error:
        kept = f"its last good epoch is kept in {last}" if last.is_file() else "no epoch of it was finished"
        raise RunError(f"training of {name} stopped: {error}; {kept}") from error
    except RuntimeError as error:
        if "in loading state_dict" not in str(error):
            raise
        raise RunError(f"{last} holds the weights of another architecture than {name}; {REMEDY}") from error
    if trainer.interrupted:
        raise KeyboardInterrupt
    return trainer


def compile_networks(task: torch.nn.Module, device: torch.device) -> None:
    """Has torch compile the networks of a task on their first call; names and weights of their parameters stay.

    Args:
        task: its networks that are trained are compiled.
        device: where they will run.

    Raises:
        InputError: torch cannot compile here.
    """
    require_compiler("trainer.compile", device)
    for network in task.children():
        if any(parameter.requires_grad for parameter in network.parameters()):
            network.compile()


def check_finite(module: torch.nn.Module, name: str) -> None:
    """Raises RunError when training left NaN or infinite weights behind."""
    if not all(
        bool(torch.isfinite(value).all()) for value in module.state_dict().values() if value.is_floating_point()
    ):
        raise RunError(f"training of {name} ended with NaN or infinite weights; lower its learning rate")
