"""The other attacks of an audit in rows, pictures and sentences: what they found, asked for, and were compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrace_pl.metrics.glossary import Metric
from retrace_pl.report.figures import arm_path
from retrace_pl.report.gallery import Panel, picture_panel
from retrace_pl.report.glossary import FACTS, attack_summary, attack_title, format_value
from retrace_pl.report.run_data import RunData
from retrace_pl.report.tables import Cell, MetricTable, metric_cell, metric_table

__all__ = ["OtherAttacks", "Row", "asked_text", "finding_sentences", "other_attacks"]

SHOWN = 6
NOT_RUN = Cell("not run", missing=True)

_ASKED = {
    "prediction": "probabilities",
    "loss": "losses",
    "gradient": "input gradients",
    "parameters": "the models' parameters",
}


@dataclass(frozen=True)
class Row:
    """One line of the comparison.

    Args:
        title: Name of the attack.
        summary: What it does, or empty.
        reason: Why it does not apply, or empty.
        asked: What it asked the models for.
        queries: Queries it used.
        success: Success under the evaluator with its interval.
        excess: What it has beyond prior only, with its interval.
        retrain: Success of the same attack on the matched retrain.
        cells: Further metrics, in the order of `OtherAttacks.columns`.
        settings: In what it differs from another attack of its class, in words, or empty.
    """

    title: str
    summary: str
    reason: str = ""
    asked: str = ""
    queries: str = ""
    success: Cell = NOT_RUN
    excess: Cell = NOT_RUN
    retrain: Cell = NOT_RUN
    cells: tuple[Cell, ...] = ()
    settings: str = ""


@dataclass(frozen=True)
class OtherAttacks:
    """Everything the report shows of the other attacks.

    Args:
        outcome: The metric of success.
        columns: The further metrics of the table.
        rows: The attack and prior only for comparison, then every baseline.
        panels: Pictures of those that apply.
        tables: All their metrics, together and for the single best candidate.
        findings: Sentences about each inference.
        parameters: Whether a baseline asked for the models' parameters, which the attack does not.
    """

    outcome: Metric
    columns: tuple[Metric, ...]
    rows: tuple[Row, ...]
    panels: tuple[Panel, ...]
    tables: tuple[MetricTable, ...]
    findings: tuple[list[str], ...]
    parameters: bool


def other_attacks(run: RunData) -> OtherAttacks | None:
    """The other attacks of a run; None where there are none, as in runs of earlier versions."""
    baselines, inferences = (_entries(run, key) for key in ("baselines", "inferences"))
    if not baselines and not inferences:
        return None
    outcome = str(run.get("leakage.excess.metric"))
    words = run.glossary.metrics
    outcome = outcome if outcome in words else "sr_oracle"
    arms = [f"baselines.{name}" for name, values in baselines.items() if values.get("applicable", True)]
    tables = tuple(metric_table(run, level, ("attack", "prior", *arms)) for level in ("distribution", "instance"))
    return OtherAttacks(
        outcome=words[outcome],
        columns=tuple(words[name] for name in _columns(run, outcome)),
        rows=(*_reference_rows(run, outcome), *(_row(run, name, baselines[name], outcome) for name in baselines)),
        panels=tuple(picture_panel(run, arm, attack_summary(arm.removeprefix("baselines.")), SHOWN) for arm in arms),
        tables=tables if arms else (),
        findings=tuple(finding_sentences(name, values, class_names(run)) for name, values in inferences.items()),
        parameters=any("parameters" in (values.get("asked") or ()) for values in baselines.values()),
    )


def class_names(run: RunData) -> list[str]:
    """Names of the classes by index; empty where the run did not store them."""
    stored = run.get("classes")
    return [str(name) for name in stored] if isinstance(stored, list) else []


def _entries(run: RunData, key: str) -> dict[str, dict[str, Any]]:
    stored = run.get(key)
    found = stored if isinstance(stored, dict) else {}
    return {str(name): values for name, values in found.items() if isinstance(values, dict)}


def _reference_rows(run: RunData, outcome: str) -> tuple[Row, ...]:
    """The attack itself and prior only: what the others are compared with."""
    signals, queries = run.get("setting.signals"), run.get("budget.queries")
    attack = Row(
        title="Attack",
        summary="What the rest of this report is about, and all that the verdict rests on.",
        asked=asked_text(signals) if isinstance(signals, list) else "",
        queries=_count(queries),
        success=_cell(run, "attack", outcome),
        excess=_leakage(run, "leakage.excess", outcome),
        retrain=_cell(run, "matched_retrain", outcome),
        cells=tuple(_cell(run, "attack", name) for name in _columns(run, outcome)),
    )
    prior = Row(
        title="Prior only",
        summary="Samples of the generator, drawn at random.",
        asked="nothing",
        queries="0",
        success=_cell(run, "prior", outcome),
        excess=Cell("", missing=True),
        retrain=Cell("", missing=True),
        cells=tuple(_cell(run, "prior", name) for name in _columns(run, outcome)),
    )
    return attack, prior


def _row(run: RunData, name: str, values: Mapping[str, Any], outcome: str) -> Row:
    title, summary, arm = attack_title(name), attack_summary(name), f"baselines.{name}"
    own = values.get("distinguished_by")
    settings = _facts(own) if isinstance(own, dict) else ""
    if not values.get("applicable", True):
        return Row(title, summary, reason=str(values.get("reason") or "no reason was given"), settings=settings)
    asked = values.get("asked")
    return Row(
        title=title,
        summary=summary,
        asked=asked_text(asked) if isinstance(asked, list) else "unknown",
        queries=_count(values.get("queries")),
        success=_cell(run, arm, outcome),
        excess=_leakage(run, f"{arm}.leakage.excess", outcome),
        retrain=metric_cell(run, f"{arm}.controls.matched_retrain", "distribution", outcome),
        cells=tuple(_cell(run, arm, metric) for metric in _columns(run, outcome)),
        settings=settings,
    )


def _columns(run: RunData, outcome: str) -> list[str]:
    """The further metrics of the table."""
    return [name for name in run.glossary.columns if name != outcome]


def _cell(run: RunData, arm: str, name: str) -> Cell:
    return metric_cell(run, arm_path(arm), "distribution", name)


def _leakage(run: RunData, path: str, outcome: str) -> Cell:
    value, low, high = (run.number(f"{path}.{key}") for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return NOT_RUN
    texts = [_signed(number, run.glossary.metrics[outcome].percent) for number in (value, low, high)]
    return Cell(texts[0], f"{texts[1]} to {texts[2]}")


def _signed(value: float, percent: bool) -> str:
    text = f"{100 * value:+.0f}" if percent else f"{value:+.3g}"
    return ("0" if text in ("+0", "-0") else text).replace("-", "\u2212")


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "unknown"


def asked_text(asked: list[str]) -> str:
    """What an attack asked the two models for, in words."""
    return ", ".join(_ASKED.get(name, name) for name in asked) or "nothing"


def finding_sentences(name: str, values: Mapping[str, Any], classes: Sequence[str] = ()) -> list[str]:
    """What an inference concluded, whether it was right, and the same on the matched retrain; plain text.

    Args:
        name: its key in ``metrics.json``.
        values: its entry there.
        classes: names of the classes, by index.
    """
    title = attack_title(name)
    if not values.get("applicable", True):
        return [f"{title} does not apply: {values.get('reason') or 'no reason was given'}"]
    lines = [f"{title}: {_concluded(values, classes)}"]
    for control, row in (values.get("controls") or {}).items():
        what = "the matched retrain" if control == "matched_retrain" else control.replace("_", " ")
        if row.get("applicable", True):
            lines.append(f"On {what}: {_concluded(row, classes, known=values.get('answer') or {})}")
        else:
            lines.append(f"On {what}: does not apply ({row.get('reason')}).")
    return lines


def _concluded(values: Mapping[str, Any], classes: Sequence[str], known: Mapping[str, Any] | None = None) -> str:
    """What one run concluded; facts of its answer that are known already are left out."""
    judged = values.get("judged")
    answer = dict(values.get("answer") or {})
    correct = judged.get("correct") if isinstance(judged, Mapping) else None
    parts = [_told(answer, classes)]
    if isinstance(correct, bool):
        parts[0] = f"{parts[0]} ({'correct' if correct else 'wrong'})".strip()
    if isinstance(judged, Mapping):
        parts.append(_facts({key: value for key, value in judged.items() if key != "correct"}))
    elif values.get("reason"):
        parts.append(f"not judged: {values['reason']}")
    parts.append(_facts({key: value for key, value in answer.items() if not known or known.get(key) != value}))
    queries = values.get("queries")
    parts += [] if queries is None else [f"{queries:,} queries"]
    return "; ".join(part for part in parts if part) + "."


def _told(answer: dict[str, Any], classes: Sequence[str]) -> str:
    """The deleted classes that an inference names, which are taken out of the answer; empty where it is not asked."""
    if answer.get("deleted_classes") == []:
        del answer["deleted_classes"]
        return "no class deleted"
    for key in ("deleted_classes", "class", "label"):
        named = answer.get(key)
        named = named if isinstance(named, list) else [named]
        if named and all(type(label) is int for label in named):
            del answer[key]
            words = ", ".join(classes[label] if 0 <= label < len(classes) else str(label) for label in named)
            return f"deleted class{'es' if len(named) > 1 else ''} {words}"
    return ""


def _facts(facts: Mapping[str, Any]) -> str:
    """Plain facts in words; what is long or nested is left to ``metrics.json``."""
    shown = {key: value for key, value in facts.items() if value is not None and not _long(value)}
    return ", ".join(_fact(FACTS.get(str(key), str(key).replace("_", " ")), value) for key, value in shown.items())


def _fact(words: str, value: Any) -> str:
    if isinstance(value, bool):
        return words if value else f"not {words}"
    return f"{words} {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return format_value(value).replace("-", "\u2212")
    return ", ".join(map(_value, value)) if isinstance(value, list) else str(value)


def _long(value: Any) -> bool:
    nested = isinstance(value, list) and any(isinstance(item, list | dict) for item in value)
    return isinstance(value, Mapping) or nested or (isinstance(value, list) and len(value) > 8)
