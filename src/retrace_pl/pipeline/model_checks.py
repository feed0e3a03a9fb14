"""What is checked of models: of a freshly built one that two records go through it, of a trained one that it looks."""

from __future__ import annotations

import torch
from torch import nn

from retrace_pl.data import AuditDataModule
from retrace_pl.errors import InputError, RunError
from retrace_pl.models import Generator
from retrace_pl.models.behaviour import behaviour_of

__all__ = ["check_classifier", "check_generator", "check_trained"]

SHOWN = 2
"""Records that are tried out: the fewest with which a batch can be told from a single one."""

COMPARED = 32
"""Records that a trained classifier must not answer all alike."""

ALIKE = 1e-6
"""Differences of logits below this share of the largest one are those of rounding."""


def check_classifier(model: nn.Module, data: AuditDataModule, setting: str) -> None:
    """Shows a classifier two records of the data; its mode and torch's random numbers stay as they were.

    Args:
        model: the model.
        data: the audit's data.
        setting: the setting that named the model, for messages.

    Raises:
        InputError: it cannot be run on such records, or returns no logits of the data's classes.
    """
    records = data.split("public").subset(torch.arange(SHOWN)).inputs
    behaviour = behaviour_of(model)
    training = model.training
    kind = type(model).__name__
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = behaviour.forward(model.eval(), behaviour.to(records, _device(model)))
    except InputError as error:
        raise InputError(f"{setting}: {error}") from error
    except Exception as error:  # the model's own code
        raise InputError(
            f"{setting}: {kind} cannot be run on records {list(records.shape[1:])}: {type(error).__name__}: {error}; "
            "choose a model, or a size of the data, that fits the other"
        ) from error
    finally:
        model.train(training)
    if logits.shape[1] != data.num_classes:
        raise InputError(
            f"{setting}: {kind} returns {logits.shape[1]} logits a record, and the data has {data.num_classes} classes;"
            " build its last layer with the number of classes it is given"
        )


def check_trained(model: nn.Module, data: AuditDataModule, name: str, setting: str) -> None:
    """Refuses a trained classifier that gives the same answer whatever it is shown; its mode stays as it was.

    Args:
        model: the model.
        data: the audit's data.
        name: name of the model, for messages.
        setting: the setting that named its architecture, for messages.

    Raises:
        RunError: its logits are the same for different records.
    """
    records = data.split("test").subset(torch.arange(min(COMPARED, len(data.split("test"))))).inputs
    behaviour = behaviour_of(model)
    training = model.training
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        logits = behaviour.forward(model.eval(), behaviour.to(records, _device(model)))
    model.train(training)
    if len(logits) > 1 and float((logits - logits[:1]).abs().max()) <= ALIKE * float(logits.abs().max()):
        raise RunError(
            f"training of {name} ended with the same scores for {len(logits)} different records, so there is nothing "
            f"to attack or to judge with; see that {setting} ({type(model).__name__}) uses its input, or lower its "
            "learning rate"
        )


def check_generator(model: Generator, data: AuditDataModule, setting: str) -> None:
    """Lets a generator make two samples; its mode and torch's random numbers stay as they were.

    Args:
        model: the generator.
        data: the audit's data.
        setting: the setting that named it, for messages.

    Raises:
        InputError: it cannot be run, or makes samples of another shape than the data's records.
    """
    expected = data.split("public").subset(torch.arange(1)).inputs.shape[1:]
    training = model.training
    kind = type(model).__name__
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            latents = model.sample_latents(SHOWN, torch.Generator().manual_seed(0), _device(model))
            samples = model.eval()(latents)
    except Exception as error:  # the model's own code
        raise InputError(f"{setting}: {kind} makes no samples: {type(error).__name__}: {error}; mend it") from error
    finally:
        model.train(training)
    if samples.shape != (SHOWN, *expected):
        raise InputError(
            f"{setting}: {kind} makes samples of shape {list(samples.shape[1:])}, and the data's records have "
            f"{list(expected)}; build it for data.sample_space"
        )


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
