import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from retrace_pl.models import DCGAN, SmallCNN
from retrace_pl.traces import DirectionalScorer, ModelPair

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def levers(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("benchmark_levers", FOLDER / "levers.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    for name, value in {"STEPS": 3, "STUDENT_SAMPLES": 64}.items():
        monkeypatch.setattr(module, name, value)
    return module


@pytest.fixture
def setting(levers):
    torch.manual_seed(0)
    generator = DCGAN((1, 16, 16), latent_dim=16, width=8).eval().requires_grad_(False)
    original, evaluator, *forgot = (SmallCNN(1, 10, width=4).eval() for _ in range(4))
    images = torch.rand(60, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    unlearned = dict(zip(levers.UNLEARNERS, forgot, strict=True))
    return levers.Setting(0, 8, original, unlearned, evaluator, generator, images[:30], images[30:], {})


def plain(setting, original=None, classes=None):
    pair = ModelPair(original or setting.original, setting.unlearned["retrain"], "black")
    scorer = DirectionalScorer(pair, classes=classes)
    scorer.fit(setting.public)
    return scorer


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_realism_takes_its_share_of_the_score(levers, setting, share):
    scorer = levers.Levers(setting).scorer(f"realism_{share}", "retrain")
    real = scorer.realism(setting.deleted).softmax(dim=1)[:, 1]
    expected = (1 - share) * plain(setting)(setting.deleted).score + share * real
    torch.testing.assert_close(scorer(setting.deleted).score, expected)


def test_ensemble_is_the_mean_over_the_original_and_its_students(levers, setting):
    scorer = levers.Levers(setting).scorer("shadow_ensemble", "retrain")
    members = [setting.original, *scorer.students]
    assert len(members) == 3
    scores = [plain(setting, member, scorer.classes)(setting.deleted).score for member in members]
    torch.testing.assert_close(scorer(setting.deleted).score, torch.stack(scores).mean(dim=0))


def test_a_student_learns_what_it_is_taught(levers, monkeypatch):
    monkeypatch.setattr(levers, "STEPS", 60)
    bright = torch.rand(200, 1, 8, 8) * 0.2 + 0.8 * torch.randint(2, (200, 1, 1, 1))
    targets = torch.stack([1 - bright.mean(dim=(1, 2, 3)), bright.mean(dim=(1, 2, 3))], dim=1).round()
    found = levers.learn(bright, targets, seed=0)(bright).argmax(dim=1)
    assert (found == targets.argmax(dim=1)).float().mean() > 0.95


def test_every_cell_is_measured_once_and_the_table_names_them(levers, setting, monkeypatch, tmp_path):
    monkeypatch.setattr(levers, "build", lambda seed, deleted_class, cache: setting)
    file = tmp_path / "levers.json"
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["levers.py", "--quick", "--json", str(file)])
        levers.main()
    cells = json.loads(file.read_text())["cells"]
    assert [cell["lever"] for cell in cells] == ["random", "ppo", "realism_0.1"]
    table = file.with_suffix(".md").read_text()
    assert table.count("\n| ") == 4, "a head and three levers"
    assert "2,048 queries" in table
