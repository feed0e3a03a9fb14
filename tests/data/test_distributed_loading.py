"""Two processes under Lightning's DDP: each sees its own half, in step."""

import json

import pytest
import torch
from lightning import LightningModule, Trainer

from retrace_pl.data import DigitsSource, UnlearningDataModule


class Recorder(LightningModule):
    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {}

    def training_step(self, batch, batch_idx):
        for name, (inputs, _) in batch.items():
            self.seen.setdefault(f"{name}-{self.current_epoch}", []).append([x.sum().item() for x in inputs])
        return self.weight**2

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.seen.setdefault(f"val-{dataloader_idx}-{self.current_epoch}", []).append(batch[1].tolist())

    def on_train_end(self):
        (self.folder / f"{self.global_rank}.json").write_text(json.dumps(self.seen))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of forking, and of Lightning's advice on distributed evaluation
def test_two_processes_share_retain_and_forget(tmp_path):
    module = UnlearningDataModule(
        DigitsSource(), forget_class=3, image_size=8, channels=1, train_size=301, batch_size=16
    )
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(Recorder(tmp_path), datamodule=module.unlearning_view())
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))

    expected = sorted(x.sum().item() for x in module.split("retain").inputs)
    for epoch in (0, 1):
        halves = [sum(seen[f"retain-{epoch}"], []) for seen in (first, second)]  # noqa: RUF017
        assert len(halves[0]) == len(halves[1])
        extra = len(halves[0]) * 2 - len(expected)
        assert extra in (0, 1)  # an odd record out is seen twice
        assert set(halves[0]) | set(halves[1]) == set(expected)
        assert len(first[f"retain-{epoch}"]) == len(first[f"forget-{epoch}"]) == len(second[f"forget-{epoch}"])
    assert first["retain-0"] != first["retain-1"]
    for loader in (0, 1):
        assert len(first[f"val-{loader}-0"]) == len(second[f"val-{loader}-0"])
