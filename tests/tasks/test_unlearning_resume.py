"""Methods that keep a state of their own: a resumed run on real digits gives the weights of an uninterrupted one."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from retrace_pl.data import DigitsSource, UnlearningDataModule
from retrace_pl.models import SmallCNN
from retrace_pl.tasks import UnlearningTask
from retrace_pl.unlearning import METHODS, UnlearningMethod

EPOCHS = 3
KEEPING = sorted(
    name for name, kind in METHODS.items() if kind.state_dict is not UnlearningMethod.state_dict and kind().epochs > 0
)


@pytest.fixture(scope="module")
def data():
    module = UnlearningDataModule(
        DigitsSource(), forget_class=3, image_size=16, channels=1, train_size=150, test_size=100, batch_size=32
    )
    module.setup()
    return module


def fit(name, data, epochs, folder=None, checkpoint=None):
    torch.manual_seed(5)
    task = UnlearningTask(
        SmallCNN(1, data.num_classes, width=4), METHODS[name](epochs=EPOCHS), data.num_classes, seed=2
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        limit_train_batches=2,
        limit_val_batches=1,
        logger=False,
        enable_checkpointing=folder is not None,
        callbacks=[ModelCheckpoint(dirpath=folder, save_last=True)] if folder else [],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    resuming = {"ckpt_path": checkpoint, "weights_only": True} if checkpoint else {}
    trainer.fit(task, datamodule=data.unlearning_view(batch_size=32), **resuming)
    return task


def test_there_are_such_methods():
    assert {"gradient_ascent", "bad_teacher", "scrub_r", "salun", "unsir"} <= set(KEEPING)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("name", KEEPING)
def test_a_resumed_run_gives_the_weights_of_an_uninterrupted_one(name, data, tmp_path):
    whole = fit(name, data, EPOCHS)
    fit(name, data, 1, folder=tmp_path)
    resumed = fit(name, data, EPOCHS, checkpoint=tmp_path / "last.ckpt")
    assert resumed.steps_done == whole.steps_done
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key
