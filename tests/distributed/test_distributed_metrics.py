"""Metrics in two real processes: every rank must compute what one process computes over all candidates."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("metrics_worker.py")


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path):
    outputs = [tmp_path / f"rank{rank}.json" for rank in (0, 1)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(rank), "2", str(tmp_path / "store"), str(output)], env=environment
        )
        for rank, output in enumerate(outputs)
    ]
    try:
        assert [rank.wait(timeout=240) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    spec = importlib.util.spec_from_file_location("metrics_worker", WORKER)
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    whole = worker.compute(0, 1)
    assert len(whole) == 12
    for output in outputs:
        found = json.loads(output.read_text())
        assert found.keys() == whole.keys()
        for name, value in whole.items():
            assert found[name] == pytest.approx(value, rel=1e-6), name
