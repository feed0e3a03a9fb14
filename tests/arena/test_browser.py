"""The arena's page in a real browser."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from retrace_pl.arena.results import write_results

spec = importlib.util.spec_from_file_location("arena_synthetic", Path(__file__).parent / "synthetic.py")
synthetic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(synthetic)
record, cell_id = synthetic.record, synthetic.cell_id


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of an arena with every state of a method, and with pictures."""
    folder = tmp_path_factory.mktemp("arena")
    cells = [(seed, access) for seed in (0, 1) for access in ("black", "white")]
    records = [record(name, *cell) for name in ("good", "fair_with_a_rather_long_name") for cell in cells]
    records += [record("broken", *cell, retain=0.4) for cell in cells]
    records += [record("retrain", class_name="Retrain", avoidable=0.0), record("gone", error="out of memory")]
    shown = np.random.default_rng(0).random((8, 1, 8, 8), dtype=np.float32)
    for found in records:
        if found.method == "good":
            run = folder / found.run
            run.mkdir(parents=True)
            (run / "metrics.json").write_text(json.dumps({"schema": 1}))
            arms = ("attack", "prior", "matched_retrain")
            save_file(
                {f"{arm}.{part}": shown for arm in arms for part in ("distribution", "nearest")},
                run / "evaluation.safetensors",
            )
    config = {**synthetic.CONFIG, "bootstrap_samples": 100}
    write_results(folder, config, records, [cell_id("late")], "retrace arena --config mine.yaml --jobs 2")
    return folder / "arena.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_complete_legible_and_quiet(browser, page, scheme, width):
    look = browser.look(page, scheme=scheme, width=width)
    look.check(page.as_uri())
    look.check_outline()
    assert len(look.images) > 20
    assert look.outline["scripts"] == 0


def test_the_same_without_scripts(browser, page):
    assert browser.look(page, scripts=False).texts == browser.look(page).texts
