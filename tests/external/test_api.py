"""The attack on two models of one's own as a Python call."""

import copy
import inspect
from pathlib import Path

import pytest
import torch
from torch import nn

from retrace_pl.cli import main
from retrace_pl.errors import InputError
from retrace_pl.external.api import attack_pair
from retrace_pl.external.given import module_identity
from retrace_pl.pipeline.cache import file_hash

TINY = {
    "image_size": 16,
    "channels": 1,
    "exclude_classes": [3],
    "public_size": 120,
    "queries": 64,
    "repeats": 1,
    "searcher": "RandomSearcher",
    "bootstrap_samples": 50,
    "overrides": {
        "generator.epochs": 1,
        "generator.model": "dcgan_16",
        "attack.init_args.top_k": 8,
        "generator.model.init_args.width": 8,
        "trainer.accelerator": "cpu",
        "trainer.threads": 1,
    },
}


def digits_attack(models, folder, **settings):
    return attack_pair(models["original"], models["unlearned"], "digits", folder, **{**TINY, **settings})


@pytest.fixture(scope="module")
def models(models):
    """Networks of this process alone, as training leaves them."""
    return {role: copy.deepcopy(model).requires_grad_(True) for role, model in models.items()}


@pytest.fixture(scope="module")
def attacked(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair") / "run"
    return digits_attack(models, folder)


def test_networks_are_attacked_as_they_are(models, attacked):
    assert attacked.get("verdict") == "not_judged"
    assert attacked.get("setting.access") == "white"
    assert attacked.get("setting.models.original") == "PyTorch module"
    assert attacked.get("inferences.class_inference.answer.per_class.ranking")[0] == 3
    assert attacked.get("controls.identity.max_trace") == 0
    assert attacked.images("attack.distribution").shape == (8, 1, 16, 16)
    assert (attacked.folder / "report.html").is_file()
    assert all(parameter.requires_grad for parameter in models["original"].parameters())


def test_the_same_models_are_not_attacked_twice(models, attacked, capsys):
    before = (attacked.folder / "candidates.safetensors").stat().st_mtime_ns
    digits_attack(models, attacked.folder, quiet=False)
    assert capsys.readouterr().err.count("done already") == 5
    assert (attacked.folder / "candidates.safetensors").stat().st_mtime_ns == before


def test_another_network_is_attacked_anew(models, attacked, capsys):
    other = nn.Sequential(models["unlearned"])  # another structure, the same function
    found = digits_attack({**models, "unlearned": other}, attacked.folder, quiet=False)
    assert capsys.readouterr().err.count("done already") == 1, "the generator alone depends on public images only"
    assert found.get("gaps.attack.gap") == pytest.approx(attacked.get("gaps.attack.gap"), abs=1e-6)


def test_an_identity_follows_weights_structure_and_code(models):
    first, same = nn.Linear(2, 3), nn.Linear(2, 3)
    same.load_state_dict(first.state_dict())
    identity = module_identity(first)
    assert module_identity(same) == identity
    assert identity["code"] == {"torch.nn.modules.linear.Linear": file_hash(Path(inspect.getfile(nn.Linear)))}
    with torch.no_grad():
        same.bias[0] += 1e-6
    assert module_identity(same) != identity
    assert module_identity(nn.Sequential(first))["hash"] != identity["hash"]
    assert set(module_identity(models["original"])["code"]) > {"retrace_pl.models.small_cnn.SmallCNN"}


def test_a_stored_setting_says_that_its_model_was_handed_over(attacked, tmp_path, capsys):
    assert main(["attack", f"--config={attacked.folder / 'config.yaml'}", f"--output={tmp_path / 'again'}"]) == 2
    assert "was handed over in Python; save it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"image_size": None}, "--image-size"),
        ({"exclude_classes": ["x"]}, "--exclude-classes"),
        ({"no_such_option": 1}, "no-such-option"),
        ({"queries": 0}, "--queries"),
        ({"evaluator": nn.Identity()}, "--evaluator"),
    ],
)
def test_bad_input_names_the_option(models, tmp_path, settings, named):
    kept = {name: value for name, value in {**TINY, **settings}.items() if value is not None}
    with pytest.raises(InputError, match=named):
        attack_pair(nn.Flatten(), models["unlearned"], "digits", tmp_path / "run", **kept)
