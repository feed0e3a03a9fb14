"""The Lightning module that trains a generator of texts as a variational auto-encoder."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from functools import partial

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from retrace_pl.errors import InputError
from retrace_pl.models import Generator, TextGenerator
from retrace_pl.tasks.base import epoch_seed, seeded
from retrace_pl.tasks.generator_choice import GeneratorTrainingTask


class TextGeneratorTask(GeneratorTrainingTask):
    """Trains a text generator on `(inputs, labels)` batches of token ids, labels unused: the evidence lower bound.

    Loss, per token of a batch, z ~ q(z | x) by the reparametrisation trick (Kingma and Welling, 2014):

        `mean over x of -log p(x | z) + beta sum over d of max(free_bits, mean over x of KL(q(z_d | x) || N(0, 1)))`.

    A decoder as strong as a transformer would rather ignore z, so that the KL vanishes and z means nothing. Against it:
    beta rises linearly from 0 over the first share `annealing` of the steps (Bowman et al., 2016), each dimension may
    carry `free_bits` nats at no cost (Kingma et al., 2016), and tokens of the decoder's history are blanked out with
    probability `word_dropout` (Bowman et al., 2016). The encoder is part of the training alone.

    Logs every epoch `train/loss`, `train/reconstruction` (nats per token), `train/kl` (nats per text) and `train/beta`;
    after each validation `val/perplexity`, `val/reconstruction` and `val/kl`, and every `evaluate_every` epochs in
    TensorBoard the texts `samples/prior` of the same latents always, as token ids where nobody has set `decode`.
    `val/perplexity` is exp of the bound per token without free bits and dropout, an upper bound of the perplexity.

    Args:
        generator: The generator to train.
        features: A classifier of the data; with it `val/classes` is logged, exp of the entropy of the classes that it
            gives to the samples: the number of classes among them.
        lr: Learning rate of AdamW.
        weight_decay: Its weight decay.
        beta: Weight of the KL after annealing, above 0.
        annealing: Share of all steps over which the weight rises, in [0, 1].
        free_bits: Nats per latent dimension that cost nothing, 0 or more.
        word_dropout: Probability with which a token of the history is blanked out, in [0, 1).
        clip_norm: Largest norm of the gradient, above 0.
        num_samples: Texts in the log.
        evaluate_every: Epochs between two looks at the samples; 0: only the last epoch.
        seed: Seed of the encoder's start and of all noise.
        optimizer: Another optimiser in AdamW's place, called with the parameters; `lr` and `weight_decay` are then not
            used.
        scheduler: Learning-rate scheduler, called with the optimiser; steps once an epoch.

    Raises:
        InputError: A generator that is no `TextGenerator`, or a setting out of range.
    """

    def __init__(
        self,
        generator: Generator,
        features: nn.Module | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        beta: float = 1.0,
        annealing: float = 0.5,
        free_bits: float = 0.25,
        word_dropout: float = 0.3,
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
            raise InputError(f"{type(generator).__name__} has no encoder to be trained with: use GPT2Generator")
        for name, value in (("lr", lr), ("beta", beta), ("clip_norm", clip_norm)):
            if not 0 < value < math.inf:
                raise InputError(f"generator.task: {name} must be positive, got {value}")
        for name, value in (("weight_decay", weight_decay), ("free_bits", free_bits)):
            if not 0 <= value < math.inf:
                raise InputError(f"generator.task: {name} must not be negative, got {value}")
        if not (0 <= annealing <= 1 and 0 <= word_dropout < 1):
            raise InputError(
                f"generator.task: annealing must lie in [0, 1] and word_dropout in [0, 1), got {annealing} and "
                f"{word_dropout}"
            )
        if num_samples < 1 or evaluate_every < 0:
            raise InputError("generator.task: num_samples must be at least 1 and evaluate_every at least 0")
        self.save_hyperparameters(
            {
                "lr": lr,
                "weight_decay": weight_decay,
                "beta": beta,
                "annealing": annealing,
                "free_bits": free_bits,
                "word_dropout": word_dropout,
                "clip_norm": clip_norm,
                "seed": seed,
            }
        )
        self.generator = generator
        self.encoder = seeded(generator.build_encoder, epoch_seed(seed, 0))
        self.beta = beta
        self.annealing = annealing
        self.free_bits = free_bits
        self.word_dropout = word_dropout
        self.clip_norm = clip_norm
        self.num_samples = num_samples
        self.evaluate_every = evaluate_every
        self._noise = torch.Generator().manual_seed(seed)
        self._totals = torch.zeros(5)
        # a tuple keeps it out of the state_dict
        self._classifier: tuple[nn.Module, ...] = (
            () if features is None else (copy.deepcopy(features).eval().requires_grad_(False),)
        )

    def product(self) -> Generator:
        """Return the trained generator, in eval mode and without gradients."""
        return self.generator.eval().requires_grad_(False)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents [n, d] to token ids [n, L]."""
        return torch.as_tensor(self.generator(latents))

    def trained_parameters(self) -> Iterable[nn.Parameter]:
        """Those of decoder and encoder."""
        return (*self.generator.parameters(), *self.encoder.parameters())

    def weight_of_kl(self) -> float:
        """The weight beta of the KL at this step."""
        steps = self.annealing * float(self.trainer.estimated_stepping_batches)
        return self.beta * (min(1.0, self.global_step / steps) if steps > 0 else 1.0)

    def posterior(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | x), each [n, d], for token ids [n, L] of the data."""
        mean, log_variance = self.encoder(self.generator.tokens(inputs))
        return mean, (0.5 * log_variance).exp()

    def on_train_epoch_start(self) -> None:
        """Seed this epoch's noise and start its sums."""
        super().on_train_epoch_start()
        self._noise.manual_seed(epoch_seed(self.seed, self.current_epoch + 1, self.global_rank))
        self._totals = torch.zeros(5, device=self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch, in nats per token."""
        tokens = self.generator.tokens(batch[0])
        kept = torch.rand(tokens.shape, generator=self._noise).to(self.device) >= self.word_dropout
        mean, log_variance = self.encoder(tokens)
        latents = mean + (0.5 * log_variance).exp() * self._normal(mean, self._noise)
        losses, counts = self.generator.losses(latents, tokens, kept)
        divergence = kl_of_dimensions(mean, log_variance).mean(0)
        weight = self.weight_of_kl()
        per_text = losses.mean() + weight * divergence.clamp_min(self.free_bits).sum()
        loss: Tensor = per_text / counts.float().mean()
        texts, words = len(tokens), counts.sum()
        sums = [
            loss.detach() * words,
            losses.detach().sum(),
            divergence.detach().sum() * texts,
            words,
            words.new_tensor(texts),
        ]
        self._totals += torch.stack([value.float() for value in sums])
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the gradient to `clip_norm`, whatever the trainer says."""
        self.clip_gradients(optimizer, gradient_clip_val=self.clip_norm, gradient_clip_algorithm="norm")

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means, and samples when they are due."""
        super().on_train_epoch_end()
        loss, reconstruction, kl, words, texts = self._totals
        means = {"loss": loss / words, "reconstruction": reconstruction / words, "kl": kl / texts}
        self.log_dict({f"train/{name}": value for name, value in means.items()}, sync_dist=True)
        self.log("train/beta", self.weight_of_kl())
        if self._due():
            self._log_samples()

    def on_validation_epoch_start(self) -> None:
        """Start the sums of the bound."""
        self._sums = torch.zeros(5, device=self.device)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Add up the bound and its two parts for one batch."""
        tokens = self.generator.tokens(batch[0])
        mean, log_variance = self.encoder(tokens)
        noise = torch.Generator().manual_seed(epoch_seed(self.seed, batch_idx, self.global_rank))
        losses, counts = self.generator.losses(mean + (0.5 * log_variance).exp() * self._normal(mean, noise), tokens)
        exact, _ = self.generator.losses(mean, tokens)
        kl = kl_of_dimensions(mean, log_variance).sum(1)
        sums = [(losses + kl).sum(), exact.sum(), kl.sum(), counts.sum(), counts.new_tensor(len(tokens))]
        self._sums += torch.stack([value.float() for value in sums])

    def on_validation_epoch_end(self) -> None:
        """Log perplexity, reconstruction and KL of all validation texts, and the number of classes when it is due."""
        super().on_validation_epoch_end()
        bound, exact, kl, words, texts = torch.as_tensor(self.all_gather(self._sums)).view(-1, 5).sum(0)
        self.log("val/perplexity", (bound / words).exp())
        self.log("val/reconstruction", exact / words)
        self.log("val/kl", kl / texts)
        if self._classifier and self._due() and not self.trainer.sanity_checking:
            self.log("val/classes", self._number_of_classes())

    def _due(self) -> bool:
        done = self.current_epoch + 1
        last = self.trainer.max_epochs is not None and done == self.trainer.max_epochs
        return last or (self.evaluate_every > 0 and done % self.evaluate_every == 0)

    def _normal(self, like: Tensor, noise: torch.Generator) -> Tensor:
        return torch.randn(like.shape, generator=noise).to(like)  # drawn on the CPU: the same on every device

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


def kl_of_dimensions(mean: Tensor, log_variance: Tensor) -> Tensor:
    """`KL(N(mean, exp(log_variance)) || N(0, 1))` of every dimension, in nats, shape of the arguments."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance)
