"""The Lightning module that trains a generator of texts: language modelling, given what a text is about."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, distributed, nn
from torch.nn.utils.rnn import pad_sequence

from retrace_pl.errors import InputError
from retrace_pl.models import Generator, TextGenerator
from retrace_pl.tasks.base import epoch_seed
from retrace_pl.tasks.generator_choice import GeneratorTrainingTask

WARM_UP = 0.05
"""Share of all steps over which the learning rate rises where no scheduler is given."""


class TextGeneratorTask(GeneratorTrainingTask):
    """Trains a text generator on `(inputs, labels)` batches of token ids, labels unused.

    Loss, in nats per token, z the fixed encoder's latent of a text x:

        `-log p(x | sqrt(1 - noise^2) z + noise e), e ~ N(0, I)`.

    The encoder is fitted on the training texts before the first epoch, so the datamodule must be the trainer's. As it
    is not trained, nothing can teach it to say nothing: the posterior collapse of a variational auto-encoder with a
    strong decoder (Bowman et al., 2016), which an earlier form of this task suffered from, cannot happen. The latents
    of all texts are spread like N(0, I), the noise fills the space between them and leaves that spread as it is, so
    that a sample of N(0, I) is something the decoder has been trained on.

    Logs every epoch `train/loss`; after each validation `val/loss`, `val/perplexity` (its exp) and `val/gain`, by how
    many nats per token a text is less likely under the latent of another text: 0 means that z is ignored. Every
    `evaluate_every` epochs in TensorBoard the texts `samples/prior`, of the same latents always, as token ids where
    nobody has set `decode`.

    Args:
        generator: The generator to train.
        features: A classifier of the data; with it `val/classes` is logged, exp of the entropy of the classes that it
            gives to the samples: the number of classes among them.
        lr: Learning rate of AdamW.
        weight_decay: Its weight decay.
        noise: Standard deviation of the noise in z, in [0, 1).
        word_dropout: Probability with which a token of the history is blanked out, in [0, 1).
        clip_norm: Largest norm of the gradient, above 0.
        num_samples: Texts in the log.
        evaluate_every: Epochs between two looks at the samples; 0: only the last epoch.
        seed: Seed of all noise.
        optimizer: Another optimiser in AdamW's place, called with the parameters; `lr` and `weight_decay` are then not
            used.
        scheduler: Learning-rate scheduler, called with the optimiser; steps once an epoch. By default the rate rises
            over the first steps and then falls to 0 along a cosine.

    Raises:
        InputError: A generator that is no `TextGenerator`, or a setting out of range; when training starts, also fewer
            texts than the encoder needs.
    """

    def __init__(
        self,
        generator: Generator,
        features: nn.Module | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        noise: float = 0.3,
        word_dropout: float = 0.0,
        clip_norm: float = 1.0,
        num_samples: int = 16,
        evaluate_every: int = 1,
        seed: int = 0,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        adam = partial(torch.optim.AdamW, lr=lr, weight_decay=weight_decay)
        super().__init__(adam if optimizer is None else optimizer, scheduler, seed=seed)
        if not isinstance(generator, TextGenerator):
            raise InputError(f"{type(generator).__name__} is no generator of texts: use GPT2Generator")
        for name, value in (("lr", lr), ("clip_norm", clip_norm)):
            if not 0 < value < math.inf:
                raise InputError(f"generator.task: {name} must be positive, got {value}")
        if not 0 <= weight_decay < math.inf:
            raise InputError(f"generator.task: weight_decay must not be negative, got {weight_decay}")
        if not (0 <= noise < 1 and 0 <= word_dropout < 1):
            raise InputError(
                f"generator.task: noise and word_dropout must lie in [0, 1), got {noise} and {word_dropout}"
            )
        if num_samples < 1 or evaluate_every < 0:
            raise InputError("generator.task: num_samples must be at least 1 and evaluate_every at least 0")
        self.save_hyperparameters(
            {
                "lr": lr,
                "weight_decay": weight_decay,
                "noise": noise,
                "word_dropout": word_dropout,
                "clip_norm": clip_norm,
                "seed": seed,
            }
        )
        self.generator = generator
        self.noise = noise
        self.word_dropout = word_dropout
        self.clip_norm = clip_norm
        self.num_samples = num_samples
        self.evaluate_every = evaluate_every
        self._random = torch.Generator().manual_seed(seed)
        self._totals = torch.zeros(2)
        # a tuple keeps it out of the state_dict
        self._classifier: tuple[nn.Module, ...] = (
            () if features is None else (copy.deepcopy(features).eval().requires_grad_(False),)
        )

    def setup(self, stage: str) -> None:
        """Fit the generator's encoder on the training texts, those of all processes together."""
        if stage != "fit" or self.generator.encoder.fitted:
            return
        data = getattr(self.trainer, "datamodule", None)
        if data is None:
            raise InputError("TextGeneratorTask: give the trainer a datamodule, on whose texts the encoder is fitted")
        batches = [batch[0] for batch in data.train_dataloader()]
        if distributed.is_available() and distributed.is_initialized():
            parts: list[Any] = [None] * distributed.get_world_size()
            distributed.all_gather_object(parts, batches)
            batches = [batch for part in parts for batch in part]
        rows = [row for batch in batches for row in batch]
        self.generator.fit_encoder(pad_sequence(rows, batch_first=True, padding_value=self.generator.pad_id))

    def configure_optimizers(self) -> Any:
        """Return the optimiser with its schedule: the one given, or by default one of every step."""
        steps = self.trainer.estimated_stepping_batches
        if self.scheduler is not None or steps == math.inf:
            return super().configure_optimizers()
        from transformers import get_cosine_schedule_with_warmup

        optimizer = self.optimizer(self.trained_parameters())
        schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(WARM_UP * steps), int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def product(self) -> Generator:
        """Return the trained generator, in eval mode and without gradients."""
        return self.generator.eval().requires_grad_(False)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents [n, d] to token ids [n, L]."""
        return torch.as_tensor(self.generator(latents))

    def trained_parameters(self) -> Iterable[nn.Parameter]:
        """Those of the generator."""
        return self.generator.parameters()

    def on_train_epoch_start(self) -> None:
        """Seed this epoch's noise and start its sums."""
        super().on_train_epoch_start()
        self._random.manual_seed(epoch_seed(self.seed, self.current_epoch + 1, self.global_rank))
        self._totals = torch.zeros(2, device=self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch, in nats per token."""
        tokens = self.generator.tokens(batch[0])
        clean = self.generator.encode_own(tokens)
        drawn = torch.randn(clean.shape, generator=self._random).to(clean)  # on the CPU: the same on every device
        latents = math.sqrt(1 - self.noise**2) * clean + self.noise * drawn
        kept = None
        if self.word_dropout:
            kept = torch.rand(tokens.shape, generator=self._random).to(self.device) >= self.word_dropout
        losses, counts = self.generator.losses(latents, tokens, kept)
        self._totals += torch.stack([losses.detach().sum().float(), counts.sum().float()])
        return losses.sum() / counts.sum()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the gradient to `clip_norm`, whatever the trainer says."""
        self.clip_gradients(optimizer, gradient_clip_val=self.clip_norm, gradient_clip_algorithm="norm")

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean, and samples when they are due."""
        super().on_train_epoch_end()
        self.log("train/loss", self._totals[0] / self._totals[1], sync_dist=True)
        if self._due():
            self._log_samples()

    def on_validation_epoch_start(self) -> None:
        """Start the sums."""
        self._sums = torch.zeros(3, device=self.device)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Add up the losses of one batch under the texts' own latents and under each other's."""
        tokens = self.generator.tokens(batch[0])
        latents = self.generator.encode_own(tokens)
        own, counts = self.generator.losses(latents, tokens)
        other, _ = self.generator.losses(latents.roll(1, 0), tokens)
        self._sums += torch.stack([own.sum().float(), other.sum().float(), counts.sum().float()])

    def on_validation_epoch_end(self) -> None:
        """Log loss, perplexity and gain of all validation texts, and the number of classes when it is due."""
        super().on_validation_epoch_end()
        own, other, words = torch.as_tensor(self.all_gather(self._sums)).view(-1, 3).sum(0)
        self.log("val/loss", own / words)
        self.log("val/perplexity", (own / words).exp())
        self.log("val/gain", (other - own) / words)
        if self._classifier and self._due() and not self.trainer.sanity_checking:
            self.log("val/classes", self._number_of_classes())

    def _due(self) -> bool:
        done = self.current_epoch + 1
        last = self.trainer.max_epochs is not None and done == self.trainer.max_epochs
        return last or (self.evaluate_every > 0 and done % self.evaluate_every == 0)

    def _samples(self, count: int) -> Tensor:
        latents = self.generator.sample_latents(
            count, torch.Generator().manual_seed(epoch_seed(self.seed, 0)), self.device
        )
        return torch.as_tensor(self(latents))

    @torch.no_grad()
    def _number_of_classes(self) -> Tensor:
        classifier = self._classifier[0].to(self.device)
        shares = torch.softmax(classifier(self._samples(max(64, self.num_samples))).float(), dim=1).mean(0)
        return torch.as_tensor(torch.special.entr(shares).sum().exp())

    @torch.no_grad()
    def _log_samples(self) -> None:
        boards = [logger for logger in self.loggers if isinstance(logger, TensorBoardLogger)]
        if not boards:
            return
        samples = self._samples(self.num_samples)
        texts = (self.decode(samples) if self.decode else None) or [" ".join(map(str, row)) for row in samples.tolist()]
        for board in boards:
            board.experiment.add_text("samples/prior", "\n".join(f"- {text}" for text in texts), self.current_epoch)
