"""The examples of CONTRIBUTING.md run against the real base classes."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import Metric

from retrace_pl.data import ImageSource, SourceImages, UnlearningDataModule
from retrace_pl.data.pixels import ArrayImages
from retrace_pl.envs import LatentCore, LatentSettings
from retrace_pl.models import ImageClassifier
from retrace_pl.searchers import Searcher, SearchObserver
from retrace_pl.unlearning import Span, UnlearningMethod

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
NAMES = (Any, ArrayImages, ClassVar, ImageClassifier, ImageSource, LatentCore, Metric, Path, Searcher)
NAMES = {
    part.__name__: part
    for part in (*NAMES, SearchObserver, SourceImages, Span, Tensor, UnlearningMethod, cross_entropy)
}
NAMES |= {"Any": Any, "ClassVar": ClassVar, "np": np, "torch": torch, "nn": nn}


@pytest.fixture(scope="module")
def examples():
    namespace = dict(NAMES)
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        exec(compile(block, "CONTRIBUTING.md", "exec"), namespace)
    return SimpleNamespace(**{name: part for name, part in namespace.items() if name not in NAMES})


def test_data_set(examples, tmp_path):
    generator = np.random.default_rng(0)
    np.save(tmp_path / "train.npy", generator.integers(0, 255, (80, 8, 8), dtype=np.uint8))
    np.save(tmp_path / "train_labels.npy", np.arange(80) % 2)
    data = UnlearningDataModule(examples.ScansSource(str(tmp_path)), forget_class="ill", image_size=8, channels=1)
    assert data.classes == ("clear", "ill")
    assert set(data.split("forget").labels.tolist()) == {1}


def test_model(examples):
    model = examples.LinearProbe(3, 5)
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 5)


def test_unlearning_method(examples):
    torch.manual_seed(0)
    model, method = nn.Linear(4, 3), examples.UniformForgetting(lr=0.01, epochs=1)
    inputs = torch.randn(32, 4)
    labels = torch.full((32,), 2)
    optimizer = method.configure_optimizer(model.parameters())
    before = float(model(inputs + 5).detach().softmax(1).amax(1).mean())
    for step in range(200):
        method.unlearn_step(model, (inputs, labels.roll(1) * 0), (inputs + 5, labels), optimizer, step, 0)
    assert float(model(inputs + 5).detach().softmax(1).amax(1).mean()) < 0.5 < before


def test_searcher(examples):
    class Plane(nn.Module):
        latent_dim = 2

        def forward(self, latents):
            return latents

        def sample_latents(self, n, generator=None, device="cpu"):
            return torch.randn((n, 2), generator=generator).to(device)

    core = LatentCore(
        Plane(), lambda x: SimpleNamespace(score=(-(x - 3).norm(dim=1)).exp()), LatentSettings(projection="none")
    )
    pool = examples.HillClimbSearcher().search(core, 2000, 0)
    assert core.queries == 2000
    assert float(pool.scores.max()) > 0.9


def test_metric(examples):
    metric = examples.MaxError(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    metric.update(torch.tensor([[0.1, 0.5], [0.0, 0.7]]))
    metric.update(torch.tensor([[0.0, 0.5]]))
    assert float(metric.compute()) == pytest.approx(0.2)
