"""The null pair as a method: fresh weights, nothing deleted, and never mistaken for unlearning."""

import copy

import torch
from torch import nn

from retrace_pl.unlearning import METHODS
from retrace_pl.unlearning.train_again import TrainAgain


def batch(label, seed):
    inputs = label + torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))
    return inputs, torch.full((8,), label)


def test_it_learns_the_forget_records_too_from_fresh_weights():
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    before = copy.deepcopy(model.state_dict())
    method = TrainAgain(lr=0.1, seed=3)
    method.prepare(model)
    assert not torch.equal(model.weight, before["weight"])
    optimizer = method.configure_optimizer(model.parameters())
    retain, forget = batch(0, 1), batch(1, 2)
    inputs, labels = torch.cat([retain[0], forget[0]]), torch.cat([retain[1], forget[1]])
    expected = nn.functional.cross_entropy(model(inputs), labels).item()
    first = method.unlearn_step(model, retain, forget, optimizer, 0, 0)
    assert float(first["loss"]) == expected
    for step in range(1, 60):
        last = method.unlearn_step(model, retain, forget, optimizer, step, 0)
    assert float(last["loss"]) < 0.7 * expected


def test_an_audit_trains_it_on_everything_and_the_zoo_does_not_offer_it():
    assert TrainAgain.from_scratch
    assert TrainAgain.from_scratch_split == "train"
    assert all(kind.from_scratch_split == "retain" for kind in METHODS.values())
    assert TrainAgain not in METHODS.values()
