"""Lightning drives the loaders of texts as it drives those of images."""

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import LambdaCallback


class Recorder(LightningModule):
    """Trains nothing and writes down what it sees."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {}

    def training_step(self, batch, batch_idx):
        batch = batch if isinstance(batch, dict) else {"only": batch}
        note = tuple((name, inputs.tolist(), labels.tolist()) for name, (inputs, labels) in batch.items())
        self.seen.setdefault(self.current_epoch, []).append(note)
        return self.weight**2

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        assert batch[0].shape[1] <= 32

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def _fit(view, folder, epochs, resume=None):
    model = Recorder()
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        callbacks=[LambdaCallback(on_train_epoch_end=lambda trainer, _: trainer.save_checkpoint(folder / "last.ckpt"))],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, datamodule=view, ckpt_path=resume)
    return model.seen


@pytest.mark.parametrize("kind", ["split", "unlearning"])
def test_a_resumed_training_sees_the_batches_of_an_uninterrupted_one(tmp_path, text_module, kind):
    def view():
        module = text_module(forget_fraction=0.3, batch_size=2, bucket_batches=3)
        return module.view("train") if kind == "split" else module.unlearning_view()

    whole = _fit(view(), tmp_path / "whole", 3)
    begun = _fit(view(), tmp_path / "begun", 1)
    rest = _fit(view(), tmp_path / "rest", 3, tmp_path / "begun" / "last.ckpt")
    assert begun[0] == whole[0]
    assert list(rest) == [1, 2]
    assert rest[1] == whole[1] != whole[0]
    assert rest[2] == whole[2] != whole[1]
