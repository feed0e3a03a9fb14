"""Shared fixtures: one thread per process, offline hubs, a browser, and the real data sets outside the repository."""

import importlib.util
import logging
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import lightning.pytorch  # noqa: F401 - sets the levels of its loggers
import pytest
import torch

spec = importlib.util.spec_from_file_location("retrace_browser", Path(__file__).with_name("browser.py"))
browser_module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(browser_module)
browser = browser_module.browser  # a fixture

LIGHTNING_LOGGERS = {name: logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")}


@pytest.fixture(autouse=True, scope="session")
def _single_thread():
    # Two threads on the small tensors of the tests are many times slower than one.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _lightning_log_levels():
    # An audit silences Lightning for its process; a test must not inherit that from an earlier one.
    for name, level in LIGHTNING_LOGGERS.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with Fashion-MNIST, CIFAR-100 and other real data sets; skips where it is not there."""
    folder = os.environ.get("RETRACE_SHARED_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("RETRACE_SHARED_DATA does not point to a folder with the larger real data sets")
    return Path(folder)


@pytest.fixture(scope="session")
def write_news():
    """Writes a labelled text data set as parquet files: ``write_news(folder, train=400, test=60)``.

    Its four topics share no word, and no two texts are equal.
    """
    import numpy as np
    from datasets import ClassLabel, Dataset, Features, Value

    topics = ("World", "Sports", "Business", "Sci/Tech")
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(topics))})

    def write(folder, **counts):
        folder.mkdir(exist_ok=True)
        for seed, (name, count) in enumerate(counts.items()):
            random = np.random.default_rng(seed)
            labels = np.arange(count) % len(topics)
            words = [[f"{topic.lower()[:4]}{index}" for index in range(12)] for topic in topics]
            found = [" ".join(random.choice(words[label], size=8)) + f" {seed}{n}" for n, label in enumerate(labels)]
            content = {"text": found, "label": labels.tolist()}
            Dataset.from_dict(content, features).to_parquet(folder / f"{name}.parquet")
        return folder

    return write
