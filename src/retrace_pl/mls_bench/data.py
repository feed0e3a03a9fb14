"""The benchmark's data: where the complete data sets are, and batches of them in step."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader

from retrace_pl.data import HuggingFaceSource, ImageSource, LabelledTensors, TorchvisionSource
from retrace_pl.data.loading import Batch, build_loader
from retrace_pl.data.paths import expand
from retrace_pl.data.pixels import RawImages, materialise
from retrace_pl.data.views import next_epoch
from retrace_pl.errors import InputError
from retrace_pl.files import atomic_path
from retrace_pl.mls_bench.settings import CHANNELS, IMAGE_SIZE, Limits, Task
from retrace_pl.pipeline.run_folder import seed_for

DEFAULT_ROOT = "${RETRACE_DATA:-~/.cache/retrace_pl}"
CIFAR100_HUB = "uoft-cs/cifar100"


@dataclass(frozen=True)
class BenchmarkData:
    """Complete training and test splits in memory, or the part of them that a preset takes.

    Args:
        train: Training images, 32 x 32 with three channels.
        test: Test images.
        num_classes: Number of classes K.
        digest: Hash of all images and labels; what is trained on other data is not reused.
    """

    train: LabelledTensors
    test: LabelledTensors
    num_classes: int
    digest: str

    def of_class(self, split: LabelledTensors, label: int) -> LabelledTensors:
        """The records of one class."""
        return split.of_classes([label])

    def retained(self, split: LabelledTensors, label: int) -> LabelledTensors:
        """The records of all other classes."""
        return split.of_classes(set(range(self.num_classes)) - {label})


def find_source(task: Task, data: str | Path | None = None) -> ImageSource:
    """Where a task's data set is read from.

    Without `data`: Fashion-MNIST and CIFAR-10 by torchvision under `$RETRACE_DATA` (`~/.cache/retrace_pl` where it is
    not set), downloaded on first use; CIFAR-100 from the Hugging Face hub. Where `$RETRACE_SHARED_DATA` names a folder
    that holds the set (`FashionMNIST/raw/*.gz`, `cifar100/*.parquet`), it is read from there, and never written to.

    Args:
        task: Data set and model.
        data: Folder of the data set instead: what torchvision expects, or parquet files for any of the sets.

    Returns:
        The source, not opened yet.

    Raises:
        InputError: `data` is no folder.
    """
    if data is not None:
        folder = Path(expand(data, "--data"))
        if not folder.is_dir():
            raise InputError(f"--data {folder} is no folder; name the folder that holds {task.data}")
        return _in_folder(task, folder)
    shared = os.environ.get("RETRACE_SHARED_DATA")
    if task.data == "CIFAR100":
        local = Path(shared) / "cifar100" if shared else None
        found = local is not None and any(local.glob("*.parquet"))
        return HuggingFaceSource(str(local) if found else CIFAR100_HUB, label_column="fine_label")
    root = Path(expand(DEFAULT_ROOT, "RETRACE_DATA"))
    if shared:
        _copy_archives(task, Path(shared), root)
    return TorchvisionSource(task.data, str(root), download=True)


def _in_folder(task: Task, folder: Path) -> ImageSource:
    if any(folder.glob("*.parquet")):
        return HuggingFaceSource(str(folder), label_column="fine_label" if task.data == "CIFAR100" else None)
    if os.access(folder, os.W_OK):
        return TorchvisionSource(task.data, str(folder), download=True)
    if not any((folder / task.data / "raw").glob("*.gz")):
        return TorchvisionSource(task.data, str(folder))
    root = Path(expand(DEFAULT_ROOT, "RETRACE_DATA"))  # archives that cannot be unpacked where they are
    _copy_archives(task, folder, root)
    return TorchvisionSource(task.data, str(root), download=True)


def _copy_archives(task: Task, source: Path, root: Path) -> None:
    """Copies archives to where torchvision verifies and unpacks them, unless that has happened already."""
    for archive in sorted((source / task.data / "raw").glob("*.gz")):
        target = root / task.data / "raw" / archive.name
        if not target.exists() and not target.with_suffix("").exists():
            with atomic_path(target) as temporary:
                shutil.copyfile(archive, temporary)


def load_data(task: Task, limits: Limits, seed: int, data: str | Path | None = None) -> BenchmarkData:
    """Opens a task's data set and decodes what the limits leave of it.

    Args:
        task: Data set and model.
        limits: Images per class.
        seed: Seed of the draw where images are left out.
        data: Folder, see `find_source`.

    Returns:
        The data.

    Raises:
        InputError: The data set is not there and cannot be downloaded, or is another one.
    """
    source = find_source(task, data)
    try:
        opened = source.open()
    except InputError as error:
        raise InputError(f"{error}; or name the folder that holds {task.data} with --data") from error
    if opened.test is None or len(opened.classes) != task.num_classes:
        raise InputError(
            f"--data: {source.title} has {len(opened.classes)} classes and {'no' if opened.test is None else 'a'} test "
            f"split, so it is not {task.data}; name its folder"
        )
    classes = limits.classes or task.num_classes
    if classes > task.num_classes:
        raise InputError(f"--classes is {classes}, but {task.data} has {task.num_classes}; choose a smaller number")
    splits = [
        _decode(images, limit, classes, seed_for(seed, "subset", name))
        for name, images, limit in (
            ("train", opened.train, limits.train_limit),
            ("test", opened.test, limits.test_limit),
        )
    ]
    digest = hashlib.sha256()
    for split in splits:
        digest.update(split.pixels.numpy().tobytes())
        digest.update(split.labels.numpy().tobytes())
    return BenchmarkData(splits[0], splits[1], classes, digest.hexdigest()[:16])


def _decode(images: RawImages, limit: int | None, classes: int, seed: int) -> LabelledTensors:
    positions = np.flatnonzero(images.labels < classes)
    if limit is not None:
        shuffled = np.random.default_rng(seed).permutation(positions)
        chosen = [shuffled[images.labels[shuffled] == label][:limit] for label in range(classes)]
        positions = np.sort(np.concatenate(chosen))
    pixels = materialise(images, positions, IMAGE_SIZE, CHANNELS)
    return LabelledTensors(
        torch.from_numpy(pixels), torch.from_numpy(images.labels[positions]), torch.from_numpy(positions)
    )


class TrainingData(LightningDataModule):
    """Shuffled, augmented batches (random crop with 4 pixels of padding, horizontal flip), and test images in order.

    Args:
        train: Records to train on.
        val: Records to validate on.
        batch_size: Records per batch.
        seed: Seed of order and augmentation.
    """

    def __init__(self, train: LabelledTensors, val: LabelledTensors, batch_size: int, seed: int) -> None:
        super().__init__()
        self.train, self.val = train, val
        self.batch_size = batch_size
        self.seed = seed

    def train_dataloader(self) -> DataLoader[Batch]:
        """One pass over the training records."""
        return augmented(self.train, self.batch_size, self.seed, epoch=next_epoch(self.trainer))

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation records, in order."""
        return in_order(self.val, self.batch_size)


class UnlearningData(LightningDataModule):
    """Batches `{"retain": (x, y), "forget": (x, y)}`; an epoch is one pass over retain, and forget is cycled.

    Args:
        data: All records.
        forget_class: Class to forget.
        batch_size: Records per batch of each stream.
        seed: Seed of order and augmentation.
    """

    def __init__(self, data: BenchmarkData, forget_class: int, batch_size: int, seed: int) -> None:
        super().__init__()
        self.retain = data.retained(data.train, forget_class)
        self.forget = data.of_class(data.train, forget_class)
        self.val = (data.retained(data.test, forget_class), data.of_class(data.test, forget_class))
        self.batch_size = batch_size
        self.seed = seed

    def train_dataloader(self) -> CombinedLoader:
        """Both streams in step."""
        epoch = next_epoch(self.trainer)
        retain = augmented(self.retain, self.batch_size, self.seed, epoch=epoch)
        forget = augmented(self.forget, self.batch_size, self.seed + 1, epoch=epoch, batches=len(retain))
        return CombinedLoader({"retain": retain, "forget": forget}, "max_size_cycle")

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """Test images of the retained classes, then of the forgotten one."""
        return [in_order(records, self.batch_size) for records in self.val]


def augmented(
    records: LabelledTensors, batch_size: int, seed: int, *, epoch: int = 0, batches: int | None = None
) -> DataLoader[Batch]:
    """A loader of shuffled, augmented batches; arguments as of `retrace_pl.data.loading.build_loader`."""
    return build_loader(
        records, batch_size, shuffle=True, augmentation="crop_flip", seed=seed, batches=batches, epoch=epoch
    )


def in_order(records: LabelledTensors, batch_size: int) -> DataLoader[Batch]:
    """A loader of plain batches in the order of the records; batches are larger than in training."""
    return build_loader(records, max(512, batch_size), shuffle=False, augmentation="none", seed=0)
