"""A training that leaves the finite numbers is stopped at the step where it does."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from retrace_pl.errors import DivergenceError
from retrace_pl.tasks import DivergenceGuard


class Weight(LightningModule):
    """One weight; `cost` turns it and the number of the step into a loss, `networks` optimisers work on it."""

    def __init__(self, cost, lr=1.0, start=1.0, networks=0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(start))
        self.cost, self.lr = cost, lr
        self.networks = networks
        self.automatic_optimization = not networks
        self.steps = 0

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=self.lr) for _ in range(max(1, self.networks))]

    def training_step(self, batch, batch_idx):
        loss = self.cost(self.weight, self.steps)
        self.steps += 1
        if self.automatic_optimization:
            return loss
        optimizers = self.optimizers()
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            optimizer.zero_grad()
            self.manual_backward(self.cost(self.weight, self.steps - 1))
            optimizer.step()
        return None


def train(task, callbacks=(), batches=4, **options):
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=3,
        callbacks=[DivergenceGuard(), *callbacks],
        logger=False,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(task, DataLoader(TensorDataset(torch.zeros(batches, 1))))
    return trainer


def nan_at(step):
    return lambda weight, now: weight * (torch.nan if now == step else 0.1)


@pytest.mark.parametrize("networks", [0, 1, 2])
def test_a_nan_is_found_at_its_step(networks):
    what = "the norm of the gradients" if networks else "the loss"
    with pytest.raises(DivergenceError, match=f"diverged in epoch 2, step 3: {what} is nan; lower its learning rate"):
        train(Weight(nan_at(6), networks=networks))


def test_gradients_that_explode_are_stopped_or_clipped():
    def steep(weight, step):
        return 1e4 * weight**2

    with pytest.raises(DivergenceError, match=r"is inf; lower its learning rate or set trainer\.gradient_clip_val"):
        train(Weight(steep))
    clipped = Weight(steep, lr=0.1)
    train(clipped, gradient_clip_val=1.0)
    assert abs(float(clipped.weight.detach())) < 1.0  # twelve steps of a tenth from 1, towards 0 and then around it


def test_an_infinite_gradient_of_a_finite_loss():
    with pytest.raises(DivergenceError, match="step 1: the norm of the gradients is inf"):
        train(Weight(lambda weight, step: weight.sqrt(), start=0.0))


def test_the_step_that_breaks_the_weights_ends_before_they_are_saved(tmp_path):
    keep = ModelCheckpoint(dirpath=tmp_path, filename="last", enable_version_counter=False)
    # finite loss and gradient in the last step of the second epoch; the weight after it is not
    task = Weight(lambda weight, now: weight * (1e18 if now == 7 else 0.0), lr=1e30)
    with pytest.raises(DivergenceError, match="epoch 2, step 4: weights are NaN or infinite"):
        train(task, [keep])
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert kept["epoch"] == 0
    assert float(kept["state_dict"]["weight"]) == 1.0


def test_a_training_that_goes_well_is_left_alone():
    watched, alone = (Weight(lambda weight, step: (weight - 3) ** 2, lr=0.1) for _ in range(2))
    train(watched)
    for _ in range(12):
        alone.weight.data -= 0.1 * 2 * (alone.weight.data - 3)
    assert float(watched.weight.detach()) == pytest.approx(float(alone.weight.detach()))
