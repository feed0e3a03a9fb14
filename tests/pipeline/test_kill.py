"""Real kills: the process is ended by SIGKILL at random moments until it gets through."""

import json
import random
import subprocess
import sys

import pytest

from retrace_pl.files import read_tensors


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_run_killed_at_random_moments_ends_with_the_same_numbers(finished_run, tmp_path, tiny):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "retrace_pl", "audit", "--config", tiny, "--output", str(out), "--quiet"]
    moments = random.Random(0)
    kills = 0
    while True:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            # Later attempts live longer, so that the run gets through whatever the machine's speed.
            process.wait(timeout=moments.uniform(4, 12) * (1 + kills / 4))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            for file in out.glob("*.safetensors"):
                read_tensors(file)
            for file in out.glob("*.json"):
                json.loads(file.read_text())
            continue
        assert process.returncode == 0
        break
    assert kills >= 1
    found, expected = (json.loads((folder / "metrics.json").read_text()) for folder in (out, finished_run))
    for key in ("verdict", "unlearning", "calibration", "attack", "controls", "rivals", "leakage"):
        assert found[key] == expected[key], key
