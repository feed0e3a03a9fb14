from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from retrace_pl.data import DigitsSource, UnlearningDataModule
from retrace_pl.errors import InputError
from retrace_pl.models import DCGAN, Generator, SmallCNN
from retrace_pl.tasks import GeneratorTask
from retrace_pl.tasks.base import epoch_seed


class Linear(Generator):
    """A generator that nothing adversarial can train."""

    latent_dim = 2
    output_shape = (3,)

    def forward(self, latents):
        return latents.repeat(1, 2)[:, :3]


def public(size=96, batch_size=32):
    data = UnlearningDataModule(
        DigitsSource(), forget_class=3, image_size=16, channels=1, batch_size=batch_size, public_size=size
    )
    return data.view("public", "public")


def task(features=None, seed=0, width=8, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GeneratorTask(DCGAN((1, 16, 16), latent_dim=8, width=width), features, seed=seed, **settings)


def fit(running, folder, epochs, resume=None, batch_size=32, **settings):
    settings = {"logger": False, "enable_checkpointing": False} | settings
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=epochs,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **settings,
    )
    view = public(batch_size=batch_size)
    trainer.fit(running, datamodule=view, ckpt_path=resume, weights_only=True if resume else None)
    return trainer


def classifier():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return SmallCNN(1, 10, width=4)


@pytest.mark.parametrize("loss", ["non_saturating", "hinge"])
def test_losses(loss):
    running = task(loss=loss)
    real, fake = torch.tensor([2.0, -0.5, 0.3]), torch.tensor([-1.5, 0.4, 0.0])
    if loss == "hinge":
        expected = ((0 + 1.5 + 0.7) + (0 + 1.4 + 1)) / 3
        wanted = (1.5 - 0.4) / 3
    else:
        bce = nn.functional.binary_cross_entropy_with_logits
        expected = bce(real, torch.ones(3)) + bce(fake, torch.zeros(3))
        wanted = bce(fake, torch.ones(3))
    assert float(running._discriminator_loss(real, fake)) == pytest.approx(float(expected), rel=1e-5)
    assert float(running._generator_loss(fake)) == pytest.approx(float(wanted), rel=1e-5)


def test_training_moves_samples_towards_the_data(tmp_path):
    running = task(width=16, lr=1e-3, ema_decay=0.9)
    latents = running.generator.sample_latents(96, torch.Generator().manual_seed(1))
    before = running(latents).mean(dim=0)
    trainer = fit(running, tmp_path, 12)
    real = torch.cat([batch[0] for batch in trainer.val_dataloaders]).mean(dim=0)
    after = running(latents).mean(dim=0)
    assert (after - real).square().mean() < 0.35 * (before - real).square().mean()
    assert trainer.global_step == 2 * 12 * 3  # two optimisers


def test_the_average_follows_every_update(tmp_path):
    running = task(ema_decay=0.5)
    start = {name: value.clone() for name, value in running.generator.state_dict().items()}
    fit(running, tmp_path, 1, batch_size=96)  # one update: decay 1 / 10
    assert int(running.ema.updates) == 1
    for name, value in running.generator.state_dict().items():
        expected = value if not value.is_floating_point() else 0.1 * start[name] + 0.9 * value
        torch.testing.assert_close(running.ema_generator().state_dict()[name], expected)
    product = running.ema_generator()
    assert isinstance(product, Generator)
    assert not any(module.training for module in product.modules())
    assert not any(parameter.requires_grad for parameter in product.parameters())


def test_fid_matches_the_definition_and_stays_out_of_checkpoints(tmp_path):
    features = classifier()
    running = task(features, evaluate_every=2)
    keep = ModelCheckpoint(tmp_path, save_last=True)
    trainer = fit(running, tmp_path, 2, batch_size=96, callbacks=[keep], enable_checkpointing=True)
    real = torch.cat([batch[0] for batch in trainer.val_dataloaders])
    noise = torch.Generator().manual_seed(epoch_seed(0, 0, 0))
    fake = running(running.generator.sample_latents(96, noise))
    x, y = (features.eval().features(images).double() for images in (real, fake))
    product = torch.cov(x.T) @ torch.cov(y.T)
    root = torch.linalg.eigvals(product).sqrt().real.sum()
    fid = (x.mean(0) - y.mean(0)).square().sum() + torch.cov(x.T).trace() + torch.cov(y.T).trace() - 2 * root
    assert trainer.callback_metrics["val/fid_features"].item() == pytest.approx(fid.item(), rel=1e-3)

    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert {name.split(".")[0] for name in saved["state_dict"]} == {"generator", "discriminator", "ema"}
    assert set(running.state_dict()) == set(task().state_dict())
    again = GeneratorTask.load_from_checkpoint(
        tmp_path / "last.ckpt", generator=DCGAN((1, 16, 16), latent_dim=8, width=8), weights_only=True
    )
    latents = again.generator.sample_latents(4, torch.Generator().manual_seed(0))
    assert torch.equal(again(latents), running(latents))


def test_features_of_any_module(tmp_path):
    class Pixels(nn.Module):
        num_features = 4

        def forward(self, inputs):
            return nn.functional.avg_pool2d(inputs, 8).flatten(1)

    trainer = fit(task(Pixels(), evaluate_every=0), tmp_path, 2)
    assert trainer.callback_metrics["val/fid_features"] > 0
    with pytest.raises(InputError, match="num_features"):
        task(nn.Identity())


def test_curves_and_samples_run_over_epochs(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="run", version="")
    running = task(classifier(), evaluate_every=2, num_samples=9)
    fit(running, tmp_path, 5, logger=logger)
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0}).Reload()
    for tag in ("train/loss_generator", "train/loss_discriminator", "train/real", "train/fake"):
        assert [event.step for event in events.Scalars(tag)] == [0, 1, 2, 3, 4]
    assert [event.step for event in events.Scalars("val/fid_features")] == [1, 3, 4]
    images = events.Images("samples/ema")
    assert [event.step for event in images] == [1, 3, 4]
    assert (images[0].width, images[0].height) == (3 * 18 + 2, 3 * 18 + 2)
    assert images[0].encoded_image_string != images[1].encoded_image_string


def test_resumed_training_gives_the_same_weights(tmp_path):
    def train(epochs, folder, resume=None):
        running = task(classifier(), cutout=0.25)
        keep = ModelCheckpoint(tmp_path / folder, save_last=True, save_top_k=0)
        fit(running, tmp_path, epochs, resume, callbacks=[keep], enable_checkpointing=True)
        return running.state_dict()

    whole = train(3, "whole")
    train(2, "parts")
    torch.rand(7)
    resumed = train(3, "parts", tmp_path / "parts" / "last.ckpt")
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_seed_decides_the_discriminator_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first, second, other = task(), task(), task(seed=1)
    assert torch.equal(state, torch.get_rng_state())
    name = next(name for name in first.state_dict() if name.startswith("discriminator") and name.endswith("original"))
    assert torch.equal(first.state_dict()[name], second.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, "lr"),
        ({"discriminator_lr": -1.0}, "discriminator_lr"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"translate": 2.0}, "translate"),
        ({"num_samples": 0}, "num_samples"),
        ({"loss": "wasserstein"}, "loss"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        task(**settings)


def test_generator_without_discriminator():
    with pytest.raises(InputError, match="Linear has no discriminator"):
        GeneratorTask(Linear())


def test_another_optimiser_and_a_scheduler_serve_both_networks(tmp_path):
    running = task(
        optimizer=partial(torch.optim.RMSprop, lr=1e-3), scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1)
    )
    trainer = fit(running, tmp_path, epochs=2)
    assert [type(optimizer) for optimizer in trainer.optimizers] == [torch.optim.RMSprop] * 2
    rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
    assert rates == pytest.approx([1e-5, 1e-5])
