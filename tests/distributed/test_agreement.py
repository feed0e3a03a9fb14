"""Two processes against one, for the same batch of all processes together: losses, weights and metrics.

Networks without batch normalisation, whose statistics are those of each process's own share; see docs/scaling.md.
"""

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from retrace_pl.data import DigitsSource, UnlearningDataModule
from retrace_pl.models import DCGAN
from retrace_pl.models.base import ImageClassifier
from retrace_pl.tasks import ClassifierTask, GeneratorTask, UnlearningTask
from retrace_pl.unlearning import NegativeGradient

TOLERANCE = 1e-4
"""Of losses and weights in single precision, in which the order of sums differs; SGD, two epochs. Adam amplifies it
more: see benchmarks/agreement.py."""

EXACT = 1e-12
"""Of weights in double precision, where that difference is out of sight: what remains would be another computation."""

pytestmark = pytest.mark.filterwarnings("ignore")  # of forking, and of Lightning's advice on distributed evaluation


class Plain(ImageClassifier):
    """A convolution and a linear layer."""

    def __init__(self, in_channels, num_classes):
        super().__init__(in_channels, num_classes, 8)
        self.body = nn.Sequential(nn.Conv2d(in_channels, 8, 3, padding=1), nn.ReLU())
        self.reset_parameters()

    def embed(self, inputs):
        return self.body(inputs).mean(dim=(2, 3))


class SamePlaces(Callback):
    """Fails in the processes themselves where their weights differ at the end."""

    def on_train_end(self, trainer, pl_module):
        for name, value in pl_module.state_dict().items():
            if value.is_floating_point() and "running" not in name:  # statistics are each process's own
                everywhere = trainer.strategy.all_gather(value.detach())
                assert torch.equal(everywhere[0], everywhere[-1]), name


def digits(**deleted):
    data = UnlearningDataModule(
        DigitsSource(),
        image_size=16,
        channels=1,
        train_size=300,
        public_size=200,
        test_size=200,
        batch_size=50,
        **deleted,
    )
    data.setup()
    return data


@pytest.fixture(scope="module")
def data():
    return digits(forget_class=3)


def fit(task, datamodule, processes, epochs=2, **options):
    torch.manual_seed(0)
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=options.pop("strategy", "ddp_fork" if processes > 1 else "auto"),
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[SamePlaces()] if processes > 1 else [],
        **options,
    )
    trainer.fit(task, datamodule=datamodule)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def classifier(data, processes, batch_size, **options):
    torch.manual_seed(1)
    model = Plain(1, 10)
    if options.get("precision") == "64-true":
        model.double()  # the parent of the forked processes takes their weights at its own precision
    task = ClassifierTask(model, 10, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    found = fit(task, data.view("train", "test", batch_size=batch_size, augment=False), processes, **options)
    return found, model


def agree(one, two):
    (metrics, model), (others, other) = one, two
    assert metrics.keys() == others.keys()
    for name, value in metrics.items():
        assert others[name] == pytest.approx(value, rel=TOLERANCE, abs=TOLERANCE), name
    for name, value in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=TOLERANCE, atol=TOLERANCE)


def test_a_classifier_learns_the_same(data):
    agree(classifier(data, 1, 100), classifier(data, 2, 50))


def weights(model):
    return torch.cat([value.flatten() for value in model.parameters()])


def test_in_double_precision_nothing_is_left_of_the_difference(data):
    _, one = classifier(data, 1, 100, precision="64-true")
    _, two = classifier(data, 2, 50, precision="64-true")
    _, other = classifier(data, 2, 25, precision="64-true")
    assert weights(one).dtype == torch.float64
    assert (weights(one) - weights(two)).abs().max() < EXACT
    assert (weights(one) - weights(other)).abs().max() > 1e-3  # half the batch is another training


@pytest.mark.slow
def test_accumulated_batches_are_one_batch(data):
    one = classifier(data, 1, 100)
    agree(one, classifier(data, 2, 25, accumulate_grad_batches=2))


@pytest.mark.slow
def test_bf16_trains_on_two_processes(data):
    found, _ = classifier(data, 2, 50, precision="bf16-mixed")
    one, _ = classifier(data, 1, 100)
    assert found["train/loss"] == pytest.approx(one["train/loss"], rel=0.02)  # 8 bits of mantissa


def unlearned(data, processes, method, epochs=1, **options):
    torch.manual_seed(1)
    model = Plain(1, 10)
    if options.get("precision") == "64-true":
        model.double()
    task = UnlearningTask(model, method, 10)
    fit(task, data.unlearning_view(batch_size=method.batch_size), processes, epochs, **options)
    return model


def test_unlearning_with_unequal_sizes_ends_and_agrees(data):
    # 269 records to retain and 31 to forget: the shorter stream starts over 8 times in one epoch
    assert (len(data.split("retain")), len(data.split("forget"))) == (269, 31)
    one = unlearned(data, 1, NegativeGradient(epochs=1, lr=0.01, batch_size=30))
    two = unlearned(data, 2, NegativeGradient(epochs=1, lr=0.01, batch_size=15))
    before = weights(unlearned(data, 1, NegativeGradient(lr=1e-12)))
    moved = (weights(one) - before).norm()
    # Two processes start the 31 records over after 32, one after 31: the batches are not the same ones throughout.
    assert (weights(one) - weights(two)).norm() < 0.1 * moved


def test_unlearning_is_the_same_where_both_streams_divide_into_whole_batches():
    data = digits(forget_indices=list(range(30)))
    assert (len(data.split("retain")), len(data.split("forget"))) == (270, 30)  # the shorter one starts over 8 times
    one = unlearned(data, 1, NegativeGradient(epochs=1, lr=0.01, batch_size=30), precision="64-true")
    two = unlearned(data, 2, NegativeGradient(epochs=1, lr=0.01, batch_size=15), precision="64-true")
    before = weights(unlearned(data, 1, NegativeGradient(lr=1e-12), precision="64-true"))
    assert (weights(one) - before).abs().max() > 1e-3
    assert (weights(one) - weights(two)).abs().max() < EXACT


@pytest.mark.slow
def test_a_gan_keeps_both_processes_in_step(data):
    torch.manual_seed(0)
    task = GeneratorTask(DCGAN((1, 16, 16), latent_dim=8, width=8), evaluate_every=0)
    strategy = "ddp_fork_find_unused_parameters_true"
    found = fit(task, data.view("public", "public", batch_size=32), 2, strategy=strategy)
    assert all(torch.isfinite(torch.tensor(value)) for value in found.values())
