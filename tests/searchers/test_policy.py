import json
import pickle

import pytest
import torch

from retrace_pl.envs import LatentSettings
from retrace_pl.envs.toys import toy_core
from retrace_pl.errors import InputError
from retrace_pl.searchers import SB3Searcher, load_policy, rebuild_policy, save_policy


@pytest.fixture(scope="module", params=["PPO", "SAC"])
def trained(request):
    searcher = SB3Searcher(request.param, num_envs=32, batch_size=32)
    searcher.search(toy_core(LatentSettings(horizon=2)), 128)
    return searcher


def test_a_policy_survives_the_round_trip(trained, tmp_path):
    path = tmp_path / "policy.safetensors"
    save_policy(trained.policy_state(), path)
    loaded = load_policy(path)
    latents = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)).numpy()
    expected, _ = trained._model.predict(latents, deterministic=True)
    assert torch.equal(
        torch.as_tensor(loaded.network.predict(latents, deterministic=True)[0]), torch.as_tensor(expected)
    )
    for name, value in trained._model.policy.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value)
    assert loaded.settings.horizon == 2
    assert torch.equal(loaded.sample(8, seed=1), loaded.sample(8, seed=1))
    assert not torch.equal(loaded.sample(8, seed=1), loaded.sample(8, seed=2))
    assert loaded.sample(8).shape == (8, 8)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["policy.json", "policy.safetensors"]


def test_a_good_policy_still_scores_after_the_round_trip(tmp_path):
    core = toy_core()
    searcher = SB3Searcher(num_envs=64, batch_size=64)
    searcher.search(core, 4096)
    save_policy(searcher.policy_state(), tmp_path / "policy.safetensors")
    sampled = core.scorer(load_policy(tmp_path / "policy.safetensors").sample(512)).score.mean()
    prior = core.scorer(torch.randn(512, 8, generator=torch.Generator().manual_seed(0))).score.mean()
    assert sampled > prior + 0.2


class Bomb:
    def __reduce__(self):
        return (open, (str(Bomb.path), "w"))


def test_a_pickle_is_refused_unread(trained, tmp_path):
    save_policy(trained.policy_state(), tmp_path / "policy.safetensors")
    Bomb.path = tmp_path / "exploded"
    (tmp_path / "policy.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match="is not a stored policy"):
        load_policy(tmp_path / "policy.safetensors")
    assert not Bomb.path.exists()


def test_settings_cannot_choose_what_is_imported(trained, tmp_path):
    path = tmp_path / "policy.safetensors"
    save_policy(trained.policy_state(), path)
    settings = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(settings | {"algorithm": "os.system"}))
    with pytest.raises(InputError, match=r"os.system is not part of stable_baselines3"):
        load_policy(path)


def test_damaged_files_are_refused(trained, tmp_path):
    weights, settings = trained.policy_state()
    with pytest.raises(InputError, match="is not a stored policy"):
        load_policy(tmp_path / "missing.safetensors")
    with pytest.raises(InputError, match="incomplete"):
        rebuild_policy((weights, {"algorithm": "stable_baselines3.PPO"}))
    with pytest.raises(InputError, match="do not fit"):
        rebuild_policy((dict(list(weights.items())[1:]), settings))
