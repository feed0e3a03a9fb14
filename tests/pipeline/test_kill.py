"""Real kills: the process is ended by SIGKILL at random moments until it gets through."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest

from retrace_pl.cli import INTERRUPTED
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


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_in_a_terminal_ends_the_command_and_leaves_a_run_that_goes_on(finished_run, tmp_path, tiny):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "retrace_pl", "pretrain", "--config", tiny, "--output", str(out), "--quiet"]
    endless = [*command, "--classifier.epochs", "100000"]
    process = subprocess.Popen(endless, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not list(out.glob("checkpoints/original-*/last.ckpt")):  # it is training
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)  # seconds on an idle machine; without Ctrl-C it would train for hours
    assert process.returncode == INTERRUPTED
    assert said.count("\n") == 1
    assert "interrupted; run the same command again" in said
    assert list(out.glob("checkpoints/original-*/last.ckpt"))
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert (out / "original.safetensors").read_bytes() == (finished_run / "original.safetensors").read_bytes()
