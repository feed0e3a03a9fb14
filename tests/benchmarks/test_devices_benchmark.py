"""The benchmarks of several devices: what they compute from measurements, and what they do without a GPU."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))

    def run(name):
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return run


def test_the_device_benchmark_refuses_in_one_line_without_a_gpu(load, monkeypatch):
    devices = load("devices")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["devices.py"])
    with pytest.raises(SystemExit) as refused:
        devices.main()
    assert str(refused.value).startswith("benchmarks/devices.py: torch sees no CUDA device here")
    assert "\n" not in str(refused.value)


def test_busy_time_counts_overlapping_kernels_once(load):
    devices = load("devices")
    assert devices.covered([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 1.6)]) == 4.0
    assert devices.covered([]) == 0.0


def test_the_models_of_the_device_benchmark_are_where_they_should_be(load):
    devices = load("devices")
    core = devices.core_on("cpu", "digits", "black")
    core.reset(4)
    assert core.step(torch.zeros(4, core.latent_dim)).score.shape == (4,)


@pytest.mark.gpu
def test_the_device_benchmark_on_a_gpu(load, monkeypatch, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    devices = load("devices")
    row = devices.search("digits", "white", queries=2048, repeats=1)
    assert 0 < row["busy"] <= 1
    # latents and rewards cross twice, to numpy and to the pool; an image alone has 1024 bytes
    assert row["to_host"] < 4 * row["latent_and_reward"]
    monkeypatch.setattr(sys, "argv", ["devices.py", "--quick", "--json", str(tmp_path / "devices.json")])
    devices.main()
    assert json.loads((tmp_path / "devices.json").read_text())["search"][0]["gpu"] > 0


def row_of(**values):
    same = {"seed": 0, "part": "classifier", "quantity": "test loss", "reordered": 1.5, "other_seed": 0.9}
    return same | values


def test_agreement_is_judged_by_its_tolerance(load):
    agreement = load("agreement")
    close, far = row_of(one=2.0, two=2.0001, tolerance=1e-4), row_of(one=2.0, two=2.001, tolerance=1e-4)
    assert agreement.holds(close)
    assert not agreement.holds(far)
    assert agreement.holds(row_of(one=0.1, two=0.1, tolerance=0.0))
    assert not agreement.holds(row_of(one=0.1, two=0.1 + 1e-16 * 2, tolerance=0.0))
    assert agreement.holds(row_of(one=1.0, two=2.0, tolerance=None)) is None
    shown = agreement.table([close, far, row_of(one=1.0, two=2.0, tolerance=None, other_seed=None)])
    assert "| classifier | test loss | 0 | 2 | 2.0001 | 1.5 | 0.9 | 0.0001 | yes |" in shown
    assert "**no**" in shown
    assert "| 1 | 2 | 1.5 | - | none | - |" in shown


def test_agreement_is_told_in_words_with_the_largest_differences(load):
    parts = ("classifier", "classifier, double precision", "unlearning", "unlearning, double precision")
    rows = [
        row_of(part=part, quantity="weights", two=10.0 ** -(number + seed), reordered=0.5 - seed)
        for number, part in enumerate(parts, start=3)
        for seed in (0, 1)
    ]
    text = load("agreement").reading([*rows, row_of(part="classifier", two=9.0)])
    for figure in (
        "1e-04 in double precision. In",
        "at most 1e-03; changing",
        "up to 5e-01",
        "(1e-06 in double",
        "1e-05 in single",
    ):
        assert figure in text


def test_reordering_a_batch_changes_no_loss(load):
    agreement = load("agreement")
    model = agreement.without_batch_norm(agreement.SmallCNN(1, 10, width=8)).double()
    images, labels = torch.rand(8, 1, 16, 16, dtype=torch.float64), torch.arange(8)
    losses = []
    for kind in (agreement.ClassifierTask, agreement.Reordered):
        task = kind(model, 10)
        task.log = task.log_dict = lambda *_, **__: None
        losses.append(task.training_step((images, labels), 0))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-12, atol=0)


def test_group_normalisation_takes_the_place_of_every_batch_norm(load):
    agreement = load("agreement")
    model = agreement.without_batch_norm(agreement.SmallCNN(1, 10, width=8))
    kinds = {type(module).__name__ for module in model.modules()}
    assert "GroupNorm" in kinds
    assert "BatchNorm2d" not in kinds
    images = torch.rand(4, 1, 16, 16)
    torch.testing.assert_close(model(images)[:1], model(images[:1]))
