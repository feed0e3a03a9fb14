"""The benchmark's published rows, as data: seed 42, class 0, the full recipe."""

from __future__ import annotations

from dataclasses import dataclass

from retrace_pl.mls_bench.scores import COLLAPSED, two_sided_score
from retrace_pl.mls_bench.settings import Setting


@dataclass(frozen=True)
class Published:
    """One published row.

    Args:
        method: Baseline, or "best agent" for the best of the published language-model agents.
        score: The published score; its AUC is not tie-corrected.
        retain_acc: Accuracy on the retained classes; None where only the score is published.
        forget_acc: Accuracy on the forgotten class.
        forget_mia_auc: AUC by position.
    """

    method: str
    score: float
    retain_acc: float | None = None
    forget_acc: float | None = None
    forget_mia_auc: float | None = None

    @property
    def two_sided(self) -> float | None:
        """The two-sided score of the published numbers."""
        if self.retain_acc is None or self.forget_acc is None or self.forget_mia_auc is None:
            return None
        return two_sided_score(self.retain_acc, self.forget_acc, self.forget_mia_auc)


_ROWS: dict[str, tuple[Published, ...]] = {
    "resnet20-cifar10": (
        Published("retain_finetune", 0.808, 0.876, 0.0, 0.451),
        Published("negative_gradient", 0.682, 0.173, 0.0, 0.126),
        Published("bad_teacher", 0.810, 0.844, 0.001, 0.414),
        Published("scrub", 0.811, 0.831, 0.0, 0.397),
        Published("best agent", 0.829),
    ),
    "vgg16bn-cifar100": (
        Published("retain_finetune", 0.686, 0.534, 0.0, 0.476),
        Published("negative_gradient", 0.549, 0.010, 0.0, 0.363),
        Published("bad_teacher", 0.681, 0.463, 0.0, 0.420),
        Published("scrub", 0.670, 0.451, 0.0, 0.440),
        Published("best agent", 0.691),
    ),
    "mobilenetv2-fmnist": (
        Published("retain_finetune", 0.819, 0.937, 0.0, 0.482),
        Published("negative_gradient", 0.691, 0.111, 0.0, 0.038),
        Published("bad_teacher", 0.812, 0.929, 0.0, 0.494),
        Published("scrub", 0.801, 0.924, 0.0, 0.521),
        Published("best agent", 0.817),
    ),
}


_BEST_TWO_SIDED = {"resnet20-cifar10": 0.929, "vgg16bn-cifar100": 0.844, "mobilenetv2-fmnist": 0.976}
"""Best two-sided score of all published rows, those of agents included, whose single metrics are not repeated here."""


def best_two_sided(setting: Setting) -> float | None:
    """The two-sided score of the best published row of a setting; None for a class other than 0."""
    return _BEST_TWO_SIDED.get(setting.task.name) if setting.forget_class == 0 else None


def published_rows(setting: Setting) -> tuple[Published, ...]:
    """The published rows of a setting; none for a class other than 0."""
    return _ROWS.get(setting.task.name, ()) if setting.forget_class == 0 else ()


def published_problems(row: Published, rows: tuple[Published, ...], min_retain: float) -> list[str]:
    """What is wrong with a published row, as far as its numbers tell.

    The accuracy of the original model is not published; plain fine-tuning on the retained records stands in for it.

    Args:
        row: The row.
        rows: All rows of the setting.
        min_retain: Smallest retained accuracy as a share of that of fine-tuning.

    Returns:
        Names of the problems.
    """
    best = next(other.retain_acc for other in rows if other.method == "retain_finetune")
    if row.retain_acc is None or best is None or row.retain_acc >= min_retain * best:
        return []
    return [COLLAPSED]
