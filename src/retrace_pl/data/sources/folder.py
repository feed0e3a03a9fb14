"""Plain folders of images, one folder per class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from retrace_pl.data.paths import existing_folder, one_line
from retrace_pl.data.pixels import RawImages
from retrace_pl.data.sources.base import ImageSource, SourceImages
from retrace_pl.errors import InputError

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


class ImageFolderSource(ImageSource):
    """A folder with one folder of images per class: ``root/class/*.png``, or ``root/train/class`` and ``root/test``.

    Classes are the folders' names in alphabetical order. Hidden files and files that are no images are passed over.

    Args:
        root: The folder; ``~`` and environment variables are expanded.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    @property
    def title(self) -> str:
        """Short name of the data set for reports."""
        return Path(self.root).name

    def open(self) -> SourceImages:
        """List the files.

        Raises:
            InputError: If the folder does not exist or does not hold folders of images.
        """
        root = existing_folder(self.root, "root")
        partitioned = bool(_folders(root / "train"))
        classes = [folder.name for folder in _folders(root / "train" if partitioned else root)]
        if not classes:
            raise InputError(f"root: {root} has no folders; put the images of each class into a folder of its own")
        if not partitioned:
            return SourceImages(train=_FolderImages(root, classes), test=None, classes=tuple(classes))
        test = _FolderImages(root / "test", classes) if (root / "test").is_dir() else None
        return SourceImages(train=_FolderImages(root / "train", classes), test=test, classes=tuple(classes))


def unlabelled_images(folder: Path) -> RawImages:
    """The images of a folder without classes, and of the folders in it, in alphabetical order; all labels are 0.

    Raises:
        InputError: If it holds no images.
    """
    return _FolderImages(folder, ["."])


class _FolderImages:
    """The files of a partition as :class:`RawImages`."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        unknown = sorted({child.name for child in _folders(folder)} - set(classes))
        if unknown:
            raise InputError(f"root: {folder} has a class {unknown[0]!r} that the train folder does not have")
        self.files: list[Path] = []
        labels: list[int] = []
        for index, name in enumerate(classes):
            files = _images(folder / name)
            self.files += files
            labels += [index] * len(files)
        if not labels:
            raise InputError(f"root: the class folders of {folder} hold no images ({', '.join(sorted(_SUFFIXES))})")
        self.labels = np.array(labels, dtype=np.int64)

    def image(self, index: int) -> Image.Image:
        try:
            with Image.open(self.files[index]) as image:
                image.load()
                ImageOps.exif_transpose(image, in_place=True)  # in place: keeps the file's name for messages
                return image
        except Exception as error:
            raise InputError(
                f"{self.files[index]} is no readable image; repair or remove it ({one_line(error)})"
            ) from error


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(child for child in parent.iterdir() if child.is_dir() and not child.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = (path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    return sorted(path for path in files if not path.name.startswith("."))
