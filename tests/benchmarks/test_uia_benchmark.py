import importlib.util
import json
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "uia.py"


def test_every_way_of_forgetting_is_measured(monkeypatch, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("benchmark_uia", FILE)
    uia = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(uia)
    output = tmp_path / "uia.json"
    monkeypatch.setattr("sys.argv", ["uia.py", "--seeds", "0", "--steps", "8", "--json", str(output)])
    uia.main()
    rows = json.loads(output.read_text())["seeds"]["0"]
    attacked = [row for name, row in rows.items() if not name.startswith("floor")]
    assert len(attacked) == 5
    assert all(set(row) == set(uia.COLUMNS) for row in attacked)
    assert rows["retraining, the class"]["relative_difference"] > 1
    assert rows["one step of ascent, one record"]["relative_difference"] < 0.01
    assert rows["floor: class mean"]["mse"] == pytest.approx(rows["floor: two records of the class"]["mse"] / 2)
    table = output.with_suffix(".md").read_text()
    assert table.count("\n| ") == 1 + len(rows)
    assert table in capsys.readouterr().out
