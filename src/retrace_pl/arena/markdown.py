"""The ranking of an arena as a Markdown file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrace_pl.arena.aggregate import RESAMPLING
from retrace_pl.arena.measures import measures_of
from retrace_pl.arena.ranking import RULE, Board, Entry
from retrace_pl.arena.record import CellRecord
from retrace_pl.arena.words import board_title, write_cells, write_interval, write_number, write_ranks
from retrace_pl.files import atomic_path

MARKDOWN = "arena.md"

_COLUMNS = (
    "rank",
    "method",
    "avoidable leakage",
    "excess leakage",
    "success",
    "prior only",
    "matched retrain",
    "retain (retrained)",
    "forget (retrained)",
    "test (retrained)",
    "MIA AUC (retrained)",
    "cost",
    "verdicts",
    "cells",
)


def write_markdown(
    output: Path,
    config: Mapping[str, Any],
    records: Sequence[CellRecord],
    missing: Sequence[str],
    boards: Sequence[Board],
) -> Path:
    """Writes `arena.md` into the arena's folder.

    Args:
        output: the arena's folder.
        config: its settings as plain values.
        records: its cells that have run.
        missing: ids of those that have not.
        boards: the ranking of the records.

    Returns:
        Path of the file.
    """
    with atomic_path(output / MARKDOWN) as temporary:
        temporary.write_text(render_markdown(config, records, missing, boards), encoding="utf-8")
    return output / MARKDOWN


def render_markdown(
    config: Mapping[str, Any], records: Sequence[CellRecord], missing: Sequence[str], boards: Sequence[Board]
) -> str:
    """The file as text. Arguments are those of `write_markdown`."""
    failed = [record for record in records if not record.done]
    gate = config["gate"]
    forget = gate.get("forget_margin")
    above = "" if forget is None else f"forget accuracy more than {100 * forget:g} points above, "
    lines = [
        f"# {_escape(config['name'])}",
        "",
        f"{len(records) - len(failed)} cells finished, {len(failed)} failed, {len(missing)} not run.",
        "",
        f"{RULE} Not ranked: retain accuracy more than {100 * gate['retain_margin']:g} points below the retrained "
        f"reference, {above}MIA AUC more than {gate['mia_margin']:g} away, a failed cell, or an invalid audit.",
        "",
        f"Intervals aim at {100 * config['level']:g}%. {RESAMPLING}",
    ]
    measures = measures_of(records)
    lines += ["", f"Cost: {measures['cost'].definition} Without retraining among the methods: seconds."]
    for board in boards:
        lines += ["", f"## {_escape(board_title(board))}", "", *_table(board, measures)]
        lines += _notes(board)
    if failed:
        lines += ["", "## Failed cells", ""]
        lines += [f"- {_escape(record.id)}: {_escape(record.error or 'unknown error')}" for record in failed]
    return "\n".join(lines) + "\n"


def _table(board: Board, measures: Mapping[str, Any]) -> list[str]:
    lines = ["| " + " | ".join(_COLUMNS) + " |", "| " + " | ".join("---" for _ in _COLUMNS) + " |"]

    def number(entry: Entry, name: str) -> str:
        return write_number(measures[name], entry.value(name))

    def interval(entry: Entry, name: str) -> str:
        ends = write_interval(measures[name], entry, name)
        return number(entry, name) + (f" ({ends})" if ends else "")

    for entry in board.entries:
        seconds = f"{number(entry, 'seconds')} s" if entry.value("seconds") is not None else number(entry, "seconds")
        cells = [
            _place(entry),
            _escape(entry.label),
            *(interval(entry, name) for name in ("avoidable", "excess")),
            *(number(entry, name) for name in ("success", "prior_success", "retrain_success")),
            *(
                f"{number(entry, name)} ({number(entry, f'retrained_{name}')})"
                for name in ("retain_acc", "forget_acc", "test_acc", "mia_auc")
            ),
            number(entry, "cost") if entry.value("cost") is not None else seconds,
            ", ".join(f"{_escape(name.replace('_', ' '))} {count}" for name, count in entry.verdicts.items()),
            write_cells(entry),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _place(entry: Entry) -> str:
    if entry.rank is None:
        return {"gated": "not ranked", "failed": "failed", "anchor": "anchor"}[entry.state]
    ranks = write_ranks(entry)
    return str(entry.rank) if ranks in ("", str(entry.rank)) else f"{entry.rank} ({ranks})"


def _notes(board: Board) -> list[str]:
    """Why methods have no rank, and what the anchors are."""
    told = [
        f"- {_escape(entry.label)} is not ranked: {_escape('; '.join(entry.reasons))}" for entry in board.of("gated")
    ]
    told += [f"- {_escape(entry.label)} is an anchor ({entry.anchor})" for entry in board.of("anchor")]
    return ["", *told] if told else []


def _escape(text: Any) -> str:
    """A value on one line, with no meaning to Markdown or HTML."""
    one_line = " ".join(str(text).split())
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", one_line).replace("&", "&amp;")
