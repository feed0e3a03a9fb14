import importlib.util
import json
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "inference.py"


@pytest.fixture
def benchmark(monkeypatch):
    spec = importlib.util.spec_from_file_location("benchmark_inference", FILE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_both_tables(benchmark, tmp_path, capsys):
    benchmark.main(["--quick", "--json", str(tmp_path / "inference.json")])
    cells = json.loads((tmp_path / "inference.json").read_text())
    assert all(cell["share_lost"]["right"] for cell in cells["class_inference"])
    best = next(cell for cell in cells["membership"] if cell["features"] == "concatenation" and cell["sorted"])
    assert best["auroc"] > best["auroc_before"]
    text = (tmp_path / "inference.md").read_text()
    assert text == capsys.readouterr().out
    assert "| deleted, public set without it | 2 | 2 |" in text
    assert "| concatenation, sorted, logistic regression |" in text
    assert "| distance, random forest |" in text
