"""What is checked of a freshly built model before any time is spent on it: two records through it."""

from __future__ import annotations

import torch
from torch import nn

from retrace_pl.data import AuditDataModule
from retrace_pl.errors import InputError
from retrace_pl.models import Generator
from retrace_pl.models.behaviour import behaviour_of

__all__ = ["check_classifier", "check_generator"]

SHOWN = 2
"""Records that are tried out: the fewest with which a batch can be told from a single one."""


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
