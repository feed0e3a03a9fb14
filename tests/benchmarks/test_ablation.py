import importlib
import sys
from pathlib import Path

import pytest
import torch

from retrace_pl.models import DCGAN, SmallCNN

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = sorted(file.stem for file in (FOLDER.parent / "configs" / "ablation").glob("*.yaml"))


@pytest.fixture(scope="module")
def ablation():
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("ablation")
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("ablation", "search", "_presets", "_training", "_digits_setting", "_fashion_setting"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def base(ablation):
    return ablation.settings("base")


def plain(config):
    """The settings that an ablation may change, as comparable values."""
    searcher = {key: value for key, value in vars(config.searcher).items() if not key.startswith("_")}
    attack, normaliser = vars(config.attack), config.traces.normaliser
    return {
        "access": config.access,
        "queries": config.queries,
        "latent": config.latent,
        "weights": config.traces.weights,
        "sign": config.traces.sign,
        "signal": config.traces.signal,
        "normaliser": (type(normaliser), vars(normaliser)),
        "searcher": searcher,
        "attack": attack,
    }


def test_the_base_is_black_box_without_refinement(base):
    assert (base.access, base.queries, base.attack.refinement_steps) == ("black", 20480, 0)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "base"])
def test_every_ablation_parses_and_changes_what_its_name_says(ablation, base, name):
    axis = name.partition("-")[0]
    allowed = {
        "access": {"access"},
        "signal": {"access", "weights", "signal"},
        "normaliser": {"normaliser"},
        "sign": {"sign"},
        "tau": {"latent"},
        "policy": {"searcher"},
        "rollout": {"searcher"},
        "horizon": {"latent"},
        "action": {"latent"},
        "projection": {"latent"},
        "refinement": {"attack"},
        "queries": {"queries"},
    }[axis]
    before, after = plain(base), plain(ablation.settings(name))
    changed = {key for key in before if before[key] != after[key]}
    assert changed
    assert changed <= allowed


def test_a_policy_ablation_changes_the_network_alone(ablation, base):
    before, after = plain(base)["searcher"], plain(ablation.settings("policy-8"))["searcher"]
    assert {key for key in before if before[key] != after[key]} == {"net_arch"}


def test_a_cell_and_its_row(ablation):
    torch.manual_seed(0)
    classifiers = [SmallCNN(1, 10, width=4).eval() for _ in range(3)]
    generator = DCGAN((1, 16, 16), latent_dim=16, width=8).eval().requires_grad_(False)
    images = torch.rand(40, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    search = sys.modules["search"]
    models = search.Models(
        0, 3, classifiers[0], {"retrain": classifiers[1]}, classifiers[2], generator, images[:30], images[30:], {}
    )
    cell = ablation.measure(models, ablation.settings("access-white"), queries=512)
    assert set(cell) == {*ablation.COLUMNS, "diversity", "queries"}
    row = ablation.table([{"ablation": "access-white", "seed": seed, **cell} for seed in range(2)])
    assert "| access-white | 2 | 512 |" in row
