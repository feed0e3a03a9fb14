"""What leaves the models' device in a search: latents and rewards, never what the generator makes."""

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from retrace_pl.envs import LatentCore
from retrace_pl.envs.sb3 import LatentVecEnv
from retrace_pl.models import DCGAN, SmallCNN
from retrace_pl.traces import ModelPair, TraceScorer

ENVS, LATENT, SIDE = 6, 5, 16

LEAVING = {
    torch.Tensor.cpu,
    torch.Tensor.numpy,
    torch.Tensor.tolist,
    torch.Tensor.item,
    torch.Tensor.__array__,
    torch.Tensor.__bool__,
    torch.Tensor.__float__,
    torch.Tensor.__int__,
    torch.Tensor.__index__,
}
"""Calls that bring a tensor to the host, on whatever device it is."""


class Transfers(TorchFunctionMode):
    """Notes the shape of every tensor that is brought to the host; on a CPU nothing moves, but the calls are made."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        # By name: `.to(self.device)` is a torch.device, and here that is the CPU as well.
        to_host = func is torch.Tensor.to and "cpu" in [value for value in args[1:] if isinstance(value, str)]
        if func in LEAVING or to_host:
            self.shapes.append(tuple(args[0].shape))
        return func(*args, **kwargs)


def search(generator, models):
    scorer = TraceScorer(ModelPair(*models, "white"))
    scorer.fit(torch.rand(40, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1)))
    return LatentCore(generator, scorer)


@pytest.fixture
def networks():
    torch.manual_seed(0)
    return DCGAN((1, SIDE, SIDE), latent_dim=LATENT, width=8), [SmallCNN(1, 10, width=4).eval() for _ in range(2)]


@pytest.fixture
def core(networks):
    return search(*networks)


def test_images_would_be_noticed(core):
    images = core.generate(core.prior(ENVS))
    with Transfers() as seen:
        images.cpu()
        images.to("cpu")
        images.mean().item()
    assert seen.shapes == [(ENVS, 1, SIDE, SIDE), (ENVS, 1, SIDE, SIDE), ()]


def test_only_latents_and_rewards_leave_the_device(core):
    env = LatentVecEnv(core, ENVS)
    env.reset()
    with Transfers() as seen:
        env.step(np.zeros((ENVS, LATENT), np.float32))
    shapes = set(seen.shapes)
    assert {(ENVS, LATENT), (ENVS,)} <= shapes, "z and r cross to numpy"
    # single numbers: is either model's output finite, the best score for the log
    assert all(shape in {(ENVS, LATENT), (ENVS,)} or np.prod(shape) <= 2 for shape in shapes), shapes


def test_between_generator_and_models_nothing_is_copied(core, networks):
    # The very tensor that the generator returns is what both models are given.
    made, given = [], []
    generator, models = networks
    generator.register_forward_hook(lambda module, args, output: made.append(output.data_ptr()))
    for model in models:
        model.register_forward_pre_hook(lambda module, args: given.append(args[0].data_ptr()))
    core.reset(ENVS)
    core.step(torch.zeros(ENVS, LATENT))
    assert len(made) == 1
    assert given == made * 2


@pytest.mark.gpu
def test_a_search_on_a_gpu_stays_there(networks):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    generator, models = networks
    on_gpu = search(generator.cuda(), [model.cuda() for model in models])
    on_gpu.reset(ENVS)
    with Transfers() as seen:
        step = on_gpu.step(torch.zeros(ENVS, LATENT))
    assert step.latents.device.type == step.reward.device.type == step.score.device.type == "cuda"
    assert all(shape in {(ENVS, LATENT), (ENVS,)} or np.prod(shape) <= 2 for shape in seen.shapes), seen.shapes
