"""The table of presets: which files it takes, what it says of those that fail."""

import importlib.util
import sys
from pathlib import Path

import pytest

from retrace_pl.files import write_json
from retrace_pl.tuning import MEASURES, open_settings
from retrace_pl.unlearning import METHODS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmark(monkeypatch):
    spec = importlib.util.spec_from_file_location("benchmark_unlearning", ROOT / "benchmarks" / "unlearning.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_every_method_is_in_the_table_with_its_tuned_preset_where_there_is_one(benchmark):
    files = benchmark.shipped("digits")
    assert set(files) >= set(METHODS)
    assert files["negative_gradient"].parent.name == "digits"
    assert files["identity"].parent.name == "unlearning"


def test_the_table_of_two_presets(benchmark, tmp_path, capsys):
    tiny = ROOT / "tests" / "conf" / "digits_tiny.yaml"
    settings = open_settings([f"--config={tiny}", "--audit.repeats=1"], [0], tmp_path, quiet=True)
    files = {name: ROOT / "configs" / "unlearning" / f"{name}.yaml" for name in ("identity", "retrain")}
    result = {"command": "python benchmarks/unlearning.py", **benchmark.measure("digits_tiny", files, settings)}
    result = benchmark.with_causes(result)
    assert result["methods"]["retrain"]["distance"] == 0
    assert result["methods"]["retrain"]["reaches"]
    assert not result["methods"]["identity"]["reaches"]
    assert result["methods"]["identity"]["quality"] == {m: result["original"][m] for m in MEASURES}
    table = benchmark.markdown(result)
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    assert rows == ["preset", "*original model*", "*retrained model*", "retrain", "identity"], "nearest first"
    assert "- `identity`: retain_acc is" in table
    assert "| identity |" in capsys.readouterr().out


def test_single_rows_are_measured_anew(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "CAUSES", {"digits": {"guard": "Because."}})
    setting = {"config": "digits", "setting": "s", "seeds": [0], "margins": {}}
    file = tmp_path / "table.json"
    row = {"reaches": False, "shortcomings": ["x"]}
    write_json(file, setting | {"methods": {"guard": row, "scrub": {"reaches": True}, "gone": row}})
    result = benchmark.updated(file, setting | {"methods": {"scrub": {"reaches": True, "new": 1}}})
    assert result["methods"] == {"guard": row, "scrub": {"reaches": True, "new": 1}}
    caused = benchmark.with_causes(result)["methods"]
    assert (caused["guard"]["cause"], caused["scrub"]["cause"]) == ("Because.", None)
    with pytest.raises(SystemExit, match="other seeds"):
        benchmark.updated(file, setting | {"seeds": [1], "methods": {}})


def test_a_preset_that_breaks_is_a_row_too(benchmark, tmp_path):
    row = {"distance": 4.0, "reaches": False, "shortcomings": ["seed 0: RunError: diverged"], "cause": "Why."}
    measures = dict.fromkeys(MEASURES, 0.5)
    result = {"setting": "s", "command": "c", "seeds": [0], "original": measures, "retrained": measures}
    table = benchmark.markdown(result | {"methods": {"broken": row}})
    assert "| broken | - | - | - | - | - | - | - | failed |" in table
    assert "- `broken`: seed 0: RunError: diverged. Why." in table
