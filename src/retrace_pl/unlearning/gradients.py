"""Gradients record by record: what Fisher information and its inverse are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn import functional

from retrace_pl.unlearning.base import Batch, Batches

Weights = dict[str, Tensor]
"""One tensor per parameter that requires gradients, by its name."""

_CHUNK = 64
"""Records differentiated at once; more is not faster on a CPU."""

_CHUNK_NUMBERS = 2**26
"""Most numbers that the gradients of one chunk may hold: 256 MiB in single precision."""


def squared_gradients(model: nn.Module, batches: Batches) -> tuple[Weights, int]:
    """The mean over the records of the squared gradient of each one's loss, `E[(d l / d theta_i)^2]`.

    The square is taken record by record, not of a batch's mean gradient: the latter is smaller by up to the batch size.
    The loss is the cross-entropy under the label as given; the model is in eval mode meanwhile.

    Args:
        model: Returns logits `[n, K]`.
        batches: One pass over the records.

    Returns:
        The means in the shapes of the parameters, and the number of records. Zeros if there is none.
    """

    def squares(weights: Weights, inputs: Tensor, label: Tensor) -> Weights:
        gradients: Weights = grad(_loss_of_one(model))(weights, inputs, label)
        return {name: gradient.square() for name, gradient in gradients.items()}

    return _mean_over_records(model, batches, squares, 1)


def fisher_diagonal(model: nn.Module, batches: Batches) -> tuple[Weights, int]:
    """The diagonal of the Fisher information, `F_i = E_x sum_k p_k(x) (d log p_k(x) / d theta_i)^2`.

    The expectation over the label is exact, under the model's own prediction; the label as given is not used. It costs
    about K times as much as `squared_gradients`. The model is in eval mode meanwhile.

    Args:
        model: Returns logits `[n, K]`.
        batches: One pass over the records.

    Returns:
        The diagonal in the shapes of the parameters, and the number of records. Zeros if there is none.
    """

    def log_probabilities(weights: Weights, inputs: Tensor) -> tuple[Tensor, Tensor]:
        result = functional.log_softmax(_logits_of_one(model, weights, inputs), dim=0)
        return result, result

    def squares(weights: Weights, inputs: Tensor, label: Tensor) -> Weights:
        jacobians, log_p = jacrev(log_probabilities, has_aux=True)(weights, inputs)
        return {
            name: torch.tensordot(log_p.exp(), jacobian.square(), dims=1)  # over the classes
            for name, jacobian in jacobians.items()
        }

    for inputs, _ in batches:
        with evaluating(model), torch.no_grad():
            classes = model(inputs[:1]).shape[1]
        return _mean_over_records(model, batches, squares, classes)
    return _mean_over_records(model, batches, squares, 1)


def record_gradients(model: nn.Module, batches: Batches, records: int) -> Tensor:
    """The gradient of each record's loss, one row per record.

    Args:
        model: Returns logits `[n, K]`; it is in eval mode meanwhile.
        batches: One pass over the records.
        records: How many records to take from the start of the pass; fewer where there are not as many.

    Returns:
        `[N, P]`, P the number of parameters that require gradients, in the order of `model.parameters()`.
    """
    weights = trained_weights(model)
    size = sum(weight.numel() for weight in weights.values())
    reference = next(iter(weights.values()))
    rows = torch.empty(records, size, dtype=reference.dtype, device=reference.device)
    each = vmap(grad(_loss_of_one(model)), in_dims=(None, 0, 0))
    filled = 0
    with evaluating(model):
        for inputs, labels in _chunks(first(batches, records), size):
            gradients = each(weights, inputs, labels)
            rows[filled : filled + len(labels)] = torch.cat([gradients[name].flatten(1) for name in weights], dim=1)
            filled += len(labels)
    return rows[:filled]


def trained_weights(model: nn.Module) -> Weights:
    """The parameters that require gradients, detached, by name; they share the model's memory."""
    return {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}


def first(batches: Batches, records: int | None) -> Iterator[Batch]:
    """The batches of a pass up to a number of records, the last one cut; None takes them all."""
    left = records
    for inputs, labels in batches:
        if left is None:
            yield inputs, labels
            continue
        if left <= 0:
            return
        yield inputs[:left], labels[:left]
        left -= len(labels)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode for the time of the block: a batch-norm layer in train mode would mix the records' gradients."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _logits_of_one(model: nn.Module, weights: Weights, inputs: Tensor) -> Tensor:
    logits: Tensor = functional_call(model, weights, (inputs.unsqueeze(0),))
    return logits.squeeze(0)


def _loss_of_one(model: nn.Module) -> Callable[[Weights, Tensor, Tensor], Tensor]:
    def loss(weights: Weights, inputs: Tensor, label: Tensor) -> Tensor:
        return functional.cross_entropy(_logits_of_one(model, weights, inputs), label)

    return loss


def _chunks(batches: Batches, numbers: int) -> Iterator[Batch]:
    size = max(1, min(_CHUNK, _CHUNK_NUMBERS // numbers))
    for inputs, labels in batches:
        yield from zip(torch.split(inputs, size), torch.split(labels, size), strict=True)


def _mean_over_records(
    model: nn.Module, batches: Batches, of_one: Callable[[Weights, Tensor, Tensor], Weights], width: int
) -> tuple[Weights, int]:
    weights = trained_weights(model)
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    count = 0
    each = vmap(of_one, in_dims=(None, 0, 0))
    with evaluating(model):
        for inputs, labels in _chunks(batches, width * sum(weight.numel() for weight in weights.values())):
            for name, values in each(weights, inputs, labels).items():
                total[name] += values.sum(0)
            count += len(labels)
    return {name: value / max(1, count) for name, value in total.items()}, count
