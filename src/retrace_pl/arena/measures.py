"""What an arena compares methods by: every figure taken from the records of its cells, with its name and meaning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retrace_pl.arena.record import CellRecord
from retrace_pl.audit import lookup

RETRAIN, IDENTITY = "Retrain", "Identity"
"""Classes of the anchors: what perfect unlearning leaves behind, and no unlearning at all."""

SHARED = tuple[str, float, int, str]


@dataclass(frozen=True)
class Measure:
    """A figure of a cell.

    Args:
        title: short name.
        definition: what it is, in a sentence or two.
        take: the figure of a record, or None where the record has none.
        percent: whether it is a share, shown in percent.
        signed: whether it is a difference, shown with its sign.
        fixed: whether it is shown with three decimals, as an AUC is.
        interval: path of the cell's own interval in its record, a mapping with `low`, `high` and `level`, or None.
    """

    title: str
    definition: str
    take: Callable[[CellRecord], float | None]
    percent: bool = False
    signed: bool = False
    fixed: bool = False
    interval: str | None = None


def number(record: CellRecord, path: str) -> float | None:
    """A finite number of a record at a dotted path, or None."""
    value = lookup(vars(record), path)
    plain = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if plain else None


def _at(path: str) -> Callable[[CellRecord], float | None]:
    return lambda record: number(record, path)


def _distance(name: str) -> Callable[[CellRecord], float | None]:
    def take(record: CellRecord) -> float | None:
        unlearned, retrained = number(record, f"unlearning.{name}"), number(record, f"retrained.{name}")
        return None if unlearned is None or retrained is None else abs(unlearned - retrained)

    return take


def _below(record: CellRecord) -> float | None:
    unlearned, retrained = number(record, "unlearning.retain_acc"), number(record, "retrained.retain_acc")
    return None if unlearned is None or retrained is None else retrained - unlearned


def _arms() -> dict[str, Measure]:
    """Success, FID and diversity of the attack and, at the same budget, of its two controls."""
    figures = (
        (
            "success",
            "sr_oracle",
            "Success",
            "share of candidates that the independent evaluator takes for deleted data",
        ),
        (
            "fid",
            "fid_oracle",
            "FID",
            "Fréchet distance to the deleted records in the evaluator's features; lower: nearer",
        ),
        ("diversity", "diversity", "Diversity", "mean distance between candidates; near 0: copies of one"),
    )
    arms = (
        ("", "attack_result", "", "of the attack on the original and the unlearned model"),
        ("prior_", "prior", ", prior only", "of the generator's own samples, without asking any model"),
        (
            "retrain_",
            "matched_retrain",
            ", matched retrain",
            "of the same attack on the original and a retrained model",
        ),
    )
    return {
        f"{prefix}{name}": Measure(
            title + words, f"{what[0].upper()}{what[1:]}, {where}.", _at(f"{arm}.{key}"), percent=name == "success"
        )
        for name, key, title, what in figures
        for prefix, arm, words, where in arms
    }


def _qualities() -> dict[str, Measure]:
    titles = {
        "retain_acc": "Retain accuracy",
        "forget_acc": "Forget accuracy",
        "test_acc": "Test accuracy",
        "mia_auc": "MIA AUC",
    }
    meaning = {
        "retain_acc": "Accuracy on the retained training records",
        "forget_acc": "Accuracy on the deleted records",
        "test_acc": "Accuracy on unseen records of all classes",
        "mia_auc": "AUC of a membership attack by confidence, deleted records against unseen ones of their class (0.5: "
        "tells nothing apart)",
    }
    found = {}
    for name, title in titles.items():
        percent = name != "mia_auc"
        found[name] = Measure(
            title, f"{meaning[name]}, after unlearning.", _at(f"unlearning.{name}"), percent, fixed=not percent
        )
        found[f"retrained_{name}"] = Measure(
            f"{title}, retrained",
            f"{meaning[name]}, of the model retrained without them, of the same seed and class.",
            _at(f"retrained.{name}"),
            percent,
            fixed=not percent,
        )
    return found


MEASURES: dict[str, Measure] = {
    "avoidable": Measure(
        "Avoidable leakage",
        "Success of the attack minus its success against a retrained model: what better unlearning would have "
        "prevented. Below 0 the attack finds less than in a retrained model.",
        _at("leakage.avoidable.value"),
        signed=True,
        interval="leakage.avoidable",
    ),
    "excess": Measure(
        "Excess leakage",
        "Success of the attack minus that of the generator's own samples: what asking the two models added. Deleting a "
        "whole class cannot bring it below what a retrained model gives away.",
        _at("leakage.excess.value"),
        signed=True,
        interval="leakage.excess",
    ),
    "record": Measure(
        "Record leakage",
        "How much nearer the candidates are to deleted than to unseen records of the class, (h - d) / (h + d): memory "
        "of records, not knowledge of the class.",
        _at("leakage.record.value"),
        signed=True,
        interval="leakage.record",
    ),
    **_arms(),
    **_qualities(),
    "utility_gap": Measure(
        "Utility gap",
        "Retain accuracy of the retrained model minus that of the unlearned one, of the same seed and class.",
        _below,
        signed=True,
    ),
    "forgetting_gap": Measure(
        "Forgetting gap",
        "Distance between the forget accuracies of the unlearned and the retrained model of the same seed and class.",
        _distance("forget_acc"),
        fixed=True,
    ),
    "mia_gap": Measure(
        "MIA gap",
        "Distance between the MIA AUCs of the unlearned and the retrained model of the same seed and class.",
        _distance("mia_auc"),
        fixed=True,
    ),
}
"""Every figure but the cost, which needs the other cells of an arena."""


def measures_of(records: Sequence[CellRecord]) -> dict[str, Measure]:
    """All measures of an arena: those of single cells, then the cost of unlearning.

    Cells that differ in access level or attack share one unlearned model; its cost is that of the cell that made it. A
    record without `seconds.unlearning` counts its whole unlearning stage, with loading and saving.

    Args:
        records: every cell of the arena.
    """
    seconds: dict[SHARED, float] = {}
    exact = {model_of(record) for record in records if "unlearning" in record.seconds}
    for record in records:
        model = model_of(record)
        spent = number(record, "seconds.unlearning" if model in exact else "seconds.unlearn") if record.done else None
        if spent is not None:
            seconds[model] = max(seconds.get(model, 0.0), spent)
    retraining: dict[tuple[int, str], float] = {}
    for record in records:
        if record.class_name == RETRAIN and model_of(record) in seconds:
            retraining.setdefault(model_of(record)[2:], seconds[model_of(record)])

    def ratio(record: CellRecord) -> float | None:
        model = model_of(record)
        whole = retraining.get(model[2:], 0.0)
        return seconds[model] / whole if model in seconds and whole > 0 else None

    whole_stage = "its whole stage, with loading and saving"
    some = f", or {whole_stage}, where its own time was not recorded" if exact else f", {whole_stage}"
    stage = "" if seconds.keys() <= exact else some
    return {
        **MEASURES,
        "seconds": Measure(
            "Seconds", f"Seconds the unlearning took{stage}.", lambda record: seconds.get(model_of(record))
        ),
        "cost": Measure(
            "Cost",
            f"Seconds the unlearning took{stage}, divided by those of retraining (same seed and class).",
            ratio,
            fixed=True,
        ),
    }


def model_of(record: CellRecord) -> SHARED:
    """What names an unlearned model: method, strength, seed and forget class."""
    return record.method, record.strength, record.seed, str(record.forget_class)
