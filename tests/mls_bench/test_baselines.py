"""One step of each baseline against the published definition, written out here without the package."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from retrace_pl.mls_bench.baselines import BASELINES
from retrace_pl.mls_bench.methods import find_method
from retrace_pl.mls_bench.settings import Limits

CLASSES = 4


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 36, CLASSES))
    model(torch.randn(64, 3, 8, 8) * 2 + 1)  # running statistics that are not the initial ones
    return model


def batches(seed):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.rand(n, 3, 8, 8, generator=generator), torch.randint(0, CLASSES, (n,), generator=generator))
        for n in (6, 5)
    ]


def divergence(student, teacher, temperature):
    p = (teacher / temperature).softmax(1)
    q = (student / temperature).log_softmax(1)
    return (p * (p.log() - q)).sum() / len(student)


class WrittenOut:
    """The four rules as the benchmark describes them."""

    def __init__(self, original, random_teacher=None):
        self.original = copy.deepcopy(original).eval()
        self.random_teacher = random_teacher

    def retain_finetune(self, model, retain, forget, optimizer, epoch):
        optimizer.zero_grad()
        functional.cross_entropy(model(retain[0]), retain[1]).backward()
        optimizer.step()

    def negative_gradient(self, model, retain, forget, optimizer, epoch):
        optimizer.zero_grad()
        kept = functional.cross_entropy(model(retain[0]), retain[1])
        gone = functional.cross_entropy(model(forget[0]), forget[1])
        (kept - 0.5 * gone).backward()
        optimizer.step()

    def bad_teacher(self, model, retain, forget, optimizer, epoch):
        optimizer.zero_grad()
        with torch.no_grad():
            targets = torch.cat([self.original(retain[0]), self.random_teacher(forget[0])])
        divergence(model(torch.cat([retain[0], forget[0]])), targets, 1.0).backward()
        optimizer.step()

    def scrub(self, model, retain, forget, optimizer, epoch):
        if epoch < 2:
            optimizer.zero_grad()
            with torch.no_grad():
                target = self.original(forget[0])
            (-16 * divergence(model(forget[0]), target, 4.0)).backward()
            optimizer.step()
        optimizer.zero_grad()
        logits = model(retain[0])
        with torch.no_grad():
            target = self.original(retain[0])
        loss = 0.99 * functional.cross_entropy(logits, retain[1]) + 0.01 * 16 * divergence(logits, target, 4.0)
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("name", BASELINES)
def test_steps_equal_the_published_definition(name):
    method = find_method(name, Limits()).method
    assert (method.epochs, method.batch_size, method.lr, method.optimizer_name) == (20, 128, 1e-3, "adam")
    ours, theirs = network(), network()
    method.prepare(ours.eval())
    written = WrittenOut(theirs, getattr(method, "incompetent", None))
    optimizers = [method.configure_optimizer(ours.parameters()), torch.optim.Adam(theirs.parameters(), lr=1e-3)]
    for epoch in (0, 1, 2):
        method.set_mode(ours)
        theirs.train()
        retain, forget = batches(epoch)
        method.unlearn_step(ours, retain, forget, optimizers[0], epoch, epoch)
        getattr(written, name)(theirs, retain, forget, optimizers[1], epoch)
    for (key, mine), value in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, value, rtol=1e-4, atol=1e-6, msg=key)
    assert any(not torch.equal(a, b) for a, b in zip(ours.parameters(), network().parameters(), strict=True))


def test_the_random_teacher_has_fresh_weights_and_trained_statistics():
    model = network()
    with torch.no_grad():
        model[1].weight.fill_(3.0)
    method = find_method("bad_teacher", Limits()).method
    method.prepare(model.eval())
    teacher = method.incompetent
    assert not teacher.training
    assert not torch.equal(teacher[0].weight, model[0].weight)
    assert torch.equal(teacher[0].bias, model[0].bias)
    assert torch.equal(teacher[1].running_mean, model[1].running_mean)
    assert torch.equal(teacher[1].running_var, model[1].running_var)
    assert torch.equal(teacher[1].weight, torch.ones(5))
    assert not torch.equal(teacher[4].weight, model[4].weight)
    assert torch.equal(teacher[4].bias, torch.zeros(CLASSES))
