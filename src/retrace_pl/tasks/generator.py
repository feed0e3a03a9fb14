"""The Lightning module that trains the generator an audit searches through."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, ClassVar, Literal, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.image.fid import FrechetInceptionDistance
from torchvision.utils import make_grid

from retrace_pl.errors import InputError
from retrace_pl.models import (
    AdversarialGenerator,
    Classifier,
    DifferentiableAugmentation,
    ExponentialMovingAverage,
    FeatureExtractor,
    Generator,
)
from retrace_pl.tasks.base import epoch_seed, seeded
from retrace_pl.tasks.generator_choice import GeneratorTrainingTask

CURVES = ("train/loss_generator", "train/loss_discriminator", "train/real", "train/fake")


class GeneratorTask(GeneratorTrainingTask):
    """Trains a GAN on `(inputs, labels)` batches, labels unused; the averaged generator is the product.

    Both networks are updated once for every batch (manual optimisation, Adam), on differentiably augmented images, so
    that some hundreds of images are enough. Noise and augmentation come from a generator seeded with (seed, epoch,
    rank): a training resumed from the checkpoint of an epoch's end gives the weights of an uninterrupted one.

    Logs `train/loss_generator`, `train/loss_discriminator`, `train/real` and `train/fake` (the discriminator's mean
    logits) every epoch, and every `evaluate_every` epochs `val/fid_features`, where features are given, and in
    TensorBoard the images `samples/ema`, always from the same latents.

    Args:
        generator: The generator to train; it must know its discriminator, as `DCGAN` does.
        features: Frozen feature extractor of the FID-like curve: a classifier, or a module with `num_features` that
            maps inputs to features. It is copied and is no part of the checkpoints.
        lr: Learning rate of Adam, for both networks.
        discriminator_lr: Learning rate of the discriminator instead of its optimiser's own.
        betas: Adam's decay rates of both networks.
        ema_decay: Decay of the averaged generator, in [0, 1); see `ExponentialMovingAverage`.
        loss: `non_saturating` or `hinge`.
        translate: Largest shift of the differentiable augmentation, as a fraction of the image's side.
        cutout: Side of its cut-out, as a fraction of the image's side.
        num_samples: Images in the sample grid.
        evaluate_every: Epochs between two sample grids and two values of the FID-like curve; 0: only the last epoch.
        seed: Seed of the discriminator's start, the noise and the augmentation.
        optimizer: Another optimiser for both networks in Adam's place, called with the parameters; `lr` and `betas`
            are then not used.
        scheduler: Learning-rate scheduler of both networks, called with each optimiser; steps once an epoch.

    Raises:
        InputError: A generator without a discriminator, features without `num_features`, or a setting out of range.
    """

    unused_parameters: ClassVar[bool] = True  # each of the two networks is left out of the other's backward pass

    def __init__(
        self,
        generator: Generator,
        features: nn.Module | None = None,
        lr: float = 2e-3,
        discriminator_lr: float | None = None,
        betas: tuple[float, float] = (0.0, 0.99),
        ema_decay: float = 0.995,
        loss: Literal["non_saturating", "hinge"] = "non_saturating",
        translate: float = 0.0625,
        cutout: float = 0.0,
        num_samples: int = 64,
        evaluate_every: int = 10,
        seed: int = 0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        adam = partial(torch.optim.Adam, lr=lr, betas=(betas[0], betas[1]))
        super().__init__(adam if optimizer is None else optimizer, scheduler, seed=seed)
        if not isinstance(generator, AdversarialGenerator):
            raise InputError(f"{type(generator).__name__} has no discriminator to be trained against: use DCGAN")
        if lr <= 0 or (discriminator_lr is not None and discriminator_lr <= 0):
            raise InputError(f"lr and discriminator_lr must be positive, got {lr} and {discriminator_lr}")
        if num_samples < 1 or evaluate_every < 0:
            raise InputError("num_samples must be at least 1 and evaluate_every at least 0")
        if loss not in ("non_saturating", "hinge"):
            raise InputError(f"loss must be non_saturating or hinge, got {loss!r}")
        self.save_hyperparameters(
            {
                "lr": lr,
                "discriminator_lr": discriminator_lr,
                "betas": list(betas),
                "ema_decay": ema_decay,
                "loss": loss,
                "translate": translate,
                "cutout": cutout,
                "seed": seed,
            }
        )
        self.automatic_optimization = False
        self.generator = generator
        self.discriminator = seeded(generator.build_discriminator, epoch_seed(seed, 0))
        self.ema = ExponentialMovingAverage(generator, ema_decay)
        self.augment = DifferentiableAugmentation(translate, cutout)
        self.discriminator_lr = discriminator_lr
        self.loss = loss
        self.num_samples = num_samples
        self.evaluate_every = evaluate_every
        self._totals = torch.zeros(5)
        self._noise = torch.Generator().manual_seed(seed)
        self._fid = () if features is None else (_fid_of(features),)  # a tuple keeps it out of the state_dict

    def ema_generator(self) -> Generator:
        """Return the averaged generator, in eval mode and without gradients: what an audit uses."""
        return cast(Generator, self.ema.averaged())

    def product(self) -> Generator:
        """Return the averaged generator, as `ema_generator`."""
        return self.ema_generator()

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents [n, d] to samples [n, ...] of the averaged generator."""
        return torch.as_tensor(self.ema(latents))

    def configure_optimizers(self) -> Any:
        """Return the optimisers of the generator and of the discriminator, with their schedulers if there are any."""
        discriminator = self.optimizer(self.discriminator.parameters())
        if self.discriminator_lr is not None:
            for group in discriminator.param_groups:
                group["lr"] = self.discriminator_lr
        optimizers = [self.optimizer(self.generator.parameters()), discriminator]
        if self.scheduler is None:
            return optimizers
        return optimizers, [self.scheduler(optimizer) for optimizer in optimizers]

    def on_train_epoch_start(self) -> None:
        """Seed this epoch's noise and augmentation, and start its means."""
        super().on_train_epoch_start()
        self._totals = torch.zeros(5, device=self.device)
        self._noise.manual_seed(epoch_seed(self.seed, self.current_epoch + 1, self.global_rank))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Update the discriminator, then the generator, then its average."""
        real = batch[0]
        generator_optimizer, discriminator_optimizer = cast(list[Any], self.optimizers())
        latents = self.generator.sample_latents(len(real), self._noise, self.device)
        fake = self.generator(latents)

        real_logits = self.discriminator(self.augment(real, self._noise))
        fake_logits = self.discriminator(self.augment(fake.detach(), self._noise))
        discriminator_loss = self._discriminator_loss(real_logits, fake_logits)
        discriminator_optimizer.zero_grad()
        self.manual_backward(discriminator_loss)
        discriminator_optimizer.step()

        self.discriminator.requires_grad_(False)
        generator_loss = self._generator_loss(self.discriminator(self.augment(fake, self._noise)))
        generator_optimizer.zero_grad()
        self.manual_backward(generator_loss)
        generator_optimizer.step()
        self.discriminator.requires_grad_(True)
        self.ema.update(self.generator)

        values = torch.stack([generator_loss, discriminator_loss, real_logits.mean(), fake_logits.mean()]).detach()
        self._totals += torch.cat([values, values.new_ones(1)]) * len(real)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means, summed up here because logging every batch would slow a small GAN down."""
        super().on_train_epoch_end()
        means = self._totals[:4] / self._totals[4]
        self.log_dict(dict(zip(CURVES, means, strict=True)), sync_dist=True)
        for scheduler in cast(list[Any], self.lr_schedulers() or []):
            scheduler.step()
        if self._due():
            self._log_samples()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Compare real samples with as many generated ones in feature space, when it is due."""
        if not self._fid or not self._due() or self.trainer.sanity_checking:
            return
        if batch_idx == 0:
            self._fid[0].to(self.device).reset()
        real = batch[0]
        noise = torch.Generator().manual_seed(epoch_seed(self.seed, batch_idx, self.global_rank))
        self._fid[0].update(real.float(), real=True)
        self._fid[0].update(self(self.generator.sample_latents(len(real), noise, self.device)).float(), real=False)

    def on_validation_epoch_end(self) -> None:
        """Log the FID-like value when it is due."""
        super().on_validation_epoch_end()
        if self._fid and self._due() and not self.trainer.sanity_checking:
            self.log("val/fid_features", self._fid[0].compute().float())

    def _due(self) -> bool:
        done = self.current_epoch + 1
        last = self.trainer.max_epochs is not None and done == self.trainer.max_epochs
        return last or (self.evaluate_every > 0 and done % self.evaluate_every == 0)

    def _discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        if self.loss == "hinge":
            return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()
        return functional.softplus(-real).mean() + functional.softplus(fake).mean()

    def _generator_loss(self, fake: Tensor) -> Tensor:
        return -fake.mean() if self.loss == "hinge" else functional.softplus(-fake).mean()

    @torch.no_grad()
    def _log_samples(self) -> None:
        boards = [logger for logger in self.loggers if isinstance(logger, TensorBoardLogger)]
        if not boards or len(self.generator.output_shape) != 3 or self.generator.output_shape[0] not in (1, 3):
            return
        latents = self.generator.sample_latents(
            self.num_samples, torch.Generator().manual_seed(epoch_seed(self.seed, 0)), self.device
        )
        grid = make_grid(self(latents).float().clamp(0, 1), nrow=max(1, round(self.num_samples**0.5)), pad_value=1.0)
        for board in boards:
            board.experiment.add_image("samples/ema", grid.cpu(), self.current_epoch)


def _fid_of(features: nn.Module) -> FrechetInceptionDistance:
    if isinstance(features, Classifier):
        features = FeatureExtractor(features)
    if not isinstance(getattr(features, "num_features", None), int):
        raise InputError(f"features: {type(features).__name__} has no num_features; give a classifier, or set it")
    features = copy.deepcopy(features).eval().requires_grad_(False)
    return FrechetInceptionDistance(feature=features)
