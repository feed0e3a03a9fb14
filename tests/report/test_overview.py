import json

import numpy as np
from PIL import Image

from retrace_pl.report import RunData, overview_figure
from retrace_pl.report.overview import draw_overview


def test_writes_a_small_picture(full_run):
    path = overview_figure(full_run)
    with Image.open(path) as picture:
        assert picture.width > 2 * picture.height
        assert 1000 < picture.width < 2000
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50
    assert path.stat().st_size < 400_000


def test_rows_without_pictures_say_so(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"schema": 1, "verdict": "invalid", "name": "$x_{$"}))
    figure = draw_overview(RunData.load(tmp_path))
    texts = [text.get_text() for text in figure.texts]
    assert texts.count("not run") == 4
    assert "Invalid audit: $x_{$" in texts
    assert overview_figure(tmp_path).is_file()


def test_shows_success_of_attack_and_controls(full_run):
    texts = [text.get_text() for text in draw_overview(RunData.load(full_run)).texts]
    for words in ("95% recognised", "8% recognised", "93% recognised", "Prior only", "Matched retrain"):
        assert words in texts
