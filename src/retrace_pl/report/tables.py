"""Tables of the report: every attack number stands in one row with its controls at the same budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retrace_pl.audit import CONTROLS
from retrace_pl.metrics.glossary import Metric
from retrace_pl.report.figures import arm_number, arm_path, rivals
from retrace_pl.report.glossary import LEAKAGE, QUALITY, arm_title, format_value
from retrace_pl.report.run_data import RunData
from retrace_pl.report.significance import FURTHER_LEAKAGE

__all__ = [
    "Cell",
    "MetricRow",
    "MetricTable",
    "leakage_rows",
    "metric_cell",
    "metric_table",
    "quality_rows",
    "split_table",
]

NOT_RUN = "not run"
NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Args:
        text: The number, "not run" or "not applicable".
        interval: Its interval in words, or empty.
        missing: Whether there is no number.
    """

    text: str
    interval: str = ""
    missing: bool = False


@dataclass(frozen=True)
class MetricRow:
    """One metric over all arms.

    Args:
        metric: Title, direction and definition.
        cells: One for each arm of the table.
        floors: Reference values as (text, what it is).
    """

    metric: Metric
    cells: tuple[Cell, ...]
    floors: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class MetricTable:
    """Metrics of one level, attack and controls side by side.

    Args:
        level: ``instance`` or ``distribution``.
        arms: Ids of the columns.
        titles: Headings of the columns.
        rows: Metrics that apply to at least one arm.
        absent: Titles of metrics that apply to none.
    """

    level: str
    arms: tuple[str, ...]
    titles: tuple[str, ...]
    rows: tuple[MetricRow, ...]
    absent: tuple[str, ...]


def metric_table(run: RunData, level: str, arms: Sequence[str] | None = None) -> MetricTable:
    """The metrics of one level side by side.

    Args:
        run: The run.
        level: ``instance`` or ``distribution``.
        arms: Columns; by default the attack, every known control (run or not), further ones and rivals.
    """
    stored = run.get("controls")
    extra = [name for name in stored if name not in CONTROLS] if isinstance(stored, dict) else []
    arms = ("attack", *CONTROLS, *extra, *rivals(run)) if arms is None else tuple(arms)
    rows, absent = [], []
    for name, metric in run.glossary.metrics.items():
        cells = tuple(_cell(run, arm, level, name) for arm in arms)
        if all(cell.missing for cell in cells):
            absent.append(metric.title)
            continue
        rows.append(MetricRow(metric, cells, _floors(run, metric)))
    return MetricTable(level, arms, tuple(arm_title(arm) for arm in arms), tuple(rows), tuple(absent))


def _cell(run: RunData, arm: str, level: str, name: str) -> Cell:
    cell = metric_cell(run, arm_path(arm), level, name)
    without = not cell.missing and arm_number(run, arm, f"{level}.{name}") is None
    return Cell(NOT_APPLICABLE, missing=True) if without else cell


def metric_cell(run: RunData, path: str, level: str, name: str) -> Cell:
    """One metric with its interval.

    Args:
        run: The run.
        path: Where the metrics are in ``metrics.json``, such as ``controls.prior``.
        level: ``instance`` or ``distribution``.
        name: Key of the metric.
    """
    metric = run.glossary.metrics[name]
    if not isinstance(run.get(path), dict):
        return Cell(NOT_RUN, missing=True)
    value = run.number(f"{path}.{level}.{name}")
    if value is None:
        return Cell(NOT_APPLICABLE, missing=True)
    ends = run.get(f"{path}.{level}.intervals.{name}")
    interval = ""
    if isinstance(ends, list) and len(ends) == 2 and None not in ends:
        low, high = (format_value(float(end), metric.percent) for end in ends)
        interval = f"{low} to {high}"
    return Cell(format_value(value, metric.percent), interval)


def _floors(run: RunData, metric: Metric) -> tuple[tuple[str, str], ...]:
    words = run.glossary.floors
    values = ((run.number(f"floors.{floor}"), words[floor]) for floor in metric.floors)
    return tuple((format_value(value, metric.percent), label) for value, label in values if value is not None)


@dataclass(frozen=True)
class LeakageRow:
    """One kind of leakage: its name, definition, value, interval and how to read it."""

    title: str
    definition: str
    value: str
    interval: str
    reading: str
    note: str


def leakage_rows(run: RunData) -> list[LeakageRow]:
    """Excess, avoidable and record leakage as printed, "not run" where a control is missing; others where they ran."""
    rows = []
    further = {kind: words for kind, words in FURTHER_LEAKAGE.items() if isinstance(run.get(f"leakage.{kind}"), dict)}
    for kind, (title, definition) in (LEAKAGE | further).items():
        value, low, high = (run.number(f"leakage.{kind}.{key}") for key in ("value", "low", "high"))
        note = str(run.get(f"leakage.{kind}.note") or "")
        if value is None or low is None or high is None:
            rows.append(LeakageRow(title, definition, NOT_RUN, "", "The control it needs did not run.", note))
            continue
        numbers = [f"{number:+.3f}".replace("-", "\u2212") for number in (value, low, high)]
        reading = "above zero" if low > 0 else "below zero" if high < 0 else "includes zero: no evidence"
        rows.append(LeakageRow(title, definition, numbers[0], f"{numbers[1]} to {numbers[2]}", reading, note))
    return rows


@dataclass(frozen=True)
class QualityRow:
    """One measure of unlearning quality before, after, and in a model retrained without the deleted data."""

    title: str
    definition: str
    before: str
    after: str
    retrained: str


def quality_rows(run: RunData) -> list[QualityRow]:
    """Accuracies and membership inference of the original, the unlearned and the retrained model."""
    rows = []
    for key, (title, definition) in QUALITY.items():
        texts = []
        for model in ("original", "unlearning", "retrained"):
            value = run.number(f"{model}.{key}")
            missing = NOT_APPLICABLE if isinstance(run.get(model), dict) else NOT_RUN
            texts.append(missing if value is None else format_value(value, percent=True))
        rows.append(QualityRow(title, definition, texts[0], texts[1], texts[2]))
    return rows


def split_table(run: RunData) -> tuple[list[str], list[tuple[str, list[int]]]]:
    """Split names, and for each class its count in every split; a last row holds the totals."""
    splits = run.get("splits")
    if not isinstance(splits, dict) or not splits:
        return [], []
    names = list(splits)
    classes = list(dict.fromkeys(label for counts in splits.values() for label in counts))
    rows = [(label, [int(splits[name].get(label) or 0) for name in names]) for label in classes]
    rows.append(("all", [sum(column) for column in zip(*(counts for _, counts in rows), strict=True)]))
    return names, rows
