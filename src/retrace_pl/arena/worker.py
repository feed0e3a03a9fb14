"""Runs one cell and records what came of it; the process of a worker runs cells one after the other.

Light to import, because every process of an arena starts here: what an audit needs is imported by the first cell.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from retrace_pl.errors import RetraceError

if TYPE_CHECKING:
    from retrace_pl.arena.cells import Cell
    from retrace_pl.arena.record import CellRecord

LOCK, LOG, TRACE = ".lock", "log.txt", "error.txt"
"""In a cell's folder: its lock, what its process printed, and the traceback of an error that nobody foresaw."""

STAGES = ("pretrain", "generator", "unlearn", "attack", "evaluate")
"""The stages of a cell; `retrace report` on its run folder makes the page of a cell that deserves a look."""


@dataclass(frozen=True)
class Work:
    """What all cells of an arena have in common.

    Args:
        audit: configuration file of the base audit.
        output: the arena's folder.
        cache: folder of the artefacts that cells share.
    """

    audit: Path
    output: Path
    cache: Path


def run_cell(cell: Cell, work: Work) -> CellRecord:
    """Runs one cell, unless it is done, and writes its record; an error of the audit becomes a failed record.

    Two processes that want the same cell, also on different machines that share the folder, run it once.

    Args:
        cell: the cell.
        work: base audit and folders.

    Returns:
        The record, as written.

    Raises:
        RunError: the folder cannot be written.
    """
    from filelock import FileLock

    from retrace_pl.arena.record import RECORD, record_path

    import_module("retrace_pl.pipeline.api")  # seconds, which should not count as the first cell's

    folder = record_path(work.output, cell.id).parent
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        stored = cell.stored(work.output)
        if stored is not None and stored.done:
            return stored
        (folder / RECORD).unlink(missing_ok=True)  # other settings' figures must not stand beside this attempt's files
        record = _audit(cell, work, folder)
        record.write(work.output)
        return record


def _audit(cell: Cell, work: Work, folder: Path) -> CellRecord:
    from retrace_pl.files import read_json
    from retrace_pl.pipeline.api import Audit
    from retrace_pl.pipeline.run_folder import RunFolder
    from retrace_pl.pipeline.shared_training import seconds_file

    (folder / TRACE).unlink(missing_ok=True)
    start = time.perf_counter()
    try:
        run = Audit.from_config(work.audit, work.output / cell.run, cell.overrides, cache=work.cache).run(STAGES)
        record = cell.record("done").take(run.metrics)
        finished = RunFolder(run.folder)
        record.seconds = finished.seconds()  # an attempt that was interrupted has finished some stages before
        record.seconds["total"] = round(sum(record.seconds.values()), 3)
        timed = seconds_file(finished, "unlearned")
        if timed.is_file():
            record.seconds["unlearning"] = read_json(timed)["seconds"]
        return record
    except RetraceError as error:
        record = cell.record("failed", " ".join(str(error).split()))
    except Exception as error:  # whatever a user's method raises is the result of its cell, not the end of the arena
        (folder / TRACE).write_text(traceback.format_exc(), encoding="utf-8")
        record = cell.record("failed", " ".join(f"{type(error).__name__}: {error}".split()))
    record.seconds["total"] = round(time.perf_counter() - start, 3)
    return record
