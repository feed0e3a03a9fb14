"""What stands behind `trainer.strategy`, `trainer.compile` and `trainer.sync_batchnorm`."""

from dataclasses import asdict

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from retrace_pl.errors import InputError
from retrace_pl.models import DCGAN, SmallCNN
from retrace_pl.pipeline.config import TrainerSettings
from retrace_pl.pipeline.runner import arithmetic
from retrace_pl.pipeline.strategies import PATIENCE, ShardedStrategy, strategy_for
from retrace_pl.pipeline.training import compile_networks, make_trainer
from retrace_pl.tasks import ClassifierTask, GeneratorTask


@pytest.mark.parametrize("name", ["auto", "ddp"])
def test_several_devices_share_batches(name):
    strategy = strategy_for(TrainerSettings(devices=2, strategy=name), unused=True)
    assert type(strategy) is DDPStrategy
    assert strategy._ddp_kwargs["find_unused_parameters"]
    assert strategy._timeout == PATIENCE
    assert not strategy_for(TrainerSettings(devices=2, strategy=name))._ddp_kwargs["find_unused_parameters"]


def test_fsdp_spreads_what_can_be_spread_and_shares_batches_otherwise():
    settings = TrainerSettings(devices=2, strategy="fsdp")
    assert isinstance(strategy_for(settings, shardable=True), ShardedStrategy)
    assert type(strategy_for(settings)) is DDPStrategy
    assert type(strategy_for(TrainerSettings(num_nodes=2, strategy="fsdp"))) is DDPStrategy


def test_one_device_and_other_strategies_are_lightnings_business():
    assert strategy_for(TrainerSettings()) == "auto"
    assert strategy_for(TrainerSettings(strategy="fsdp")) == "auto"
    assert strategy_for(TrainerSettings(devices=2, strategy="ddp_fork")) == "ddp_fork"


def test_sync_batchnorm_on_a_cpu_is_refused_with_the_remedy():
    with pytest.raises(InputError, match=r"trainer\.sync_batchnorm: .*GPUs only; leave it out"):
        make_trainer(TrainerSettings(accelerator="cpu", sync_batchnorm=True), quiet=True, logger=False)


def test_compiling_without_a_compiler_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"trainer\.compile: .*no no-such-compiler here; leave it out"):
        compile_networks(ClassifierTask(SmallCNN(1, 10, width=4), 10), torch.device("cpu"))


def test_networks_are_compiled_in_place_and_their_weights_keep_their_names(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(type(module).__name__))
    task = GeneratorTask(DCGAN((1, 16, 16), latent_dim=8, width=8))
    names = set(task.state_dict())
    compile_networks(task, torch.device("cuda"))
    assert compiled == ["DCGAN", "Discriminator"]  # and neither the average nor the augmentation
    assert set(task.state_dict()) == names


@pytest.mark.slow
def test_a_compiled_network_computes_the_same():
    torch.manual_seed(0)
    plain = ClassifierTask(SmallCNN(1, 10, width=4), 10).eval()
    images = torch.rand(4, 1, 8, 8)
    expected = plain(images)
    compile_networks(plain, torch.device("cpu"))
    torch.testing.assert_close(plain(images), expected, rtol=1e-4, atol=1e-5)


def test_keys_name_only_what_was_asked_for():
    assert arithmetic(asdict(TrainerSettings())) == {"precision": "32-true", "accumulate_grad_batches": 1}
    assert arithmetic(asdict(TrainerSettings(compile=True, devices=2))) == {
        "precision": "32-true",
        "accumulate_grad_batches": 1,
        "compile": True,
        "devices": 2,
    }
