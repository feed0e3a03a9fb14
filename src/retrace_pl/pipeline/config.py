"""The settings of one audit: typed sections that a YAML file, the command line or Python code fill in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from jsonargparse import lazy_instance  # type: ignore[attr-defined]
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from retrace_pl.attacks import Attack, InferenceAttack
from retrace_pl.audit import VerdictThresholds, get_control, parse_controls
from retrace_pl.data import AuditDataModule
from retrace_pl.envs import LatentSettings
from retrace_pl.errors import InputError
from retrace_pl.models import Classifier, Generator
from retrace_pl.searchers import Searcher
from retrace_pl.tasks.generator_choice import check_task_settings, generator_class
from retrace_pl.traces import FixedQuantile, Normaliser, TraceWeights
from retrace_pl.traces.execution import Autocast, MemoryFormat
from retrace_pl.unlearning import UnlearningMethod

STAGES = ("pretrain", "generator", "unlearn", "attack", "evaluate", "report")
"""Stages of an audit in the order in which they run; each reads files and writes files."""


def _at_least_one(section: str, settings: Any, *names: str) -> None:
    """Refuses numbers below 1 when a configuration is read, before any stage has spent time on it."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise InputError(f"{section}{name} is {value}; set it to 1 or more")


@dataclass
class ClassifierSettings:
    """How a classifier is built and trained.

    Args:
        model: architecture; called with (`data.input_size`, number of classes), the former being channels or the
            size of a vocabulary.
        epochs: passes over the training split.
        optimizer: optimiser class and its settings; called with the parameters.
        scheduler: learning-rate scheduler stepped once an epoch; called with the optimiser.
        batch_size: records a step.
        label_smoothing: smoothing of the training targets, in [0, 1).
        augment: whether the data module's augmentation is applied while training.

    Raises:
        InputError: a setting is out of range.
    """

    model: Callable[[int, int], Classifier]
    optimizer: OptimizerCallable
    epochs: int = 20
    scheduler: LRSchedulerCallable | None = None
    batch_size: int = 128
    label_smoothing: float = 0.0
    augment: bool = True

    def __post_init__(self) -> None:
        _at_least_one("classifier or evaluator: ", self, "epochs", "batch_size")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"classifier or evaluator: label_smoothing is {self.label_smoothing}; it lies in [0, 1)")


@dataclass
class GeneratorSettings:
    """How the frozen generator G is built and trained on the public split.

    Args:
        model: architecture; called with `data.sample_space`, the shape of one image or (tokens, vocabulary) of texts.
        epochs: passes over the public split.
        batch_size: records a step.
        optimizer: optimiser in place of the task's own, of each network it trains; called with the parameters.
        scheduler: learning-rate scheduler of each, stepped once an epoch; called with the optimiser.
        task: further settings of the task that the generator names (`GeneratorTask` of a GAN, `TextGeneratorTask` of
            texts), such as its learning rates.

    Raises:
        InputError: a setting is out of range.
    """

    model: Callable[[tuple[int, ...]], Generator]
    epochs: int = 100
    batch_size: int = 64
    optimizer: OptimizerCallable | None = None
    scheduler: LRSchedulerCallable | None = None
    task: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _at_least_one("generator.", self, "epochs", "batch_size")
        kind = generator_class(self.model)
        if kind is not None:  # of another callable the class is known, and its settings checked, once it is built
            check_task_settings(kind, self.task)


@dataclass
class TraceSettings:
    """How the behavioural gap between f+ and f- becomes one score in [0, 1].

    Args:
        weights: weights of the three signals; those above the access level are left out.
        normaliser: maps each raw signal to [0, 1] before weighting.
        sign: `positive` scores a large gap as close to the deleted data; `paper_literal` is the sign as printed.
        signal: `gap` scores any disagreement, as in the paper; `directional` how much less f- takes a candidate for the
            deleted class than f+ did, the class inferred from public records. It has a fixed scale: `normaliser` is
            not used.
        batch_size: candidates scored in one forward pass.
        memory_format: `channels_last` runs small convolutional models up to twice as fast on a CPU; probabilities agree
            with those of `contiguous` to 1e-5.
        autocast: `bfloat16` or `float16` runs the models' matrix products and convolutions in it; the first batch is
            also run without, and probabilities that differ by more than 0.05 or 0.01 stop the run.
        compile: run both models through `torch.compile`, which takes up to minutes first; checked likewise, to 1e-4.
        fit_weights: fit the weights on a shadow unlearning of public records instead, and leave `weights` unused.
    """

    weights: TraceWeights = field(default_factory=TraceWeights)
    normaliser: Normaliser = field(default_factory=lambda: lazy_instance(FixedQuantile))
    sign: Literal["positive", "paper_literal"] = "positive"
    signal: Literal["gap", "directional"] = "gap"
    batch_size: int = 512
    memory_format: MemoryFormat = "contiguous"
    autocast: Autocast = "none"
    compile: bool = False
    fit_weights: bool = False

    def __post_init__(self) -> None:
        if self.signal == "directional" and self.sign != "positive":
            raise InputError("traces.sign: a directional score has its own sign; drop traces.sign or set signal=gap")


@dataclass
class AuditSettings:
    """What turns the attack's numbers into evidence.

    Args:
        controls: controls to run, or `all`; see `retrace_pl.audit`. Without `null`, what training noise alone yields
            may be called a leak. YAML reads the id `null` as "nothing", which counts as the id here.
        repeats: independent repetitions of the search (and of the matched retraining), each with a seed of its own.
        baseline_controls: whether every baseline and inference also runs on the matched retrain, at the same budget;
            without it none of their figures says how much better unlearning would have prevented.
        wrong_class: class that the control `wrong_class` deletes, by index or name; unset: the retained class nearest
            to the deleted one by index.
        bootstrap_samples: resamples behind each interval.
        level: confidence level of the intervals.
        thresholds: what an audit must meet before its numbers are read.

    Raises:
        InputError: a control is unknown, or a setting is out of range.
    """

    controls: list[str | None] = field(
        default_factory=lambda: ["identity", "null", "prior", "matched_retrain", "holdout"]
    )
    repeats: int = 3
    baseline_controls: bool = True
    wrong_class: int | str | None = None
    bootstrap_samples: int = 2000
    level: float = 0.95
    thresholds: VerdictThresholds = field(default_factory=VerdictThresholds)

    def __post_init__(self) -> None:
        _at_least_one("audit.", self, "repeats", "bootstrap_samples")
        if not 0 < self.level < 1:
            raise InputError(f"audit.level is {self.level}; it lies between 0 and 1")
        known = parse_controls(self.controls)
        named = known if "all" in self.controls else map(get_control, self.controls)
        self.controls = list(dict.fromkeys(control.id for control in named))


@dataclass
class TrainerSettings:
    """Where training and evaluation run; handed to Lightning's Trainer.

    Args:
        accelerator: `auto`, `cpu`, `gpu` or `mps`.
        devices: number of devices that training and evaluation use, on each machine; -1 for all GPUs. Every device gets
            batches of its own, so the batch of a step is that many times as large as `batch_size`.
        strategy: how they share the work: `ddp`, `fsdp` (which spreads the classifiers' parameters as well), or another
            strategy of Lightning's.
        num_nodes: number of machines; torchrun or srun starts a process for every device of each.
        precision: Lightning precision, for example `bf16-mixed`.
        accumulate_grad_batches: batches per optimiser step of the classifiers.
        gradient_clip_val: largest norm of the classifiers' gradients, longer ones are scaled down; unset: no limit.
        sync_batchnorm: batch normalisation by the statistics of all devices' batches together; GPUs only.
        compile: run the networks through `torch.compile` in training; the first steps take minutes, and results differ
            in their last digits.
        threads: CPU threads of torch; small models run faster with one. Unset: torch decides.

    Raises:
        InputError: a setting is out of range.
    """

    accelerator: str = "auto"
    devices: int = 1
    strategy: str = "auto"
    num_nodes: int = 1
    precision: str = "32-true"
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    sync_batchnorm: bool = False
    compile: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        _at_least_one("trainer.", self, "num_nodes", "accumulate_grad_batches", "threads")
        if self.devices < 1 and self.devices != -1:
            raise InputError(f"trainer.devices is {self.devices}; set it to 1 or more, or to -1 for all GPUs")
        if self.gradient_clip_val is not None and not self.gradient_clip_val > 0:
            raise InputError(f"trainer.gradient_clip_val is {self.gradient_clip_val}; set it above 0, or leave it out")


@dataclass
class AuditConfig:
    """One audit: a model is trained, made to forget, attacked, and the findings are judged against controls.

    Args:
        data: where the records come from, which are deleted, and how they are split.
        classifier: the audited model f+.
        evaluator: the independent classifier that judges candidates; it never sees the training split.
        generator: the generator G, trained on public records alone.
        unlearning: the unlearning method that turns f+ into f-.
        searcher: who moves in G's latent space.
        attack: how candidates become reconstructions.
        latent: the search environment over latents.
        traces: signals, normalisation, sign.
        access: what the auditor may see: `black` probabilities, `gray` also losses, `white` also input gradients.
        queries: candidates each search may show to both models.
        rivals: other searchers run at the same budget and shown beside the attack.
        baselines: other attacks on the same pair at the same budget, judged by the same metrics; one with a setting
            `searcher` that is left empty takes the audit's. One that does not apply to the pair says so.
        inferences: attacks that answer a question (which class was deleted, was this record a member) on the same pair
            at the same budget.
        audit: controls, repetitions and intervals.
        trainer: devices, precision, threads.
        seed: the seed every other seed of the audit is derived from.
        name: title of the report.

    Raises:
        InputError: `queries` is below 1, or `attack` brings a searcher of its own.
    """

    data: AuditDataModule
    classifier: ClassifierSettings
    evaluator: ClassifierSettings
    generator: GeneratorSettings
    unlearning: UnlearningMethod
    searcher: Searcher
    attack: Attack
    rivals: list[Searcher] = field(default_factory=list)
    baselines: list[Attack] = field(default_factory=list)
    inferences: list[InferenceAttack] = field(default_factory=list)
    latent: LatentSettings = field(default_factory=LatentSettings)
    traces: TraceSettings = field(default_factory=TraceSettings)
    access: Literal["black", "gray", "white"] = "white"
    queries: int = 20_480
    audit: AuditSettings = field(default_factory=AuditSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    seed: int = 0
    name: str = "audit"

    def __post_init__(self) -> None:
        _at_least_one("", self, "queries")
        if getattr(self.attack, "searcher", None) is not None:
            raise InputError(
                "attack.searcher: in an audit the searcher is the setting `searcher`, so that rivals can take its place"
            )
