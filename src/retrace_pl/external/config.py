"""The settings of an attack on two models that were not made here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jsonargparse import lazy_instance  # type: ignore[attr-defined]
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from retrace_pl.attacks import Attack, ReTrace
from retrace_pl.audit import VerdictThresholds
from retrace_pl.envs import LatentSettings
from retrace_pl.errors import InputError
from retrace_pl.external.adapters import ImageInput
from retrace_pl.external.endpoint import EndpointSettings
from retrace_pl.external.inputs import ModelInputs
from retrace_pl.external.outputs import OutputKind
from retrace_pl.external.texts import TextInput
from retrace_pl.models import Generator
from retrace_pl.pipeline.config import GeneratorSettings, TraceSettings, TrainerSettings
from retrace_pl.searchers import SB3Searcher, Searcher
from retrace_pl.traces import Access

__all__ = ["ModelSettings", "PairData", "PairSettings", "PublicGeneratorSettings", "SearchSettings"]


@dataclass(frozen=True)
class ModelSettings:
    """Which models are attacked, and how their files become modules.

    Args:
        roles: Role (`original`, `unlearned`, `reference`, `null`, `evaluator`) -> what the user named.
        model_class: Class that safetensors weights belong to.
        model_args: Its arguments.
        classes: Number of classes, where weights do not tell.
        outputs: What the models return; None: found out from a batch.
        declared: What was declared of the records the models take, an entry for every kind; images first, which
            they are where nobody says otherwise.
        access: What the attack may see; None: as much as the models' formats allow.
        endpoint: How HTTP endpoints are asked.
        budget: Most inputs that each black box may ever be sent; None: what the plan needs, and a
            tenth or ten batches for retries.
    """

    roles: dict[str, str]
    model_class: str | None = None
    model_args: dict[str, Any] | None = None
    classes: int | None = None
    outputs: OutputKind | None = None
    declared: tuple[ModelInputs, ...] = (ImageInput(), TextInput())
    access: Access | None = None
    endpoint: EndpointSettings = field(default_factory=EndpointSettings)
    budget: int | None = None


@dataclass(frozen=True)
class PairData:
    """The data of an attack: what it may use, and what only judges it.

    Args:
        public: What the generator is trained on and the trace is fitted to.
        deleted: The deleted records, for the evaluation alone.
        heldout: Unseen records of the same kind, for the evaluation alone.
        public_size: Most public records kept.
        exclude_classes: Classes left out of the public records.
        deleted_classes: Classes that were deleted, as the models count them; None: read from the deleted records.
        deletion: What the auditor was told: whole classes were deleted, or single records.
    """

    public: str
    deleted: str | None = None
    heldout: str | None = None
    public_size: int | None = None
    exclude_classes: tuple[str, ...] = ()
    deleted_classes: tuple[int, ...] | None = None
    deletion: Literal["class", "records"] = "class"


@dataclass
class PublicGeneratorSettings:
    """How the generator is built and trained on the public records.

    Args:
        model: architecture; called with the shape of one image, or with the longest text in tokens and the size of the
            vocabulary; unset: the packaged DCGAN for the size of the images, or the packaged GPT-2 in miniature.
        epochs: passes over the public records; unset: as many as make about 6,000 updates, at least 5 and at most 150;
            with texts 1,300, 4 and 40.
        batch_size: records a step.
        optimizer: optimiser in place of the task's own; called with the parameters.
        scheduler: learning-rate scheduler, stepped once an epoch; called with the optimiser.
        task: further settings of `GeneratorTask` or `TextGeneratorTask`, such as learning rates.
    """

    model: Callable[[tuple[int, ...]], Generator] | None = None
    epochs: int | None = None
    batch_size: int = 32
    optimizer: OptimizerCallable | None = None
    scheduler: LRSchedulerCallable | None = None
    task: dict[str, Any] = field(default_factory=dict)

    def completed(
        self,
        packaged: Callable[[tuple[int, ...]], Generator],
        count: int,
        updates: int,
        *,
        fewest: int,
        most: int,
        task: Mapping[str, Any] | None = None,
    ) -> GeneratorSettings:
        """The same settings with an architecture, and with the epochs for so many public records.

        Args:
            packaged: Architecture where none is set.
            count: Number of public records.
            updates: About how many updates there are where the epochs are not set.
            fewest: Fewest epochs then.
            most: Most epochs then.
            task: Settings of the packaged architecture's task; those that are set go first.

        Raises:
            InputError: A setting is out of range.
        """
        epochs = self.epochs
        if epochs is None:
            epochs = min(most, max(fewest, round(updates * self.batch_size / count)))
        wanted = {**(task or {} if self.model is None else {}), **self.task}
        model = self.model or packaged
        return GeneratorSettings(model, epochs, self.batch_size, self.optimizer, self.scheduler, wanted)


@dataclass
class SearchSettings:
    """How the attack searches.

    Args:
        generator: the generator that is trained on the public records.
        searcher: who moves in the generator's latent space.
        attack: how candidates become reconstructions.
        rivals: other searchers run at the same budget and shown beside the attack.
        latent: the search environment over latents.
        traces: signals, normalisation, sign.
        queries: candidates each search may show to both models.
        repeats: independent repetitions of the search, each with a seed of its own; also on the reference model and on
            the null model.
        bootstrap_samples: resamples behind each interval.
        level: confidence level of the intervals.
        thresholds: what a run must meet before its numbers are read.
        trainer: devices, precision, threads.
        seed: the seed every other seed is derived from.
        name: title of the report.

    Raises:
        InputError: a setting is out of range.
    """

    generator: PublicGeneratorSettings = field(default_factory=PublicGeneratorSettings)
    searcher: Searcher = field(default_factory=lambda: lazy_instance(SB3Searcher))
    attack: Attack = field(default_factory=lambda: lazy_instance(ReTrace))
    rivals: list[Searcher] = field(default_factory=list)
    latent: LatentSettings = field(default_factory=LatentSettings)
    traces: TraceSettings = field(default_factory=TraceSettings)
    queries: int = 20_480
    repeats: int = 3
    bootstrap_samples: int = 2000
    level: float = 0.95
    thresholds: VerdictThresholds = field(default_factory=VerdictThresholds)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    seed: int = 0
    name: str = "Attack on two models"

    def __post_init__(self) -> None:
        for name in ("queries", "repeats", "bootstrap_samples"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} is {getattr(self, name)}; set it to 1 or more")
        if self.trainer.devices != 1 or self.trainer.num_nodes != 1:
            raise InputError("--trainer.devices: the generator is trained on one device here; set it to 1")
        if not 0 < self.level < 1:
            raise InputError(f"--level is {self.level}; it lies between 0 and 1")
        if self.traces.fit_weights or self.attack.needs_shadow:
            name = "traces.fit_weights" if self.traces.fit_weights else "attack"
            raise InputError(f"--{name}: it learns from models unlearned here, and these were brought along")
        if getattr(self.attack, "searcher", None) is not None:
            raise InputError("attack.searcher: give the searcher with --searcher, so that rivals can take its place")


@dataclass(frozen=True)
class PairSettings:
    """Everything that one command line says.

    Args:
        models: The models.
        data: The data.
        search: The search.
        generator_size: Side of the generated images.
        generator_weights: Weights of a generator that was trained before.
        generator_pretrained: A GPT-2 that a generator of texts starts from, by name or folder.
        plain: All settings as plain values, for keys.
        text: All settings as YAML.
    """

    models: ModelSettings
    data: PairData
    search: SearchSettings
    generator_size: int | None
    generator_weights: str | None
    generator_pretrained: str | None
    plain: dict[str, Any]
    text: str
