"""The arena as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from retrace_pl.arena.aggregate import RESAMPLING
from retrace_pl.arena.figures import access_picture, leakage_picture, pareto_pictures
from retrace_pl.arena.gallery import make_gallery
from retrace_pl.arena.measures import measures_of
from retrace_pl.arena.ranking import EVERY_ACCESS, RULE, Board, Entry
from retrace_pl.arena.record import CellRecord
from retrace_pl.arena.words import board_title, write_cells, write_interval, write_number, write_ranks
from retrace_pl.files import atomic_path
from retrace_pl.report.glossary import ACCESS
from retrace_pl.report.media import FigurePair
from retrace_pl.report.palette import DARK, LIGHT

PAGE = "arena.html"

LEADING = ("avoidable", "excess", "success", "prior_success", "retrain_success")
QUALITIES = (
    ("retain_acc", "retrained_retain_acc"),
    ("forget_acc", "retrained_forget_acc"),
    ("mia_auc", "retrained_mia_auc"),
)
FURTHER = ("test_acc", "retrained_test_acc", "record", "utility_gap", "forgetting_gap", "mia_gap")
TRIPLES = ("fid", "diversity")


@dataclass(frozen=True)
class BoardView:
    """What the page shows of one board.

    Args:
        board: the ranking.
        title: its heading.
        anchor: its name in links.
        clusters: pairs of seed and forget class behind its best covered figure.
        leakage: intervals of every method, or None.
        access: the same by access level; only over all of them.
        pareto: trade-offs.
    """

    board: Board
    title: str
    anchor: str
    clusters: int
    leakage: FigurePair | None
    access: FigurePair | None
    pareto: tuple[FigurePair, ...]


def write_page(
    output: Path,
    config: Mapping[str, Any],
    records: Sequence[CellRecord],
    missing: Sequence[str],
    boards: Sequence[Board],
    versions: Mapping[str, str],
    command: str | None = None,
) -> Path:
    """Writes `arena.html` into the arena's folder; an earlier one is replaced once the new one is complete.

    Args:
        output: the arena's folder.
        config: its settings as plain values.
        records: its cells that have run.
        missing: ids of those that have not.
        boards: the ranking of the records.
        versions: package -> version.
        command: the command line that ran them.

    Returns:
        Path of the page.
    """
    text = render_page(output, config, records, missing, boards, versions, command)
    with atomic_path(output / PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return output / PAGE


def render_page(
    output: Path,
    config: Mapping[str, Any],
    records: Sequence[CellRecord],
    missing: Sequence[str],
    boards: Sequence[Board],
    versions: Mapping[str, str],
    command: str | None = None,
) -> str:
    """The page as text; every value of a record or setting is escaped. Arguments are those of `write_page`."""
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("retrace_pl.arena", "templates"), PackageLoader("retrace_pl.report", "templates")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    several = len({board.attack for board in boards}) > 1
    measures = measures_of(records)
    return environment.get_template("arena.html.j2").render(
        config=config,
        title=str(config["name"]),
        records=records,
        missing=missing,
        done=[record for record in records if record.done],
        failed=[record for record in records if not record.done],
        axes=_axes(records),
        budget=_budget(records),
        access_words=ACCESS,
        gate=config["gate"],
        views=[_view(board, boards, several, place) for place, board in enumerate(boards)],
        headline=_headline(boards, measures, several),
        gallery=make_gallery(output, records, config),
        links={record.id: _link(output, record) for record in records},
        measures=measures,
        leading=LEADING,
        qualities=QUALITIES,
        further=FURTHER,
        triples=TRIPLES,
        rule=RULE,
        resampling=RESAMPLING,
        versions=versions,
        command=command,
        settings=yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True, width=100),
        write_number=write_number,
        write_interval=write_interval,
        write_ranks=write_ranks,
        write_cells=write_cells,
        light=LIGHT,
        dark=DARK,
    )


def _view(board: Board, boards: Sequence[Board], several: bool, place: int) -> BoardView:
    clusters = [found.clusters for entry in board.entries for found in entry.measures.values()]
    return BoardView(
        board=board,
        title=board_title(board, several),
        anchor=f"board-{place}",
        clusters=max(clusters, default=0),
        leakage=leakage_picture(board),
        access=access_picture(board, boards) if board.access == EVERY_ACCESS else None,
        pareto=tuple(pareto_pictures(board)),
    )


def _headline(boards: Sequence[Board], measures: Mapping[str, Any], several: bool) -> list[tuple[str, str]]:
    """What each board says first: (where, sentence)."""
    lines = []
    for board in boards:
        ranked, gated, failed = (board.of(state) for state in ("ranked", "gated", "failed"))
        first = _first(ranked, measures) if ranked else "No method passes the gate."
        counts = f" {len(ranked)} ranked, {len(gated)} shown without a rank, {len(failed)} without figures."
        told = board.access == EVERY_ACCESS or len(board.levels) == 1 == len({other.access for other in boards})
        lines.append((board_title(board, several), first + (counts if told else "")))
    return lines


def _first(ranked: Sequence[Entry], measures: Mapping[str, Any]) -> str:
    first = ranked[0]
    told = write_number(measures["avoidable"], first.value("avoidable"))
    interval = write_interval(measures["avoidable"], first, "avoidable")
    tied = sum(entry.rank_range is not None and entry.rank_range[0] == 1 for entry in ranked) - 1
    tie = f" The intervals of {tied} other{'s' if tied > 1 else ''} allow rank 1 as well." if tied > 0 else ""
    return f"{first.label} leaks least beyond retraining: {told}{f' ({interval})' if interval else ''}.{tie}"


def _axes(records: Sequence[CellRecord]) -> dict[str, list[str]]:
    """The values of every axis that occur, in order."""
    names = {
        "methods": "method",
        "strengths": "strength",
        "seeds": "seed",
        "forget classes": "forget_class",
        "access levels": "access",
        "attacks": "attack",
    }
    found = {}
    for title, name in names.items():
        values = list(dict.fromkeys(getattr(record, name) for record in records))
        if name in ("strength", "seed"):
            values.sort()
        found[title] = [
            f"{value:g}" if isinstance(value, float) else str(value) for value in values if value is not None
        ]
    return {title: values for title, values in found.items() if values}


def _budget(records: Sequence[CellRecord]) -> list[str]:
    """Queries, candidates and repeats, once for every combination that occurs."""
    return list(
        dict.fromkeys(
            f"{record.queries:,} queries to both models, the {record.top_k} best candidates, {record.repeats} "
            f"repeat{'' if record.repeats == 1 else 's'}"
            for record in records
            if record.queries is not None
        )
    )


def _link(output: Path, record: CellRecord) -> str | None:
    """Relative address of a cell's report, or of its run folder, or None where neither is there."""
    if record.run is None or Path(record.run).is_absolute() or ".." in Path(record.run).parts:
        return None
    for name in (f"{record.run}/report.html", record.run):
        if (output / name).exists():
            return "./" + quote(name)
    return None


def _plain(value: Any) -> Any:
    """The same value in types that YAML can write."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
