"""Weights as safetensors, together with the class that they belong to."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from retrace_pl.data.paths import one_line
from retrace_pl.errors import InputError
from retrace_pl.external.adapters import ImageInput
from retrace_pl.external.dotted import import_named
from retrace_pl.external.inputs import ModelInputs
from retrace_pl.external.texts import known_texts
from retrace_pl.models import ImageClassifier, TokenClassifier
from retrace_pl.pipeline.parsing import config_folders, read_mapping

__all__ = ["ModelClass", "known_inputs", "read_state_dict"]

_KNOWN: dict[type[nn.Module], Callable[[Any], ModelInputs]] = {
    ImageClassifier: lambda model: ImageInput(
        channels=model.in_channels, mean=(0.0,), std=(1.0,), input_range=(0.0, 1.0)
    ),
    TokenClassifier: known_texts,
}
"""Base class of this package -> what its networks take."""

_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")  # what DistributedDataParallel and torch.compile put before a name


class ModelClass:
    """The architecture that weights belong to.

    Args:
        name: Dotted path of an `nn.Module` class, a YAML file with ``class_path`` and ``init_args``, or the bare name
            of a packaged one such as ``small_cnn``.
        arguments: Arguments of the class; they go before those of a YAML file.
        classes: Number of classes, for architectures of this package whose weights do not tell it.
        channels: Channels of the images, likewise.

    Raises:
        InputError: There is no such class, or it is none of a network.
    """

    def __init__(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, classes: int | None, channels: int | None
    ) -> None:
        path, stored = _class_path(name)
        found = import_named(path, "--model-class")
        if not (inspect.isclass(found) and issubclass(found, nn.Module)):
            raise InputError(f"--model-class: {path} is no torch.nn.Module class")
        self.path = path
        self.kind: type[nn.Module] = found
        self.arguments = {**stored, **(arguments or {})}
        self.classes = classes
        self.channels = channels

    def build(self, weights: Mapping[str, Tensor]) -> nn.Module:
        """A network of this class, not loaded yet.

        Args:
            weights: For classes of this package: they tell the number of classes and channels.

        Raises:
            InputError: The class refuses the arguments.
        """
        arguments = dict(self.arguments)
        if issubclass(self.kind, ImageClassifier):
            arguments.setdefault("num_classes", _rows(weights.get("head.weight")) or self._known("classes"))
            arguments.setdefault("in_channels", _input_channels(weights) or self._known("channels"))
        try:
            return self.kind(**arguments)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"--model-args: {self.path} refuses {arguments}: {one_line(error)}") from error

    def _known(self, option: Literal["classes", "channels"]) -> int:
        value: int | None = getattr(self, option)
        if value is None:
            raise InputError(f"--{option}: the weights do not tell the number of {option}; give it")
        return value


def read_state_dict(path: Path, option: str, kind: ModelClass) -> tuple[nn.Module, ModelInputs]:
    """Builds a network and loads its weights from a safetensors file.

    Args:
        path: The file.
        option: The command-line option that named it, for messages.
        kind: The architecture.

    Returns:
        The network on the CPU, in eval mode, and what it takes, as far as its class tells.

    Raises:
        InputError: The file is damaged, or its weights are those of another architecture.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            weights = {_WRAPPERS.sub("", name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{option}: {path} cannot be read: {one_line(error)}") from error
    model = kind.build(weights)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            f"{option}: {path} does not hold the weights of {kind.path}; check --model-class and --model-args "
            f"({one_line(error)})"
        ) from error
    return model.eval(), known_inputs(model)


def known_inputs(model: nn.Module) -> ModelInputs:
    """What a network takes, as far as its class tells: images unless it is a classifier of texts of this package.

    Classifiers of images of this package standardise by themselves.
    """
    for kind, known in _KNOWN.items():
        if isinstance(model, kind):
            return known(model)
    return ImageInput()


def _class_path(name: str) -> tuple[str, dict[str, Any]]:
    """Dotted path and arguments behind a packaged name, a YAML file or a dotted path itself."""
    packaged = {file.stem: file for folder in reversed(config_folders()) for file in (folder / "model").glob("*.yaml")}
    path = packaged.get(name) or (Path(name) if name.endswith((".yaml", ".yml")) else None)
    if path is None:
        if "." not in name:
            known = ", ".join(sorted(packaged))
            raise InputError(f"--model-class: {name} is no dotted name and no packaged model; packaged are: {known}")
        return name, {}
    settings = read_mapping(path, "--model-class")
    if not isinstance(settings.get("class_path"), str):
        raise InputError(f"--model-class: {path} has no class_path")
    return settings["class_path"], dict(settings.get("init_args") or {})


def _rows(weight: Tensor | None) -> int | None:
    return None if weight is None or weight.ndim != 2 else len(weight)


def _input_channels(weights: Mapping[str, Tensor]) -> int | None:
    """Channels of the mean that a classifier of this package subtracts."""
    mean = weights.get("mean")
    return None if mean is None or mean.ndim != 4 else mean.shape[1]
