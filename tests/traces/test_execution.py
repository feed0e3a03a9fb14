"""Faster ways to run a pair change its results by rounding alone, and a pair that they change more is refused."""

from functools import partialmethod

import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError, RunError
from retrace_pl.models import SmallCNN
from retrace_pl.traces import Execution, ModelPair

TOLERANCE = {"bfloat16": 0.05, "float16": 0.01}


def network(seed):
    torch.manual_seed(seed)
    model = SmallCNN(1, 5, width=8)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training: running statistics that change something
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    return model


@pytest.fixture
def networks():
    return network(0), network(1)


@pytest.fixture
def images():
    return torch.rand(20, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("autocast", TOLERANCE)
def test_autocast_agrees_within_its_tolerance(networks, images, autocast):
    plain = ModelPair(*networks, "white").respond(images)
    fast = ModelPair(*networks, "white", autocast=autocast).respond(images)
    for mine, theirs in zip(fast.probabilities, plain.probabilities, strict=True):
        assert mine.dtype == torch.float32
        assert 0 < float((mine - theirs).abs().max()) < TOLERANCE[autocast]
    torch.testing.assert_close(fast.losses, plain.losses, rtol=0, atol=0.1)
    for mine, theirs in zip(fast.gradients, plain.gradients, strict=True):
        assert mine.dtype == torch.float32
        assert nn.functional.cosine_similarity(mine.flatten(1), theirs.flatten(1)).min() > 0.95


@pytest.mark.parametrize("access", ["black", "white"])
def test_without_gradients_or_with_them_autocast_is_on(networks, images, access):
    found = ModelPair(*networks, access, autocast="bfloat16").outputs(images)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = networks[1](images)
    assert torch.equal(found.unlearned, expected.float().softmax(1))


def test_a_model_beside_itself_has_no_gap_in_half_precision(networks, images):
    response = ModelPair(networks[0], networks[0], "white", autocast="bfloat16").respond(images)
    for values in (response.probabilities, response.losses, response.gradients):
        assert torch.equal(values.original, values.unlearned)


@pytest.fixture
def eager(monkeypatch):
    """`torch.compile` up to the point where C++ is written, so that a test takes seconds."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))


def test_compiled_copies_answer_as_the_models_do(networks, images, eager):
    plain = ModelPair(*networks, "white").respond(images)
    pair = ModelPair(*networks, "white", memory_format="channels_last", compile=True)
    assert pair.networks() == networks
    assert all(module._compiled_call_impl is None for module in networks), "what came in is left as it is"
    assert all(module._compiled_call_impl is not None for module in pair._runs)
    for part in (slice(0, 20), slice(0, 7)):
        found = pair.respond(images[part])
        torch.testing.assert_close(found.probabilities.original, plain.probabilities.original[part], rtol=0, atol=1e-4)
        torch.testing.assert_close(found.gradients.unlearned, plain.gradients.unlearned[part], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_compiled_for_real(networks, images):
    plain, pair = ModelPair(*networks).outputs(images), ModelPair(*networks, compile=True)
    torch.testing.assert_close(pair.outputs(images), plain, rtol=0, atol=1e-4)


class Steep(nn.Module):
    """Small differences of large logits: what rounding takes away first."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Linear(256, 5)
        self.layer.weight.data *= 10
        self.layer.bias.data.fill_(1000.0)

    def forward(self, x):
        return self.layer(x.flatten(1))


def test_more_than_rounding_is_refused(images):
    with pytest.raises(RunError, match=r"traces\.autocast=bfloat16 changes probabilities of the original model.*0\.05"):
        ModelPair(Steep(0), Steep(1), autocast="bfloat16").outputs(images)
    ModelPair(Steep(0), Steep(1)).outputs(images)


def test_the_plain_models_are_asked_once(networks, images):
    calls = []
    networks[0].register_forward_hook(lambda *_: calls.append(torch.is_autocast_enabled("cpu")))
    pair = ModelPair(*networks, autocast="bfloat16")
    pair.outputs(images)
    pair.outputs(images)
    assert calls == [False, True, True, True], "the first batch without and with, then with autocast alone"


def test_a_broken_model_is_still_called_by_its_name(networks, images):
    networks[1].get_submodule("head").weight.data.fill_(torch.nan)
    with pytest.raises(RunError, match="the unlearned model returns NaN"):
        ModelPair(*networks, autocast="bfloat16").outputs(images)


def test_models_without_parameters_are_run_as_they_are(eager):
    class Own(nn.Module):
        def forward(self, x):
            return x.flatten(1)

    model = Own()
    assert Execution("channels_last", "none", compile=True).prepared(model, torch.device("cpu")) is model


def test_ways_that_are_none_are_named(networks, monkeypatch):
    with pytest.raises(InputError, match="autocast: 'int8' is unknown; choose one of none, bfloat16, float16"):
        ModelPair(*networks, autocast="int8")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"traces\.compile: .*no no-such-compiler here; leave it out"):
        ModelPair(*networks, compile=True)
