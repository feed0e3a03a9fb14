"""Which methods are ranked: those that broke the model, remember too much or failed are shown with the reason.

A method that broke the model is no better at unlearning for leaking less.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from retrace_pl.arena.measures import number
from retrace_pl.arena.record import CellRecord

_ROUNDING = 1e-9


def reasons(cells: Sequence[CellRecord], gate: Mapping[str, Any], measured: bool) -> Iterator[str]:
    """Why a method has no rank, each in words; nothing for a method that has one.

    Args:
        cells: its cells, failed ones included.
        gate: margins of the arena: `retain_margin`, `mia_margin` and, where given, `forget_margin`.
        measured: whether its avoidable leakage is known.
    """
    done = [record for record in cells if record.done]
    if len(done) < len(cells):
        yield f"{len(cells) - len(done)} of {len(cells)} cells failed"
    invalid = [record for record in done if record.verdict == "invalid"]
    if invalid:
        yield f"invalid audit in {len(invalid)} of {len(done)} cells: {invalid[0].verdict_reason or 'no reason given'}"
    if done and not measured:
        yield "avoidable leakage was not measured at every access level of any seed and class"
    yield from _lost(done)
    yield from _outside(done, gate)


def _lost(done: Sequence[CellRecord]) -> Iterator[str]:
    for name, words in (("retain_acc", "retain accuracy"), ("mia_auc", "MIA AUC"), ("forget_acc", "forget accuracy")):
        lost = [
            record
            for record in done
            if number(record, f"unlearning.{name}") is None and number(record, f"retrained.{name}") is not None
        ]
        if lost:
            yield f"{words} is no number in {len(lost)} of {len(done)} cells"


def _outside(done: Sequence[CellRecord], gate: Mapping[str, Any]) -> Iterator[str]:
    """Margins that the mean over all finished cells exceeds; a figure that the reference lacks too bounds nothing."""
    retain, forget, mia = (_pairs(done, name) for name in ("retain_acc", "forget_acc", "mia_auc"))
    if retain:
        mine, reference = _means(retain)
        if reference - mine > gate["retain_margin"] + _ROUNDING:
            yield _against("retain accuracy", mine, "below", reference, gate["retain_margin"])
    if forget and gate.get("forget_margin") is not None:
        mine, reference = _means(forget)
        if mine - reference > gate["forget_margin"] + _ROUNDING:
            yield _against("forget accuracy", mine, "above", reference, gate["forget_margin"])
    if mia:
        distance = sum(abs(unlearned - retrained) for unlearned, retrained in mia) / len(mia)
        if distance > gate["mia_margin"] + _ROUNDING:
            yield (
                f"MIA AUC is {distance:.3f} away from the retrained model's on average "
                f"({_means(mia)[0]:.3f} against {_means(mia)[1]:.3f}; margin {gate['mia_margin']:g})"
            )


def _against(words: str, mine: float, side: str, reference: float, margin: float) -> str:
    return (
        f"{words} is {100 * abs(mine - reference):.1f} points {side} the retrained model's "
        f"({mine:.1%} against {reference:.1%}; margin {100 * margin:g})"
    )


def _pairs(done: Sequence[CellRecord], name: str) -> list[tuple[float, float]]:
    both = ((number(record, f"unlearning.{name}"), number(record, f"retrained.{name}")) for record in done)
    return [(mine, reference) for mine, reference in both if mine is not None and reference is not None]


def _means(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(mine for mine, _ in pairs) / len(pairs), sum(reference for _, reference in pairs) / len(pairs)
