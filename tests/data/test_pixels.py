import numpy as np
import pytest
from PIL import Image

from retrace_pl.data.pixels import ArrayImages, join, materialise, to_pixels
from retrace_pl.errors import InputError


def test_greyscale_is_replicated_and_colour_becomes_luminance():
    grey = Image.fromarray(np.array([[0, 100], [200, 255]], dtype=np.uint8))
    assert to_pixels(grey, 2, 1).tolist() == [[[0, 100], [200, 255]]]
    assert to_pixels(grey, 2, 3).tolist() == [[[0, 100], [200, 255]]] * 3
    colour = Image.new("RGB", (4, 4), (200, 100, 50))
    assert to_pixels(colour, 4, 3)[:, 0, 0].tolist() == [200, 100, 50]
    assert to_pixels(colour, 4, 1)[0, 0, 0] == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)


def test_other_eight_bit_modes():
    colour = Image.new("RGB", (4, 4), (200, 100, 50))
    assert to_pixels(colour.convert("P", palette=Image.Palette.ADAPTIVE), 4, 3)[:, 0, 0].tolist() == [200, 100, 50]
    assert np.abs(to_pixels(colour.convert("YCbCr"), 4, 3)[:, 0, 0] - np.array([200, 100, 50])).max() <= 1
    assert to_pixels(Image.new("1", (4, 4), 1), 4, 1).max() == 255


def test_an_opaque_alpha_channel_is_dropped_and_transparency_is_refused():
    opaque = Image.new("RGBA", (4, 4), (200, 100, 50, 255))
    assert to_pixels(opaque, 4, 3)[:, 0, 0].tolist() == [200, 100, 50]
    assert to_pixels(Image.new("LA", (4, 4), (7, 255)), 4, 1)[0, 0, 0] == 7
    half = Image.new("RGBA", (4, 4), (200, 100, 50, 128))
    with pytest.raises(InputError, match=r"has 4 channels \(RGBA\) with transparent pixels; flatten"):
        to_pixels(half, 4, 3)
    with pytest.raises(InputError, match=r"has 2 channels \(LA\) with transparent pixels"):
        to_pixels(Image.new("LA", (4, 4), (7, 0)), 4, 3)
    palette = half.convert("P")
    palette.info["transparency"] = 0
    palette.putdata([0] * 16)
    with pytest.raises(InputError, match="transparent pixels"):
        to_pixels(palette, 4, 3)


@pytest.mark.parametrize(
    ("mode", "message"),
    [("CMYK", r"has 4 channels \(CMYK\), not 1 or 3"), ("I;16", "more than 8 bits"), ("F", "more than 8 bits")],
)
def test_other_channel_counts_are_refused(mode, message):
    with pytest.raises(InputError, match=message):
        to_pixels(Image.new(mode, (4, 4)), 4, 3)


def test_images_are_cropped_at_the_centre_and_resized():
    # 12 x 4 in thirds of 10, 20, 30: the central square is the middle third.
    row = np.repeat(np.array([10, 20, 30], dtype=np.uint8), 4)
    wide = Image.fromarray(np.tile(row, (4, 1)))
    assert (to_pixels(wide, 4, 1) == 20).all()
    # Antialiased: a fine checkerboard becomes its mean.
    board = Image.fromarray((np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8))
    small = to_pixels(board, 8, 1)
    assert small.shape == (1, 8, 8)
    assert np.abs(small[:, 1:-1, 1:-1].astype(int) - 127).max() <= 3


def test_materialise_decodes_the_asked_positions_in_order():
    pixels = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), dtype=np.uint8)
    images = ArrayImages(pixels, np.zeros(5), "test")
    decoded = materialise(images, np.array([4, 0, 2]), 4, 3)
    assert decoded.dtype == np.uint8
    assert decoded.shape == (3, 3, 4, 4)
    assert decoded[:, 0, 0, 0].tolist() == [4, 0, 2]


class _Broken:
    labels = np.zeros(3, dtype=np.int64)

    def image(self, index):
        if index == 1:
            raise OSError("image file is truncated")
        return Image.new("RGBA", (4, 4))


def test_materialise_names_the_record_that_fails():
    with pytest.raises(InputError, match=r"the image of record 1 cannot be read; the data is corrupt \(OSError: image"):
        materialise(_Broken(), np.array([1]), 4, 3)
    with pytest.raises(InputError, match=r"the image of record 2 has 4 channels"):
        materialise(_Broken(), np.array([2]), 4, 3)


@pytest.mark.parametrize(
    ("shape", "dtype", "labels", "message"),
    [
        ((5, 4, 4, 2), np.uint8, 5, "x: the images have 2 channels, not 1 or 3"),
        ((5, 4, 4, 4), np.uint8, 5, "x: the images have 4 channels, not 1 or 3"),
        ((5, 4, 4), np.float32, 5, r"x: images must be uint8 .* not float32 \(5, 4, 4\)"),
        ((5, 4), np.uint8, 5, "images must be uint8"),
        ((5, 4, 4), np.uint8, 6, "x: 5 images but 6 labels; the file is corrupt"),
    ],
)
def test_arrays_that_are_no_images(shape, dtype, labels, message):
    with pytest.raises(InputError, match=message):
        ArrayImages(np.zeros(shape, dtype), np.zeros(labels, dtype=np.int64), "x")


def test_a_single_last_axis_counts_as_greyscale_and_parts_are_joined():
    first = ArrayImages(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1]), "x")
    second = ArrayImages(np.ones((1, 4, 4), np.uint8), np.array([2]), "x")
    both = join([first, second], "x")
    assert both.pixels.shape == (3, 4, 4)
    assert both.labels.tolist() == [0, 1, 2]
    assert both.image(2).mode == "L"
