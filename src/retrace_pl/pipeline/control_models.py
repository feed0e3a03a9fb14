"""The pairs of models that the controls search in the audited pair's place, and which of them do not apply."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from retrace_pl.data.second_deletion import other_class, without_class
from retrace_pl.pipeline.needs import needs_wrong_class, reseeded_models, retrained_models
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.shared_training import Training
from retrace_pl.pipeline.train_stages import ORIGINAL, classifier_training, retrained_name, unlearning_training

WRONG_CLASS = "wrong-class"
"""Name of the model that forgot another class."""

Pairs = list[tuple[str, str]]
"""Names of the models before and after, one pair for each search."""


def reseeded_name(repeat: int) -> str:
    """Name of the model of one null pair: trained like f+ on the same records, with another seed."""
    return f"reseeded-{repeat}"


CONTROL_PAIRS: dict[str, Callable[[int], Pairs]] = {
    "matched_retrain": lambda repeats: [(ORIGINAL, retrained_name(repeat)) for repeat in range(repeats)],
    "identity": lambda repeats: [(ORIGINAL, ORIGINAL)],
    "null": lambda repeats: [(ORIGINAL, reseeded_name(repeat)) for repeat in range(repeats)],
    "never_trained": lambda repeats: [
        (retrained_name(repeat), retrained_name(repeat + 1)) for repeat in range(repeats)
    ],
    "wrong_class": lambda repeats: [(ORIGINAL, WRONG_CLASS)] * repeats,
}
"""Control -> the pairs that are searched, given the number of repeats."""


def inapplicable_controls(run: AuditRun) -> dict[str, str]:
    """Controls that were asked for and have nothing to run on in this audit, with the reason."""
    if needs_wrong_class(run.settings) and run.config.data.deletion == "records":
        return {"wrong_class": "single records were deleted, so there is no other class to delete in their place"}
    return {}


def control_pairs(run: AuditRun, control: str) -> Pairs:
    """The pairs that a control searches, none where it does not apply.

    Args:
        run: the audit.
        control: id of a control that is searched.
    """
    return [] if control in inapplicable_controls(run) else CONTROL_PAIRS[control](run.config.audit.repeats)


def wrong_class(run: AuditRun) -> int:
    """The class that the wrong-class control deletes.

    Raises:
        InputError: the setting names no retained class.
    """
    return other_class(run.data, run.config.audit.wrong_class)


def control_trainings(run: AuditRun) -> list[Training]:
    """The models of the controls, for `run_trainings`."""
    scratch = partial(classifier_training, run, section="classifier", stage="unlearn")
    found = [scratch(retrained_name(number), split="retain") for number in range(retrained_models(run.settings))]
    found += [scratch(reseeded_name(number), split="train") for number in range(reseeded_models(run.settings))]
    if needs_wrong_class(run.settings) and "wrong_class" not in inapplicable_controls(run):
        found.append(unlearning_training(run, WRONG_CLASS, without_class(run.data, wrong_class(run))))
    return found
