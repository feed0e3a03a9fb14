"""The shadow pair: the audited training and unlearning repeated on public records, so that the truth is known."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from retrace_pl.attacks import Shadow
from retrace_pl.data.second_deletion import ShadowData, shadow_data
from retrace_pl.errors import RunError
from retrace_pl.files import read_tensors, write_tensors
from retrace_pl.models import Classifier
from retrace_pl.pipeline.artefacts import classifier_artefact, unlearned_artefact
from retrace_pl.pipeline.cache import Artefact
from retrace_pl.pipeline.run_folder import seed_for
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.shared_training import Training
from retrace_pl.pipeline.train_stages import build_classifier, fit_classifier, forget
from retrace_pl.pipeline.training import check_finite, torch_device
from retrace_pl.traces import Access, ModelPair

SHADOW = "shadow"
WEIGHTS = f"{SHADOW}.safetensors"
"""The weights of both models, with the prefixes `original.` and `unlearned.`."""

BEFORE, AFTER = "original", "unlearned"


def shadow_records(run: AuditRun) -> ShadowData:
    """The public records of the shadow pair: what it is trained on, what it deletes, what it never saw."""
    return shadow_data(run.data, seed_for(run.config.seed, SHADOW))


def shadow_training(run: AuditRun) -> Training:
    """The shadow pair as one training, for `run_trainings`: its second model needs the first."""
    return Training(SHADOW, WEIGHTS, partial(_artefact, run), partial(_train, run))


def _seeds(run: AuditRun) -> tuple[int, int]:
    return seed_for(run.config.seed, SHADOW, BEFORE), seed_for(run.config.seed, SHADOW, AFTER)


def _artefact(run: AuditRun) -> Artefact:
    data, (before, after) = shadow_records(run).data, _seeds(run)
    first = classifier_artefact(run, SHADOW, "classifier", "train", before, data=data)
    second = unlearned_artefact(run, SHADOW, first.key, after, data=data)
    return Artefact(SHADOW, {"original": first.inputs, "unlearned": second.inputs})


def _train(run: AuditRun) -> None:
    data, (before, after) = shadow_records(run).data, _seeds(run)
    settings, method = run.config.classifier, run.config.unlearning
    fresh = partial(fit_classifier, run, settings=settings, stage="unlearn", data=data)
    original = fresh(f"{SHADOW}-{BEFORE}", split="train", seed=before)
    name = f"{SHADOW}-{AFTER}"
    unlearned: nn.Module
    if method.from_scratch:
        unlearned = fresh(name, split=method.from_scratch_split, seed=after)
    else:
        unlearned = forget(run, name, copy.deepcopy(original), data, after)
    weights: dict[str, torch.Tensor] = {}
    for prefix, model in ((BEFORE, original), (AFTER, unlearned)):
        check_finite(model, f"{SHADOW}-{prefix}")
        weights |= {f"{prefix}.{key}": value.cpu() for key, value in model.state_dict().items()}
    if run.is_rank_zero:
        write_tensors(run.folder.path(WEIGHTS), weights)


def load_shadow(run: AuditRun) -> Shadow:
    """The trained shadow pair at the audit's access level, on the device of the search, and its records.

    Raises:
        RunError: the stage that trains it ran without it.
    """
    path = run.folder.path(WEIGHTS)
    if not path.is_file():
        raise RunError(f"{path} does not exist; run `retrace unlearn` again with this attack in the settings")
    records, device = shadow_records(run), torch_device(run.config.trainer)
    original, unlearned = (_load(run, path, prefix).to(device) for prefix in (BEFORE, AFTER))
    return Shadow(
        pair=ModelPair(original, unlearned, Access(run.config.access)),
        deleted=records.deleted.inputs,
        retained=records.retained.inputs,
        unseen=records.unseen.inputs,
        unseen_retained=records.unseen_retained.inputs,
    )


def _load(run: AuditRun, path: Path, prefix: str) -> Classifier:
    model = build_classifier(run, run.config.classifier, 0)
    stored = read_tensors(path)
    model.load_state_dict(
        {key.removeprefix(f"{prefix}."): stored[key] for key in stored if key.startswith(f"{prefix}.")}
    )
    return model.eval()


@torch.no_grad()
def describe_shadow(run: AuditRun) -> dict[str, Any]:
    """Plain facts about the shadow pair for `metrics.json`: what it deleted, how many records, how well it did."""
    records, path = shadow_records(run), run.folder.path(WEIGHTS)
    facts: dict[str, Any] = {
        "deletion": records.deletion,
        "deleted": len(records.deleted),
        "retained": len(records.retained),
        "unseen": len(records.unseen),
        "unseen_retained": len(records.unseen_retained),
    }
    for prefix in (BEFORE, AFTER):
        model = _load(run, path, prefix)
        for name, tensors in (("unseen", records.unseen), ("unseen_retained", records.unseen_retained)):
            right = [
                model(inputs).argmax(1) == labels
                for inputs, labels in zip(
                    *(torch.split(part, 512) for part in (tensors.inputs, tensors.labels)), strict=True
                )
            ]
            facts[f"{prefix}_{name}_acc"] = float(torch.cat(right).double().mean()) if right else None
    return facts
