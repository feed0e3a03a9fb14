"""The setting of the search benchmark: digits, one class deleted by retraining, a public set that never saw it.

Models are built from the package's own parts and kept as safetensors in a cache folder, one folder per seed.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from lightning import LightningModule, Trainer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from retrace_pl.data import DigitsSource, UnlearningDataModule
from retrace_pl.models import DCGAN, Classifier, Generator, SmallCNN
from retrace_pl.tasks import ClassifierTask, GeneratorTask
from retrace_pl.traces import FixedQuantile, ModelPair, TraceScorer

DELETED_CLASS = 3


@dataclass
class Setting:
    """One seed's models and data; only ``deleted`` and ``evaluator`` are kept from the attacker."""

    original: Classifier
    unlearned: Classifier
    evaluator: Classifier
    generator: Generator
    public: Tensor
    deleted: Tensor
    accuracy: dict[str, float]

    def scorer(self, access: str, tail: Literal["open", "clip"] = "open") -> TraceScorer:
        """The trace score of this pair at an access level, fitted on the public inputs.

        Args:
            access: ``black``, ``gray`` or ``white``.
            tail: What becomes of differences above the public ones' high quantile; see ``FixedQuantile``.
        """
        pair = ModelPair(self.original, self.unlearned, access)
        scorer = TraceScorer(pair, normaliser=FixedQuantile(tail=tail))
        scorer.fit(self.public)
        return scorer


def build(seed: int, cache: Path, *, classifier_epochs: int = 20, generator_epochs: int = 150) -> Setting:
    """Train, or read from the cache, the models of one seed (their data split has the same seed)."""
    data = UnlearningDataModule(
        DigitsSource(),
        forget_class=DELETED_CLASS,
        train_size=700,
        public_size=540,
        evaluator_size=250,
        test_size=230,
        image_size=16,
        channels=1,
        batch_size=64,
        seed=seed,
    )
    data.setup()
    folder = cache / f"digits-class{DELETED_CLASS}-c{classifier_epochs}-g{generator_epochs}-seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)

    def classifier(split: str, offset: int) -> Classifier:
        torch.manual_seed(1000 * seed + offset)
        model = SmallCNN(1, data.num_classes)
        path = folder / f"{split}.safetensors"
        if not path.exists():
            optimizer = partial(torch.optim.Adam, lr=1e-3)
            task = ClassifierTask(model, data.num_classes, optimizer=optimizer, seed=1000 * seed + offset)
            _fit(task, data.view(split), classifier_epochs)
            save_file(model.state_dict(), path)
        model.load_state_dict(load_file(path))
        return model.eval()

    original, unlearned, evaluator = (classifier(name, i) for i, name in enumerate(("train", "retain", "evaluator")))
    test = data.split("test")
    retained = test.labels != DELETED_CLASS
    accuracy = {
        "original": _accuracy(original, test.inputs, test.labels),
        "unlearned_retained": _accuracy(unlearned, test.inputs[retained], test.labels[retained]),
        "unlearned_deleted": _accuracy(unlearned, test.inputs[~retained], test.labels[~retained]),
        "evaluator": _accuracy(evaluator, test.inputs, test.labels),
    }
    generator = _generator(data, folder / "generator.safetensors", seed, generator_epochs)
    return Setting(
        original,
        unlearned,
        evaluator,
        generator,
        data.split("public").inputs,
        data.split("forget").inputs,
        accuracy,
    )


def _generator(data: UnlearningDataModule, path: Path, seed: int, epochs: int) -> Generator:
    torch.manual_seed(seed)
    generator: Generator = DCGAN((1, 16, 16), latent_dim=64)
    if not path.exists():
        task = GeneratorTask(generator, lr=2e-3, betas=(0.0, 0.99), translate=0.0625, seed=seed, evaluate_every=0)
        _fit(task, data.view("public"), epochs)
        save_file(task.ema_generator().state_dict(), path)
    generator.load_state_dict(load_file(path))
    return generator.eval().requires_grad_(False)


def _fit(task: LightningModule, data: object, epochs: int) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*number of training batches.*")
        trainer.fit(task, datamodule=data)  # type: ignore[arg-type]


@torch.no_grad()
def _accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    return float((model(inputs).argmax(1) == labels).float().mean())
