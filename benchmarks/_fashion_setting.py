"""The setting of the directional benchmark: Fashion-MNIST, one class deleted and absent from the public set.

Data, models and their training are those of ``configs/audit/fashion_mnist.yaml``. The original model and the evaluator
of a seed are shared by its deleted classes: their splits do not depend on the class. Weights are kept as safetensors.

Run as a script it trains, or reads from the cache, one seed and class:
``python benchmarks/_fashion_setting.py --seed 0 --deleted-class 8``.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import time
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from _training import accuracy, fit, stored
from retrace_pl.data import TorchvisionSource, UnlearningDataModule
from retrace_pl.models import DCGAN, Classifier, Generator, ResNetCIFAR
from retrace_pl.tasks import ClassifierTask, GeneratorTask
from retrace_pl.tasks.unlearning import UnlearningTask

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
CLASSES = (1, 5, 8)
UNLEARNERS = ("retrain", "negative_gradient", "retain_finetune")
CLASSIFIER_EPOCHS = 8
GENERATOR_EPOCHS = 14


@dataclass
class Setting:
    """One seed and deleted class; ``deleted``, ``evaluator`` and ``accuracy`` are kept from the attacker."""

    seed: int
    deleted_class: int
    original: Classifier
    unlearned: dict[str, Classifier]
    evaluator: Classifier
    generator: Generator
    public: Tensor
    deleted: Tensor
    accuracy: dict[str, float]


def data_module(seed: int, deleted_class: int) -> UnlearningDataModule:
    """The splits of one seed and class, prepared; Fashion-MNIST from ``RETRACE_DATA``, downloaded if need be."""
    settings = yaml.safe_load((CONFIGS / "data" / "fashion_mnist.yaml").read_text(encoding="utf-8"))["init_args"]
    root = os.environ.get("RETRACE_DATA", "~/.cache/retrace_pl")
    settings |= {"source": TorchvisionSource("FashionMNIST", root, download=True), "forget_class": deleted_class}
    data = UnlearningDataModule(**settings, seed=seed)
    data.setup()
    return data


def build(seed: int, deleted_class: int, cache: Path, *, generator_epochs: int = GENERATOR_EPOCHS) -> Setting:
    """Train, or read from the cache, the models of one seed and deleted class."""
    data = data_module(seed, deleted_class)
    shared = cache / f"fashion-seed{seed}"
    own = shared / f"class{deleted_class}"
    original = _classifier(data, "train", 1000 * seed, shared)
    evaluator = _classifier(data, "evaluator", 1000 * seed + 1, shared)
    unlearned = {"retrain": _classifier(data, "retain", 1000 * seed + 2, own)}
    for name in UNLEARNERS[1:]:
        unlearned[name] = _forget(data, original, name, 1000 * seed + 3, own / f"{name}.safetensors")
    generator = _generator(data, seed, generator_epochs, own / f"generator-{generator_epochs}.safetensors")
    return Setting(
        seed,
        deleted_class,
        original,
        unlearned,
        evaluator,
        generator,
        data.split("public").inputs,
        data.split("forget").inputs,
        _accuracies(data, deleted_class, {"original": original, "evaluator": evaluator, **unlearned}),
    )


def _classifier(data: UnlearningDataModule, split: str, seed: int, folder: Path) -> Classifier:
    def train(model: Classifier) -> nn.Module:
        optimizer = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
        scheduler = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=CLASSIFIER_EPOCHS)
        task = ClassifierTask(model, data.num_classes, optimizer=optimizer, scheduler=scheduler, seed=seed)
        fit(task, data.view(split, batch_size=128), CLASSIFIER_EPOCHS)
        return model

    torch.manual_seed(seed)
    model = ResNetCIFAR(data.channels, data.num_classes, depth=8, width=8)
    records = data.split(split)
    digest = hashlib.sha256(records.inputs.numpy().tobytes() + records.labels.numpy().tobytes()).hexdigest()[:12]
    return stored(model, folder / f"{split}-{digest}.safetensors", train)


def _forget(data: UnlearningDataModule, original: Classifier, name: str, seed: int, path: Path) -> Classifier:
    def train(model: Classifier) -> nn.Module:
        preset = CONFIGS / "unlearning" / "fashion_mnist" / f"{name}.yaml"
        method = _instantiate(yaml.safe_load(preset.read_text(encoding="utf-8")))
        task = UnlearningTask(model, method, data.num_classes, seed=seed)
        fit(task, data.unlearning_view(batch_size=method.batch_size), method.epochs)
        return model

    return stored(copy.deepcopy(original).requires_grad_(True), path, train)


def _instantiate(settings: dict[str, Any]) -> Any:
    module, _, name = settings["class_path"].rpartition(".")
    return getattr(import_module(module), name)(**settings.get("init_args", {}))


def _generator(data: UnlearningDataModule, seed: int, epochs: int, path: Path) -> Generator:
    def train(model: Generator) -> nn.Module:
        task = GeneratorTask(model, ema_decay=0.998, seed=seed, evaluate_every=0)
        fit(task, data.view("public", batch_size=32), epochs)
        return task.ema_generator()

    torch.manual_seed(seed)
    generator: Generator = DCGAN(data.input_shape, latent_dim=64, width=16, discriminator_width=16)
    return stored(generator, path, train).requires_grad_(False)


def _accuracies(data: UnlearningDataModule, deleted_class: int, models: dict[str, Classifier]) -> dict[str, float]:
    test = data.split("test")
    gone = test.labels == deleted_class
    found = {}
    for name, model in models.items():
        found[f"{name}_retained"] = accuracy(model, test.inputs[~gone], test.labels[~gone])
        found[f"{name}_deleted"] = accuracy(model, test.inputs[gone], test.labels[gone])
    return found


def main() -> None:
    """Train one seed and class and print the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--deleted-class", type=int, default=8)
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks"), help="where trained models are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    setting = build(arguments.seed, arguments.deleted_class, arguments.cache)
    seconds = round(time.perf_counter() - start)
    print(json.dumps({"seed": setting.seed, "class": setting.deleted_class, "seconds": seconds} | setting.accuracy))


if __name__ == "__main__":
    main()
