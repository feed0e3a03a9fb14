"""What reconstructions are judged against: the deleted records and those that put their errors in proportion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from retrace_pl.errors import InputError
from retrace_pl.metrics import Domain, ImageDomain
from retrace_pl.models import Classifier

Against = Literal["deleted", "holdout"]


class SplitData(Protocol):
    """The part of a data module that a reference is built from."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""

    @property
    def domain(self) -> Domain:
        """What kind of data it is."""

    def split(self, name: Any) -> Any:
        """One split with `inputs` [n, ...] and `labels` [n]."""


class Evaluated(NamedTuple):
    """What an evaluator makes of a set of inputs.

    Attributes:
        features: float64 of shape [n, F], on the CPU.
        labels: Predicted classes, int64 of shape [n], on the CPU.
    """

    features: Tensor
    labels: Tensor


@torch.no_grad()
def evaluate_inputs(evaluator: Classifier, inputs: Tensor, batch_size: int = 256) -> Evaluated:
    """Features and predicted classes of inputs, in batches, with the evaluator in eval mode.

    Args:
        evaluator: Its mode is restored afterwards.
        inputs: Shape [n, ...], on any device.
        batch_size: Inputs per forward pass.
    """
    parameter = next(evaluator.parameters(), None)
    device = inputs.device if parameter is None else parameter.device
    training = evaluator.training
    evaluator.eval()
    features, labels = [], []
    for start in range(0, len(inputs), batch_size):
        batch = inputs[start : start + batch_size].to(device)
        features.append(evaluator.features(batch).flatten(1).cpu().double())
        labels.append(evaluator(batch).argmax(dim=1).cpu())
    evaluator.train(training)
    return Evaluated(torch.cat(features), torch.cat(labels))


@dataclass(frozen=True, eq=False)
class Reference:
    """Everything the evaluation may see and the attack may not.

    Args:
        deleted_inputs: The deleted records, shape [n, ...], pixels in [0, 1] for images.
        deleted_labels: Their classes, int64 of shape [n].
        target_classes: Classes whose prediction counts as a class-based success. Empty, or all classes, where the
            deletion is not tied to classes; class-based success rates then do not apply.
        num_classes: Number of classes of the data.
        heldout_inputs: Records of the same classes that no model saw, shape [h, ...]; may be empty or None.
        heldout_labels: Their classes; needed for the floors where records of several classes were deleted.
        other_inputs: Records of other classes, shape [o, ...]; may be empty or None.
        centre: Mean input that centred cosine subtracts; the test split's mean image in an audit. By default the mean
            of the other-class records, without those of the held-out and without those of the deleted ones.
        against: Which records candidates are compared with. ``holdout`` is the control that tells a class leak (as near
            to unseen records of the class) from a record leak. Class-based success and the threshold of success by
            distance do not depend on it.
        domain: Distances, metrics and reference values of this kind of data; images by default.

    Raises:
        InputError: For empty or mismatched sets.
    """

    deleted_inputs: Tensor
    deleted_labels: Tensor
    target_classes: tuple[int, ...]
    num_classes: int
    heldout_inputs: Tensor | None = None
    heldout_labels: Tensor | None = None
    other_inputs: Tensor | None = None
    centre: Tensor | None = None
    against: Against = "deleted"
    domain: Domain = field(default_factory=ImageDomain)
    _cache: WeakKeyDictionary[Classifier, tuple[list[float], Evaluated]] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False
    )

    def __post_init__(self) -> None:
        if len(self.deleted_inputs) == 0:
            raise InputError("an evaluation needs at least one deleted record")
        if len(self.deleted_inputs) != len(self.deleted_labels):
            raise InputError(f"{len(self.deleted_inputs)} deleted records have {len(self.deleted_labels)} labels")
        if self.against == "holdout" and (self.heldout_inputs is None or len(self.heldout_inputs) == 0):
            raise InputError("against='holdout' needs held-out records, and heldout_inputs is empty")
        if any(not 0 <= label < self.num_classes for label in self.target_classes):
            raise InputError(f"target_classes {self.target_classes} must lie in [0, {self.num_classes})")
        shape = self.deleted_inputs.shape[1:]
        for name in ("heldout_inputs", "other_inputs"):
            inputs = getattr(self, name)
            if inputs is not None and len(inputs) and inputs.shape[1:] != shape:
                raise InputError(f"{name} have shape {list(inputs.shape[1:])}, the deleted records {list(shape)}")

    @classmethod
    def from_datamodule(
        cls, datamodule: SplitData, against: Against = "deleted", max_other: int = 2000, seed: int = 0
    ) -> Reference:
        """Build the reference of an audit from a data module that was set up.

        Deleted records are the forget split; held-out and other-class records come from the test split, which no model
        saw; the centre is the test split's mean. Target classes are the classes of the forget split.

        Args:
            datamodule: Needs `split("forget")`, `split("test")`, `num_classes` and `domain`, and the splits that the
                domain asks for.
            against: See the class.
            max_other: Most other-class records kept, drawn at random.
            seed: Seed of that draw.
        """
        domain = datamodule.domain.fitted(datamodule.split)
        forget, test = datamodule.split("forget"), datamodule.split("test")
        classes = torch.unique(forget.labels)
        same = torch.isin(test.labels, classes)
        inputs = test.inputs
        other = inputs[~same]
        keep = torch.randperm(len(other), generator=torch.Generator().manual_seed(seed))[:max_other]
        return cls(
            deleted_inputs=forget.inputs,
            deleted_labels=forget.labels,
            target_classes=tuple(int(label) for label in classes),
            num_classes=datamodule.num_classes,
            heldout_inputs=inputs[same],
            heldout_labels=test.labels[same],
            other_inputs=other[keep],
            centre=domain.centre(inputs),
            against=against,
            domain=domain,
        )

    @property
    def records(self) -> Tensor:
        """The records candidates are compared with, by `against`, shape [m, ...]."""
        if self.against == "holdout":
            assert self.heldout_inputs is not None
            return self.heldout_inputs
        return self.deleted_inputs

    @property
    def class_based(self) -> bool:
        """Whether predicting a target class says anything: some, but not all, classes are targets."""
        return 0 < len(set(self.target_classes)) < self.num_classes

    @property
    def mean_input(self) -> Tensor | None:
        """The centre of centred cosine, shape [...] of one record; None where records have no mean."""
        if self.centre is not None:
            return self.centre
        for inputs in (self.other_inputs, self.heldout_inputs):
            if inputs is not None and len(inputs):
                return self.domain.centre(inputs)
        return self.domain.centre(self.deleted_inputs)

    @property
    def success_threshold(self) -> float | None:
        """Largest distance that counts as a success, from the deleted records alone; None where no class has two."""
        return self.domain.success_threshold(self.deleted_inputs, self.deleted_labels)

    def evaluated(self, evaluator: Classifier) -> Evaluated:
        """Features and predicted classes of `records`, kept for as long as the evaluator's weights do not change."""
        state = [float(tensor.cpu().double().sum()) for tensor in evaluator.state_dict().values()]
        known = self._cache.get(evaluator)
        if known is None or known[0] != state:
            known = (state, evaluate_inputs(evaluator, self.records))
            self._cache[evaluator] = known
        return known[1]

    def is_target(self, labels: Tensor) -> Tensor:
        """Booleans of the shape of `labels`: is it a target class?"""
        return torch.isin(labels, torch.tensor(self.target_classes, dtype=labels.dtype, device=labels.device))


def reconstruction_floors(reference: Reference, evaluator: Classifier | None = None) -> dict[str, float | None]:
    """Numbers to print beside an audit's: what reconstructions without any model would score.

    Args:
        reference: Its deleted, held-out and other-class records; `against` plays no part.
        evaluator: The evaluation classifier, for ``heldout_sr_oracle``.

    Returns:
        The domain's own floors, for images the errors of `retrace_pl.metrics.mse_floors` and ``deleted_diversity``; and
        ``heldout_sr_oracle``, the share of unseen records of the deleted classes that the evaluator assigns to them,
        which bounds what ``sr_oracle`` can honestly reach. None where the records are missing.
    """
    heldout = reference.heldout_inputs
    success: float | None = None
    if evaluator is not None and heldout is not None and len(heldout) and reference.class_based:
        success = float(reference.is_target(evaluate_inputs(evaluator, heldout).labels).double().mean())
    return {
        **reference.domain.floors(
            reference.deleted_inputs,
            reference.deleted_labels,
            heldout,
            reference.heldout_labels,
            reference.other_inputs,
        ),
        "heldout_sr_oracle": success,
    }
