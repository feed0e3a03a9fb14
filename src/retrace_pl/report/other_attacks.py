"""The other attacks of an audit in rows, pictures and sentences: what they found, asked for, and were compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace_pl.report.glossary import attack_title, format_value

__all__ = ["answer_text", "asked_text", "finding_sentences"]

_ASKED = {
    "prediction": "probabilities",
    "loss": "losses",
    "gradient": "input gradients",
    "parameters": "the models' parameters",
}


def asked_text(asked: list[str]) -> str:
    """What an attack asked the two models for, in words."""
    return ", ".join(_ASKED.get(name, name) for name in asked) or "nothing"


def finding_sentences(name: str, values: Mapping[str, Any]) -> list[str]:
    """What an inference concluded, whether it was right, and the same on the matched retrain; plain text.

    Args:
        name: its key in ``metrics.json``.
        values: its entry there.
    """
    title = attack_title(name)
    if not values.get("applicable", True):
        return [f"{title} does not apply: {values.get('reason') or 'no reason was given'}"]
    lines = [f"{title}: {_concluded(values)}"]
    for control, row in (values.get("controls") or {}).items():
        what = "the matched retrain" if control == "matched_retrain" else control.replace("_", " ")
        found = _concluded(row) if row.get("applicable", True) else f"does not apply ({row.get('reason')})."
        lines.append(f"On {what}: {found}")
    return lines


def _concluded(values: Mapping[str, Any]) -> str:
    judged = values.get("judged")
    parts = [answer_text(values.get("answer") or {})]
    if isinstance(judged, Mapping):
        rest = {key: value for key, value in judged.items() if key != "correct"}
        if isinstance(judged.get("correct"), bool):
            parts[0] += " (correct)" if judged["correct"] else " (wrong)"
        parts += [answer_text(rest)] if rest else []
    elif values.get("reason"):
        parts.append(f"not judged: {values['reason']}")
    queries = values.get("queries")
    parts += [] if queries is None else [f"{queries:,} queries"]
    return "; ".join(part for part in parts if part) + "."


def answer_text(answer: Any) -> str:
    """Plain facts in words; long lists and tables are left to ``metrics.json``."""
    if isinstance(answer, Mapping):
        shown = {key: value for key, value in answer.items() if not isinstance(value, Mapping) and not _long(value)}
        return ", ".join(f"{str(key).replace('_', ' ')} {answer_text(value)}" for key, value in shown.items())
    if isinstance(answer, bool) or answer is None:
        return {True: "yes", False: "no", None: "unknown"}[answer]
    if isinstance(answer, float):
        return format_value(answer).replace("-", "\u2212")
    if isinstance(answer, list):
        return ", ".join(answer_text(item) for item in answer)
    return str(answer)


def _long(value: Any) -> bool:
    return isinstance(value, list) and (len(value) > 8 or any(isinstance(item, list | dict) for item in value))
