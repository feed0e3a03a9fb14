"""Every exported method for two steps on real digits with the models and data of the package."""

import pytest
import torch
from lightning.pytorch import Trainer

import retrace_pl.unlearning as zoo
from retrace_pl.data import DigitsSource, UnlearningDataModule
from retrace_pl.models import SmallCNN
from retrace_pl.tasks import UnlearningTask
from retrace_pl.unlearning import UnlearningMethod

METHODS = sorted(
    name
    for name, part in vars(zoo).items()
    if isinstance(part, type) and issubclass(part, UnlearningMethod) and part is not UnlearningMethod
)


def trainer(**options):
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )


@pytest.fixture(scope="module", params=["class", "records"])
def data(request):
    deletion = {"forget_class": 3} if request.param == "class" else {"forget_fraction": 0.1}
    module = UnlearningDataModule(
        DigitsSource(), **deletion, image_size=16, channels=1, train_size=200, test_size=150, batch_size=32
    )
    module.setup()
    return module


@pytest.mark.parametrize("name", METHODS)
def test_contract(name, data):
    method = getattr(zoo, name)()
    torch.manual_seed(0)
    model = SmallCNN(1, data.num_classes, width=4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    task = UnlearningTask(model, method, data.num_classes)
    engine = trainer(max_epochs=min(1, method.epochs), limit_train_batches=2)
    engine.fit(task, datamodule=data.unlearning_view(batch_size=32))
    assert task.steps_done <= 2
    assert all(0 <= float(engine.callback_metrics[f"unlearn/{key}_acc"]) <= 1 for key in ("retain", "forget"))
    changed = any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert changed is (name != "Identity")
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    assert {value.dtype for value in model.state_dict().values()} <= {torch.float32, torch.int64}
