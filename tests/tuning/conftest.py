"""Data, original model and retrained references of two tuning seeds on a tiny digits configuration."""

from pathlib import Path

import pytest

from retrace_pl.tuning.setting import open_settings

TINY = Path(__file__).parents[1] / "conf" / "digits_tiny.yaml"
SMALL = ["--audit.repeats=1"]


@pytest.fixture(scope="session")
def tuning_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tune")


@pytest.fixture(scope="session")
def settings(tuning_folder):
    return open_settings([f"--config={TINY}", *SMALL], [100, 101], tuning_folder, quiet=True)


@pytest.fixture
def tiny():
    return str(TINY)
