"""The last k blocks start anew and everything before them stays."""

import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError
from retrace_pl.models import SmallCNN
from retrace_pl.unlearning import CFk, EUk


def batch(n=8):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, 1, 8, 8, generator=generator), torch.randint(3, (n,), generator=generator)


def network(seed=10):
    torch.manual_seed(seed)
    model = SmallCNN(1, 3, width=2)
    model(torch.rand(16, 1, 8, 8))  # statistics that are not 0 and 1
    return model.eval()


def edited(**settings):
    model = network()
    method = EUk(**settings)
    method.prepare(model)
    method.edit(model, [batch()], [])
    return method, model


def changed(model, original):
    now = model.state_dict()
    return {name for name, value in original.state_dict().items() if not torch.equal(value, now[name])}


LAST = {"head.weight"}  # its bias starts at 0 and stays there
BEFORE = {"body.8.weight"} | {f"body.9.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}


@pytest.mark.parametrize(("k", "fresh"), [(1, LAST), (2, LAST | BEFORE)])
def test_only_the_last_blocks_are_fresh(k, fresh):
    _, model = edited(k=k)
    assert changed(model, network()) == fresh
    if k == 2:
        assert torch.equal(model.body[9].running_var, torch.ones(8))


def test_fresh_weights_know_nothing_of_the_original_and_follow_the_models_own_scheme():
    _, first = edited(k=2)
    original = network(11)
    with torch.no_grad():
        original.head.weight.mul_(7)
    method = EUk(k=2)
    method.edit(original, [batch()], [])
    assert torch.equal(first.head.weight, original.head.weight)
    assert torch.equal(first.body[8].weight, original.body[8].weight)
    torch.manual_seed(0)
    scheme = SmallCNN(1, 3, width=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for module in reversed(list(scheme.modules())):
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    assert torch.equal(first.head.weight, scheme.head.weight), "Kaiming-normal, not nn.Linear's own"


def test_the_seed_decides_and_the_global_generator_stays():
    torch.manual_seed(3)
    expected = torch.rand(1)
    model = network()
    torch.manual_seed(3)
    EUk().edit(model, [batch()], [])
    assert torch.equal(torch.rand(1), expected)
    assert not torch.equal(edited()[1].head.weight, network().head.weight)
    other = network()
    EUk(seed=1).edit(other, [batch()], [])
    assert not torch.equal(other.head.weight, model.head.weight)


def test_the_steps_are_those_of_cf_k_on_the_fresh_weights():
    method, model = edited(k=2, lr=0.1, weight_decay=0.1)
    other = network()
    other.load_state_dict(model.state_dict())
    plain = CFk(k=2, lr=0.1, weight_decay=0.1)
    plain.edit(other, [batch()], [])
    for rule, net in ((method, model), (plain, other)):
        rule.set_mode(net)
        rule.unlearn_step(net, batch(), None, rule.configure_optimizer(net.parameters()), 0, 0)
    assert not changed(model, other)
    assert all(name.startswith(("body.8", "body.9", "head")) for name in changed(model, network()))


def test_strength_0_leaves_the_blocks_random():
    method, model = edited(k=1, strength=0.0)
    fresh = model.head.weight.detach().clone()
    method.set_mode(model)
    method.unlearn_step(model, batch(), None, method.configure_optimizer(model.parameters()), 0, 0)
    assert torch.equal(model.head.weight, fresh)


def test_parts_that_cannot_start_anew_are_named():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2, 4))

        def forward(self, inputs):
            return inputs @ self.scale.T

    with pytest.raises(InputError, match="EUk cannot re-initialise"):
        EUk(k=1).edit(Scaled(), [(torch.rand(2, 4), torch.zeros(2, dtype=torch.int64))], [])
