"""One finished tiny audit, shared by the tests that only read it."""

import shutil
import signal
from pathlib import Path

import pytest

from retrace_pl.cli import main

TINY = Path(__file__).parents[1] / "conf" / "digits_tiny.yaml"


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit") / "run"
    assert main(["audit", "--config", str(TINY), "--output", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture
def run_copy(finished_run, tmp_path):
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def tiny():
    return str(TINY)


@pytest.fixture
def ctrl_c():
    """Ctrl-C reaches this process and those it starts, also where the tests were started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
