import io
import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from retrace_pl.pipeline.training import calm_lightning
from retrace_pl.pipeline.training_progress import TrainingProgress
from retrace_pl.report.progress import StageProgress


class Line(LightningModule):
    def __init__(self, fail_at=None):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.fail_at = fail_at

    def training_step(self, batch, index):
        if self.current_epoch == self.fail_at:
            raise RuntimeError("broken")
        loss = self.layer(batch[0]).square().mean()
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(task, screen, epochs=3):
    calm_lightning()
    data = DataLoader(TensorDataset(torch.ones(8, 1)), batch_size=4)
    options = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    with warnings.catch_warnings(), StageProgress("pretrain", screen, total=1):
        warnings.simplefilter("ignore")
        Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[TrainingProgress("original")], **options).fit(
            task, data
        )
    return screen.file.getvalue()


def terminal(width=120):
    return Console(file=io.StringIO(), force_terminal=True, width=width)


def test_epochs_and_metrics_are_shown_below_the_stage(capsys):
    shown = train(Line(), terminal())
    for words in ("pretrain", "  original", "epoch 3/3", "train/loss"):
        assert words in shown
    assert capsys.readouterr() == ("", "")


def test_the_bar_is_taken_down_after_an_error():
    screen = terminal()
    with pytest.raises(RuntimeError, match="broken"):
        train(Line(fail_at=1), screen)
    assert "epoch 1/3" in screen.file.getvalue()
    with StageProgress("another", screen) as stage:  # refused where an earlier display still runs
        assert stage.display.live.is_started


def test_a_file_gets_no_bar():
    screen = Console(file=io.StringIO(), width=80)
    assert train(Line(), screen) == ""
