"""How a stage shares its work between devices: the strategies that stand behind `trainer.strategy`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, Strategy
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from retrace_pl.pipeline.config import TrainerSettings

PATIENCE = timedelta(hours=12)
"""How long a process waits for the others, one of which may be busy with work that cannot be shared. One that dies is
noticed at once, whatever this says."""


class ShardedStrategy(FSDPStrategy):
    """Lightning's FSDP, on CPUs as well.

    Lightning refuses its own class without a GPU, and its way of wrapping a model needs one. Torch itself has FSDP for
    CPUs, over gloo, so that what runs on GPUs can be tested where there are none.
    """

    def _setup_model(self, model: nn.Module) -> nn.Module:
        if self.root_device.type == "cpu":
            model = FullyShardedDataParallel(
                model,
                device_id=self.root_device,
                mixed_precision=self.mixed_precision_config,
                sharding_strategy=self.sharding_strategy,
                **self.kwargs,
            )
        return super()._setup_model(model)  # leaves a model alone that is wrapped


def uses_several_devices(settings: TrainerSettings) -> bool:
    """Whether work is spread over several devices or machines."""
    return settings.devices != 1 or settings.num_nodes != 1


def strategy_for(settings: TrainerSettings, *, shardable: bool = False, unused: bool = False) -> str | Strategy:
    """The strategy of one training, or of one pass over data.

    Args:
        settings: the trainer's settings.
        shardable: whether FSDP may spread the parameters. That takes one network, whose every step is a forward pass
            and a backward pass of the whole; what reads, copies or replaces weights between its steps, as a GAN and
            many unlearning methods do, shares its batches instead, like DDP.
        unused: whether a backward pass may leave parameters out, which DDP has to be told.
    """
    sharded = settings.strategy == "fsdp"
    if sharded and shardable:
        return ShardedStrategy(timeout=PATIENCE)
    if not uses_several_devices(settings):
        return "auto" if sharded else settings.strategy
    if sharded or settings.strategy in ("auto", "ddp"):
        return DDPStrategy(find_unused_parameters=unused, timeout=PATIENCE)
    return settings.strategy


class WholeWeights(Callback):
    """Puts a network's weights together that FSDP has spread over processes, when a training ends.

    Args:
        prefix: the network's name in the task.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = f"{prefix}."
        self.weights: dict[str, torch.Tensor] | None = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gathers them in every process."""
        if not isinstance(trainer.strategy, FSDPStrategy):
            return
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        wrapped: Any = trainer.strategy.model
        found: dict[str, Any] = dict(get_model_state_dict(wrapped, options=StateDictOptions(full_state_dict=True)))
        self.weights = {
            name.removeprefix(self.prefix): value.detach().cpu().clone()
            for name, value in found.items()
            if name.startswith(self.prefix)
        }
