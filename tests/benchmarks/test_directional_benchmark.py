import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from retrace_pl.models import DCGAN, SmallCNN

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def directional(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("benchmark_directional", FOLDER / "directional.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def untrained(directional):
    torch.manual_seed(0)
    generator = DCGAN((1, 16, 16), latent_dim=16, width=8).eval().requires_grad_(False)
    original, evaluator, *forgot = (SmallCNN(1, 10, width=4).eval() for _ in range(5))
    images = torch.rand(60, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    unlearned = dict(zip(directional.UNLEARNERS, forgot, strict=True))
    return directional.Setting(0, 8, original, unlearned, evaluator, generator, images[:30], images[30:], {})


def run(module, monkeypatch, setting, *arguments):
    monkeypatch.setattr(module, "build", lambda seed, deleted_class, cache: setting)
    monkeypatch.setattr(module, "TOP_K", 20)
    monkeypatch.setattr(sys, "argv", ["directional.py", "--quick", "--queries", "300", *arguments])
    module.main()


def test_every_cell_is_measured_once_and_an_interrupted_run_goes_on(
    directional, untrained, monkeypatch, tmp_path, capsys
):
    file = tmp_path / "found.json"
    arguments = ["--unlearners", "retrain", "--json", str(file)]
    run(directional, monkeypatch, untrained, *arguments, "--searchers", "random")
    first = json.loads(file.read_text())["cells"]
    assert [cell["signal"] for cell in first] == ["directional", "gap"]
    run(directional, monkeypatch, untrained, *arguments, "--searchers", "random", "cem", "ppo")
    cells = json.loads(file.read_text())["cells"]
    assert cells[:2] == first
    assert sorted(cell["searcher"] for cell in cells) == ["cem"] * 2 + ["ppo"] * 2 + ["random"] * 2
    for cell in cells:
        assert cell["queries"] == 300
        assert cell["public_queries"] == 30
        assert (cell["inferred"] is None) == (cell["signal"] == "gap")
        assert set(directional.COLUMNS) <= set(cell)
    printed = capsys.readouterr().out
    assert "| directional | retrain | ppo | 1 |" in printed
    assert '"success": false' in printed


def test_goals_compare_with_cem_of_the_same_cell(directional):
    shared = {"class": 8, "seed": 0, "unlearner": "retrain", "signal": "directional", "access": "black"}
    shared |= {"scale": "log", "queries": 10, "own_diversity": 0.1}
    ppo = shared | {"searcher": "ppo", "sr_oracle": 0.95, "diversity": 0.06, "fid_oracle": 8.0}
    cem = shared | {"searcher": "cem", "sr_oracle": 1.0, "diversity": 0.01, "fid_oracle": 9.0}
    assert directional.goals([ppo, cem | {"seed": 1}])[0]["fid"] is None
    (row,) = directional.goals([ppo, cem | {"fid_oracle": 7.0, "queries": 20}, cem])
    assert row["success"]
    assert row["diversity"]
    assert row["fid"]
    (row,) = directional.goals([ppo | {"sr_oracle": 0.89, "diversity": 0.04}, cem | {"fid_oracle": 7.0}])
    assert not any(row[goal] for goal in ("success", "diversity", "fid"))


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_all_levers_are_searchers_that_can_be_built(directional, untrained, scale):
    for make, latent in directional.SEARCHERS.values():
        assert make().name
        assert latent.horizon == 1
    scorer = directional.make_scorer(untrained, "retrain", "directional", "white", scale)
    assert scorer.scale == scale
    assert len(scorer.signals) == 3
