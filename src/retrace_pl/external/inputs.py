"""What foreign models take: hints that files and the user give, and what an attack then does with such records."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from retrace_pl.data import LabelledRecords
from retrace_pl.data.given import MakesLoader
from retrace_pl.errors import InputError
from retrace_pl.external.questions import Questions
from retrace_pl.metrics import Domain
from retrace_pl.pipeline.config import GeneratorSettings

if TYPE_CHECKING:
    from retrace_pl.external.config import PairSettings, PublicGeneratorSettings
    from retrace_pl.external.outputs import OutputKind

__all__ = ["Material", "ModelInputs", "RecordSet", "class_numbers", "few_of"]


class ModelInputs(ABC):
    """The records that a model takes, as far as they are known.

    Attributes:
        noun: What such records are called.
    """

    noun: ClassVar[str]

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The known values by the name of their command-line option."""

    @abstractmethod
    def completed(self, hint: Self) -> Self:
        """These values, and those of `hint` where there is none."""

    @abstractmethod
    def material(self, settings: PairSettings) -> Material:
        """What an attack does with records of this kind.

        Raises:
            InputError: A value is missing or cannot be used; the message names the option.
        """


@dataclass(frozen=True)
class RecordSet:
    """Records, with their classes where they are known.

    Args:
        records: The records; labels are all 0 where they have none.
        classes: Class names; None where the records have no labels.
        title: Short name for reports.
        loader: Makes batches of the records to train on.
    """

    records: LabelledRecords
    classes: tuple[str, ...] | None
    title: str
    loader: MakesLoader

    def __len__(self) -> int:
        return len(self.records)

    @property
    def inputs(self) -> Tensor:
        """The records as candidates are: [n, ...]."""
        return self.records.inputs

    @property
    def labels(self) -> Tensor | None:
        """Classes int64 [n], where they are known."""
        return None if self.classes is None else self.records.labels

    def hash(self) -> str:
        """Hash of the records with their labels, in order."""
        stored = self.records.stored
        digest = hashlib.sha256(f"{list(stored.shape)} {self.classes}".encode())
        digest.update(stored.contiguous().numpy().data)
        digest.update(self.records.labels.contiguous().numpy().data)
        return digest.hexdigest()


class Material(ABC):
    """One kind of records, and everything about it that an attack on foreign models needs to know.

    Attributes:
        noun: What the records are called.
        advice: Which options to look at where a model cannot be run on them.
        declared: Which options to look at where a model makes nothing of them.
        domain: Distances, metrics and words of such records.
    """

    noun: str
    advice: str
    declared: str
    domain: Domain

    @abstractmethod
    def check(self, option: str, inputs: ModelInputs | None) -> None:
        """Makes sure that a model can take such records, from what its file says.

        Args:
            option: The command-line option that named the model.
            inputs: What its file says.

        Raises:
            InputError: It cannot.
        """

    @abstractmethod
    def read(
        self, name: str, option: str, *, exclude: tuple[str, ...] = (), limit: int | None = None, seed: int = 0
    ) -> RecordSet:
        """Reads records and brings them into the form of candidates.

        Args:
            name: What the user named.
            option: The command-line option that named it, for messages.
            exclude: Classes to leave out, by name or by number.
            limit: Most records kept, drawn at random.
            seed: Seed of that draw.

        Raises:
            InputError: The data cannot be found or read, or has no such class.
        """

    @abstractmethod
    def ready(self, batch: Tensor) -> Tensor:
        """What the models themselves are shown for candidates [n, ...].

        Raises:
            InputError: They are of another shape.
        """

    @abstractmethod
    def present(self, inputs: Tensor) -> Questions:
        """What black boxes are asked for inputs that are `ready`."""

    @abstractmethod
    def prepare(self, model: nn.Module, kind: OutputKind) -> nn.Module:
        """A model that takes candidates and returns class scores whose softmax are the probabilities.

        Args:
            model: Takes what is `ready`.
            kind: What it returns.
        """

    @abstractmethod
    def generator(self, settings: PublicGeneratorSettings, count: int) -> GeneratorSettings:
        """How the generator is built and trained on so many public records.

        Raises:
            InputError: A setting is out of range.
        """

    @abstractmethod
    def sample_space(self) -> tuple[int, ...]:
        """What the generator's architecture is called with."""

    @abstractmethod
    def check_generator(self, model: nn.Module) -> None:
        """Makes sure that a generator makes such records, from what it says of itself.

        Raises:
            InputError: It does not.
        """

    @abstractmethod
    def take_public(self, public: RecordSet) -> None:
        """Learns what the metrics need of the public records."""

    @abstractmethod
    def encoding(self) -> dict[str, Any]:
        """What the report says of how records were encoded, under ``encoding``, where they were."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """The preprocessing in plain values, None where it was not told."""


def few_of(
    labels: Tensor, classes: tuple[str, ...] | None, name: str, exclude: tuple[str, ...], limit: int | None, seed: int
) -> Tensor:
    """Positions of the records that stay, ascending, int64 [k].

    Args:
        labels: Classes [n].
        classes: Class names; None where there are no labels.
        name: What the user named, for messages.
        exclude: Classes to leave out, by name or by number.
        limit: Most records kept.
        seed: Seed of the draw.

    Raises:
        InputError: There is no such class.
    """
    positions = torch.arange(len(labels))
    if exclude:
        positions = positions[~torch.isin(labels, torch.tensor(class_numbers(exclude, classes, name)))]
    if limit is not None and limit < len(positions):
        drawn = np.random.default_rng(seed).permutation(positions.numpy())[:limit]
        positions = torch.from_numpy(np.sort(drawn))
    return positions


def class_numbers(wanted: tuple[str, ...], classes: tuple[str, ...] | None, name: str) -> list[int]:
    """Numbers of classes by their names or numbers.

    Raises:
        InputError: There is no such class.
    """
    if classes is None:
        raise InputError(f"--exclude-classes: {name} has no labels to leave classes out by")
    found = []
    for value in wanted:
        if value in classes:
            found.append(classes.index(value))
        elif value.isdecimal() and int(value) < len(classes):
            found.append(int(value))
        else:
            raise InputError(f"--exclude-classes: {name} has no class {value}; it has {', '.join(classes[:20])}")
    return found
