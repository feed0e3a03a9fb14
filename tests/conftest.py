"""Shared fixtures: one thread per process, offline hubs, and the real data sets that lie outside the repository."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _single_thread():
    # Two threads on the small tensors of the tests are many times slower than one.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with Fashion-MNIST, CIFAR-100 and other real data sets; skips where it is not there."""
    folder = os.environ.get("RETRACE_SHARED_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("RETRACE_SHARED_DATA does not point to a folder with the larger real data sets")
    return Path(folder)
