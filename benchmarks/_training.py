"""What the settings of the benchmarks share: quiet training, models kept as safetensors, accuracy."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from lightning import LightningModule, Trainer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def stored(model: Network, path: Path, train: Callable[[Network], nn.Module]) -> Network:
    """The model with the weights of the file, in eval mode; trained and written first where there is no file.

    Args:
        model: The architecture, with its initial weights.
        path: Safetensors file.
        train: Trains ``model`` and returns the module whose weights are kept.
    """
    if not path.exists():
        trained = train(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")  # an interrupted run leaves no half-written file behind
        save_file({name: value.contiguous() for name, value in trained.state_dict().items()}, partial)
        partial.replace(path)
    model.load_state_dict(load_file(path))
    return model.eval()


def fit(task: LightningModule, data: object, epochs: int) -> None:
    """Train on the CPU with neither logs, checkpoints nor validation."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*number of training batches.*")
        trainer.fit(task, datamodule=data)  # type: ignore[arg-type]


@torch.no_grad()
def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Share of inputs ``[n, ...]`` that the model gives their label ``[n]``."""
    predicted = torch.cat([model(part).argmax(1) for part in torch.split(inputs, 512)])
    return float((predicted == labels).float().mean())
