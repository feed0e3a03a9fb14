"""Certified fine-tuning: its steps by hand, what it keeps of the original model, and what it says about that."""

import logging
import math

import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError
from retrace_pl.unlearning import NoisyFineTune
from retrace_pl.unlearning.certificate import noisy_steps_sigma

LR = 0.3


def batch(n=6):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(4, 3)


def with_norm(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    model(torch.randn(16, 4) * 5)
    return model


def start(method, model):
    optimizer = method.configure_optimizer(model.parameters())
    method.prepare(model)
    method.edit(model, [batch()], [])
    method.set_mode(model)
    return optimizer


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_sigma_is_that_of_the_accounting():
    method = NoisyFineTune(
        lr=LR, epsilon=2.0, delta=1e-4, clip_weights=0.5, clip_norm=0.2, noisy_steps=7, weight_decay=0.1
    )
    expected = noisy_steps_sigma(2.0, 1e-4, start=1.0, drift=2 * LR * 0.2, contraction=1 - LR * 0.1, steps=7)
    assert method.sigma == pytest.approx(expected)


@pytest.mark.parametrize("clip_weights", [0.1, 100.0])
def test_the_start_is_clipped_to_its_norm(clip_weights):
    model = linear()
    before = flat(model)
    start(NoisyFineTune(clip_weights=clip_weights), model)
    torch.testing.assert_close(flat(model), before * min(1.0, clip_weights / float(before.norm())))


@pytest.mark.parametrize("strength", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("clip_norm", [0.05, 100.0])
def test_a_noisy_step_is_clipped_decayed_and_noised(strength, clip_norm):
    model = linear()
    method = NoisyFineTune(lr=LR, clip_weights=0.5, clip_norm=clip_norm, weight_decay=0.2, strength=strength)
    optimizer = start(method, model)
    (inputs, labels), w, b = batch(), model.weight.detach().clone(), model.bias.detach().clone()
    error = ((inputs @ w.T + b).softmax(1) - torch.eye(3)[labels]) / len(labels)
    gradient = torch.cat([(error.T @ inputs).flatten(), error.sum(0)])
    scale = min(1.0, clip_norm / float(gradient.norm()))
    assert (scale < 1) == (clip_norm == 0.05)
    torch.manual_seed(9)
    noise = torch.cat([torch.randn(3, 4).flatten(), torch.randn(3)])
    expected = (1 - LR * 0.2) * flat(model) - LR * scale * gradient + strength * method.sigma * noise
    torch.manual_seed(9)
    result = method.unlearn_step(model, batch(), None, optimizer, 0, 0)
    torch.testing.assert_close(flat(model), expected)
    assert result["delta"] == 1e-5


def test_after_the_noisy_steps_the_optimiser_takes_over():
    model = linear()
    method = NoisyFineTune(lr=LR, noisy_steps=2, clip_weights=0.5)
    optimizer = start(method, model)
    epsilons = [method.unlearn_step(model, batch(), None, optimizer, step, 0)["epsilon"] for step in range(2)]
    before, (inputs, labels) = flat(model), batch()
    error = ((inputs @ before[:12].view(3, 4).T + before[12:]).softmax(1) - torch.eye(3)[labels]) / len(labels)
    epsilons.append(method.unlearn_step(model, batch(), None, optimizer, 2, 0)["epsilon"])
    gradient = torch.cat([(error.T @ inputs).flatten(), error.sum(0)])
    torch.testing.assert_close(flat(model), before - LR * gradient)
    assert epsilons[0] > epsilons[1] == epsilons[2] == pytest.approx(1.0), "the noise adds up, then nothing changes it"


def test_the_guarantee_follows_the_noise_that_was_added():
    method = NoisyFineTune(strength=0.5)
    assert method.guarantee() == {"epsilon": math.inf, "delta": 1e-5}
    method.load_state_dict({"noisy_done": 5, "plain_done": 3})
    assert method.guarantee()["epsilon"] > 1.9, "half the noise"
    silent = NoisyFineTune(strength=0.0)
    silent.load_state_dict({"noisy_done": 5, "plain_done": 3})
    assert silent.guarantee()["epsilon"] == math.inf


def test_nothing_of_the_original_model_is_left_but_what_the_noise_hides():
    """Two originals, the same noise: the runs end as close as their clipped starts allow, statistics included."""
    ends = []
    for seed in (0, 1):
        model = with_norm(seed)
        method = NoisyFineTune(lr=0.01, clip_weights=1e-6, clip_norm=0.0, noisy_steps=3, epsilon=1e-4)
        optimizer = start(method, model)
        torch.manual_seed(7)
        for step in range(10):
            method.unlearn_step(model, batch(), None, optimizer, step, 0)
        ends.append(model.state_dict())
    assert int(ends[0]["1.num_batches_tracked"]) == 7, "counted from the end of the noisy steps"
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=1e-3, atol=1e-3)


def test_statistics_of_the_noisy_steps_are_dropped(caplog):
    model = with_norm()
    method = NoisyFineTune(noisy_steps=3)
    optimizer = start(method, model)
    assert torch.equal(model[1].running_mean, torch.zeros(8))
    for step in range(2):
        method.unlearn_step(model, batch(), None, optimizer, step, 0)
    assert not torch.equal(model[1].running_mean, torch.zeros(8))
    method.finish(model)
    assert torch.equal(model[1].running_mean, torch.zeros(8))
    assert "statistics are unset" in caplog.text


def test_the_guarantee_is_logged(caplog):
    caplog.set_level(logging.INFO, logger="retrace_pl.unlearning.noisy_finetune")
    model, method = linear(), NoisyFineTune(noisy_steps=1)
    method.unlearn_step(model, batch(), None, start(method, model), 0, 0)
    method.finish(model)
    assert "NoisyFineTune: (1, 1e-05)-unlearning" in caplog.text


def test_counts_survive_an_interruption_and_a_new_run_starts_over():
    method = NoisyFineTune(noisy_steps=2)
    model = linear()
    optimizer = start(method, model)
    for step in range(3):
        method.unlearn_step(model, batch(), None, optimizer, step, 0)
    assert method.state_dict() == {"noisy_done": 2, "plain_done": 1}
    resumed = NoisyFineTune(noisy_steps=2)
    resumed.load_state_dict(method.state_dict())
    assert resumed.state_dict() == method.state_dict()
    method.prepare(model)
    assert method.state_dict() == {"noisy_done": 0, "plain_done": 0}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"epsilon": 0.0}, "epsilon"),
        ({"delta": 1.0}, "delta"),
        ({"delta": 0.0}, "delta"),
        ({"clip_weights": 0.0}, "clip_weights"),
        ({"clip_norm": -1.0}, "clip_norm"),
        ({"noisy_steps": 0}, "noisy_steps"),
        ({"lr": 1.0, "weight_decay": 1.5}, "weight_decay"),
        ({"batch_norm": "freeze"}, "batch_norm"),
        ({"scheduler": lambda optimizer: optimizer}, "scheduler"),
    ],
)
def test_settings_that_are_out_of_range_or_void_the_certificate_are_named(settings, named):
    with pytest.raises(InputError, match=rf"NoisyFineTune\.{named}"):
        NoisyFineTune(**settings)
