import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from retrace_pl.external import summary
from retrace_pl.external.summary import print_pair_summary
from retrace_pl.files import write_json
from retrace_pl.pipeline.run_folder import RunFolder

ARM = {"distribution": {"sr_oracle": None, "sr_mse": 0.25, "mse": 0.125, "diversity": 0.5}}
METRICS = {
    "name": "Two models",
    "budget": {"top_k": 64, "queries": 4096, "repeats": 1},
    "attack": ARM,
    "controls": {"matched_retrain": ARM},
    "rivals": {"cem": ARM, "ppo": {"applicable": False, "reason": "too few queries"}},
    "gaps": {
        "attack": {"gap": 0.75, "labels": [0, 3, 1]},
        "matched_retrain": {"gap": 0.5, "labels": [4, 0, 0]},
        "rival.cem": {"gap": 0.25, "labels": [0, 4, 0]},
    },
    "classes": ["a", "b", "c"],
    "leakage": {"excess": None},
    "verdict": "not_judged",
    "verdict_reason": "nobody can judge",
}


@pytest.mark.parametrize(("width", "last"), [(120, "diversity"), (60, "sr_mse")])
def test_gaps_and_classes_stand_beside_the_controls(tmp_path, monkeypatch, width, last):
    screen = Console(file=io.StringIO(), width=width, highlight=False)
    monkeypatch.setattr(summary, "output_console", lambda: screen)
    folder = RunFolder(tmp_path)
    write_json(folder.path("metrics.json"), METRICS)
    print_pair_summary(SimpleNamespace(folder=folder))
    lines = screen.file.getvalue().splitlines()
    assert lines[:2] == ["Two models", "64 candidates, 4,096 queries each, 1 repeat"]
    heading = lines[3].split()
    assert heading[-1] == last
    assert "sr_oracle" not in heading, "nothing judged"
    rows = {line.split("  ")[0]: line for line in lines[4:8]}
    assert "0.75" in rows["Attack"]
    assert "b 75%" in rows["Attack"]
    assert "0.25" in rows["CEM"]
    assert "does not apply" in rows["PPO"]
    assert lines[8].startswith("verdict: not_judged - nobody can judge")
    assert max(map(len, lines[3:8])) <= width
