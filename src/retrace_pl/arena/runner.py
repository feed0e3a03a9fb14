"""Runs the cells of an arena that are not done yet, and writes the results of whatever there is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retrace_pl.arena.cells import Cell, Plan
from retrace_pl.arena.config import ArenaRequest
from retrace_pl.arena.launchers import run_local, run_submitit, slurm_executor
from retrace_pl.arena.progress import ArenaProgress
from retrace_pl.arena.record import CellRecord
from retrace_pl.arena.results import write_results
from retrace_pl.arena.worker import Work
from retrace_pl.pipeline.cache import ArtefactCache
from retrace_pl.pipeline.run_folder import RunFolder


@dataclass(frozen=True)
class Outcome:
    """What an arena's folder holds.

    Args:
        records: cells that have run with these settings, in the order of the plan.
        missing: ids of those that have not.
        files: what `write_results` wrote.
    """

    records: list[CellRecord]
    missing: list[str]
    files: list[Path]

    @property
    def failed(self) -> list[CellRecord]:
        """Cells without figures."""
        return [record for record in self.records if not record.done]


def open_folders(request: ArenaRequest, audit: Path) -> Work:
    """Makes the arena's folder and its cache.

    Args:
        request: the command line.
        audit: configuration file of the base audit.

    Raises:
        InputError: a folder cannot be used.
    """
    RunFolder(request.output)
    ArtefactCache(request.cache)
    return Work(audit, request.output, request.cache)


def run_arena(request: ArenaRequest, plan: Plan) -> Outcome:
    """Runs every cell that is not done; failed ones are tried again.

    Results are written in any case, also after Ctrl-C, from the cells that are there.

    Args:
        request: the command line.
        plan: the cells.

    Raises:
        InputError: a folder, the data or the launcher cannot be used.
    """
    work = open_folders(request, plan.audit)
    to_do = [cell for cell in plan.cells if state(cell, request.output) != "done"]
    executor = slurm_executor(work, request.config.slurm) if request.launcher == "slurm" else None
    if to_do:
        plan.check_data(request.config.forget_classes)
    try:
        with ArenaProgress(len(plan.cells), len(plan.cells) - len(to_do), request.quiet) as progress:
            if executor is None:
                run_local(to_do, work, request.jobs, progress)
            else:
                run_submitit(executor, to_do, work, request.jobs, progress)
    finally:
        outcome = gather(request, plan)
    return outcome


def gather(request: ArenaRequest, plan: Plan) -> Outcome:
    """Writes the results of the cells that have run, whoever ran them.

    Args:
        request: the command line.
        plan: the cells.
    """
    records, missing = plan.records(request.output)
    return Outcome(records, missing, write_results(request.output, request.settings, records, missing, request.command))


def state(cell: Cell, output: Path) -> str:
    """`done`, `failed`, or `to do` where the cell has not run with these settings.

    Args:
        cell: the cell.
        output: the arena's folder.
    """
    stored = cell.stored(output)
    return stored.status if stored is not None else "to do"
