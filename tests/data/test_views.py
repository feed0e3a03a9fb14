import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import LambdaCallback

from retrace_pl.data import DigitsSource, UnlearningDataModule
from retrace_pl.errors import InputError


def _module(**settings):
    settings = {"image_size": 8, "channels": 1, "batch_size": 64, "augmentation": "crop_flip"} | settings
    if not any(name.startswith("forget_") for name in settings):
        settings["forget_class"] = 3
    return UnlearningDataModule(DigitsSource(), **settings)


class Recorder(LightningModule):
    """Trains nothing and writes down what it sees."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {}
        self.validated = []

    def training_step(self, batch, batch_idx):
        batch = batch if isinstance(batch, dict) else {"only": batch}
        note = tuple((name, inputs.sum().item(), tuple(labels.tolist())) for name, (inputs, labels) in batch.items())
        self.seen.setdefault(self.current_epoch, []).append(note)
        return self.weight**2

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.validated.append((dataloader_idx, *batch[1].tolist()))

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
        callbacks=[
            LambdaCallback(on_train_epoch_end=lambda trainer, _: trainer.save_checkpoint(folder / "last.ckpt")),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, datamodule=view, ckpt_path=resume)
    return model


@pytest.mark.parametrize("kind", ["split", "unlearning"])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_resumed_training_sees_the_batches_of_an_uninterrupted_one(tmp_path, kind, num_workers):
    def view():
        module = _module(num_workers=num_workers, forget_fraction=0.1, train_size=300)
        return module.view("train") if kind == "split" else module.unlearning_view()

    whole = _fit(view(), tmp_path / "whole", 3)
    begun = _fit(view(), tmp_path / "begun", 1)
    rest = _fit(view(), tmp_path / "rest", 3, tmp_path / "begun" / "last.ckpt")
    assert begun.seen[0] == whole.seen[0]
    assert list(rest.seen) == [1, 2]
    assert rest.seen[1] == whole.seen[1] != whole.seen[0]
    assert rest.seen[2] == whole.seen[2] != whole.seen[1]


def test_a_view_fits_on_one_split_and_validates_on_another(tmp_path):
    module = _module(augmentation="none")
    model = _fit(module.view("public", "evaluator", batch_size=32), tmp_path, 1)
    assert len(model.seen[0]) == -(-len(module.split("public")) // 32)
    labels = [label for ((_, _, batch),) in model.seen[0] for label in batch]
    assert sorted(labels) == sorted(module.split("public").labels.tolist())
    validated = [label for _, *batch in model.validated for label in batch]
    assert validated == module.split("evaluator").labels.tolist()


def test_augmentation_can_be_left_out_of_a_view():
    module = _module(batch_size=10_000)
    plain = next(iter(module.view("train", augment=False).train_dataloader()))[0]
    moved = next(iter(module.view("train").train_dataloader()))[0]
    again = next(iter(module.loader("train", shuffle=True)))[0]
    assert torch.equal(plain, again)
    assert not torch.equal(plain, moved)
    test = next(iter(module.view("train").test_dataloader()))[0]
    assert torch.equal(test, module.split("test").inputs)


@pytest.mark.parametrize("forget", [1, 7, 250])
def test_retain_and_forget_go_in_step_and_the_shorter_starts_over(forget):
    module = _module(forget_indices=list(range(forget)), train_size=300, augmentation="none")
    loader = module.unlearning_view(batch_size=32).train_dataloader()
    batches = [batch for batch, _, _ in iter(loader)]
    longest = max(forget, 300 - forget)
    assert len(loader) == len(batches) == -(-longest // 32)
    assert all(set(batch) == {"retain", "forget"} for batch in batches)
    for name in ("retain", "forget"):
        split = module.split(name)
        drawn = {image.numpy().tobytes() for batch in batches for image in batch[name][0]}
        assert drawn == {image.numpy().tobytes() for image in split.inputs}
        if len(split) <= 32:
            assert all(len(batch[name][0]) == len(split) for batch in batches)


def test_validation_of_a_deleted_class():
    module = _module(forget_class=[3, 5])
    kept, gone = (torch.cat([y for _, y in loader]) for loader in module.unlearning_view().val_dataloader())
    assert set(gone.tolist()) == {3, 5}
    assert set(kept.tolist()) == set(range(10)) - {3, 5}
    assert len(kept) + len(gone) == len(module.split("test"))


def test_validation_of_deleted_records():
    module = _module(forget_fraction=0.1)
    kept, gone = (torch.cat([x for x, _ in loader]) for loader in module.unlearning_view().val_dataloader())
    assert torch.equal(kept, module.split("test").inputs)
    assert torch.equal(gone, module.split("forget").inputs)


def test_a_test_split_without_the_deleted_class():
    module = _module(test_size=1, forget_class=[0, 1])
    with pytest.raises(InputError, match=r"test_size: the test split holds no image of the (retained|deleted) cl"):
        module.unlearning_view().val_dataloader()


def test_views_share_the_splits_of_their_module():
    module = _module()
    view = module.unlearning_view()
    view.prepare_data()
    view.setup("fit")
    before = module.split("train")
    module.view("train").setup("fit")
    assert module.split("train") is before
