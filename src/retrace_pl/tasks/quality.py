"""How well a model forgot and what it still knows, on the audit's own splits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from retrace_pl.data import AuditDataModule, LabelledRecords
from retrace_pl.errors import InputError, RunError
from retrace_pl.metrics import membership_auc


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
    test, forget = datamodule.split("test"), datamodule.split("forget")
    deleted = torch.isin(test.labels, torch.tensor(datamodule.deleted_classes, dtype=torch.int64))
    by_class = datamodule.deletion == "class"
    kept = ~deleted if by_class else torch.ones_like(deleted)
    for which, mask in (("retained", kept), ("deleted", deleted)):
        if not bool(mask.any()):
            raise InputError(f"test_size: the test split holds no {datamodule.noun} of the {which} classes; raise it.")

    modes = {module: module.training for module in model.modules()}
    model.to(device).eval()
    try:
        test_right, test_confidence = _predict(model, test, device, batch_size)
        forget_right, forget_confidence = _predict(model, forget, device, batch_size)
    finally:
        for module, training in modes.items():
            module.training = training
    return {
        "retain_acc": _mean(test_right[kept]),
        "forget_acc": _mean(test_right[deleted] if by_class else forget_right),
        "mia_auc": membership_auc(forget_confidence, test_confidence[deleted]),
        "test_acc": _mean(test_right),
    }


def _predict(
    model: nn.Module, records: LabelledRecords, device: torch.device | str, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Whether each record is classified correctly [n], and its largest probability [n] in double precision."""
    right, confidence = [], []
    for positions in torch.split(torch.arange(len(records)), batch_size):
        batch = records.subset(positions)
        logits = model(batch.inputs.to(device)).cpu().double()  # on the CPU: not every accelerator has float64
        if not bool(logits.isfinite().all()):
            raise RunError(
                f"{type(model).__name__} returns outputs that are not finite; lower the learning rate it was "
                "trained or unlearned with."
            )
        right.append(logits.argmax(1) == batch.labels)
        confidence.append(logits.softmax(1).amax(1))
    return torch.cat(right), torch.cat(confidence)


def _mean(right: Tensor) -> float:
    return float(right.double().mean())
