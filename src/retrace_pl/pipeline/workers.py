"""Worker processes of this machine: each does one task after the other, on a device of its own.

Light to import, because every worker starts here: what a task needs is imported by the first one.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from retrace_pl.errors import RetraceError, RunError
from retrace_pl.pipeline.processes import LAUNCH_VARIABLES

__all__ = ["ATTEMPTS", "Task", "WorkerDied", "bound_to_device", "work_off"]

ATTEMPTS = 2
"""Times a task is tried whose process dies; an error that the process survives is reported at once."""

PATIENCE = 3.0
"""Seconds in which a process that is ending is gone."""


@dataclass(frozen=True)
class Task:
    """Work for a worker.

    Args:
        name: what it is called in messages.
        function: does the work; defined in a module, so that another process finds it.
        arguments: plain arguments.
        log: gets what the work prints, also by libraries and in a crash; an empty one is removed.
    """

    name: str
    function: Callable[..., object]
    arguments: tuple[Any, ...]
    log: Path


class WorkerDied(RunError):
    """The process of a task ended before the task did.

    Args:
        name: name of the task.
        how: how the process ended.
        log: what it printed.
    """

    def __init__(self, name: str, how: str, log: Path) -> None:
        super().__init__(f"{name}: {how}, {ATTEMPTS} times; out of memory, or a crash in native code: see {log}")
        self.how = how


class Worker:
    """One process of this machine that does tasks one after the other.

    Args:
        number: number of the worker, which decides its device.
    """

    def __init__(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")  # a forked copy of a process with torch's threads may hang
        self.number = number
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,))
        with _environment(one_thread() | bound_to_device(number), without=LAUNCH_VARIABLES):
            self.process.start()
        theirs.close()  # else the death of the process would not be seen
        self.task: Task | None = None

    def give(self, task: Task) -> None:
        """Hands over a task; a process that is dead already is noticed when its answer is waited for."""
        self.task = task
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(task)

    def answer(self) -> RetraceError | None:
        """How the task ended: with an error, or well.

        Raises:
            EOFError: the process died.
        """
        try:
            found: RetraceError | None = self.connection.recv()
        except ConnectionResetError as error:
            raise EOFError from error
        return found

    def how_it_died(self) -> str:
        """Says how the process ended whose answer did not come."""
        self.process.join(PATIENCE)  # its end of the connection closes a moment before it is gone
        self.kill()
        code = self.process.exitcode or 0
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        """Ends the process and everything it started, at once: whatever it was writing is whole or absent."""
        self.connection.close()
        process = self.process.pid
        assert process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # Before it leads a group of its own it is in ours, which must not be ended.
            own_group = not self.process.is_alive() or os.getpgid(process) == process
            (os.killpg if own_group else os.kill)(process, signal.SIGKILL)
        self.process.join()


def work_off(
    tasks: Sequence[Task],
    jobs: int,
    started: Callable[[Task], object],
    ended: Callable[[Task, RetraceError | None], object],
) -> None:
    """Does tasks in worker processes of this machine.

    Each worker does many tasks, so that imports are paid for once. A worker that dies takes no other task with it: its
    task is tried once more by a new worker. Ctrl-C, and any error that `ended` raises, ends all workers at once.

    Args:
        tasks: what to do, begun in this order.
        jobs: number of workers.
        started: is told of a task that was handed to a process.
        ended: is told of a task that is done, or of its error: its own, or `WorkerDied`.
    """
    queue = deque((task, 1) for task in tasks)
    workers: list[Worker] = []
    attempts: dict[str, int] = {}
    try:
        workers += [Worker(number) for number in range(min(jobs, len(queue)))]
        while queue or any(worker.task for worker in workers):
            for worker in workers:
                if worker.task is None and queue:
                    task, attempts[task.name] = queue.popleft()
                    started(task)
                    worker.give(task)
            busy = {worker.connection: worker for worker in workers if worker.task is not None}
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                worker = busy[ready]
                tried, worker.task = worker.task, None
                assert tried is not None
                try:
                    error = worker.answer()
                except EOFError:
                    how = worker.how_it_died()
                    workers[workers.index(worker)] = Worker(worker.number)
                    if attempts[tried.name] < ATTEMPTS:
                        queue.appendleft((tried, attempts[tried.name] + 1))
                        continue
                    error = WorkerDied(tried.name, f"its process ended ({how})", tried.log)
                ended(tried, error)
    finally:
        for worker in workers:
            worker.kill()


def serve(connection: Connection) -> None:
    """The life of a worker: takes tasks and answers when each has ended, until there is no more.

    The process leads a group of its own, so that Ctrl-C reaches its parent alone, which then ends the whole group.

    Args:
        connection: the other end is the parent's; a closed one ends the process.
    """
    os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # Ctrl-C closes it at any moment
        while True:
            task: Task = connection.recv()
            with _output_to(task.log):
                error = _attempt(task)
            connection.send(error)


def _attempt(task: Task) -> RetraceError | None:
    try:
        task.function(*task.arguments)
    except RetraceError as error:
        return error
    except Exception as error:  # of a user's own class, for instance; whoever waits has to hear of it
        traceback.print_exc()
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return RunError(f"{task.name} failed: {text}; the traceback is in {task.log}")
    return None


def bound_to_device(number: int) -> dict[str, str]:
    """The environment that leaves a worker one of the GPUs that are visible here, in turn; empty where there is none.

    Args:
        number: number of the worker.
    """
    visible = _visible_gpus()
    return {"CUDA_VISIBLE_DEVICES": visible[number % len(visible)]} if visible else {}


def _visible_gpus() -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def one_thread() -> dict[str, str]:
    """Processes started here use one thread each unless the user's environment says otherwise."""
    return {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name not in os.environ}


def _end_with_parent() -> None:
    """A parent that was killed must not leave processes that go on computing."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.killpg(0, signal.SIGKILL)


@contextlib.contextmanager
def _environment(values: Mapping[str, str], without: Sequence[str]) -> Iterator[None]:
    """Environment of the processes that are started inside."""
    changed = {*values, *(name for name in without if name in os.environ)}
    before = {name: os.environ.get(name) for name in changed}
    for name in changed:
        os.environ.pop(name, None)
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Sends what is printed to a file; an empty one is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as log:
        faulthandler.enable(log)
        kept = [(os.dup(number), number) for number in (1, 2)]
        try:
            for _, number in kept:
                os.dup2(log.fileno(), number)
            yield
        finally:
            faulthandler.disable()
            for copy, number in kept:
                os.dup2(copy, number)
                os.close(copy)
    if path.stat().st_size == 0:
        path.unlink()
