"""What each artefact of an audit depends on: the keys under which audits find one another's work.

Data and weights are in the keys by their content, so two audits share a model exactly where they would train the same
one: a classifier for several deleted classes, retrained models and controls for several unlearning methods.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from retrace_pl._version import __version__
from retrace_pl.pipeline.cache import Artefact, file_hash
from retrace_pl.pipeline.runner import ARTEFACT_VERSION, AuditRun
from retrace_pl.pipeline.training import torch_device

LIBRARIES = ("retrace_pl", "torch", "torchvision", "lightning", "stable_baselines3", "sb3_contrib")
"""Packages whose code is known by a version; the file of any other class that a setting names is hashed."""


def classifier_artefact(run: AuditRun, name: str, section: str, split: str, seed: int) -> Artefact:
    """A classifier trained from scratch.

    Args:
        run: the audit.
        name: name of the model.
        section: its section of the settings.
        split: what it is trained on.
        seed: seed of its training.
    """
    settings = {section: run.settings[section]}
    inputs = {
        "train": split_hash(run, split),
        "validation": split_hash(run, "test"),  # a scheduler may follow its loss
        "num_classes": run.data.num_classes,
        "settings": settings[section],
        "code": code_hashes(settings),
        "seed": seed,
    }
    return Artefact(name, inputs | _loading(run) | _training(run))


def generator_artefact(run: AuditRun, name: str, seed: int) -> Artefact:
    """The generator; the evaluator's features only draw a curve, so it does not depend on the evaluator."""
    settings = run.settings["generator"]
    inputs = {
        "train": split_hash(run, "public"),
        "input_shape": list(run.data.input_shape),
        "settings": settings,
        "code": code_hashes(settings),
        "seed": seed,
    }
    return Artefact(name, inputs | _loading(run) | _training(run))


def unlearned_artefact(run: AuditRun, name: str, original: Path, seed: int) -> Artefact:
    """The model that was made to forget, from the original's weights.

    Args:
        run: the audit.
        name: name of the model.
        original: weights of the original model.
        seed: seed of the unlearning.
    """
    settings = run.settings["unlearning"]
    inputs = {
        "original": file_hash(original),
        "architecture": run.settings["classifier"]["model"],
        "retain": split_hash(run, "retain"),
        "forget": split_hash(run, "forget"),
        "num_classes": run.data.num_classes,
        "settings": settings,
        "code": code_hashes([settings, run.settings["classifier"]["model"]]),
        "seed": seed,
    }
    return Artefact(name, inputs | _loading(run) | _training(run))


def split_hash(run: AuditRun, name: str) -> str:
    """Hash of the records of a split, in order."""
    split = run.data.split(name)
    digest = hashlib.sha256(f"{list(split.pixels.shape)}".encode())
    digest.update(split.pixels.contiguous().numpy().data)
    digest.update(split.labels.contiguous().numpy().data)
    return digest.hexdigest()


def code_hashes(settings: Any) -> dict[str, str]:
    """Hash of the file of every class in the settings that is not part of a library: a user may edit it."""
    found = {}
    for path in sorted(set(_class_paths(settings))):
        module, _, name = path.rpartition(".")
        if module.partition(".")[0] in LIBRARIES:
            continue
        source = inspect.getsourcefile(getattr(import_module(module), name))
        if source is not None:
            found[path] = file_hash(Path(source))
    return found


def _class_paths(settings: Any) -> Iterator[str]:
    if isinstance(settings, dict):
        path = settings.get("class_path")
        if isinstance(path, str):
            yield path
        settings = list(settings.values())
    if isinstance(settings, list):
        for item in settings:
            yield from _class_paths(item)


def _loading(run: AuditRun) -> dict[str, Any]:
    """How records become batches; workers and the default batch size change nothing."""
    return {"augmentation": run.data.augmentation, "data_seed": run.data.seed}


def _training(run: AuditRun) -> dict[str, Any]:
    """How a training runs: several processes see several batches a step."""
    settings = run.settings["trainer"]
    names = ("precision", "accumulate_grad_batches", "devices", "num_nodes")
    return {name: settings[name] for name in names} | platform(run)


def platform(run: AuditRun) -> dict[str, Any]:
    """What decides the last digits of every number; threads and the machine's model are left out."""
    return {
        "version": [ARTEFACT_VERSION, __version__],
        "torch": torch.__version__,
        "device": torch_device(run.config.trainer).type,
    }
