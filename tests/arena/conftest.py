"""One small arena that ran with two workers; its cells succeed, fail, raise and die."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from retrace_pl.cli import main

TINY = Path(__file__).parents[1] / "conf" / "arena_tiny.yaml"
METHODS = '''
import os
import signal
from multiprocessing import parent_process

from retrace_pl.unlearning import Identity


class Raising(Identity):
    """Raises what nobody foresaw."""

    def prepare(self, model):
        raise ZeroDivisionError("the method's own\\nmistake")


class Deadly(Identity):
    """Ends the process of the worker it runs in."""

    def prepare(self, model):
        if parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
'''


def run(*options, quiet=True):
    return main(["arena", "--config", str(TINY), *(["--quiet"] if quiet else []), *map(str, options)])


@pytest.fixture(scope="session")
def user_methods(tmp_path_factory):
    folder = tmp_path_factory.mktemp("methods")
    (folder / "arena_test_methods.py").write_text(METHODS)
    sys.path.insert(0, str(folder))
    yield {name: {"name": name, "class_path": f"arena_test_methods.{name.title()}"} for name in ("raising", "deadly")}
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def mixed(user_methods):
    mild = {
        "name": "mild",
        "class_path": "retrace_pl.unlearning.NegativeGradient",
        "init_args": {"epochs": 1, "lr": 0.01, "batch_size": 64},
    }
    diverging = {**mild, "name": "diverging", "init_args": {"epochs": 1, "lr": 1e30, "batch_size": 64}}
    methods = ["retain_finetune", user_methods["deadly"], user_methods["raising"], mild, diverging]
    return f"--methods={json.dumps(methods)}"


@pytest.fixture(scope="session")
def finished_arena(tmp_path_factory, mixed):
    folder = tmp_path_factory.mktemp("arena") / "out"
    assert run("--output", folder, mixed, "--jobs", 2) == 0
    return folder


@pytest.fixture
def arena_copy(finished_arena, tmp_path):
    return Path(shutil.copytree(finished_arena, tmp_path / "out"))


@pytest.fixture
def tiny():
    return TINY


@pytest.fixture
def arena():
    return run
