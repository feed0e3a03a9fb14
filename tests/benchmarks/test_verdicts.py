import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def verdicts(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("benchmark_verdicts", FOLDER / "verdicts.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def metrics():
    arm = {"distribution": {"sr_oracle": 0.25}}
    excess = {"value": 0.2, "low": 0.1, "high": 0.3}
    return {
        "attack": {"distribution": {"sr_oracle": 0.5}},
        "controls": {"prior": arm, "null": arm},
        "leakage": {"excess": excess, "avoidable": None, "record": None},
        "unlearning": {},
        "verdict": "leak",
        "verdict_reason": "because",
        "seconds": {},
        "versions": {},
    }


def test_every_method_is_audited_once_with_all_controls(verdicts, monkeypatch, tmp_path):
    asked = []

    def from_config(config, folder, overrides, cache):
        asked.append((config, overrides["unlearning"]["class_path"].rpartition(".")[2], overrides["audit.controls"]))
        return SimpleNamespace(run=lambda: SimpleNamespace(metrics=metrics()))

    monkeypatch.setattr(verdicts, "Audit", SimpleNamespace(from_config=from_config))
    monkeypatch.setattr(sys, "argv", ["verdicts.py", "--results", str(tmp_path), "--runs", str(tmp_path / "runs")])
    verdicts.main()
    verdicts.main()
    assert [kind for _, kind, _ in asked] == [
        "NegativeGradient",
        "RetainFineTune",
        "SCRUB",
        "Retrain",
        "Identity",
        "TrainAgain",
    ]
    assert all(config == "digits" and controls == ["all"] for config, _, controls in asked)
    assert len(json.loads((tmp_path / "verdicts.json").read_text(encoding="utf-8"))["audits"]) == 6
    table = (tmp_path / "verdicts.md").read_text(encoding="utf-8")
    assert "| SCRUB | 0 | 50 % | 25 % | - | 25 % | - | - | - | +0.20 [+0.10, +0.30] | - | leak |" in table
    assert not list(tmp_path.glob("*.part"))
