"""What is checked before the first query of the search: one batch through every model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from retrace_pl.errors import InputError, RunError
from retrace_pl.external.black_box import BlackBox
from retrace_pl.external.inputs import Material, ModelInputs
from retrace_pl.external.opening import OpenedModel
from retrace_pl.external.outputs import OutputKind, only_tensor, output_kind
from retrace_pl.traces import Access

__all__ = ["CHECKED", "REPEATABLE", "CheckedModel", "allowed_access", "check_model", "declared_inputs"]

CHECKED = 8
"""Records of the batch that is tried out; a black box is asked for each of them twice."""

REPEATABLE = 1e-4
"""Largest difference of probabilities between two answers of a model to the same input that passes for rounding."""

SATURATED = 0.99
"""Probability from which equal answers to different records are no sign that a model ignores them."""

_FEW_LINES = 5
"""Longer messages of errors are programs with the reason in the last line."""


@dataclass(frozen=True)
class CheckedModel:
    """A model that answered the first batch as it should.

    Args:
        opened: The model.
        kind: What it returns.
        classes: Number of classes.
        repeatability: Largest difference of probabilities between two answers to the same inputs.
    """

    opened: OpenedModel
    kind: OutputKind
    classes: int
    repeatability: float

    def facts(self) -> dict[str, Any]:
        """Plain values for the record."""
        return {
            "format": self.opened.format,
            "outputs": self.kind,
            "classes": self.classes,
            "repeatability": self.repeatability,
        }


def declared_inputs(declared: Sequence[ModelInputs], models: Sequence[OpenedModel]) -> ModelInputs:
    """The records that all models take: what the user declared, completed by what the files say.

    Args:
        declared: What the user declared, an entry for every kind; the first kind is meant where nobody says anything.
        models: The models.

    Raises:
        InputError: A file says something else than was declared, or than another file does.
    """
    said = [(next(iter(kind.options())), "the command line", kind) for kind in declared if kind.options()]
    said += [(model.option, model.option, model.inputs) for model in models if model.inputs is not None]
    first, _, kind = said[0] if said else ("", "", declared[0])
    found = next((known for known in declared if type(known) is type(kind)), kind)
    sources = dict.fromkeys(found.options(), "the command line")
    for name, source, inputs in said:
        if type(inputs) is not type(kind):
            raise InputError(f"{name} is about {inputs.noun}, and {first} about {kind.noun}; all must be of one kind")
        for option, value in inputs.options().items():
            known = found.options().get(option)
            if known is not None and not _same(known, value):
                raise InputError(
                    f"{option}: {_text(known)} by {sources[option]}, but {source} was made for {_text(value)}"
                )
            sources.setdefault(option, source)
        found = found.completed(inputs)
    return found


def allowed_access(wanted: Access | None, models: Sequence[OpenedModel]) -> Access:
    """The access level of the attack: what was asked for, or the highest that all formats allow.

    Raises:
        InputError: A model's format allows less than was asked for.
    """
    levels = list(Access)
    lowest = min(models, key=lambda model: levels.index(model.access))
    if wanted is None:
        return lowest.access
    if levels.index(wanted) > levels.index(lowest.access):
        raise InputError(
            f"--access: {wanted} needs more than {lowest.option} gives: a {lowest.format} allows {lowest.access} access"
        )
    return wanted


def check_model(model: OpenedModel, material: Material, outputs: OutputKind | None, batch: Tensor) -> CheckedModel:
    """Shows a model one batch and looks at the answer.

    A module is shown the batch whole and one by one, which must make no difference; a black box is asked twice,
    and how far its answers are apart is measured.

    Args:
        model: The model.
        material: The records it takes.
        outputs: What it returns; None: found out here.
        batch: A few candidates [n, ...].

    Raises:
        InputError: The preprocessing is incomplete, or the answer is none; the message names the option.
    """
    noun = material.noun
    black_box = model.module if isinstance(model.module, BlackBox) else None
    try:
        with torch.no_grad():
            inputs = material.ready(batch)
            first = only_tensor(model.module(inputs))
            again = black_box.fresh(inputs) if black_box is not None else _one_by_one(model, inputs)
    except InputError as error:
        raise InputError(str(error) if str(error).startswith("--") else f"{model.option}: {error}") from error
    except RunError as error:
        raise InputError(f"{model.option}: {error}") from error
    except Exception as error:
        raise InputError(
            f"{model.option} cannot be run on {noun} {list(inputs.shape[1:])}: {_reason(error)}; {material.advice}"
        ) from error
    if len(first) != len(batch) or first.shape[1] < 2 or not bool(torch.isfinite(first).all()):
        raise InputError(
            f"{model.option} returns {list(first.shape)} for {len(batch)} {noun}, or values that are not finite; it "
            "must return finite scores of at least two classes for each"
        )
    kind = _kind(model, outputs, first)
    sure = kind == "probabilities" and float(first.max()) > SATURATED  # of one class, rounded
    if bool((first == first[:1]).all()) and not sure:
        raise InputError(
            f"{model.option} returns the same scores for {len(first)} different {noun}, so there is nothing to learn "
            f"from it; check the file, {material.declared}"
        )
    difference = float((_probabilities(first, kind) - _probabilities(again, kind)).abs().max())
    if black_box is None and difference > REPEATABLE:
        raise InputError(
            f"{model.option}: the probabilities of one input change by {difference:.2g} with the others of its batch, "
            "or from call to call; save the model after model.eval()"
        )
    return CheckedModel(model, kind, first.shape[1], difference)


def check_classes(models: Sequence[CheckedModel]) -> int:
    """The number of classes of all models.

    Raises:
        InputError: Two models differ.
    """
    first = models[0]
    for model in models[1:]:
        if model.classes != first.classes:
            raise InputError(
                f"{model.opened.option} has {model.classes} classes and {first.opened.option} has {first.classes}; "
                "both must have the same"
            )
    return first.classes


def _reason(error: Exception) -> str:
    """What went wrong, in one line: TorchScript prints the program first and the error last."""
    name, lines = type(error).__name__, [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[-1] if len(lines) > _FEW_LINES else " ".join(lines)
    return f"{name}: {message.removeprefix(f'{name}: ')}"


def _one_by_one(model: OpenedModel, inputs: Tensor) -> Tensor:
    return torch.cat([only_tensor(model.module(part)) for part in torch.split(inputs, 1)])


def _kind(model: OpenedModel, declared: OutputKind | None, outputs: Tensor) -> OutputKind:
    seen = output_kind(outputs)
    if isinstance(model.module, BlackBox):
        return "probabilities"
    if declared is None:
        return seen
    if declared != "logits" and seen != declared:
        raise InputError(f"--outputs: {declared} was declared, but {model.option} returns what looks like {seen}")
    return declared


def _probabilities(outputs: Tensor, kind: OutputKind) -> Tensor:
    return outputs.double() if kind == "probabilities" else outputs.double().softmax(dim=1)


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, tuple) and isinstance(second, tuple):
        longest = max(len(first), len(second))
        pairs = zip(first * (longest // len(first)), second * (longest // len(second)), strict=True)
        return all(abs(a - b) <= 1e-3 * max(1.0, abs(b)) for a, b in pairs)
    return bool(first == second)


def _text(value: Any) -> str:
    return ",".join(f"{item:g}" for item in value) if isinstance(value, tuple) else str(value)
