"""Two processes on one machine: torchrun for whole commands, forks of the test process for single trainings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TINY = Path(__file__).parents[1] / "conf" / "digits_tiny.yaml"


@pytest.fixture
def tiny():
    return str(TINY)


@pytest.fixture
def torchrun():
    """Runs `retrace` in several processes that torchrun starts, as a user would."""

    def run(*arguments, processes=2):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        return subprocess.run(
            [*command, "-m", "retrace_pl", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    return run
