"""What came back: for each method the best candidates of one cell, each beside the deleted record nearest to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrace_pl.arena.measures import MEASURES
from retrace_pl.arena.record import CellRecord
from retrace_pl.arena.words import write_number
from retrace_pl.errors import InputError, RunError
from retrace_pl.report.gallery import Picture, Shot
from retrace_pl.report.media import image_uri
from retrace_pl.report.run_data import RunData

SHOWN = 6
LARGEST = 64
"""Pixels of a thumbnail's longer side at most; every one is embedded in the page."""

_CONTROLS = {"prior": "Prior only", "matched_retrain": "Matched retrain"}


@dataclass(frozen=True)
class Strip:
    """The best candidates of one cell.

    Args:
        title: the method, or the control.
        facts: success with its controls, in words.
        shots: candidates with their nearest records; empty where there are none.
        missing: why there are none, or empty.
        arm: whose colour outlines the candidates.
    """

    title: str
    facts: str
    shots: tuple[Shot, ...]
    missing: str
    arm: str = "attack"


@dataclass(frozen=True)
class Gallery:
    """Strips of cells that share seed, forget class, access level and attack, and so their controls.

    Args:
        where: what the cells share, in words.
        strips: the controls first, then the methods.
    """

    where: str
    strips: tuple[Strip, ...]


def make_gallery(output: Path, records: Sequence[CellRecord], config: Mapping[str, Any]) -> Gallery | None:
    """The gallery of an arena: first seed, class and attack, and the access level that sees most; None without cells.

    Args:
        output: the arena's folder.
        records: its cells.
        config: its settings as plain values.
    """
    done = [record for record in records if record.done]
    if not done:
        return None
    levels = [level for level in ("black", "gray", "white") if any(record.access == level for record in done)]
    first = min((record for record in done if record.access == levels[-1]), key=lambda record: record.seed)
    shared = (first.seed, first.forget_class, first.access, first.attack)
    cells = [record for record in records if (record.seed, record.forget_class, record.access, record.attack) == shared]
    runs = [(record, _load(output, record)) for record in cells]
    controls = next((run for _, run in runs if isinstance(run, RunData)), None)
    strips = [_control(controls, arm, first) for arm in _CONTROLS] if controls is not None else []
    strips += [_strip(record, run) for record, run in runs]
    deleted = "" if first.forget_class is None else f", deleted class {first.forget_class}"
    return Gallery(f"seed {first.seed}{deleted}, {first.access}-box access, attack {first.attack}", tuple(strips))


def _load(output: Path, record: CellRecord) -> RunData | str:
    """A cell's run folder, or why it cannot be shown."""
    if not record.done:
        return f"failed: {record.error}"
    if record.run is None:
        return "no run folder was recorded"
    try:
        return RunData.load(output / record.run)
    except InputError:
        return "its run folder is not here"
    except RunError:
        return "a file of its run folder cannot be read"


def _control(run: RunData, arm: str, record: CellRecord) -> Strip:
    success = (record.prior if arm == "prior" else record.matched_retrain) or {}
    facts = f"success {write_number(MEASURES['success'], success.get('sr_oracle'))}"
    return _shots(_CONTROLS[arm], facts, run, arm)


def _strip(record: CellRecord, run: RunData | str) -> Strip:
    title = record.method if record.strength == 1 else f"{record.method} x{record.strength:g}"
    arms = (
        ("success", record.attack_result),
        ("prior only", record.prior),
        ("matched retrain", record.matched_retrain),
    )
    facts = ", ".join(f"{name} {write_number(MEASURES['success'], (arm or {}).get('sr_oracle'))}" for name, arm in arms)
    if isinstance(run, str):
        return Strip(title, facts if record.done else "", (), run)
    return _shots(title, facts, run, "attack")


def _shots(title: str, facts: str, run: RunData, arm: str) -> Strip:
    images, nearest = run.images(f"{arm}.distribution"), run.images(f"{arm}.nearest")
    if images is None:
        texts = bool(run.texts.get(f"{arm}.distribution"))
        note = (
            "its candidates are texts: read them in the report of its run folder"
            if texts
            else "no pictures were stored"
        )
        return Strip(title, facts, (), note, arm)
    if nearest is not None and nearest.shape != images.shape:
        nearest = None
    shots = []
    for index in range(min(SHOWN, len(images))):
        record: Picture | None = None
        lines: tuple[str, ...] = ()
        if nearest is not None:
            record = Picture(_thumbnail(nearest[index]), f"Deleted record nearest to candidate {index + 1} of {title}")
            lines = (f"{float(np.mean((images[index] - nearest[index]) ** 2)):.2g}",)
        candidate = Picture(_thumbnail(images[index]), f"{title}, candidate {index + 1}")
        shots.append(Shot(candidate, record, lines, None))
    return Strip(title, facts, tuple(shots), "", arm)


def _thumbnail(image: NDArray[np.float32]) -> str:
    """A picture [1|3, H, W] as a data URI; larger ones are thinned out, because a page holds hundreds."""
    step = -(-max(image.shape[1:]) // LARGEST)
    return image_uri(image[:, ::step, ::step])
