import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from retrace_pl.models import DCGAN, SmallCNN

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))

    def run(name):
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return run


@pytest.fixture
def untrained(load):
    setting = load("_digits_setting")
    torch.manual_seed(0)
    generator = DCGAN((1, 16, 16), latent_dim=16, width=8).eval().requires_grad_(False)
    classifiers = [SmallCNN(1, 10, width=4).eval() for _ in range(3)]
    images = torch.rand(40, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    return setting.Setting(*classifiers, generator, images[:30], images[30:], {})


def test_a_cell_of_the_search_table(load, untrained):
    search = load("search")
    cell = search.measure(untrained, "random", seed=0, queries=512, access="white")
    assert set(cell) == {"searcher", "seed", *search.COLUMNS}
    assert cell["queries"] == 512
    again = search.measure(untrained, "random", seed=0, queries=512, access="white")
    assert {**cell, "seconds": 0} == {**again, "seconds": 0}


def test_the_search_table_averages_over_seeds(load):
    search = load("search")
    cells = [
        dict(zip(("searcher", "seed", *search.COLUMNS), ("random", seed, 0.5 + seed, 1, 0, 0.2, 3, 10), strict=True))
        for seed in range(2)
    ]
    assert "| random | 1.0000 | 1.0000 | 0.0000 | 0.2000 | 3.0 | 10 | 0.5000 | 0.2000 |" in search.table(cells)


def test_the_command_writes_its_json(load, untrained, monkeypatch, tmp_path, capsys):
    search = load("search")
    monkeypatch.setattr(search, "build", lambda seed, cache: untrained)
    file = tmp_path / "new" / "search.json"
    arguments = ["--quick", "--seeds", "1", "--queries", "512", "--searchers", "random", "cem", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["search.py", *arguments])
    search.main()
    result = json.loads(file.read_text())
    assert [cell["searcher"] for cell in result["cells"]] == ["random", "cem"]
    assert result["deleted_class_diversity"] == pytest.approx(search.own_diversity(untrained.deleted))
    assert "| cem |" in capsys.readouterr().out


def test_the_score_keeps_the_order_of_what_no_public_image_reaches(untrained):
    # A narrow scale: that of the five images with the smallest differences.
    images = torch.rand(64, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    order = untrained.scorer("black").deltas(images).prediction.argsort()
    untrained.public = images[order[:5]]
    opened, clipped = (untrained.scorer("black", tail)(images[order]).score for tail in ("open", "clip"))
    assert (clipped[5:] == 1).all()
    assert (opened[5:].diff() >= 0).all()
    assert opened[-1] > opened[5]


def test_the_speed_ratios(load):
    ratios = load("speed").measure("black", queries=512, slow_queries=300, repeats=1)
    assert {"search_over_bare_scoring", "over_dummy_vec_env", "over_single_candidate_sac"} < set(ratios)
    assert all(value > 0 for value in ratios.values())


def test_a_cell_of_the_arena_table(load):
    arena = load("arena")
    arm = {name: 0.5 for name in (*arena.FIGURES, "ssim")} | {"instance": {}, "intervals": {}}
    leak = {"value": 0.4, "low": 0.3, "high": 0.5, "level": 0.95, "metric": "sr_oracle"}
    cell = dict.fromkeys(arena.PLAIN, 1) | {"attack_result": arm, "prior": arm, "matched_retrain": arm}
    done = arena.compact(cell | {"leakage": {"excess": leak, "record": None}})
    assert done["attack_result"] == dict.fromkeys(arena.FIGURES, 0.5)
    assert done["leakage"] == {"excess": [0.4, 0.3, 0.5], "record": None}
    failed = arena.compact(cell | {"attack_result": None, "prior": None, "matched_retrain": None, "leakage": None})
    assert failed["prior"] is None
    assert failed["leakage"] == {}
