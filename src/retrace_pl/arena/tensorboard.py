"""HParams of an arena for TensorBoard: `tensorboard --logdir OUTPUT` shows every cell in one sortable table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from retrace_pl.arena.measures import Measure, measures_of
from retrace_pl.arena.record import CellRecord

FOLDER = "tensorboard"
"""Inside the arena's folder; one run for each cell, named after it."""

HYPERPARAMETERS = ("method", "strength", "seed", "forget_class", "access", "attack", "status")

_EVENTS = "events.out.tfevents.*"


def write_hparams(output: Path, records: Sequence[CellRecord]) -> Path:
    """Writes one TensorBoard run for each cell, in place of those of an earlier call.

    Metrics: every measure of the cell under `arena/NAME`, for example `arena/avoidable`; those that a cell does not
    have, all of a failed one among them, are left out.

    Args:
        output: the arena's folder.
        records: its cells.

    Returns:
        The folder with the runs.
    """
    from torch.utils.tensorboard import SummaryWriter  # slow to import
    from torch.utils.tensorboard.summary import hparams

    root = output / FOLDER
    _clear(root)
    measures = measures_of(records)
    taken = {record.id: _metrics(record, measures) for record in records}
    # TensorBoard takes the table's columns from any one run, so each of them describes all.
    tags = {tag: 0.0 for metrics in taken.values() for tag in metrics}
    settings = {record.id: _settings(record) for record in records}
    domains = {name: sorted({found[name] for found in settings.values()}) for name in HYPERPARAMETERS}
    for record in records:
        with SummaryWriter(str(root / record.id), max_queue=100) as writer:
            for summary in hparams(settings[record.id], tags, domains):  # type: ignore[no-untyped-call]
                writer._get_file_writer().add_summary(summary)
            for tag, value in taken[record.id].items():
                writer.add_scalar(tag, value, 0)
    return root


def _metrics(record: CellRecord, measures: Mapping[str, Measure]) -> dict[str, float]:
    """Every figure that a cell has, by tag."""
    taken = {f"arena/{name}": measure.take(record) for name, measure in measures.items()} if record.done else {}
    return {tag: value for tag, value in taken.items() if value is not None}


def _settings(record: CellRecord) -> dict[str, Any]:
    """The hyperparameters of a cell."""
    deleted = "" if record.forget_class is None else str(record.forget_class)
    return {name: deleted if name == "forget_class" else getattr(record, name) for name in HYPERPARAMETERS}


def _clear(root: Path) -> None:
    """Removes the event files of an earlier call, and nothing else; TensorBoard would show both."""
    for path in root.glob(f"*/{_EVENTS}"):
        path.unlink(missing_ok=True)
    for folder in root.glob("*/"):
        with suppress(OSError):  # not empty: somebody put something there
            folder.rmdir()
