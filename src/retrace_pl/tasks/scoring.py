"""Ask networks about many inputs, on as many devices as there are: each input once, the answers gathered once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from retrace_pl.errors import RunError
from retrace_pl.files import read_tensors, write_tensors

__all__ = ["Answers", "Block", "Scoring", "score_together"]

Answers = dict[str, Tensor]
"""What was answered about n inputs: name -> tensor [n, ...] on the CPU, in the order of the inputs."""


@dataclass(frozen=True)
class Scoring:
    """One question about n inputs.

    Args:
        name: Unique name.
        size: Number n of inputs.
        take: Gives the inputs of the positions from `start` to `stop`, shape [stop - start, ...].
        ask: Maps inputs [b, ...], on the device of the process, to named tensors [b, ...].
        batch_size: Inputs at a time. The same numbers come out of any number of processes, to the last bit, because
            they divide these batches among them and never a batch.
    """

    name: str
    size: int
    take: Callable[[int, int], Tensor]
    ask: Callable[[Tensor], Mapping[str, Tensor]]
    batch_size: int = 256

    @classmethod
    def of(
        cls, name: str, inputs: Tensor, ask: Callable[[Tensor], Mapping[str, Tensor]], batch_size: int = 256
    ) -> Scoring:
        """A question about the rows of a tensor."""
        return cls(name, len(inputs), lambda start, stop: inputs[start:stop], ask, batch_size)


class Block(NamedTuple):
    """The inputs from `start` to `stop` of the scoring with this number."""

    scoring: int
    start: int
    stop: int

    @property
    def key(self) -> str:
        """Name of its answers in a file."""
        return f"{self.scoring}:{self.start}"


def blocks_of(scorings: Sequence[Scoring]) -> list[Block]:
    """Every batch of every scoring, large ones first: dealt out in turn, each process gets about as many inputs."""
    blocks = [
        Block(number, start, min(start + scoring.batch_size, scoring.size))
        for number, scoring in enumerate(scorings)
        for start in range(0, scoring.size, scoring.batch_size)
    ]
    return sorted(blocks, key=lambda block: block.start - block.stop)


class ScoringTask(LightningModule):
    """Predict loop over the blocks of this process.

    Args:
        scorings: The questions.
        networks: What they ask; Lightning puts them on the device of the process, and in eval mode.
    """

    def __init__(self, scorings: Sequence[Scoring], networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.scorings = scorings
        self.networks = nn.ModuleList(networks)

    def predict_dataloader(self) -> DataLoader[Block]:
        """This process's share of the blocks; shares differ by one block at most."""
        mine: Any = blocks_of(self.scorings)[self.global_rank :: self.trainer.world_size]
        return DataLoader(mine, batch_size=None, collate_fn=_same)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave a block as it is: its inputs are taken in `predict_step`."""
        return batch

    def predict_step(self, batch: Block, batch_idx: int) -> Answers:
        """Ask about one block."""
        scoring = self.scorings[batch.scoring]
        inputs = scoring.take(batch.start, batch.stop)
        with torch.no_grad():
            found = scoring.ask(inputs.to(self.device))
        return {name: values.detach().cpu() for name, values in found.items()}


def _same(block: Any) -> Any:
    return block  # a share already holds whole blocks


class AnswerWriter(Callback):
    """Keeps the answers of this process, writes them into a file of its own, and waits for those of the others.

    Args:
        folder: Where the files go; every process sees it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: Answers = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove what an earlier attempt left, before anybody writes."""
        if trainer.is_global_zero:
            shutil.rmtree(self.folder, ignore_errors=True)
        trainer.strategy.barrier("no old answers")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the answers about a block."""
        self._found |= {f"{batch.key}:{name}": values.contiguous() for name, values in outputs.items()}

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_tensors(self.folder / f"rank-{trainer.global_rank}.safetensors", self._found)
        self._found = {}
        trainer.strategy.barrier("all answers are written")


def score_together(
    scorings: Sequence[Scoring], networks: Sequence[nn.Module], trainer: Trainer, folder: Path
) -> dict[str, Answers] | None:
    """Ask all questions, each process its share.

    Args:
        scorings: The questions.
        networks: What they ask; left on the CPU, in eval mode.
        trainer: Lightning's trainer.
        folder: For the answers of each process; removed when they are gathered. Every process sees it.

    Returns:
        Scoring -> answers, in the first process; None in the others.

    Raises:
        RunError: An answer is missing or came twice: the processes do not see one folder.
    """
    trainer.callbacks.append(AnswerWriter(folder))  # type: ignore[attr-defined]
    if any(scoring.size for scoring in scorings):
        trainer.predict(ScoringTask(scorings, networks), return_predictions=False)
    if not trainer.is_global_zero:
        return None
    found = gather(scorings, folder)
    shutil.rmtree(folder, ignore_errors=True)
    return found


def gather(scorings: Sequence[Scoring], folder: Path) -> dict[str, Answers]:
    """Put the answers of all processes together, in the order of the inputs.

    Args:
        scorings: The questions.
        folder: Where every process has written its file.

    Raises:
        RunError: An answer is missing or came twice.
    """
    parts: dict[str, Answers] = {}
    for file in sorted(folder.glob("rank-*.safetensors")):
        answers: dict[str, Answers] = {}
        for key, values in read_tensors(file).items():
            of_block, _, name = key.rpartition(":")
            answers.setdefault(of_block, {})[name] = values
        twice = sorted(answers.keys() & parts.keys())
        if twice:
            raise RunError(f"{file} repeats answers that another process gave ({twice[0]}); run the stage again")
        parts |= answers
    found: dict[str, list[Answers]] = {scoring.name: [] for scoring in scorings}
    for block in sorted(blocks_of(scorings)):
        answers_of_block = parts.get(block.key)
        rows = {len(values) for values in (answers_of_block or {}).values()}
        if answers_of_block is None or rows != {block.stop - block.start}:
            raise RunError(
                f"answers are missing in {folder}: every machine must see the run folder; put it on a shared disk"
            )
        found[scorings[block.scoring].name].append(answers_of_block)
    return {
        name: {key: torch.cat([part[key] for part in answers]) for key in answers[0]} if answers else {}
        for name, answers in found.items()
    }
