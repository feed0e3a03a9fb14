"""Stages on two devices: each in a process of its own, whose launcher starts one more process per device."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

TINY = Path(__file__).parents[1] / "conf" / "digits_tiny.yaml"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_whole_audit_on_two_cpu_processes(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "retrace_pl", "audit", "--config", str(TINY), "--output", str(out), "--quiet"]
    command += ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--audit.repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["verdict"] in ("leak", "no_evidence", "invalid")
    assert metrics["models"]["original"]["test_acc"] > 0.2, "two processes trained one model"
    assert load_file(out / "generator.safetensors")
    searches = json.loads((out / "searches.json").read_text())
    assert searches["attack-0"]["queries"] == 256, "the search ran once"
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_cpu_processes_take_and_train_the_same_models(tmp_path):
    shared = ["--quiet", "--cache", str(tmp_path / "cache"), "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    for name, options in (("first", []), ("second", ["--evaluator.epochs", "2"])):
        command = [sys.executable, "-m", "retrace_pl", "pretrain", "--config", str(TINY), *shared, *options]
        done = subprocess.run([*command, "--output", str(tmp_path / name)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    first, second = (
        {p.name: p.read_bytes() for p in (tmp_path / n).glob("*.safetensors")} for n in ("first", "second")
    )
    assert first["original.safetensors"] == second["original.safetensors"]
    assert first["evaluator.safetensors"] != second["evaluator.safetensors"]
    assert len(list((tmp_path / "cache").glob("original/*/manifest.json"))) == 1
    assert len(list((tmp_path / "cache").glob("evaluator/*/manifest.json"))) == 2
    assert not (tmp_path / "second" / "tensorboard" / "original").exists(), "both processes left the original alone"
