"""From decoded images to uint8 pixels of one size and one number of channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from retrace_pl.data.paths import explained
from retrace_pl.errors import InputError

ByteArray = NDArray[np.uint8]

_COLOUR = frozenset({"RGB", "YCbCr", "HSV", "LAB"})
_GREY = frozenset({"L", "1"})
_ALPHA = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})


class RawImages(Protocol):
    """One partition of a source: labels at hand, images decoded on demand."""

    labels: NDArray[np.int64]

    def image(self, index: int) -> Image.Image:
        """Decode one image."""


def to_channels(image: Image.Image, channels: int) -> Image.Image:
    """Convert an image to mode ``L`` (1 channel) or ``RGB`` (3 channels) without losing a channel in silence.

    Greyscale becomes three equal channels where ``channels`` is 3; colour becomes luminance (ITU-R 601-2) where it is
    1. Palette images count as colour. An alpha channel is accepted only when fully opaque, so that dropping it loses
    nothing.

    Args:
        image: Any 8-bit image.
        channels: 1 or 3.

    Raises:
        InputError: If the image has another number of channels, transparency, or more than 8 bits per channel.
    """
    target = "L" if channels == 1 else "RGB"
    if image.mode == target:
        return image
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in _ALPHA:
        image = _without_alpha(image)
    if image.mode in _COLOUR | _GREY:
        return image.convert(target)
    count = len(image.getbands())
    if count == 1:
        raise InputError(f"has {image.mode!r} pixels of more than 8 bits; convert the images to 8-bit greyscale")
    raise InputError(f"has {count} channels ({image.mode}), not 1 or 3; convert the images to greyscale or RGB")


def _without_alpha(image: Image.Image) -> Image.Image:
    bands = image.getbands()
    if image.getchannel(bands[-1]).getextrema()[0] != 255:
        raise InputError(
            f"has {len(bands)} channels ({image.mode}) with transparent pixels; flatten the images to greyscale or RGB"
        )
    return image.convert("L" if image.mode in {"LA", "La"} else "RGB")


def to_pixels(image: Image.Image, image_size: int, channels: int) -> ByteArray:
    """Convert, centre-crop to a square and resize (bilinear, antialiased) one image.

    Args:
        image: A decoded image of any size.
        image_size: Side S of the result in pixels.
        channels: Channels C of the result, 1 or 3.

    Returns:
        uint8 [C, S, S].

    Raises:
        InputError: As :func:`to_channels`.
    """
    image = to_channels(image, channels)
    if image.size != (image_size, image_size):
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def materialise(images: RawImages, positions: NDArray[np.int64], image_size: int, channels: int) -> ByteArray:
    """Decode the images at ``positions`` once.

    Args:
        images: The partition they come from.
        positions: Positions in the partition, [n].
        image_size: Side S in pixels.
        channels: Channels C, 1 or 3.

    Returns:
        uint8 [n, C, S, S].

    Raises:
        InputError: If an image cannot be decoded or has a wrong number of channels; names the record.
    """
    pixels = np.empty((len(positions), channels, image_size, image_size), dtype=np.uint8)
    for row, position in enumerate(positions.tolist()):
        with explained(f"the image of record {position} cannot be read; the data is corrupt"):
            image = images.image(position)
        name = getattr(image, "filename", "") or f"the image of record {position}"
        try:
            pixels[row] = to_pixels(image, image_size, channels)
        except InputError as error:
            raise InputError(f"{name} {error}") from error
    return pixels


class ArrayImages:
    """Images that are already an array.

    Args:
        pixels: uint8 [n, H, W] or [n, H, W, C] with C 1 or 3.
        labels: Class of every image, integers [n].
        what: Where the array comes from, for error messages.

    Raises:
        InputError: If the shape or type is not an image array's, or labels and images differ in number.
    """

    def __init__(self, pixels: NDArray[Any], labels: NDArray[Any], what: str) -> None:
        if pixels.ndim == 4 and pixels.shape[3] == 1:
            pixels = pixels[..., 0]
        if pixels.ndim not in (3, 4) or pixels.dtype != np.uint8:
            raise InputError(
                f"{what}: images must be uint8 [n, H, W] or [n, H, W, 3], not {pixels.dtype} {pixels.shape}"
            )
        if pixels.ndim == 4 and pixels.shape[3] != 3:
            raise InputError(f"{what}: the images have {pixels.shape[3]} channels, not 1 or 3; convert them first")
        if len(pixels) != len(labels):
            raise InputError(f"{what}: {len(pixels)} images but {len(labels)} labels; the file is corrupt")
        self.pixels = pixels
        self.labels: NDArray[np.int64] = np.asarray(labels, dtype=np.int64)

    def image(self, index: int) -> Image.Image:
        """The image at ``index``."""
        return Image.fromarray(self.pixels[index])


def join(parts: Sequence[ArrayImages], what: str) -> ArrayImages:
    """One array of images from several of the same shape."""
    return ArrayImages(
        np.concatenate([part.pixels for part in parts]), np.concatenate([part.labels for part in parts]), what
    )
