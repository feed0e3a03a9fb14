import base64
import io
import re

import numpy as np
from PIL import Image

from retrace_pl.report.media import draw, image_uri, recolour, to_pixels
from retrace_pl.report.palette import DARK, LIGHT
from retrace_pl.report.plots import Bar, interval_figure, to_svg


def figure(theme):
    bars = [Bar("a", 0.5, 0.4, 0.6, theme.arm("attack"), "50%"), Bar("b", None, None, None, theme.arm("x"), "")]
    return interval_figure(bars, theme, limits=(0, 1), zero=True, label="share")


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_recolouring_equals_drawing_in_the_dark():
    # Names of markers and clip paths are hashes of what they look like; everything else must agree.
    ours, reference = (
        re.sub(rb"\b[mp][0-9a-f]{10}\b", b"id", svg) for svg in (recolour(to_svg(figure(LIGHT))), to_svg(figure(DARK)))
    )
    assert ours == reference


def test_text_and_lines_stand_out_in_both_themes():
    for theme in (LIGHT, DARK):
        assert contrast(theme.ink, theme.paper) > 7
        assert contrast(theme.muted, theme.paper) > 4.5
        for name in theme.arms:
            assert contrast(theme.arm(name), theme.paper) > 3
    assert LIGHT.arms.keys() == DARK.arms.keys()
    assert LIGHT.groups.keys() == DARK.groups.keys()


def test_a_figure_comes_with_its_size_and_both_schemes():
    pair = draw(figure, "alt", "caption")
    assert (pair.width, pair.height) == (442, 137)
    assert pair.light.startswith("data:image/svg+xml;base64,")
    assert pair.light != pair.dark


def test_pictures_keep_their_pixels():
    image = np.linspace(0, 1, 48, dtype=np.float32).reshape(3, 4, 4)
    content = base64.b64decode(image_uri(image).removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(content)) as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.round(255 * image).transpose(1, 2, 0))


def test_grey_and_wild_values():
    pixels = to_pixels(np.array([[[-1.0, np.nan, 2.0]]], dtype=np.float32))
    assert pixels.shape == (1, 3, 3)
    assert pixels[0, :, 0].tolist() == [0, 0, 255]
