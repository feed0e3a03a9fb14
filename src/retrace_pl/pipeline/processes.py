"""Several processes of one command: who started them, and how one of them works alone.

Light to import: the command line asks before it loads anything.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrace_pl.errors import InputError

if TYPE_CHECKING:
    from retrace_pl.pipeline.config import TrainerSettings

LAUNCH_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "ROLE_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "TORCHELASTIC_RUN_ID",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
)
"""What torchrun and srun tell a process about its place; a process that works alone must not inherit it."""


@dataclass(frozen=True)
class Launch:
    """Processes that something else than this package started, all with the same command.

    Args:
        launcher: `torchrun` or `srun`.
        rank: number of this process.
        size: number of processes.
        per_node: processes on each machine.
    """

    launcher: str
    rank: int
    size: int
    per_node: int


def launched() -> Launch | None:
    """Which of several processes this is that torchrun or srun started; None where it is the only one."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        found = Launch("torchrun", int(env["RANK"]), int(env["WORLD_SIZE"]), int(env["LOCAL_WORLD_SIZE"]))
    elif "SLURM_STEP_NUM_TASKS" in env and "SLURM_PROCID" in env:
        size, nodes = int(env["SLURM_STEP_NUM_TASKS"]), int(env.get("SLURM_STEP_NUM_NODES", "1"))
        found = Launch("srun", int(env["SLURM_PROCID"]), size, size // max(1, nodes))
    else:
        return None
    return found if found.size > 1 else None


def check_launch(settings: TrainerSettings) -> None:
    """Makes sure that the processes that were started are those that the trainer's settings ask for.

    Args:
        settings: the trainer's settings.

    Raises:
        InputError: they are not; every process would train a model of its own.
    """
    found = launched()
    if found is None:
        return
    if found.launcher == "srun" and os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        raise InputError(
            "srun started several processes in a job with the name of an interactive shell, which Lightning overlooks; "
            "give it another one with --job-name"
        )
    nodes = found.size // found.per_node
    if (settings.devices, settings.num_nodes) != (found.per_node, nodes):
        raise InputError(
            f"{found.launcher} started {found.size} processes on {nodes} machine(s), but trainer.devices is "
            f"{settings.devices} and trainer.num_nodes is {settings.num_nodes}; add --trainer.devices "
            f"{found.per_node} --trainer.num_nodes {nodes}"
        )


def devices_here(accelerator: str) -> int:
    """How many devices `trainer.devices -1` stands for: all of this machine, or as many as a launcher started.

    Args:
        accelerator: the setting `trainer.accelerator`.

    Raises:
        InputError: CPUs are asked for, of which there is no natural number.
    """
    found = launched()
    if found is not None:
        return found.per_node
    import torch

    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.cuda.device_count()
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return 1
    raise InputError(
        f"trainer.devices is -1, all of them, but there is no GPU (trainer.accelerator {accelerator}); "
        "say how many processes are to share the CPU"
    )


def refuse_launch(command: str) -> None:
    """Refuses a command that starts its own processes, or needs only one, where several were started.

    Args:
        command: what was run, for the message.

    Raises:
        InputError: several processes were started.
    """
    found = launched()
    if found is not None:
        raise InputError(
            f"{found.launcher} started {found.size} processes, and each would do all the work of `retrace {command}`; "
            f"run it once, without {found.launcher}"
        )


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Work of one process among several: inside, nothing is divided among them or waits for the others.

    Metrics, loaders and callbacks ask torch.distributed whether they share their work; here it says no. The group
    itself stays, and training on all devices goes on with it afterwards.
    """
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        yield
        return
    group = distributed.GroupMember.WORLD
    distributed.GroupMember.WORLD = None
    try:
        yield
    finally:
        distributed.GroupMember.WORLD = group
