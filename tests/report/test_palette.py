"""Contrast of what the figures draw, which a browser cannot tell: their texts are paths inside pictures."""

import base64
import re

import pytest

from retrace_pl.report import write_report
from retrace_pl.report.palette import DARK, LIGHT

TEXT, GRAPHICS = 4.5, 3.0  # WCAG 2, level AA: 1.4.3 and 1.4.11
GROUP = re.compile(r'<g id="text_\d+">(.*?)</g>', re.DOTALL)
SOURCE = re.compile(r'<source [^>]*srcset="data:image/svg\+xml;base64,([^"]+)"')
IMAGE = re.compile(r'<img src="data:image/svg\+xml;base64,([^"]+)"')


def luminance(colour):
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#8a8a8a", "#ffffff") == pytest.approx(3.45, abs=0.01)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_marks_stand_out_from_the_paper(theme):
    drawn = {**theme.arms, **theme.groups} | {f"spare {index}": colour for index, colour in enumerate(theme.spare)}
    faint = {name for name, colour in drawn.items() if contrast(colour, theme.paper) < GRAPHICS}
    assert faint == set()
    assert all(contrast(colour, theme.paper) >= TEXT for colour in (theme.ink, theme.muted))


def test_texts_of_the_figures_are_legible_in_both_schemes(full_run):
    page = write_report(full_run).read_text(encoding="utf-8")
    for theme, place in ((LIGHT, IMAGE), (DARK, SOURCE)):
        figures = [base64.b64decode(found).decode() for found in place.findall(page)]
        assert len(figures) >= 8
        for figure in figures:
            texts = GROUP.findall(figure)
            colours = [re.search(r'style="[^"]*fill: (#[0-9a-f]{6})', text) for text in texts]
            assert len(texts) > 3
            assert all(colours), "a text without a colour is black in both schemes"
            assert min(contrast(colour[1], theme.paper) for colour in colours) >= TEXT
