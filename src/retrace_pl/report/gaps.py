"""How far the models of each pair are apart on what a search selected: all there is to show where nobody can judge."""

from __future__ import annotations

from collections.abc import Sequence

from retrace_pl.report.glossary import arm_title, format_value
from retrace_pl.report.run_data import RunData

__all__ = ["gap_rows", "seen_as"]


def gap_rows(run: RunData) -> list[tuple[str, str, str]]:
    """Arm, mean distance of the probabilities, and the classes its first model sees; empty for an audit.

    Args:
        run: a run; only attacks on models that were brought along store these figures.
    """
    stored = run.get("gaps")
    classes = [str(name) for name in run.get("classes") or []]
    rows = []
    for name, values in stored.items() if isinstance(stored, dict) else ():
        gap = values.get("gap")
        title = arm_title(str(name).removeprefix("rival."))
        rows.append(
            (title, "unknown" if gap is None else format_value(gap), seen_as(values.get("labels") or [], classes))
        )
    return rows


def seen_as(labels: Sequence[int], classes: Sequence[str], shown: int = 3) -> str:
    """The classes that candidates were assigned to most often, with their shares.

    Args:
        labels: candidates assigned to each class.
        classes: names of the classes; their numbers are shown where there is none.
        shown: how many classes are named.
    """
    total = sum(labels)
    order = sorted(range(len(labels)), key=lambda index: -labels[index])[:shown]
    names = (classes[index] if index < len(classes) else str(index) for index in order)
    pairs = zip(names, (labels[index] for index in order), strict=True)
    return ", ".join(f"{name} {format_value(count / total, percent=True)}" for name, count in pairs if count)
