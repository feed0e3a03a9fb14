"""The ways to start several processes: ours, torchrun on one machine or several, srun. All train the same models."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from retrace_pl.pipeline.config import TrainerSettings
from retrace_pl.pipeline.evaluate_stage import evaluate
from retrace_pl.pipeline.parsing import parse
from retrace_pl.pipeline.runner import AuditRun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SHARED = ("--quiet", "--trainer.strategy", "ddp")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def weights(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours") / "run"
    tiny = Path(__file__).parents[1] / "conf" / "digits_tiny.yaml"
    options = ["--config", str(tiny), "--output", str(folder), *SHARED, "--trainer.devices", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "retrace_pl", "pretrain", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = weights(folder)
    assert set(found) == {"original.safetensors", "evaluator.safetensors"}
    return found


def test_torchrun_on_one_machine(expected, torchrun, tiny, tmp_path):
    options = ["--config", tiny, "--output", tmp_path / "run", *SHARED, "--trainer.devices", "2"]
    done = torchrun("pretrain", *options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert weights(tmp_path / "run") == expected


def together(commands, environments):
    """Runs one process for each environment, and returns their exit codes."""
    processes = [
        subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, stderr=subprocess.DEVNULL)
        for command, environment in zip(commands, environments, strict=True)
    ]
    try:
        return [process.wait(timeout=900) for process in processes]
    finally:
        for process in processes:
            process.kill()


def test_torchrun_on_two_machines(expected, tiny, tmp_path):
    # Two agents of torchrun on this machine are two machines to everybody else.
    options = ["--config", tiny, "--output", str(tmp_path / "run"), *SHARED, "--trainer.num_nodes", "2"]
    place = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    launch = [sys.executable, "-m", "torch.distributed.run", *place]
    commands = [[*launch, f"--node-rank={node}", "-m", "retrace_pl", "pretrain", *options] for node in range(2)]
    assert together(commands, [{}, {}]) == [0, 0]
    assert weights(tmp_path / "run") == expected


def test_srun(expected, tiny, tmp_path):
    # What srun tells its tasks; there is no cluster here.
    options = ["--config", tiny, "--output", str(tmp_path / "run"), *SHARED, "--trainer.devices", "2"]
    job = {"SLURM_JOB_ID": str(free_port()), "SLURM_JOB_NAME": "audit", "SLURM_NODELIST": "127.0.0.1"}
    job |= {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0"}
    job |= {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1", "MASTER_PORT": str(free_port())}
    tasks = [job | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
    command = [sys.executable, "-m", "retrace_pl", "pretrain", *options]
    assert together([command] * 2, tasks) == [0, 0]
    assert weights(tmp_path / "run") == expected


def test_a_whole_audit_under_torchrun_with_fsdp(torchrun, tiny, tmp_path):
    out = tmp_path / "run"
    options = ["--config", tiny, "--output", out, "--trainer.devices", "2", "--trainer.strategy", "fsdp"]
    options += ["--audit.repeats", "1", "--unlearning", "SSD"]
    done = torchrun("audit", *options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (
        done.stderr.count("training original") == done.stderr.count("verdict") == 1 or done.stdout.count("verdict") == 1
    )
    assert "unlearning with SSD: unlearned, on one device" in done.stderr
    searches = json.loads((out / "searches.json").read_text())
    assert searches["attack-0"]["queries"] == 256, "the search ran once"
    candidates = load_file(out / "candidates.safetensors")
    shown = load_file(out / "evaluation.safetensors")
    assert len(shown["attack.distribution"]) == len(candidates["attack-0/inputs"]) == 16
    assert torch.equal(shown["attack.distribution"], candidates["attack-0/inputs"])
    assert not (out / "answers").exists()
    # Judged again by one process: the same numbers, to the last digit.
    before = json.loads((out / "metrics.json").read_text())
    run = AuditRun.start(parse("evaluate", "", [*map(str, options), "--quiet"]))
    run.config = replace(run.config, trainer=TrainerSettings(accelerator="cpu"))
    evaluate(run)
    after = json.loads((out / "metrics.json").read_text())
    for values in (before, after):
        values.pop("seconds")
    assert after == before
