from functools import partial

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from retrace_pl.data import DigitsSource, UnlearningDataModule
from retrace_pl.models import SmallCNN
from retrace_pl.tasks import ClassifierTask
from retrace_pl.tasks.base import epoch_seed


class DroppingCNN(SmallCNN):
    """A network whose training draws from torch's global generator."""

    def embed(self, inputs):
        return nn.functional.dropout(super().embed(inputs), 0.5, self.training)


def digits(**settings):
    settings = {"forget_class": 3, "image_size": 16, "channels": 1, "batch_size": 64, "train_size": 800} | settings
    return UnlearningDataModule(DigitsSource(), **settings)


def model(seed=0, kind=SmallCNN, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(1, 10, **settings)


def trainer(folder, **settings):
    settings = {"logger": False, "enable_checkpointing": False} | settings
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **settings,
    )


class Losses(Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.values.append(outputs["loss"].item())


def test_small_cnn_learns_the_digits_in_seconds(tmp_path):
    losses = Losses()
    task = ClassifierTask(model(width=16), 10, optimizer=partial(torch.optim.Adam, lr=0.004))
    running = trainer(tmp_path, max_epochs=6, callbacks=[losses])
    running.fit(task, datamodule=digits().view("train", "test"))
    first, last = sum(losses.values[:5]) / 5, sum(losses.values[-5:]) / 5
    assert last < 0.2 * first
    assert running.callback_metrics["val/accuracy"] > 0.95
    assert running.callback_metrics["train/accuracy"] > 0.95


def test_metrics_are_those_of_the_whole_epoch(tmp_path):
    data = digits()
    task = ClassifierTask(model(), 10)
    running = trainer(tmp_path)
    (measured,) = running.test(task, datamodule=data.view("train", "test"), verbose=False)
    split = data.split("test")
    with torch.no_grad():
        logits = task.model.eval()(split.inputs)
    hits = logits.argmax(dim=1) == split.labels
    per_class = torch.stack([hits[split.labels == label].float().mean() for label in range(10)])
    assert measured["test/loss"] == pytest.approx(nn.functional.cross_entropy(logits, split.labels).item(), rel=1e-4)
    assert measured["test/accuracy"] == pytest.approx(hits.float().mean().item(), abs=1e-6)
    assert measured["test/accuracy_macro"] == pytest.approx(per_class.mean().item(), abs=1e-6)
    predicted = torch.cat(running.predict(task, data.loader("test")))
    torch.testing.assert_close(predicted, logits.softmax(dim=1))


def test_label_smoothing_is_for_training_alone(tmp_path):
    task = ClassifierTask(model(), 10, label_smoothing=0.3)
    batch = (torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3]))
    logits = task.eval()(batch[0])
    expected = 0.7 * nn.functional.cross_entropy(logits, batch[1]) - 0.3 * logits.log_softmax(dim=1).mean()
    torch.testing.assert_close(task.train_loss(logits, batch[1]), expected)
    torch.testing.assert_close(task.loss(logits, batch[1]), nn.functional.cross_entropy(logits, batch[1]))


def test_curves_run_over_epochs_under_stable_tags(tmp_path):
    data = digits(train_size=200)
    logger = TensorBoardLogger(tmp_path, name="run", version="")
    task = ClassifierTask(model(width=4), 10)
    trainer(tmp_path, max_epochs=3, logger=logger).fit(task, datamodule=data.view("train", "test"))
    events = EventAccumulator(logger.log_dir).Reload()
    tags = {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/accuracy_macro"}
    assert tags <= set(events.Tags()["scalars"])
    for tag in tags:
        assert [event.step for event in events.Scalars(tag)] == [0, 1, 2]


@pytest.mark.parametrize("kind", [SmallCNN, DroppingCNN])
def test_resumed_training_gives_the_same_weights(tmp_path, kind):
    def fit(epochs, folder, resume=None):
        task = ClassifierTask(
            model(kind=kind, width=4),
            10,
            optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9),
            scheduler=partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=3),
        )
        keep = ModelCheckpoint(tmp_path / folder, save_last=True, save_top_k=0)
        running = trainer(tmp_path, max_epochs=epochs, callbacks=[keep], enable_checkpointing=True)
        view = digits(train_size=200, augmentation="crop").view("train", "test")
        running.fit(task, datamodule=view, ckpt_path=resume, weights_only=True if resume else None)
        return task.model.state_dict()

    whole = fit(3, "whole")
    fit(2, "parts")
    torch.rand(7)  # the global generator is somewhere else after a restart
    resumed = fit(3, "parts", tmp_path / "parts" / "last.ckpt")
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_checkpoints_hold_plain_values_only(tmp_path):
    data = digits(train_size=200)
    keep = ModelCheckpoint(tmp_path, save_last=True)
    scheduler = partial(torch.optim.lr_scheduler.MultiStepLR, milestones=[1])
    task = ClassifierTask(model(width=4), 10, scheduler=scheduler, label_smoothing=0.1)
    trainer(tmp_path, max_epochs=2, callbacks=[keep], enable_checkpointing=True).fit(
        task, datamodule=data.view("train", "test")
    )
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["hyper_parameters"] == {"num_classes": 10, "label_smoothing": 0.1, "seed": 0}
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(1e-4)
    again = ClassifierTask.load_from_checkpoint(tmp_path / "last.ckpt", model=model(seed=1, width=4), weights_only=True)
    torch.testing.assert_close(again.model.head.weight, task.model.head.weight)
    assert again.train_loss.label_smoothing == 0.1


def test_plateau_scheduler_follows_the_validation_loss(tmp_path):
    from lightning.pytorch.cli import ReduceLROnPlateau

    scheduler = partial(ReduceLROnPlateau, monitor="val/loss", patience=0, threshold=1e9, threshold_mode="abs")
    task = ClassifierTask(model(width=4), 10, scheduler=scheduler)
    running = trainer(tmp_path, max_epochs=3)
    running.fit(task, datamodule=digits(train_size=200).view("train", "test"))
    assert running.optimizers[0].param_groups[0]["lr"] < 0.001


def test_settings_come_from_a_file():
    parser = ArgumentParser()
    parser.add_class_arguments(ClassifierTask, "task")
    settings = {
        "model": {
            "class_path": "retrace_pl.models.SmallCNN",
            "init_args": {"in_channels": 1, "num_classes": 10, "mean": [0.3]},
        },
        "num_classes": 10,
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9}},
        "scheduler": {"class_path": "torch.optim.lr_scheduler.CosineAnnealingLR", "init_args": {"T_max": 5}},
    }
    task = parser.instantiate(parser.parse_object({"task": settings})).task
    configured = task.configure_optimizers()
    assert isinstance(configured["optimizer"], torch.optim.SGD)
    assert configured["optimizer"].param_groups[0]["momentum"] == 0.9
    assert configured["lr_scheduler"]["scheduler"].T_max == 5
    del settings["optimizer"], settings["scheduler"]
    default = parser.instantiate(parser.parse_object({"task": settings})).task
    assert isinstance(default.configure_optimizers(), torch.optim.Adam)


def test_epoch_seeds_differ():
    seeds = {epoch_seed(seed, epoch, rank) for seed in range(5) for epoch in range(5) for rank in range(5)}
    assert len(seeds) == 125
    assert epoch_seed(1, 2, 3) == epoch_seed(1, 2, 3)
