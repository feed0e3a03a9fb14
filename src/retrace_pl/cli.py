"""The command line: finds the command, runs it, and turns errors into one line and an exit code.

Nothing heavy is imported before a command is chosen, so that `retrace --help` answers at once.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

from retrace_pl._version import __version__
from retrace_pl.errors import UNWRITABLE, RetraceError
from retrace_pl.pipeline.processes import refuse_launch

COMMANDS = {
    "arena": "retrace_pl.arena.commands:arena",
    "audit": "retrace_pl.pipeline.commands:audit",
    "pretrain": "retrace_pl.pipeline.commands:pretrain",
    "generator": "retrace_pl.pipeline.commands:generator",
    "unlearn": "retrace_pl.pipeline.commands:unlearn",
    "attack": "retrace_pl.external.commands:attack",
    "evaluate": "retrace_pl.pipeline.commands:evaluate",
    "report": "retrace_pl.pipeline.commands:report",
    "pool": "retrace_pl.pipeline.pool:pool",
    "tune": "retrace_pl.tuning.commands:tune",
    "mls-bench": "retrace_pl.mls_bench.commands:mls_bench",
    "list": "retrace_pl.pipeline.parts:list_parts",
    "doctor": "retrace_pl.pipeline.doctor:doctor",
    "completion": "retrace_pl.completion:completion",
}
"""Command -> function that takes the remaining arguments and returns nothing; its docstring is the command's help."""

SHARED = ("audit", "pretrain", "generator", "unlearn", "attack", "evaluate", "report")
"""Commands that several processes of one launch may run together; see `retrace_pl.pipeline.processes`."""

INTERRUPTED = 130


def main(arguments: list[str]) -> int:
    """Runs one command.

    Args:
        arguments: the command line without the program's name.

    Returns:
        0 on success, 2 on bad input, 1 on a failed run, 130 after Ctrl-C.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(overview())
        return 0
    if arguments[0] == "--version":
        sys.stdout.write(f"retrace {__version__}\n")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        return _fail(f"unknown command {command!r}; choose one of {', '.join(COMMANDS)}", 2)
    module, function = COMMANDS[command].split(":")
    try:
        if command not in SHARED:
            refuse_launch(command)
        with _disk_errors_of_threads():
            getattr(importlib.import_module(module), function)(rest)
    except RetraceError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command again to continue from the last finished step", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        remedy = f"{UNWRITABLE[error.errno]} or choose another folder with --output"
        return _fail(f"{error.filename or 'a file'} cannot be used: {error.strerror}; {remedy}", 1)
    return 0


@contextlib.contextmanager
def _disk_errors_of_threads() -> Iterator[None]:
    """Takes disk errors of background threads, such as TensorBoard's writers, without the thread's traceback.

    Most of them reach the main thread, too; those that do not are raised at the end, so that nothing is lost silently.
    """
    taken: list[OSError] = []
    before = threading.excepthook

    def take(failed: threading.ExceptHookArgs) -> None:
        if isinstance(failed.exc_value, OSError) and failed.exc_value.errno in UNWRITABLE:
            taken.append(failed.exc_value)
        else:
            before(failed)

    threading.excepthook = take
    try:
        yield
    finally:
        threading.excepthook = before
    if taken:
        raise taken[0]


def overview() -> str:
    """The text of `retrace --help`; the commands' lines come from their docstrings."""
    lines = [
        "usage: retrace COMMAND [options]",
        "",
        "Audits what can still be recovered from a model that was told to forget.",
        "",
    ]
    lines.append("commands:")
    lines.extend(f"  {name:<10} {first_docstring_line(target)}" for name, target in COMMANDS.items())
    lines.append("")
    lines.extend(
        textwrap.wrap(
            "`retrace COMMAND --help` shows a command's options; `--config digits` takes a packaged configuration by "
            "its bare name, `--config my/audit.yaml` a file of yours.",
            width=100,
        )
    )
    return "\n".join(lines) + "\n"


def first_docstring_line(target: str) -> str:
    """First docstring line of `module:function`, read from the source so that the module is not imported."""
    module, function = target.split(":")
    package, _, name = module.rpartition(".")
    parent = Path(importlib.util.find_spec(package).submodule_search_locations[0])  # type: ignore[union-attr, index]
    tree = ast.parse((parent / f"{name}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    raise LookupError(f"{target} does not exist")


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"retrace: error: {' '.join(message.split())}\n")
    return code
