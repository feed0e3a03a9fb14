"""The examples of docs/extending: each does what it says, and all of them together are an audit."""

import importlib
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from sklearn.datasets import load_digits
from torch import nn

from retrace_pl.audit import CONTROLS, parse_controls
from retrace_pl.cli import main
from retrace_pl.data import UnlearningDataModule
from retrace_pl.envs import LatentCore, LatentSettings
from retrace_pl.models import SmallCNN
from retrace_pl.pipeline.control_models import CONTROL_PAIRS, control_pairs
from retrace_pl.searchers import RandomSearcher
from retrace_pl.traces import ModelPair, TraceScorer

PAGES = Path(__file__).parents[2] / "docs" / "extending"
TINY = Path(__file__).parents[1] / "conf" / "digits_tiny.yaml"
FILES = {
    name: text
    for path in sorted(PAGES.glob("*.md"))
    for name, text in re.findall(r'```python title="(\w+)\.py"\n(.*?)```', path.read_text(encoding="utf-8"), re.DOTALL)
}
KINDS = {"data", "model", "generator", "unlearning", "trace", "searcher", "attack", "inference", "metric", "control"}


def settings():
    """What the pages' YAML says, merged into one audit."""
    found = {}
    for path in sorted(PAGES.glob("*.md")):
        for text in re.findall(r"```yaml\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            for key, value in yaml.safe_load(text).items():
                found[key] = {**found.get(key, {}), **value} if isinstance(value, dict) else value
    return found


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """The examples as the files that the pages tell the reader to save."""
    folder = tmp_path_factory.mktemp("examples")
    for name, text in FILES.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    sys.path.insert(0, str(folder))
    known, pairs = dict(CONTROLS._controls), dict(CONTROL_PAIRS)
    yield SimpleNamespace(folder=folder, **{name: importlib.import_module(name) for name in FILES})
    sys.path.remove(str(folder))
    for name in FILES:
        del sys.modules[name]
    CONTROLS._controls = known
    CONTROL_PAIRS.clear()
    CONTROL_PAIRS.update(pairs)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Handwritten digits in the form of the data page: 0, 1 and 2 stand for its three classes."""
    folder = tmp_path_factory.mktemp("data") / "scans"
    folder.mkdir()
    digits = load_digits()
    images = np.repeat(np.repeat((digits.images * 15.9).astype(np.uint8), 2, axis=1), 2, axis=2)
    np.save(folder / "train.npy", images)
    np.save(folder / "train_labels.npy", digits.target % 3)
    return folder


@pytest.fixture
def plane():
    """A generator whose samples are its latents."""

    class Plane(nn.Module):
        latent_dim = 2

        def forward(self, latents):
            return latents

        def sample_latents(self, n, generator=None, device="cpu"):
            return torch.randn((n, 2), generator=generator).to(device)

    return Plane()


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return ModelPair(SmallCNN(1, 3, width=4).eval(), SmallCNN(1, 3, width=4).eval(), "black")


def test_every_extension_point_has_a_page():
    assert {path.stem for path in PAGES.glob("*.md")} == KINDS
    for path in PAGES.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert "**When:**" in text
        assert "**In the package" in text
        assert 'python title="' in text


def test_data_set(modules, scans):
    data = UnlearningDataModule(modules.scans.ScansSource(str(scans)), forget_class="ill", image_size=16, channels=1)
    assert data.classes == ("clear", "blurred", "ill")
    assert set(data.split("forget").labels.tolist()) == {2}


def test_model(modules):
    model = modules.pooled.PooledMLP(3, 5)
    assert model(torch.rand(2, 3, 16, 16)).shape == (2, 5)


def test_generator(modules):
    generator = modules.mlp_gan.MLPGenerator((1, 8, 8), latent_dim=4)
    images = generator(generator.sample_latents(3))
    assert images.shape == (3, 1, 8, 8)
    assert images.min() >= 0
    assert images.max() <= 1
    assert generator.build_discriminator()(images).shape == (3,)


def test_normaliser(modules, pair):
    normaliser = modules.half_saturation.HalfSaturation()
    scorer = TraceScorer(pair, normaliser=normaliser)
    public = torch.rand(65, 1, 16, 16)
    scorer.fit(public)
    assert float(scorer(public).score.median()) == pytest.approx(0.5, abs=1e-6)
    again = TraceScorer(pair, normaliser=modules.half_saturation.HalfSaturation())
    again.load_state_dict(json.loads(json.dumps(scorer.state_dict())))
    torch.testing.assert_close(again(public).score, scorer(public).score)


def test_signal(modules, pair):
    inputs = torch.rand(9, 1, 16, 16)
    found = modules.divergence.Divergence(pair)(inputs).score
    before, after = pair.outputs(inputs)
    expected = nn.functional.kl_div(after.log(), before, reduction="none").sum(1)
    torch.testing.assert_close(found, expected / (1 + expected))


def test_signal_of_equal_models_is_zero(modules):
    model = SmallCNN(1, 3, width=4).eval()
    signal = modules.divergence.Divergence(ModelPair(model, model, "black"))
    assert float(signal(torch.rand(4, 1, 16, 16)).score.max()) == 0


def test_searcher(modules, plane):
    def score(x):
        return SimpleNamespace(score=(-(x - 3).norm(dim=1)).exp())

    core = LatentCore(plane, score, LatentSettings(projection="none"))
    best = float(modules.hill_climb.HillClimbSearcher().search(core, 2000, 0).scores.max())
    assert core.queries == 2000
    assert best > 0.9 > float(RandomSearcher().search(core, 2000, 0).scores.max())


def test_metric(modules, tmp_path):
    from safetensors.torch import save_file

    metric = modules.max_error.MaxError(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    metric.update(torch.tensor([[0.1, 0.5], [0.0, 0.7]]))
    metric.update(torch.tensor([[0.0, 0.5]]))
    assert float(metric.compute()) == pytest.approx(0.2)
    stored = {"attack-0/inputs": torch.tensor([[0.0, 0.9]]), "prior-0/inputs": torch.tensor([[0.3, 0.5]])}
    save_file({**stored, "attack-0/scores": torch.ones(1)}, tmp_path / "candidates.safetensors")
    found = modules.measure.measured(tmp_path, metric)
    assert found == {"attack-0": pytest.approx(0.4), "prior-0": pytest.approx(0.3)}


def test_control(modules):
    assert [control.id for control in parse_controls(["swapped"])] == ["swapped"]
    run = SimpleNamespace(
        config=SimpleNamespace(audit=SimpleNamespace(repeats=2)), settings={"audit": {"controls": ["swapped"]}}
    )
    assert control_pairs(run, "swapped") == [("unlearned", "original")] * 2


@pytest.mark.timeout(600)
def test_all_examples_together_are_an_audit(modules, scans, tmp_path, monkeypatch):
    monkeypatch.chdir(scans.parent)
    config = yaml.safe_load(TINY.read_text(encoding="utf-8")) | settings()
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    run = tmp_path / "run"
    assert main(["audit", "--config", str(tmp_path / "audit.yaml"), "--output", str(run), "--quiet"]) == 0
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["setting"]["deleted_classes"] == ["ill"]
    assert "swapped" in metrics["controls"]
    assert metrics["baselines"]["trace_blend"]["applicable"]
    assert "correct" in json.dumps(metrics["inferences"]["most_flipped"])
    stored = (run / "config.yaml").read_text(encoding="utf-8")
    for name in ("pooled.PooledMLP", "mlp_gan.MLPGenerator", "my_rules.Uniform", "half_saturation.HalfSaturation"):
        assert name in stored
    assert "hill_climb.HillClimbSearcher" in stored
    assert modules.measure.measured(run, modules.max_error.MaxError(torch.zeros(2, 1, 16, 16)))["attack-0"] <= 1
    assert "Swapped" in (run / "report.html").read_text(encoding="utf-8")
