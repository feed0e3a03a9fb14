"""What stands between the audit's settings and Lightning's Trainer."""

import os
import resource
import tempfile

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from retrace_pl.errors import InputError, RunError
from retrace_pl.pipeline.checkpoints import WholeCheckpointIO
from retrace_pl.pipeline.config import TrainerSettings
from retrace_pl.pipeline.run_folder import RunFolder
from retrace_pl.pipeline.training import calm_lightning, fit, make_trainer


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"accelerator": "quantum"}, "quantum"),
        ({"strategy": "magic"}, "magic"),
        ({"precision": "7-bit"}, "7-bit"),
    ],
)
def test_settings_that_lightning_refuses_are_bad_input(settings, named):
    with pytest.raises(InputError, match=rf"trainer: .*{named}"):
        make_trainer(TrainerSettings(**{"accelerator": "cpu", **settings}), quiet=True, logger=False)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\x80\x02."])
def test_damaged_checkpoint_is_named(tmp_path, content):
    checkpoint = tmp_path / "checkpoints" / "original-key" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(content)
    with pytest.raises(RunError, match=r"last\.ckpt cannot be read; delete it"):
        fit(
            None,
            None,
            name="original",
            key="key",
            epochs=1,
            run=RunFolder(tmp_path),
            settings=TrainerSettings(accelerator="cpu"),
            quiet=True,
        )


class Line(LightningModule):
    """A linear layer of a given width, fitted to nothing."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(2, width)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).square().mean()


class Ones(LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.ones(4, 2)), batch_size=2)


class Killed(BaseException):
    """Stands for the end of the process."""


class KillInSecondEpoch(Callback):
    def on_train_batch_end(self, trainer, *arguments):
        if trainer.current_epoch == 1:
            raise Killed


def fitted(task, folder, **options):
    calm_lightning()  # as every audit does
    settings = TrainerSettings(accelerator="cpu")
    run = RunFolder(folder)
    return fit(task, Ones(), name="line", key="key", epochs=3, run=run, settings=settings, quiet=True, **options)


@pytest.fixture
def cut_off(tmp_path):
    """The checkpoint of a training that was cut off in its second epoch."""
    with pytest.raises(Killed):
        fitted(Line(3), tmp_path, callbacks=[KillInSecondEpoch()])
    return tmp_path / "checkpoints" / "line-key" / "last.ckpt"


def test_a_checkpoint_of_another_architecture_is_named(cut_off, tmp_path):
    with pytest.raises(RunError, match=r"last\.ckpt holds the weights of another architecture than line; delete it"):
        fitted(Line(4), tmp_path)
    cut_off.unlink()
    assert fitted(Line(4), tmp_path).current_epoch == 3


def test_a_file_of_weights_is_no_checkpoint(cut_off, tmp_path):
    torch.save(Line(3).state_dict(), cut_off)
    with pytest.raises(RunError, match=r"last\.ckpt is no checkpoint of a training; delete it"):
        fitted(Line(3), tmp_path)


def test_a_checkpoint_cannot_run_code(cut_off, tmp_path):
    trap = tmp_path / "trap"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(trap),)

    content = torch.load(cut_off, weights_only=True)
    torch.save(content | {"evil": Evil()}, cut_off)
    with pytest.raises(RunError, match=r"last\.ckpt cannot be read; delete it"):
        fitted(Line(3), tmp_path)
    assert not trap.exists()
    torch.load(cut_off, weights_only=False)  # the trap is a real one
    assert trap.exists()


def test_checkpoints_are_written_beside_their_place(tmp_path, monkeypatch):
    # Where the system's temporary files lie on another file system, moving one from there is no single step.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no such folder"))
    path = tmp_path / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"a": torch.ones(2)}, path)

    def cut(content, file):
        file.write(b"half")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", cut)
        with pytest.raises(Killed):
            WholeCheckpointIO().save_checkpoint({"a": torch.zeros(2)}, path)
    assert torch.equal(WholeCheckpointIO().load_checkpoint(path, weights_only=True)["a"], torch.ones(2))


@pytest.mark.parametrize("room", [10, 1024, 100_000])
def test_a_checkpoint_that_the_disk_does_not_take_is_one_clear_error(tmp_path, room):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    content = {"weights": torch.ones(40_000), "names": ["a" * 50] * 50}
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))  # the archive fails at its records, or when it is closed
    try:
        with pytest.raises(RunError, match=r"cannot write .*last\.ckpt: File too large"):
            WholeCheckpointIO().save_checkpoint(content, tmp_path / "last.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_gradients_are_clipped_where_it_is_set(tiny, monkeypatch, tmp_path):
    from retrace_pl.cli import main
    from retrace_pl.pipeline import train_stages

    class Stop(Exception):
        pass

    seen = {}

    def look(*arguments, **options):
        seen.update(options)
        raise Stop

    monkeypatch.setattr(train_stages, "fit", look)
    command = ["pretrain", "--config", tiny, "--output", str(tmp_path / "run"), "--quiet"]
    with pytest.raises(Stop):
        main([*command, "--trainer.gradient_clip_val", "0.5"])
    assert seen["gradient_clip_val"] == 0.5
    assert main([*command, "--trainer.gradient_clip_val", "0"]) == 2
