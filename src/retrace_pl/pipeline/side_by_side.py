"""Searches of one audit side by side, each in a worker process with a device of its own.

Light to import, because workers start here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from retrace_pl.errors import RetraceError
from retrace_pl.pipeline.workers import Task, work_off

if TYPE_CHECKING:
    from retrace_pl.pipeline.cache import Job
    from retrace_pl.pipeline.runner import AuditRun

LOGS = "logs"
"""Folder of what workers print, until the stage has ended."""


def search_side_by_side(run: AuditRun, jobs: Sequence[Job], scratch: Path) -> None:
    """Runs searches in `run.jobs` processes; each is kept as soon as it is done, where its job finds it.

    Every process has as many threads as this one, so that the results are those of one search after the other.

    Args:
        run: the audit.
        jobs: searches that are not done.
        scratch: folder for what they print.

    Raises:
        RetraceError: a search failed; all others are ended.
    """
    import torch

    from retrace_pl.report.progress import Bar

    cache = None if run.cache is None else run.cache.root.resolve()
    common = (run.folder.root.resolve(), cache, torch.get_num_threads())
    tasks = [
        Task(job.artefact.name, search_once, (*common, job.artefact.name), scratch / LOGS / f"{number}.txt")
        for number, job in enumerate(jobs)
    ]

    done: list[str] = []
    running: list[str] = []

    def show() -> None:
        bar.update(len(done), f"{len(done)}/{len(tasks)}", ", ".join(running))

    def began(task: Task) -> None:
        running.append(task.name)
        show()

    def ended(task: Task, error: RetraceError | None) -> None:
        if error is not None:
            raise error
        done.append(task.name)
        running[:] = [name for name in running if name != task.name]
        show()
        run.console.print(f"{task.name}: done", markup=False, highlight=False)

    run.console.print(f"{len(tasks)} searches, {min(run.jobs, len(tasks))} at a time")
    bar = Bar("searches", len(tasks), run.console)
    try:
        work_off(tasks, run.jobs, began, ended)
    finally:
        bar.close()


def search_once(folder: Path, cache: Path | None, threads: int, label: str) -> None:
    """Runs one search of an audit, in a worker.

    Args:
        folder: the run folder, with the resolved configuration.
        cache: artefacts shared with other audits.
        threads: threads of torch.
        label: name of the search.
    """
    import torch

    torch.set_num_threads(threads)
    _jobs_of(folder, cache)[label].settle()


@lru_cache(maxsize=1)
def _jobs_of(folder: Path, cache: Path | None) -> dict[str, Job]:
    """Every search by its name; the models are read once for all that this process runs."""
    from retrace_pl.pipeline.attack_stage import search_jobs
    from retrace_pl.pipeline.parsing import parse
    from retrace_pl.pipeline.runner import AuditRun

    options = ["--config", str(folder / "config.yaml"), "--output", str(folder), "--quiet"]
    run = AuditRun.start(parse("attack", "", [*options, *(["--cache", str(cache)] if cache else [])]))
    jobs, _ = search_jobs(run)
    return {job.artefact.name: job for job in jobs}
