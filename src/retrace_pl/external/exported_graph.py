"""An exported program as a module: a list of operator calls, interpreted one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["CurrentDevice", "ExportedGraph", "Name", "Step", "names_in"]


@dataclass(frozen=True)
class Name:
    """The value of an earlier node."""

    name: str


class CurrentDevice:
    """The device the model lies on now, in place of the one it was exported on."""


@dataclass(frozen=True)
class Step:
    """One operator call.

    Args:
        call: The operator.
        positional: Arguments of a Python operator.
        named: Arguments of a torch operator by the names of its schema.
        outputs: Names of the results; nested like the result, None where one is not used.
        last: Values that nothing needs after this step.
    """

    call: Callable[..., Any]
    positional: tuple[Any, ...]
    named: Mapping[str, Any]
    outputs: tuple[Any, ...]
    last: tuple[str, ...]


class ExportedGraph(nn.Module):
    """An exported program as a module: one image tensor in, class scores out.

    Args:
        steps: Operator calls in order.
        parameters: Graph input -> parameter or buffer.
        image: Name of the graph input that takes the images.
        results: Names of the values that are returned.
        batch: Batch size that the program was exported for, None where it takes any. Other batches are cut up and
            filled up.
    """

    def __init__(
        self, steps: list[Step], parameters: dict[str, Tensor], image: str, results: list[str], batch: int | None
    ) -> None:
        super().__init__()
        self._steps = steps
        self._image = image
        self._results = results
        self._batch = batch
        self._inputs: dict[str, str] = {}
        registered: dict[int, str] = {}
        for name, value in parameters.items():
            if id(value) not in registered:  # tied weights are one parameter
                registered[id(value)] = name
                if isinstance(value, nn.Parameter):
                    self.register_parameter(name, value)
                else:
                    self.register_buffer(name, value)
            self._inputs[name] = registered[id(value)]
        self._own_device = torch.device("cpu")

    def forward(self, images: Tensor) -> Any:
        """Map images [n, C, S, S] to what the exported model returned: a tensor, or a tuple of several."""
        self._own_device = images.device
        if self._batch is None or len(images) == self._batch:
            found = self._run(images)
        else:
            parts = [self._filled(part) for part in torch.split(images, self._batch)]
            found = tuple(torch.cat(column) for column in zip(*parts, strict=True))
        return found[0] if len(found) == 1 else found

    def _filled(self, images: Tensor) -> tuple[Tensor, ...]:
        n, batch = len(images), self._batch or 1
        full = torch.cat([images, images[-1:].expand(batch - n, *images.shape[1:])]) if n < batch else images
        return tuple(value[:n] for value in self._run(full))

    def _run(self, images: Tensor) -> tuple[Tensor, ...]:
        values: dict[str, Any] = {name: getattr(self, own) for name, own in self._inputs.items()}
        values[self._image] = images.clone()  # the program may work in place
        for step in self._steps:
            positional = [self._resolved(argument, values) for argument in step.positional]
            named = {name: self._resolved(argument, values) for name, argument in step.named.items()}
            _bind(step.outputs, step.call(*positional, **named), values)
            for name in step.last:
                values.pop(name, None)
        return tuple(values[name] for name in self._results)

    def _resolved(self, argument: Any, values: Mapping[str, Any]) -> Any:
        if isinstance(argument, Name):
            return values[argument.name]
        if isinstance(argument, list):
            return [self._resolved(item, values) for item in argument]
        return self._own_device if isinstance(argument, CurrentDevice) else argument


def _bind(outputs: tuple[Any, ...], result: Any, values: dict[str, Any]) -> None:
    if len(outputs) == 1 and not isinstance(outputs[0], tuple):
        result = result if isinstance(result, list | tuple) else (result,)
    elif len(outputs) == 1:
        result = (result,)
    for output, value in zip(outputs, result, strict=False):
        if isinstance(output, tuple):
            _bind(output, value, values)
        elif output is not None:
            values[output] = value


def names_in(argument: Any) -> Iterator[str]:
    """Names of the values that an argument uses."""
    if isinstance(argument, Name):
        yield argument.name
    elif isinstance(argument, list):
        for item in argument:
            yield from names_in(item)
