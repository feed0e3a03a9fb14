"""HParams of an arena for TensorBoard: `tensorboard --logdir OUTPUT` shows every cell in one sortable table."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from retrace_pl.arena.measures import measures_of
from retrace_pl.arena.record import CellRecord

FOLDER = "tensorboard"
"""Inside the arena's folder; one run for each cell, named after it."""

_EVENTS = "events.out.tfevents.*"


def write_hparams(output: Path, records: Sequence[CellRecord]) -> Path:
    """Writes one TensorBoard run for each cell, in place of those of an earlier call.

    Hyperparameters: method, strength, seed, forget_class, access, attack and status. Metrics: every measure of the
    cell under `arena/NAME`, for example `arena/avoidable`; those that a cell does not have, all of a failed one
    among them, are left out.

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
    for record in records:
        taken = {f"arena/{name}": measure.take(record) for name, measure in measures.items()} if record.done else {}
        metrics = {tag: value for tag, value in taken.items() if value is not None}
        settings = {
            "method": record.method,
            "strength": record.strength,
            "seed": record.seed,
            "forget_class": "" if record.forget_class is None else str(record.forget_class),
            "access": record.access,
            "attack": record.attack,
            "status": record.status,
        }
        with SummaryWriter(str(root / record.id), max_queue=100) as writer:
            for summary in hparams(settings, metrics):  # type: ignore[no-untyped-call]
                writer._get_file_writer().add_summary(summary)
            for tag, value in metrics.items():
                writer.add_scalar(tag, value, 0)
    return root


def _clear(root: Path) -> None:
    """Removes the event files of an earlier call, and nothing else; TensorBoard would show both."""
    for path in root.glob(f"*/{_EVENTS}"):
        path.unlink(missing_ok=True)
    for folder in root.glob("*/"):
        with suppress(OSError):  # not empty: somebody put something there
            folder.rmdir()
