"""Trains f+ and the retrained reference once, lets a rule unlearn, and measures all three."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from rich.console import Console
from torch import nn

from retrace_pl.data import LabelledTensors
from retrace_pl.errors import RunError
from retrace_pl.files import read_json, write_json, write_tensors
from retrace_pl.mls_bench.data import BenchmarkData, TrainingData, UnlearningData
from retrace_pl.mls_bench.methods import Plug, find_method
from retrace_pl.mls_bench.results import gap_to, recipe_of, training_key, versions, with_nan
from retrace_pl.mls_bench.scores import Measured, Validity, measure, score_fields
from retrace_pl.mls_bench.settings import CHANNELS, PRETRAINING, Limits, Setting, find_preset
from retrace_pl.models import ImageClassifier
from retrace_pl.pipeline.checkpoints import discard_checkpoints
from retrace_pl.pipeline.config import TrainerSettings
from retrace_pl.pipeline.run_folder import RunFolder, fingerprint, load_weights, seed_for, seeded_module
from retrace_pl.pipeline.training import check_finite, fit, torch_device
from retrace_pl.report.progress import terminal
from retrace_pl.tasks import ClassifierTask, UnlearningTask

ORIGINAL = "original"


@dataclass
class Benchmark:
    """One setting, preset and seed with its data; made by `retrace_pl.mls_bench.prepare_benchmark`.

    Args:
        setting: Task and class to forget.
        preset: Name of the preset.
        limits: What is run of it, overrides included.
        seed: Seed of everything.
        data: The records.
        folder: Where f+, the reference and the results are kept.
        trainer: Device and precision.
        quiet: No progress output.
    """

    setting: Setting
    preset: str
    limits: Limits
    seed: int
    data: BenchmarkData
    folder: RunFolder
    trainer: TrainerSettings
    quiet: bool = True
    _measured: dict[str, Measured] = field(default_factory=dict)

    @property
    def console(self) -> Console:
        """Progress output, on standard error."""
        return terminal(self.quiet)

    @property
    def key(self) -> str:
        """Hash of what f+ depends on."""
        return training_key(self.setting, self.limits, self.seed, self.data.digest, self.trainer)

    def original(self) -> ImageClassifier:
        """f+, trained on all records; from its file if it has been trained before."""
        return self._trained(ORIGINAL, self.data.train)

    def retrained(self) -> ImageClassifier:
        """The reference: the same recipe on the retained records alone."""
        label = self.setting.forget_class
        return self._trained(f"retrained-class{label}", self.data.retained(self.data.train, label))

    def measured(self, name: str, model: Callable[[], nn.Module]) -> Measured:
        """The metrics of f+ or of the reference, measured once."""
        if name not in self._measured:
            self._measured[name] = self._measure(model())
        return self._measured[name]

    def run(
        self,
        method: Any,
        *,
        reference: bool = True,
        own_settings: bool = False,
        validity: Validity | None = None,
        rerun: bool = False,
    ) -> dict[str, Any]:
        """Lets one method unlearn and measures the outcome.

        Args:
            method: Name, file or object; see `retrace_pl.mls_bench.methods.find_method`.
            reference: Whether to train the retrained reference and give the gaps to it.
            own_settings: Whether the method keeps its own optimiser, epochs and batches.
            validity: When a run counts as invalid.
            rerun: Unlearn again even if the same run is there already.

        Returns:
            One result as plain values; NaN where a number does not exist.

        Raises:
            InputError: The method cannot be used.
        """
        plug = find_method(method, self.limits, own_settings=own_settings)
        if plug.packaged and hasattr(plug.method, "seed"):  # of a random teacher, of fresh weights, of wrong labels
            plug.method.seed = seed_for(self.seed, "method")
        original = self.measured(ORIGINAL, self.original)
        retrained = self.measured("retrained", self.retrained) if reference else None
        unlearnt = self._unlearnt(plug, rerun)
        model = None if unlearnt["diverged"] else Measured(**unlearnt["measured"])
        problems = (validity or Validity()).problems(model, original, self.data.num_classes)
        scores = score_fields(model)
        return {
            "setting": self.setting.name,
            "preset": self.preset,
            "method": plug.name,
            "file": plug.file,
            "seed": self.seed,
            "forget_class": self.setting.forget_class,
            **scores,
            "gap_to_retrain": None if retrained is None else gap_to(scores, retrained),
            "valid": not problems,
            "problems": problems,
            "error": unlearnt["diverged"],
            "original": original.as_dict(),
            "retrained": None if retrained is None else retrained.as_dict(),
            "own_settings": plug.own_settings,
            "overrides": self.overrides,
            "unlearning": unlearnt["recipe"],
            "pretraining": {
                **PRETRAINING,
                "lr": self.limits.pretrain_lr,
                "epochs": self.limits.pretrain_epochs,
                "batch_size": self.limits.batch_size,
            },
            "sizes": self.sizes,
            "seconds": unlearnt["seconds"],
            "training_seconds": self._training_seconds(reference),
            "device": unlearnt["device"],
            "versions": unlearnt["versions"],
            "folder": str(self.folder.root),
        }

    @property
    def overrides(self) -> dict[str, Any]:
        """The limits that differ from those of the preset."""
        preset = asdict(find_preset(self.preset, self.setting.task))
        return {name: value for name, value in asdict(self.limits).items() if value != preset[name]}

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers of records used."""
        label = self.setting.forget_class
        counts: dict[str, int] = {}
        for name, split in (("train", self.data.train), ("test", self.data.test)):
            forget = int((split.labels == label).sum())
            counts |= {f"retain_{name}": len(split) - forget, f"forget_{name}": forget}
        return counts

    def _measure(self, model: nn.Module) -> Measured:
        label = self.setting.forget_class
        members = self.data.of_class(self.data.train, label)
        return measure(model, self.data.test, members, label, device=torch_device(self.trainer))

    def _build(self, seed: int = 0) -> ImageClassifier:
        return seeded_module(partial(self.setting.task.model, CHANNELS, self.data.num_classes), seed)

    def _trained(self, name: str, records: LabelledTensors) -> ImageClassifier:
        path = self.folder.path(f"{name}.safetensors")
        with self._lock(name):
            if not self.folder.is_done(name, self.key):
                self._train(name, records, path)
        model = self._build()
        load_weights(model, path)
        return model

    def _train(self, name: str, records: LabelledTensors, path: Path) -> None:
        start = time.perf_counter()
        epochs, seed = self.limits.pretrain_epochs, seed_for(self.seed, name)
        self.console.print(f"{self.setting.task.name}: training {name}, {epochs} epochs on {len(records)} images")
        self.folder.begin(name, ())
        model = self._build(seed)
        if torch_device(self.trainer).type == "cpu":
            model.to(memory_format=torch.channels_last)  # faster depthwise convolutions; the file holds plain weights
        task = ClassifierTask(
            model,
            self.data.num_classes,
            optimizer=lambda parameters: torch.optim.SGD(
                parameters,
                lr=self.limits.pretrain_lr,
                momentum=PRETRAINING["momentum"],
                weight_decay=PRETRAINING["weight_decay"],
            ),
            scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs),
            seed=seed,
        )
        data = TrainingData(records, self.data.test, self.limits.batch_size, seed)
        self._fit(task, data, name, self.key, epochs, limit_val_batches=0)  # measured at the end, which is cheaper
        check_finite(task.model, name)
        write_tensors(path, task.model.state_dict())
        discard_checkpoints(self.folder, name)
        self.folder.finish(name, self.key, [path.name], time.perf_counter() - start)

    def _lock(self, stage: str) -> FileLock:
        """Held while a stage runs, so that parallel commands wait for f+ instead of training it twice."""
        return FileLock(self.folder.path(f".{stage}.lock"))

    def _fit(self, task: Any, data: Any, name: str, key: str, epochs: int, **options: Any) -> None:
        run, settings = self.folder, self.trainer
        fit(task, data, name=name, key=key, epochs=epochs, run=run, settings=settings, quiet=self.quiet, **options)

    def _unlearnt(self, plug: Plug, rerun: bool) -> dict[str, Any]:
        """What came out of the unlearning, from its file if the same run is there."""
        kind = ("file-" if plug.file else "") + plug.name + ("-own" if plug.own_settings else "")
        stage = f"{kind}-class{self.setting.forget_class}"  # no stage begins with the name of another and a dash
        key = fingerprint([self.key, plug.source, plug.own_settings, asdict(self.limits), recipe_of(plug)])
        with self._lock(stage):
            return self._unlearn_once(plug, stage, key, rerun)

    def _unlearn_once(self, plug: Plug, stage: str, key: str, rerun: bool) -> dict[str, Any]:
        result, weights = self.folder.path(f"{stage}.json"), self.folder.path(f"{stage}.safetensors")
        if plug.source is not None and not rerun and self.folder.is_done(stage, key):
            self.console.print(f"{self.setting.name}: {plug.name} done already")
            return with_nan(read_json(result))
        self.folder.begin(stage, ())
        if not plug.resumable or rerun:
            discard_checkpoints(self.folder, stage)
        self.console.print(f"{self.setting.name}: unlearning with {plug.name}, {plug.method.epochs} epochs")
        start = time.perf_counter()
        model, diverged = self._unlearn(plug, stage, key)
        seconds = time.perf_counter() - start
        unlearnt = {
            "diverged": diverged,
            "measured": None if diverged else asdict(self._measure(model)),
            "recipe": recipe_of(plug),
            "seconds": round(seconds, 3),
            "device": str(torch_device(self.trainer)),
            "versions": versions(),
        }
        write_tensors(weights, model.state_dict())
        write_json(result, unlearnt)
        discard_checkpoints(self.folder, stage)
        self.folder.finish(stage, key, [result.name, weights.name], seconds)
        return unlearnt

    def _unlearn(self, plug: Plug, stage: str, key: str) -> tuple[nn.Module, str | None]:
        """The model that has unlearnt, in single precision, and what went wrong if the run diverged."""
        if plug.method.from_scratch:
            return self.retrained(), None
        seed = seed_for(self.seed, "unlearn")
        task = UnlearningTask(copy.deepcopy(self.original()), plug.method, self.data.num_classes, seed=seed)
        data = UnlearningData(self.data, self.setting.forget_class, plug.method.batch_size, seed)
        try:
            self._fit(task, data, stage, key, plug.method.epochs)
        except RunError as error:
            if task._trainer is None:  # nothing has run yet: a damaged checkpoint, not a divergence
                raise
            return task.model.cpu().float(), str(error)
        return task.model.cpu().float(), None

    def _training_seconds(self, reference: bool) -> dict[str, float]:
        known = self.folder.seconds()
        names = [ORIGINAL, *([f"retrained-class{self.setting.forget_class}"] if reference else [])]
        return {name.partition("-")[0]: known[name] for name in names if name in known}
