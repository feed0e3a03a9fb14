"""Where cells run: worker processes of this machine, or jobs of an executor of submitit, such as a SLURM cluster."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import submitit

from retrace_pl.arena.cells import Cell
from retrace_pl.arena.config import SlurmSettings
from retrace_pl.arena.record import CELLS, CellRecord, record_path
from retrace_pl.arena.worker import LOG, Work, run_cell
from retrace_pl.errors import InputError, RetraceError, RunError
from retrace_pl.pipeline.parsing import one_line
from retrace_pl.pipeline.workers import ATTEMPTS, Task, WorkerDied, work_off

JOBS = "submitit"
"""Folder of submitit's scripts and logs inside the arena's."""


class Observer(Protocol):
    """Is told what happens to the cells."""

    def started(self, cell: Cell) -> None:
        """A cell was handed to a process."""

    def finished(self, record: CellRecord) -> None:
        """A cell has its record, of either status."""


def run_local(cells: Sequence[Cell], work: Work, jobs: int, observer: Observer) -> None:
    """Runs cells in worker processes of this machine.

    Each worker runs many cells, so that imports are paid for once. A worker that dies takes no other cell with it: its
    cell is tried once more by a new worker, then recorded as failed.

    Args:
        cells: what to run, in this order.
        work: base audit and folders.
        jobs: number of workers.
        observer: is told what happens.
    """
    by_name = {cell.id: cell for cell in cells}
    tasks = [Task(cell.id, run_cell, (cell, work), work.output / CELLS / cell.id / LOG) for cell in cells]

    def ended(task: Task, error: RetraceError | None) -> None:
        cell = by_name[task.name]
        if isinstance(error, WorkerDied):
            _write_death(cell, work, error.how, f"{CELLS}/{cell.id}/{LOG}")
        elif error is not None:
            cell.record("failed", str(error)).write(work.output)
        _report(cell, work, observer)

    work_off(tasks, jobs, lambda task: observer.started(by_name[task.name]), ended)


def run_submitit(
    executor: submitit.Executor, cells: Sequence[Cell], work: Work, jobs: int, observer: Observer, poll: float = 2.0
) -> None:
    """Runs every cell as a job of a submitit executor; a job that dies is submitted once more.

    Submitit hands a job its cell as a pickle in the executor's folder, which the job loads: whoever can write there can
    run code as the user. Results are read from the cells' JSON alone.

    Args:
        executor: for example `submitit.SlurmExecutor`; its folder must be visible where the jobs run.
        cells: what to run, in this order.
        work: base audit and folders, visible where the jobs run.
        jobs: how many may be submitted at once.
        observer: is told what happens.
        poll: seconds between two looks at the jobs.

    Raises:
        RunError: the cluster refuses a job; those that are submitted are cancelled.
    """
    queue = deque((cell, 1) for cell in cells)
    running: list[tuple[submitit.Job[Any], Cell, int]] = []
    try:
        while queue or running:
            while queue and len(running) < jobs:
                cell, attempt = queue.popleft()
                record_path(work.output, cell.id).unlink(missing_ok=True)  # what is there later is this job's
                observer.started(cell)
                running.append((_submit(executor, cell, work), cell, attempt))
            time.sleep(poll)
            ended = [entry for entry in running if entry[0].done()]
            running = [entry for entry in running if entry not in ended]
            for job, cell, attempt in ended:
                if cell.stored(work.output) is None:
                    if attempt < ATTEMPTS:
                        queue.appendleft((cell, attempt + 1))
                        continue
                    _write_death(cell, work, f"its job {job.job_id} ended ({job.state})", str(job.paths.stderr))
                _report(cell, work, observer)
    finally:
        for job, _, _ in running:
            job.cancel(check=False)


def _submit(executor: submitit.Executor, cell: Cell, work: Work) -> submitit.Job[Any]:
    try:
        return executor.submit(run_cell, cell, work)
    except RuntimeError as error:  # what submitit raises, whatever `sbatch` said
        raise RunError(f"slurm: no job could be submitted ({one_line(error)}); correct these settings") from error


def slurm_executor(work: Work, settings: SlurmSettings) -> submitit.Executor:
    """The executor of a SLURM cluster.

    Args:
        work: base audit and folders.
        settings: what each cell asks for.

    Raises:
        InputError: this machine cannot submit to a cluster.
    """
    if shutil.which("sbatch") is None:
        raise InputError("--launcher slurm: there is no `sbatch` here; run on a login node, or use --launcher local")
    executor = submitit.SlurmExecutor(folder=work.output / JOBS)
    asked: dict[str, Any] = {
        "job_name": "retrace-arena",
        "time": settings.time,
        "cpus_per_task": settings.cpus,
        "mem": f"{round(settings.memory_gb * 1024)}MB",
        "additional_parameters": settings.extra,
    }
    if settings.gpus:
        asked["gpus_per_node"] = settings.gpus
    if settings.partition:
        asked["partition"] = settings.partition
    executor.update_parameters(**asked)
    return executor


def _report(cell: Cell, work: Work, observer: Observer) -> None:
    record = cell.stored(work.output)
    if record is None:  # the process answered, so only somebody else can have removed it
        record = cell.record("failed", "its record disappeared; run the arena again")
        record.write(work.output)
    observer.finished(record)


def _write_death(cell: Cell, work: Work, how: str, log: str) -> None:
    message = f"{how}, {ATTEMPTS} times; out of memory, or a crash in native code: see {log}"
    cell.record("failed", message).write(work.output)
