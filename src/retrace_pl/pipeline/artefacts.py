"""What each artefact of an audit depends on: the keys under which audits find one another's work.

Data and weights are in the keys by their content, so two audits share a model exactly where they would train the same
one: a classifier for several deleted classes, retrained models and controls for several unlearning methods.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from retrace_pl._version import __version__
from retrace_pl.data import AuditDataModule
from retrace_pl.pipeline.cache import Artefact, file_hash
from retrace_pl.pipeline.code import LIBRARIES, code_hashes
from retrace_pl.pipeline.runner import ARTEFACT_VERSION, AuditRun, arithmetic
from retrace_pl.pipeline.scoring import trace_key
from retrace_pl.pipeline.training import torch_device

TRACE_WEIGHTS = "trace_weights.json"
"""The fitted weights of the signals, where an audit fits them."""


def classifier_artefact(
    run: AuditRun, name: str, section: str, split: str, seed: int, *, data: AuditDataModule | None = None
) -> Artefact:
    """A classifier trained from scratch.

    Args:
        run: the audit.
        name: name of the model.
        section: its section of the settings.
        split: what it is trained on.
        seed: seed of its training.
        data: where the split is; the audit's data by default.
    """
    settings = {section: run.settings[section]}
    inputs = {
        "train": split_hash(data or run.data, split),
        "validation": split_hash(data or run.data, "test"),  # a scheduler may follow its loss
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
        "train": split_hash(run.data, "public"),
        "input_shape": list(run.data.sample_space),
        "settings": settings,
        "code": code_hashes(settings),
        "seed": seed,
    }
    return Artefact(name, inputs | _loading(run) | _training(run))


def unlearned_artefact(
    run: AuditRun, name: str, original: Path | str, seed: int, *, data: AuditDataModule | None = None
) -> Artefact:
    """The model that was made to forget, from the original's weights.

    Args:
        run: the audit.
        name: name of the model.
        original: weights of the original model, or the key of the artefact that they are.
        seed: seed of the unlearning.
        data: what is retained and deleted; the audit's data by default.
    """
    settings = run.settings["unlearning"]
    inputs = {
        "original": original if isinstance(original, str) else file_hash(original),
        "architecture": run.settings["classifier"]["model"],
        "retain": split_hash(data or run.data, "retain"),
        "forget": split_hash(data or run.data, "forget"),
        "num_classes": run.data.num_classes,
        "settings": settings,
        "code": code_hashes([settings, run.settings["classifier"]["model"]]),
        "seed": seed,
    }
    return Artefact(name, inputs | _loading(run) | _training(run))


def search_inputs(run: AuditRun, original: Path, generator: Path, attack: Any = None) -> dict[str, Any]:
    """What every search of one attack depends on, whatever its second model and its searcher.

    Args:
        run: the audit.
        original: weights of f+.
        generator: weights of the generator.
        attack: settings of the attack; the audit's own by default.
    """
    names = ("access", "queries", "traces", "latent", "attack")
    settings = {name: run.settings[name] for name in names}
    settings["traces"] = trace_key(settings["traces"])
    if attack is not None:
        settings["attack"] = attack
    architectures = {name: run.settings[name]["model"] for name in ("classifier", "generator")}
    probed = list(run.data.deleted_classes) if run.data.deletion == "class" else None  # a curve in the log shows them
    fitted = {"weights": file_hash(run.folder.path(TRACE_WEIGHTS))} if run.config.traces.fit_weights else {}
    return {
        **fitted,
        "original": file_hash(original),
        "generator": file_hash(generator),
        "architectures": architectures,
        "public": split_hash(run.data, "public"),
        "settings": settings,
        "probed": probed,
        "code": code_hashes([settings, architectures]),
        **platform(run),
    }


def search_artefact(common: Mapping[str, Any], name: str, second: Path, searcher: Any, seed: int) -> Artefact:
    """One search, and its part of the log.

    Args:
        common: `search_inputs` of its audit.
        name: label of the search, which the log's curves are called after.
        second: weights of the model that takes f-'s place.
        searcher: settings of the searcher.
        seed: seed of the search.
    """
    own = {"label": name, "second": file_hash(second), "searcher": searcher, "seed": seed}
    return Artefact(name, {**common, **own, "searcher_code": code_hashes(searcher)})


def prior_artefact(run: AuditRun, name: str, generator: Path, size: int, seed: int) -> Artefact:
    """A draw of the prior-only control.

    Args:
        run: the audit.
        name: label of the draw.
        generator: weights of the generator.
        size: candidates chosen.
        seed: seed of the draw.
    """
    inputs = {
        "label": name,
        "generator": file_hash(generator),
        "architecture": run.settings["generator"]["model"],
        "code": code_hashes(run.settings["generator"]["model"]),
        "settings": {name: run.settings[name] for name in ("queries", "latent")},
        "size": size,
        "seed": seed,
    }
    return Artefact(name, inputs | platform(run))


def split_hash(data: AuditDataModule, name: str) -> str:
    """Hash of the records of a split, in order."""
    split = data.split(name)
    digest = hashlib.sha256(f"{list(split.stored.shape)}".encode())
    digest.update(split.stored.contiguous().numpy().data)
    digest.update(split.labels.contiguous().numpy().data)
    return digest.hexdigest()


def _loading(run: AuditRun) -> dict[str, Any]:
    """How records become batches; workers and the default batch size change nothing."""
    return run.data.batching


def _training(run: AuditRun) -> dict[str, Any]:
    """How a training runs: several processes see several batches a step."""
    settings = run.settings["trainer"]
    processes = {name: settings[name] for name in ("devices", "num_nodes")}
    return arithmetic(settings) | processes | platform(run)


def platform(run: AuditRun) -> dict[str, Any]:
    """What decides the last digits of every number; threads and the machine's model are left out."""
    return {
        "version": [ARTEFACT_VERSION, __version__],
        "libraries": {name: _version(name) for name in LIBRARIES},
        "device": torch_device(run.config.trainer).type,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
