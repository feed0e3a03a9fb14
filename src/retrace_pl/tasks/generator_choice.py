"""Which Lightning task trains which generator: the generator says so (`Generator.training_task`)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from importlib import import_module
from inspect import isabstract, isfunction, signature
from typing import Any, ClassVar, get_type_hints

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from retrace_pl.errors import InputError
from retrace_pl.models import Generator
from retrace_pl.tasks.base import BaseTask

__all__ = ["GeneratorTrainingTask", "generator_class", "generator_task", "task_of", "task_settings"]

GIVEN = ("generator", "features", "seed", "optimizer", "scheduler")
"""What a pipeline hands to every such task; the rest are settings of its own."""


class GeneratorTrainingTask(BaseTask):
    """Base of the tasks that train a generator; their constructors take what `GIVEN` names."""

    unused_parameters: ClassVar[bool] = False
    """True if some parameters have no gradient in a backward pass, which plain DDP refuses."""

    decode: Callable[[Tensor], list[str] | None] | None = None
    """For the log alone: what samples [n, ...] say, or None for samples that are looked at; whoever has the data sets
    it."""

    @abstractmethod
    def product(self) -> Generator:
        """Return the trained generator, in eval mode: what an audit uses."""


def task_of(kind: type[Generator]) -> type[GeneratorTrainingTask]:
    """The class of the task that trains a kind of generator.

    Raises:
        InputError: The generator names no such class.
    """
    module, _, name = kind.training_task.rpartition(".")
    try:
        task = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{kind.__name__}.training_task: there is no {kind.training_task!r}") from error
    if not (isinstance(task, type) and issubclass(task, GeneratorTrainingTask)):
        raise InputError(f"{kind.__name__}.training_task: {kind.training_task} is no GeneratorTrainingTask")
    return task


def task_settings(kind: type[Generator]) -> tuple[str, ...]:
    """Names of the settings that the task of a kind of generator has, in order."""
    return tuple(sorted(set(signature(task_of(kind)).parameters) - set(GIVEN)))


def generator_class(factory: Any) -> type[Generator] | None:
    """The class that a factory builds, where it can be told without building.

    Args:
        factory: A class, a partial of one, or a function whose result is annotated with one.
    """
    if isinstance(factory, type):
        return factory if issubclass(factory, Generator) else None
    if isinstance(factory, partial):
        found = (generator_class(part) for part in (factory.func, *factory.args))
        return next((kind for kind in found if kind is not None), None)
    try:
        result = get_type_hints(factory).get("return") if isfunction(factory) else None
    except NameError:  # annotations that only a type checker can resolve
        return None
    precise = isinstance(result, type) and issubclass(result, Generator) and not isabstract(result)
    return result if precise else None


def generator_task(
    generator: Generator,
    *,
    features: nn.Module | None = None,
    seed: int = 0,
    optimizer: OptimizerCallable | None = None,
    scheduler: LRSchedulerCallable | None = None,
    **settings: Any,
) -> GeneratorTrainingTask:
    """The task that trains a generator.

    Args:
        generator: The generator; its class names the task.
        features: Frozen classifier that only draws a curve.
        seed: Seed of the training.
        optimizer: Optimiser in place of the task's own; called with the parameters.
        scheduler: Learning-rate scheduler, stepped once an epoch; called with the optimiser.
        settings: The task's own settings.

    Raises:
        InputError: A setting that the task does not have, or refuses.
    """
    check_task_settings(type(generator), settings)
    given: dict[str, Any] = {"features": features, "seed": seed, "optimizer": optimizer, "scheduler": scheduler}
    return task_of(type(generator))(generator, **given, **settings)


def check_task_settings(kind: type[Generator], settings: dict[str, Any]) -> None:
    """Refuse settings that the task of a kind of generator does not have.

    Raises:
        InputError: There is one.
    """
    known = task_settings(kind)
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise InputError(f"generator.task has no setting {unknown[0]}; it has {', '.join(known)}")
