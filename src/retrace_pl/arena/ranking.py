"""Who leaks least: methods by what they leak beyond retraining, those that broke the model or failed set apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from typing import Any, Literal

from retrace_pl.arena.aggregate import RESAMPLING, Summary, clusters_of, summarise
from retrace_pl.arena.gate import reasons
from retrace_pl.arena.measures import IDENTITY, RETRAIN, Measure, measures_of
from retrace_pl.arena.record import CellRecord

ANCHORS = {
    RETRAIN: "reference: retrained without the deleted data",
    IDENTITY: "no unlearning: the original model again",
}
EVERY_ACCESS = "all"
"""Name of the board that averages over access levels."""

RULE = (
    "Methods are ranked by avoidable leakage, lower first: excess leakage cannot fall below what a retrained model "
    "gives away, avoidable leakage can. The mean decides, then that of excess leakage. The rank range says which ranks "
    "the intervals allow: between one more than the number of ranked methods whose interval lies wholly below, and the "
    "number of those whose interval does not lie wholly above."
)


@dataclass(frozen=True)
class Entry:
    """A method at a strength, over the seeds and forget classes of a board.

    Args:
        method: its name.
        class_name: its class.
        strength: factor on its own strength.
        done: finished cells.
        failed: cells that failed.
        missing: cells that have not run.
        verdicts: verdict -> cells with it.
        measures: name of a measure -> mean and interval.
        reasons: why it has no rank, in words; empty where it has one, and for anchors.
        failures: (id, error) of its failed cells.
        number: place in the table; the ranked come first, so that theirs is their rank. None for an anchor.
        rank: its rank, or None.
        rank_range: best and worst rank that the intervals allow; None without intervals.
    """

    method: str
    class_name: str
    strength: float
    done: int
    failed: int
    missing: int
    verdicts: Mapping[str, int]
    measures: Mapping[str, Summary]
    reasons: tuple[str, ...]
    failures: tuple[tuple[str, str], ...]
    number: int | None = None
    rank: int | None = None
    rank_range: tuple[int, int] | None = None

    @property
    def label(self) -> str:
        """Name with the strength, unless it is the preset's own."""
        return self.method if self.strength == 1 else f"{self.method} x{self.strength:g}"

    @property
    def anchor(self) -> str:
        """What it stands for as an anchor, or empty."""
        return ANCHORS.get(self.class_name, "")

    @property
    def state(self) -> Literal["anchor", "ranked", "gated", "failed"]:
        """Which part of the table it belongs to: `gated` is shown without a rank, `failed` has no figures."""
        if not self.done:
            return "failed"
        return "anchor" if self.anchor else "gated" if self.reasons else "ranked"

    def value(self, measure: str) -> float | None:
        """The mean of a measure, or None."""
        found = self.measures.get(measure)
        return None if found is None else found.value

    def as_dict(self) -> dict[str, Any]:
        """Plain types for `arena.json`."""
        return {
            **{key: value for key, value in vars(self).items() if key not in ("measures", "failures", "verdicts")},
            "state": self.state,
            "anchor": self.anchor,
            "verdicts": dict(self.verdicts),
            "failures": dict(self.failures),
            "measures": {name: found.as_dict() for name, found in self.measures.items()},
        }


@dataclass(frozen=True)
class Board:
    """The ranking of one attack at one access level, or over all of them.

    Args:
        access: the access level, or `all`.
        levels: access levels it covers.
        attack: name of the attack.
        entries: ranked ones first, then those without a rank, then those without figures; anchors last.
        level: confidence level of the intervals.
    """

    access: str
    levels: tuple[str, ...]
    attack: str
    entries: tuple[Entry, ...]
    level: float

    def of(self, *states: str) -> list[Entry]:
        """Its entries of some states, in order."""
        return [entry for entry in self.entries if entry.state in states]


def rank_records(records: Sequence[CellRecord], config: Mapping[str, Any], missing: Sequence[str] = ()) -> list[Board]:
    """The boards of an arena: over all access levels, where there are several, then each by itself; attack by attack.

    Args:
        records: cells that have run, failed ones included.
        config: the arena's settings as plain values; `gate`, `level` and `bootstrap_samples` are read.
        missing: ids of cells that have not run.
    """
    measures = measures_of(records)
    boards = []
    for attack in dict.fromkeys(record.attack for record in records):
        mine = [record for record in records if record.attack == attack]
        levels = tuple(dict.fromkeys(record.access for record in mine))
        views = [(EVERY_ACCESS, levels)] if len(levels) > 1 else []
        for access, covered in [*views, *((level, (level,)) for level in levels)]:
            groups: dict[tuple[str, float], list[CellRecord]] = {}
            for record in mine:
                if record.access in covered:
                    groups.setdefault((record.method, record.strength), []).append(record)
            found = [_entry(cells, len(covered), measures, config, missing) for cells in groups.values()]
            boards.append(Board(access, covered, attack, _in_order(found), float(config["level"])))
    return boards


def ranking_section(boards: Sequence[Board]) -> dict[str, Any]:
    """The ranking as plain values, with the rules behind it."""
    return {
        "rule": RULE,
        "resampling": RESAMPLING,
        "boards": [
            {
                "access": board.access,
                "attack": board.attack,
                "level": board.level,
                "entries": [entry.as_dict() for entry in board.entries],
            }
            for board in boards
        ],
    }


def _entry(
    cells: Sequence[CellRecord],
    levels: int,
    measures: Mapping[str, Measure],
    config: Mapping[str, Any],
    missing: Sequence[str],
) -> Entry:
    first, done = cells[0], [record for record in cells if record.done]
    clusters = clusters_of(cells, levels)
    options = {"resamples": int(config["bootstrap_samples"]), "level": float(config["level"])}
    found = {name: summarise(measure, clusters, **options) for name, measure in measures.items()}  # type: ignore[arg-type]
    verdicts = [str(record.verdict) for record in done]
    failures = tuple((record.id, record.error or "unknown error") for record in cells if not record.done)
    entry = Entry(
        method=first.method,
        class_name=first.class_name,
        strength=first.strength,
        done=len(done),
        failed=len(failures),
        missing=len(_missing_of(cells, missing)),
        verdicts={name: verdicts.count(name) for name in sorted(set(verdicts))},
        measures=found,
        reasons=(),
        failures=failures,
    )
    if entry.anchor:
        return entry
    measured = entry.value("avoidable") is not None
    return replace_fields(entry, reasons=tuple(reasons(cells, config["gate"], measured)))


def _missing_of(cells: Sequence[CellRecord], missing: Sequence[str]) -> set[str]:
    """Ids of the cells of the same method, strength, access level and attack that have not run."""
    found = set()
    for record in cells:
        head = record.id.rpartition(f"-seed{record.seed}")[0] + "-seed"
        tail = record.id[record.id.rfind(f"-{record.access}-") :]
        found |= {name for name in missing if name.startswith(head) and name.endswith(tail)}
    return found


def _in_order(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Entries in the order of the table, with numbers, ranks and rank ranges."""

    def key(entry: Entry) -> tuple[int, float, float, str, float]:
        state = ("ranked", "gated", "failed", "anchor").index("anchor" if entry.anchor else entry.state)
        values = [entry.value(name) for name in ("avoidable", "excess")]
        avoidable, excess = (float("inf") if value is None else value for value in values)
        return state, avoidable, excess, entry.method, entry.strength

    ordered = sorted(entries, key=key)
    ranked = [entry for entry in ordered if entry.state == "ranked"]
    return tuple(
        entry
        if entry.anchor
        else replace_fields(
            entry,
            number=place,
            rank=place if entry.state == "ranked" else None,
            rank_range=_range(entry, ranked) if entry.state == "ranked" else None,
        )
        for place, entry in enumerate(ordered, start=1)
    )


def _range(entry: Entry, ranked: Sequence[Entry]) -> tuple[int, int] | None:
    """Best and worst rank of an entry by overlap of the intervals of avoidable leakage, or None without intervals."""
    ends = [(other.measures["avoidable"].low, other.measures["avoidable"].high) for other in ranked]
    low, high = entry.measures["avoidable"].low, entry.measures["avoidable"].high
    whole = [(first, last) for first, last in ends if first is not None and last is not None]
    if low is None or high is None or len(whole) < len(ends):
        return None
    return 1 + sum(last < low for _, last in whole), sum(first <= high for first, _ in whole)
