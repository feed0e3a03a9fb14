"""The setting of the search benchmarks: digits, one class deleted, a public set that never saw it.

Models are built from the package's own parts and kept as safetensors in a cache folder, one folder per seed.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from _presets import instantiate
from _training import accuracy, fit, stored
from retrace_pl.data import DigitsSource, UnlearningDataModule
from retrace_pl.models import DCGAN, Classifier, Generator, SmallCNN
from retrace_pl.tasks import ClassifierTask, GeneratorTask
from retrace_pl.tasks.unlearning import UnlearningTask
from retrace_pl.traces import FixedQuantile, ModelPair, TraceScorer

DELETED_CLASS = 3
UNLEARNERS = ("retrain", "negative_gradient", "retain_finetune")


@dataclass
class Setting:
    """One seed's models and data; only ``deleted`` and ``evaluator`` are kept from the attacker.

    ``unlearned`` is the retrained model; ``forgotten`` holds those of all unlearners that were asked for, by name.
    """

    original: Classifier
    unlearned: Classifier
    evaluator: Classifier
    generator: Generator
    public: Tensor
    deleted: Tensor
    accuracy: dict[str, float]
    forgotten: dict[str, Classifier] = field(default_factory=dict)

    def pair(self, access: str, unlearner: str = "retrain") -> ModelPair:
        """The original model and one that forgot; ``channels_last`` because the networks are small.

        Args:
            access: ``black``, ``gray`` or ``white``.
            unlearner: How the second model forgot.
        """
        second = self.unlearned if unlearner == "retrain" else self.forgotten[unlearner]
        return ModelPair(self.original, second, access, memory_format="channels_last")

    def scorer(self, access: str, tail: Literal["open", "clip"] = "open", unlearner: str = "retrain") -> TraceScorer:
        """The trace score of this pair at an access level, fitted on the public inputs.

        Args:
            access: ``black``, ``gray`` or ``white``.
            tail: What becomes of differences above the public ones' high quantile; see ``FixedQuantile``.
            unlearner: How the second model forgot.
        """
        scorer = TraceScorer(self.pair(access, unlearner), normaliser=FixedQuantile(tail=tail))
        scorer.fit(self.public)
        return scorer


def build(
    seed: int,
    cache: Path,
    *,
    classifier_epochs: int = 20,
    generator_epochs: int = 150,
    unlearners: tuple[str, ...] = ("retrain",),
) -> Setting:
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

    def classifier(split: str, offset: int) -> Classifier:
        def train(model: Classifier) -> nn.Module:
            optimizer = partial(torch.optim.Adam, lr=1e-3)
            task = ClassifierTask(model, data.num_classes, optimizer=optimizer, seed=1000 * seed + offset)
            fit(task, data.view(split), classifier_epochs)
            return model

        torch.manual_seed(1000 * seed + offset)
        return stored(SmallCNN(1, data.num_classes), folder / f"{split}.safetensors", train)

    original, unlearned, evaluator = (classifier(name, i) for i, name in enumerate(("train", "retain", "evaluator")))
    forgotten = {name: _forget(data, original, name, seed, folder) for name in unlearners if name != "retrain"}
    test = data.split("test")
    gone = test.labels == DELETED_CLASS
    found = {
        "original": accuracy(original, test.inputs, test.labels),
        "evaluator": accuracy(evaluator, test.inputs, test.labels),
    }
    for name, model in {"unlearned": unlearned, **forgotten}.items():
        found[f"{name}_retained"] = accuracy(model, test.inputs[~gone], test.labels[~gone])
        found[f"{name}_deleted"] = accuracy(model, test.inputs[gone], test.labels[gone])
    return Setting(
        original,
        unlearned,
        evaluator,
        _generator(data, folder / "generator.safetensors", seed, generator_epochs),
        data.split("public").inputs,
        data.split("forget").inputs,
        found,
        forgotten,
    )


def _generator(data: UnlearningDataModule, path: Path, seed: int, epochs: int) -> Generator:
    def train(model: Generator) -> nn.Module:
        task = GeneratorTask(model, lr=2e-3, betas=(0.0, 0.99), translate=0.0625, seed=seed, evaluate_every=0)
        fit(task, data.view("public"), epochs)
        return task.ema_generator()

    torch.manual_seed(seed)
    generator: Generator = DCGAN((1, 16, 16), latent_dim=64)
    return stored(generator, path, train).requires_grad_(False)


def _forget(data: UnlearningDataModule, original: Classifier, name: str, seed: int, folder: Path) -> Classifier:
    """What a packaged preset makes of the original model."""

    def train(model: Classifier) -> nn.Module:
        method = instantiate(f"unlearning/digits/{name}")
        task = UnlearningTask(model, method, data.num_classes, seed=1000 * seed + 3)
        fit(task, data.unlearning_view(batch_size=method.batch_size), method.epochs)
        return model

    return stored(copy.deepcopy(original).requires_grad_(True), folder / f"{name}.safetensors", train)
