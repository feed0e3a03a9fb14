import importlib.util
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def attacks(monkeypatch):
    spec = importlib.util.spec_from_file_location("benchmark_attacks", FOLDER / "attacks.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def figures(success, **more):
    return {"distribution": {"sr_oracle": success, "mse": 0.5, "fid_oracle": 3.0, "diversity": None}, **more}


def metrics(attacks):
    baselines = {}
    for position, name in enumerate(attacks.baselines()):
        row = {"applicable": True, "queries": position, "facts": {}}
        baselines[name] = figures(position / 100, **row, controls={"matched_retrain": figures(0.75, **row)})
    names = list(baselines)
    baselines[names[-1]] = {"applicable": False, "queries": 0, "reason": "nothing to work on", "controls": {}}
    del baselines["MaxDiff"]["distribution"]["fid_oracle"]
    hrec = baselines["HRec, generator"]
    hrec["facts"] = {"inferred_label": 1}
    hrec["controls"]["matched_retrain"]["facts"] = {"inferred_label": 0}
    wrong = {"judged": {"correct": False}, "queries": 7}
    answers = [
        {"judged": {"correct": True}, "queries": 7, "controls": {"matched_retrain": wrong}},
        {**wrong, "controls": {}},
        {"judged": {"auroc": 0.625}, "queries": 9, "controls": {}},
    ]
    return {
        "classes": ["zero", "one"],
        "setting": {"deleted_classes": ["one"]},
        "attack": figures(0.5),
        "controls": {"prior": figures(0.125), "matched_retrain": figures(0.25)},
        "baselines": baselines,
        "inferences": dict(zip(attacks.inferences(), answers, strict=True)),
        "unlearning": {"forget_acc": 0.0},
        "seconds": {},
        "versions": {},
    }


def test_a_cell_holds_every_attack_beside_its_control(attacks):
    searches = {"attack-0": {"queries": 64}, "matched_retrain-0": {"queries": 63}}
    found = attacks.summary("fine-tuning", 4, metrics(attacks), searches)["attacks"]
    assert list(found) == [attacks.PRIOR, attacks.RETRACE, *attacks.baselines()]
    assert (found[attacks.RETRACE]["sr_oracle"], found[attacks.RETRACE]["control"]["sr_oracle"]) == (0.5, 0.25)
    assert (found[attacks.RETRACE]["queries"], found[attacks.RETRACE]["control"]["queries"]) == (64, 63)
    assert (found["HRec, generator"]["right"], found["HRec, generator"]["control"]["right"]) == (True, False)
    assert found["MaxDiff"]["fid_oracle"] is None
    assert found["UIA, 500 steps"]["reason"] == "nothing to work on"


def test_the_table_holds_means_and_names_the_seeds(attacks):
    searches = {"attack-0": {"queries": 64}, "matched_retrain-0": {"queries": 64}}
    cells = [attacks.summary("fine-tuning", seed, metrics(attacks), searches) for seed in (4, 5)]
    cells[1]["attacks"][attacks.RETRACE]["sr_oracle"] = 0.75
    head = {"command": "make it", "data": "digits", "date": "2026-01-01", "hardware": "a machine"}
    table = attacks.markdown(head | {"cells": cells})
    assert "Data and audit seeds: 4, 5." in table
    assert table.count("Not run.") == 2
    row = next(line for line in table.splitlines() if line.startswith(f"| {attacks.RETRACE} |"))
    assert "| 0.625 | 0.5 | 3 | - | 64 | 0.50, 0.75 | 0.25 |" in row
    assert next(line for line in table.splitlines() if line.startswith("| HRec, generator |")).endswith(
        "| 2 of 2 | 0 of 2 |"
    )
    assert "| ClassInference | 7 | right, right | wrong, wrong |" in table
    assert "| UnlearningLeaks | 9 | AUROC 0.62, AUROC 0.62 | -, - |" in table


def test_a_rerun_leaves_finished_cells_alone(attacks, monkeypatch, tmp_path):
    searches = {"attack-0": {"queries": 64}, "matched_retrain-0": {"queries": 64}}
    ran = []

    def cell(data, name, seed, runs, quick):
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append((seed, name))
        return attacks.summary(name, seed, metrics(attacks), searches)

    monkeypatch.setattr(attacks, "cell", cell)
    monkeypatch.setattr(sys, "argv", ["attacks.py", "--seeds", "3", "--results", str(tmp_path)])
    with pytest.raises(KeyboardInterrupt):
        attacks.main()
    monkeypatch.setattr(
        attacks, "cell", lambda data, name, seed, runs, quick: cells_later(attacks, name, seed, searches)
    )
    attacks.main()
    stored = json.loads((tmp_path / "attacks_digits.json").read_text(encoding="utf-8"))
    assert ran == [(3, "negative gradient"), (3, "fine-tuning")]
    assert [one["quality"].get("later") for one in stored["cells"]] == [None, None, True]
    assert not list(tmp_path.glob("*.part"))


def cells_later(attacks, name, seed, searches):
    found = attacks.summary(name, seed, metrics(attacks), searches)
    return found | {"quality": {"later": True}}


@pytest.mark.parametrize("data", ["digits", "fashion_mnist"])
def test_every_attack_is_one_that_the_command_line_takes(attacks, data):
    from retrace_pl.pipeline.parsing import parse

    given = [f"--baselines={json.dumps(list(attacks.baselines().values()))}"]
    given += [f"--inferences={json.dumps(list(attacks.inferences().values()))}"]
    parsed = parse("audit", "", [f"--config={data}", *given])
    assert parsed is not None
