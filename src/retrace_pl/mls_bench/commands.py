"""The command `retrace mls-bench`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from filelock import FileLock, Timeout

from retrace_pl.errors import InputError
from retrace_pl.files import atomic_path, finite
from retrace_pl.mls_bench.api import DEFAULT_OUTPUT, prepare_benchmark
from retrace_pl.mls_bench.baselines import BASELINES
from retrace_pl.mls_bench.methods import find_method
from retrace_pl.mls_bench.scores import Validity
from retrace_pl.mls_bench.settings import PRESETS, PUBLISHED_SEED, SETTINGS, Limits, find_preset, find_setting
from retrace_pl.mls_bench.table import print_results
from retrace_pl.pipeline.config import TrainerSettings
from retrace_pl.report.findings import result_alone
from retrace_pl.unlearning import METHODS

_LIMITS = ("train_limit", "test_limit", "pretrain_epochs", "unlearn_epochs", "batch_size", "classes", "pretrain_lr")
STANDARD_OUTPUT = Path("-")
"""What `--json` without a file means."""
_IDENTITY = ("setting", "preset", "method", "file", "seed", "own_settings", "overrides")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"retrace mls-bench: {message}; see `retrace mls-bench --help`")


def mls_bench(arguments: list[str]) -> None:
    """Run update rules, yours among them, on MLS-Bench's machine-unlearning task, beside its published rows."""
    options = make_parser().parse_args(arguments)
    given = [name for setting in options.setting for name in (SETTINGS if setting == "all" else (setting,))]
    settings = list(dict.fromkeys(find_setting(name).name for name in given))
    methods = [name for given in options.method for name in (BASELINES if given == "all" else (given,))]
    methods = list(dict.fromkeys(methods))
    seeds = list(dict.fromkeys(options.seed or [PUBLISHED_SEED]))
    validity = Validity(_share("--min-retain", options.min_retain), _share("--max-forget", options.max_forget))
    trainer = TrainerSettings(
        accelerator=options.accelerator, devices=options.devices, precision=options.precision, threads=options.threads
    )
    limits = {name: getattr(options, name) for name in _LIMITS}
    for name in settings:  # everything that can be refused is refused before hours of training
        found = find_preset(options.preset, find_setting(name).task).changed(limits)
        _check_methods(methods, found, options.own_settings)
    file = None if options.json == STANDARD_OUTPUT else options.json
    if file is not None:
        _check_writable(file)
        read_results(file)
    results = []
    with result_alone(options.json == STANDARD_OUTPUT):
        for setting, seed in ((setting, seed) for setting in settings for seed in seeds):
            benchmark = prepare_benchmark(
                setting,
                preset=options.preset,
                seed=seed,
                output=options.output,
                data=options.data,
                trainer=trainer,
                quiet=options.quiet,
                **limits,
            )
            for method in methods:
                result = benchmark.run(
                    method,
                    reference=not options.no_reference,
                    own_settings=options.own_settings,
                    validity=validity,
                    rerun=options.rerun,
                )
                results.append(result)
                if file is not None:
                    add_result(file, result)
    if options.json == STANDARD_OUTPUT:
        sys.stdout.write(json.dumps(finite({"results": results}), indent=2, allow_nan=False) + "\n")
    elif not options.quiet:
        print_results(results, validity)


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = _Parser(prog="retrace mls-bench", description=mls_bench.__doc__)
    add = parser.add_argument
    add(
        "--method",
        action="append",
        required=True,
        metavar="NAME_OR_FILE",
        help=f"a .py file with a class UnlearningMethod, a baseline ({', '.join(BASELINES)}), `all` for the four "
        f"baselines, or another method of the zoo ({', '.join(name for name in METHODS if name not in BASELINES)}); "
        "repeatable",
    )
    add(
        "--setting",
        action="append",
        required=True,
        metavar="NAME",
        help=f"{', '.join(SETTINGS)}, or `all`; -classN with another N forgets another class, and -class0 may be left "
        "out; repeatable",
    )
    add(
        "--preset", default="full", help=f"{' or '.join(PRESETS)}: the published benchmark, or minutes on two CPU cores"
    )
    add("--seed", type=int, action="append", metavar="N", help=f"repeatable (default: {PUBLISHED_SEED})")
    add(
        "--json", type=Path, nargs="?", const=STANDARD_OUTPUT, metavar="FILE", help="print the results as one JSON "
        "object on standard output, or with FILE add one object per run to it, as lines, after each run",
    )  # fmt: skip
    add("--output", type=Path, default=DEFAULT_OUTPUT, help=f"where models are kept (default: {DEFAULT_OUTPUT})")
    add("--data", metavar="FOLDER", help="folder of the data set; default: $RETRACE_DATA or a download")
    add("--own-settings", action="store_true", help="methods of the zoo keep their own optimiser, epochs and batches")
    add("--no-reference", action="store_true", help="do not train the retrained reference")
    add("--rerun", action="store_true", help="unlearn again even if the same run is there already")
    add("--train-limit", type=int, metavar="N", help="training images per class")
    add("--test-limit", type=int, metavar="N", help="test images per class")
    add("--classes", type=int, metavar="N", help="the first N classes of the data set alone")
    add("--pretrain-epochs", type=int, metavar="N", help="epochs of f+ and of the reference")
    add("--pretrain-lr", type=float, metavar="RATE", help="learning rate at which pretraining begins")
    add("--unlearn-epochs", type=int, metavar="N", help="passes over the retained images while unlearning")
    add("--batch-size", type=int, metavar="N", help="images a step, in pretraining and of each stream")
    add("--min-retain", type=float, default=Validity.min_retain, metavar="SHARE", help="below this share of the "
        "original's retain accuracy a run is invalid (default: %(default)s)")  # fmt: skip
    add("--max-forget", type=float, default=Validity.max_forget, metavar="SHARE", help="from this share of the "
        "original's accuracy on the class nothing counts as forgotten (default: %(default)s)")  # fmt: skip
    add("--accelerator", default="auto", help="auto, cpu, gpu or mps")
    add("--devices", type=int, default=1, help="1: the benchmark defines its batches for one device")
    add("--precision", default="32-true", help="32-true, 64-true, bf16-mixed or bf16-true (default: %(default)s)")
    add("--threads", type=int, help="CPU threads of torch")
    add("--quiet", action="store_true", help="print nothing but errors, and with --json the result")
    return parser


def _check_methods(methods: list[str], limits: Limits, own_settings: bool) -> None:
    for method in methods:
        find_method(method, limits, own_settings=own_settings)


def _share(option: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise InputError(f"{option} is {value}; set it to a number between 0 and 1")
    return value


def read_results(path: Path) -> list[dict[str, Any]]:
    """Reads a file of results, one JSON object per line.

    Args:
        path: The file; none is as good as an empty one.

    Returns:
        The results.

    Raises:
        InputError: It holds something else, so that it must not be written to.
    """
    if not path.exists():
        return []
    try:
        rows = list(_lines(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"--json {path} exists and holds no JSON lines; give another file") from error
    if not all(isinstance(row, dict) and set(_IDENTITY) <= row.keys() for row in rows):
        raise InputError(f"--json {path} exists and holds something else than results; give another file")
    return rows


def add_result(path: Path, result: dict[str, Any]) -> None:
    """Adds a result to a file, in the place of an earlier one of the same run; the file is whole at any time.

    Several commands may add to one file at the same time: each waits for a lock file beside it.

    Args:
        path: The file.
        result: What `Benchmark.run` returned.

    Raises:
        InputError: The folder cannot be written, or its file system has no locks.
    """
    new = finite(result)
    _check_writable(path)
    with _lock(path):
        kept = [row for row in read_results(path) if any(row[name] != new[name] for name in _IDENTITY)]
        lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in [*kept, new])
        with atomic_path(path) as temporary:
            temporary.write_text(lines, encoding="utf-8")


def _lock(path: Path) -> FileLock:
    return FileLock(path.with_name(f".{path.name}.lock"))


def _check_writable(path: Path) -> None:
    """Makes the folder of a file and the lock beside it, or refuses them.

    Where the lock file cannot be made, waiting for the lock would try for ever; so it is made here. What `os.access`
    says is not enough: it calls file systems such as /proc writable that take no new files.
    """
    lock = _lock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Path(lock.lock_file).touch()
        with suppress(Timeout), lock.acquire(timeout=0):  # held by another command: then it can be locked
            pass
        writable = os.access(path.parent, os.W_OK)
    except (OSError, NotImplementedError):
        writable = False
    if not writable:
        raise InputError(f"--json {path} cannot be written and locked; give a file in another folder")


def _lines(text: str) -> Iterator[Any]:
    for line in text.splitlines():
        if line.strip():
            yield json.loads(line)
