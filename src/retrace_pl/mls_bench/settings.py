"""The benchmark's settings (data, model, class to forget), its fixed recipe, and how much of it a preset runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from retrace_pl.errors import InputError
from retrace_pl.models import VGG16BN, ImageClassifier, MobileNetV2, ResNet20

IMAGE_SIZE, CHANNELS = 32, 3
"""Every image is resized to 32 x 32; greyscale is replicated to three channels."""

PUBLISHED_SEED = 42

PRETRAINING: dict[str, Any] = {
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "scheduler": "cosine",
}
"""Recipe of f+ and of the retrained reference; the cosine ends at 0 after the last epoch."""

UNLEARNING: dict[str, Any] = {"optimizer": "adam", "lr": 1e-3, "weight_decay": 0.0}
"""Recipe that every update rule gets, on all parameters; the rule does not choose it."""


@dataclass(frozen=True)
class Task:
    """A data set and the model that is trained on it.

    Args:
        name: Name without the class.
        data: Data set: "CIFAR10", "CIFAR100" or "FashionMNIST".
        num_classes: Classes K of the data set.
        model: Architecture; called with (channels, classes).
        smoke_images: Training images per class of the preset `smoke`; half as many test images.
        smoke_classes: Classes of the preset `smoke`, the first ones; None for all.
        smoke_batch: Records a step of the preset `smoke`.
        smoke_lr: Learning rate at which its pretraining begins. In so few steps a deep network without residual
            connections learns at a small one only: at a larger one its linear layers die in the first steps.
    """

    name: str
    data: str
    num_classes: int
    model: type[ImageClassifier]
    smoke_images: int
    smoke_classes: int | None = None
    smoke_batch: int = 32
    smoke_lr: float = PRETRAINING["lr"] / 4  # as the batch, a quarter of the benchmark's


TASKS = {
    task.name: task
    for task in (
        Task("resnet20-cifar10", "CIFAR10", 10, ResNet20, 200),
        Task("vgg16bn-cifar100", "CIFAR100", 100, VGG16BN, 100, smoke_classes=5, smoke_batch=16, smoke_lr=0.001),
        Task("mobilenetv2-fmnist", "FashionMNIST", 10, MobileNetV2, 60),
    )
}

SETTINGS = tuple(f"{name}-class0" for name in TASKS)
"""The three published settings; `-classN` with another N forgets that class instead."""


@dataclass(frozen=True)
class Setting:
    """A task and the class to forget.

    Args:
        task: Data set and model.
        forget_class: Index of the class, from 0.
    """

    task: Task
    forget_class: int = 0

    @property
    def name(self) -> str:
        """Full name, such as `mobilenetv2-fmnist-class0`."""
        return f"{self.task.name}-class{self.forget_class}"


def find_setting(name: str) -> Setting:
    """Reads the name of a setting.

    Args:
        name: A key of TASKS, alone (class 0) or with `-classN`.

    Returns:
        The setting.

    Raises:
        InputError: There is no such setting, or its data set has no such class.
    """
    match = re.fullmatch(r"(?P<task>.+?)(?:-class(?P<label>\d+))?", name)
    task = TASKS.get(match["task"]) if match else None
    if match is None or task is None:
        raise InputError(f"--setting {name!r} is unknown; choose one of {', '.join(SETTINGS)} (any class of the data)")
    label = int(match["label"] or 0)
    if label >= task.num_classes:
        raise InputError(f"--setting {name}: {task.data} has the classes 0 to {task.num_classes - 1}; choose one")
    return Setting(task, label)


@dataclass(frozen=True)
class Limits:
    """How much of the benchmark is run.

    Args:
        pretrain_epochs: Epochs of f+ and of the retrained reference.
        unlearn_epochs: Passes over the retained records while unlearning.
        train_limit: Training images per class, drawn at random; None for all.
        test_limit: Test images per class, drawn at random; None for all.
        batch_size: Records a step, in pretraining and of each stream while unlearning.
        classes: The first classes of the data set, which are then all that the model knows; None for all.
        pretrain_lr: Learning rate at which pretraining begins, above 0.

    Raises:
        InputError: A number is out of range, or leaves a single class.
    """

    pretrain_epochs: int = 80
    unlearn_epochs: int = 20
    train_limit: int | None = None
    test_limit: int | None = None
    batch_size: int = 128
    classes: int | None = None
    pretrain_lr: float = PRETRAINING["lr"]

    def __post_init__(self) -> None:
        if not 0 < self.pretrain_lr < float("inf"):
            raise InputError(f"--pretrain-lr is {self.pretrain_lr}; set it to a number above 0")
        for name, value in asdict(self).items():
            if isinstance(value, int) and value < 1:
                raise InputError(f"--{name.replace('_', '-')} is {value}; set it to 1 or more")
        if self.batch_size < 2:
            raise InputError("--batch-size is 1, which batch normalisation cannot train on; set it to 2 or more")
        if self.classes == 1:
            raise InputError("--classes is 1, which leaves nothing to retain; set it to 2 or more")

    def changed(self, overrides: Mapping[str, Any]) -> Limits:
        """The same with those of the given numbers that are not None."""
        return replace(self, **{name: value for name, value in overrides.items() if value is not None})


PRESETS = ("full", "smoke")
"""`full` is the published benchmark; `smoke` shows in minutes on two CPU cores that everything works, and its numbers
mean nothing beside the published ones."""


def find_preset(name: str, task: Task) -> Limits:
    """Finds a preset by name.

    Args:
        name: One of PRESETS.
        task: Data set and model.

    Raises:
        InputError: There is no such preset.
    """
    if name == "full":
        return Limits()
    if name == "smoke":
        images = task.smoke_images
        return Limits(
            pretrain_epochs=6,
            unlearn_epochs=2,
            train_limit=images,
            test_limit=images // 2,
            batch_size=task.smoke_batch,
            classes=task.smoke_classes,
            pretrain_lr=task.smoke_lr,
        )
    raise InputError(f"--preset {name!r} is unknown; choose one of {', '.join(PRESETS)}")
