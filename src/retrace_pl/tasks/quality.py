"""How well a model forgot and what it still knows, on the audit's own splits."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from retrace_pl.data import AuditDataModule, LabelledRecords
from retrace_pl.errors import InputError, RunError
from retrace_pl.metrics import membership_auc

QUALITY_SPLITS = ("test", "forget")
"""The splits on which a classifier's quality is measured."""


@torch.no_grad()
def unlearning_quality(
    model: nn.Module, datamodule: AuditDataModule, *, device: torch.device | str = "cpu", batch_size: int = 512
) -> dict[str, float]:
    """Measures retained utility, forgetting and membership leakage of one classifier.

    Definitions (all in [0, 1]):

    - `retain_acc`: accuracy on the test images of the retained classes; after deletion of single records, on all test
      images.
    - `forget_acc`: accuracy on the test images of the deleted classes; after deletion of single records, on the
      deleted records themselves. 0 is the aim for a deleted class, the accuracy of a retrained model for records.
    - `mia_auc`: AUC, ties counted as one half, of the largest softmax probability as a membership score; members are
      the deleted records, non-members unseen test images of the same classes. 0.5 leaks nothing; 0 leaks as much as 1.
    - `test_acc`: accuracy on all test images.

    Args:
        model: Returns logits `[n, K]`; it is evaluated in eval mode and left as it was found.
        datamodule: The audit's data; set up here if it was not yet.
        device: Where to compute; the model is moved there and stays.
        batch_size: Images per forward pass; the result does not depend on it.

    Returns:
        The four numbers.

    Raises:
        InputError: The test split holds no image of the retained or of the deleted classes.
        RunError: The model's outputs are not finite, so that no number would mean anything.
    """
    datamodule.setup()
    _require_both_kinds(datamodule)
    modes = {module: module.training for module in model.modules()}
    model.to(device).eval()
    try:
        logits = {name: _predict(model, datamodule.split(name), device, batch_size) for name in QUALITY_SPLITS}
    finally:
        for module, training in modes.items():
            module.training = training
    return quality_of_answers(type(model).__name__, datamodule, logits)


def quality_of_answers(name: str, datamodule: AuditDataModule, logits: Mapping[str, Tensor]) -> dict[str, float]:
    """What `unlearning_quality` measures, of a classifier that somebody has asked already.

    Args:
        name: Name of the classifier, for messages.
        datamodule: The audit's data.
        logits: Its logits [n, K] for the records of each of `QUALITY_SPLITS`, in order.

    Returns:
        The four numbers.

    Raises:
        InputError: The test split holds no image of the retained or of the deleted classes.
        RunError: An output is not finite.
    """
    deleted, kept = _require_both_kinds(datamodule)
    by_class = datamodule.deletion == "class"
    if not all(bool(values.isfinite().all()) for values in logits.values()):
        raise RunError(
            f"{name} returns outputs that are not finite; lower the learning rate it was trained or unlearned with."
        )
    test, forget = (values.cpu().double() for values in (logits["test"], logits["forget"]))
    test_right = test.argmax(1) == datamodule.split("test").labels
    forget_right = forget.argmax(1) == datamodule.split("forget").labels
    test_confidence, forget_confidence = (values.softmax(1).amax(1) for values in (test, forget))
    return {
        "retain_acc": _mean(test_right[kept]),
        "forget_acc": _mean(test_right[deleted] if by_class else forget_right),
        "mia_auc": membership_auc(forget_confidence, test_confidence[deleted]),
        "test_acc": _mean(test_right),
    }


def _require_both_kinds(datamodule: AuditDataModule) -> tuple[Tensor, Tensor]:
    """Which test records are of deleted classes [n], and which count as retained [n]; there must be some of both."""
    labels = datamodule.split("test").labels
    deleted = torch.isin(labels, torch.tensor(datamodule.deleted_classes, dtype=torch.int64))
    kept = ~deleted if datamodule.deletion == "class" else torch.ones_like(deleted)
    for which, mask in (("retained", kept), ("deleted", deleted)):
        if not bool(mask.any()):
            raise InputError(f"test_size: the test split holds no {datamodule.noun} of the {which} classes; raise it.")
    return deleted, kept


def _predict(model: nn.Module, records: LabelledRecords, device: torch.device | str, batch_size: int) -> Tensor:
    """Logits [n, K] on the CPU: not every accelerator has float64, in which they are compared."""
    parts = torch.split(torch.arange(len(records)), batch_size)
    return torch.cat([model(records.subset(part).inputs.to(device)).cpu() for part in parts])


def _mean(right: Tensor) -> float:
    return float(right.double().mean())
