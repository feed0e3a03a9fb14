"""The harness as Python calls; the command line uses the same ones."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from retrace_pl.errors import InputError
from retrace_pl.mls_bench.data import BenchmarkData, load_data
from retrace_pl.mls_bench.harness import Benchmark
from retrace_pl.mls_bench.results import training_key
from retrace_pl.mls_bench.settings import PUBLISHED_SEED, Limits, find_preset, find_setting
from retrace_pl.pipeline.config import TrainerSettings
from retrace_pl.pipeline.run_folder import RunFolder
from retrace_pl.pipeline.training import calm_lightning, make_trainer
from retrace_pl.tasks.unlearning import PRECISIONS

DEFAULT_OUTPUT = Path("runs/mls-bench")


def prepare_benchmark(
    setting: str,
    *,
    preset: str = "full",
    seed: int = PUBLISHED_SEED,
    output: str | Path = DEFAULT_OUTPUT,
    data: str | Path | None = None,
    trainer: TrainerSettings | None = None,
    quiet: bool = True,
    **overrides: float | None,
) -> Benchmark:
    """Opens a setting: reads its data and its folder; trains nothing yet.

    Args:
        setting: Such as `mobilenetv2-fmnist-class0`.
        preset: `full` (the published benchmark) or `smoke`.
        seed: Seed of weights, order, augmentation, and of the draw where a preset leaves images out.
        output: Parent of the run's folder. What depends on the same settings is kept there and reused.
        data: Folder of the data set in place of the usual one.
        trainer: Device and precision.
        quiet: No progress output.
        overrides: Fields of `Limits` that replace the preset's.

    Returns:
        The benchmark; call its `run`.

    Raises:
        InputError: A setting is unknown or out of range, or the data is not there.
    """
    found = find_setting(setting)
    limits = find_preset(preset, found.task).changed(overrides)
    if found.forget_class >= (limits.classes or found.task.num_classes):
        raise InputError(
            f"--setting {setting}: class {found.forget_class} is not among the first {limits.classes}; raise --classes"
        )
    trainer = trainer or TrainerSettings()
    if trainer.devices != 1 or trainer.num_nodes != 1:
        raise InputError(
            "--devices: the benchmark defines its batches for one device; run several seeds as several commands instead"
        )
    if seed < 0:
        raise InputError(f"--seed is {seed}; set it to 0 or more")
    if trainer.precision not in PRECISIONS:
        raise InputError(f"--precision is {trainer.precision!r}; choose one of {', '.join(PRECISIONS)}")
    calm_lightning()
    make_trainer(trainer, quiet=True, logger=False, enable_checkpointing=False)  # refuses a device that is not there
    if trainer.threads is not None:
        torch.set_num_threads(trainer.threads)
    records = _load(found.task.name, limits, seed, data)
    key = training_key(found, limits, seed, records.digest, trainer)
    folder = RunFolder(Path(output) / found.task.name / f"{preset}-seed{seed}-{key[:8]}")
    return Benchmark(found, preset, limits, seed, records, folder, trainer, quiet)


def run_setting(
    setting: str, method: Any, *, reference: bool = True, own_settings: bool = False, **options: Any
) -> Any:
    """One run of the benchmark as one call: the same as `retrace mls-bench --setting SETTING --method METHOD`.

    Args:
        setting: Such as `mobilenetv2-fmnist-class0`.
        method: A baseline (`scrub`), a method of the zoo, a `.py` file, or any object with an `unlearn_step`.
        reference: Whether to train the retrained reference.
        own_settings: Whether the method keeps its own optimiser, epochs and batches.
        options: The other arguments of `prepare_benchmark`.

    Returns:
        The result as a dictionary of plain values.

    Raises:
        InputError: A setting, file or value cannot be used.
    """
    return prepare_benchmark(setting, **options).run(method, reference=reference, own_settings=own_settings)


@functools.lru_cache(maxsize=1)  # the methods and classes of one command share 200 MB of images
def _decoded(task: str, sizes: tuple[int | None, ...], seed: int, data: str | None) -> BenchmarkData:
    limits = Limits(train_limit=sizes[0], test_limit=sizes[1], classes=sizes[2])
    return load_data(find_setting(task).task, limits, seed, data)


def _load(task: str, limits: Limits, seed: int, data: str | Path | None) -> BenchmarkData:
    sizes = (limits.train_limit, limits.test_limit, limits.classes)
    used = seed if any(size is not None for size in sizes[:2]) else 0  # complete splits do not depend on it
    return _decoded(task, sizes, used, None if data is None else str(data))
