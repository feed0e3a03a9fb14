"""Libraries that draw from the global random generators, kept from disturbing everybody else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["isolated_global_random"]


@contextmanager
def isolated_global_random(seed: int) -> Iterator[None]:
    """Seed Python's, numpy's and torch's global generators inside the block and put them back afterwards.

    Stable-Baselines3 samples its actions from the global generators.

    Args:
        seed: Seed inside the block.
    """
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002  (the global generator is what has to be put back)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices):
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
