"""Teachers, their divergence, joint passes, fresh weights and wrong labels."""

import math

import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError, RunError
from retrace_pl.models import SmallCNN
from retrace_pl.unlearning.joint import joint_logits
from retrace_pl.unlearning.labels import fixed_labels, redrawn_labels
from retrace_pl.unlearning.reinitialise import reinitialise
from retrace_pl.unlearning.teachers import distillation_losses, estimate_batch_norm, frozen_copy, prepared


def test_a_frozen_copy_shares_nothing_with_the_model():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).train()
    teacher = frozen_copy(model)
    assert model.training
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    before = teacher[0].weight.clone()
    with torch.no_grad():
        model[0].weight.zero_()
    assert torch.equal(teacher[0].weight, before)


def test_a_missing_teacher_is_named():
    with pytest.raises(RunError, match="SCRUB has no teacher yet; call prepare"):
        prepared(None, "SCRUB")


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_divergence_is_that_of_its_definition(temperature):
    student, teacher = torch.tensor([[0.5, -1.0, 2.0]]), torch.tensor([[1.0, 0.0, -0.5]])

    def probabilities(logits):
        raised = [math.exp(value / temperature) for value in logits.tolist()]
        return [value / sum(raised) for value in raised]

    q, p = probabilities(teacher[0]), probabilities(student[0])
    expected = temperature**2 * sum(a * math.log(a / b) for a, b in zip(q, p, strict=True))
    found = distillation_losses(student, teacher, temperature)
    assert found.shape == (1,)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert float(distillation_losses(teacher, teacher, temperature)) == pytest.approx(0, abs=1e-6)


def test_classes_without_probability_add_nothing_and_the_teacher_gets_no_gradient():
    student = torch.zeros(1, 3, requires_grad=True)
    teacher = torch.tensor([[0.0, float("-inf"), 0.0]], requires_grad=True)
    loss = distillation_losses(student, teacher)
    assert loss.item() == pytest.approx(math.log(3 / 2))
    loss.backward()
    assert teacher.grad is None
    torch.testing.assert_close(student.grad, torch.tensor([[-1 / 6, 1 / 3, -1 / 6]]))


def test_batch_norm_statistics_are_averages_over_the_batches():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)).eval()
    batches = [(torch.tensor([[0.0, 1.0], [2.0, 5.0]]), torch.zeros(2)), (torch.tensor([[4.0, 4.0], [4.0, 6.0]]),) * 2]
    batches.append((torch.full((1, 2), 100.0), torch.zeros(1)))  # one record has no variance
    weight = model[0].weight.clone()
    estimate_batch_norm(model, batches)
    torch.testing.assert_close(model[0].running_mean, torch.tensor([(1.0 + 4.0) / 2, (3.0 + 5.0) / 2]))
    torch.testing.assert_close(model[0].running_var, torch.tensor([(2.0 + 0.0) / 2, (8.0 + 2.0) / 2]))
    assert torch.equal(model[0].weight, weight)
    assert model[0].momentum == 0.1
    assert not model[0].training
    estimate_batch_norm(nn.Linear(2, 2), [("not", "read")])


def test_a_joint_pass_shares_its_statistics():
    model = nn.Sequential(nn.BatchNorm1d(2, affine=False)).train()
    first, second = torch.randn(3, 2), torch.randn(5, 2) + 4
    a, b = joint_logits(model, first, second)
    both = torch.cat([first, second])
    expected = (both - both.mean(0)) / torch.sqrt(both.var(0, correction=0) + 1e-5)
    torch.testing.assert_close(torch.cat([a, b]), expected)
    assert (len(a), len(b)) == (3, 5)


def test_fresh_weights_depend_on_the_seed_alone():
    models = [SmallCNN(1, 3, width=4) for _ in range(3)]
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    for model, seed in zip(models, (0, 0, 1), strict=True):
        reinitialise(model, seed, "Someone")
    assert torch.equal(torch.rand(1), expected), "the global generator is left alone"
    assert torch.equal(models[0].head.weight, models[1].head.weight)
    assert not torch.equal(models[0].head.weight, models[2].head.weight)


def test_fixed_labels_belong_to_the_record():
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randint(0, 17, (40, 1, 8, 8), generator=generator) / 16, torch.arange(40) % 5
    wrong = fixed_labels(inputs, labels, 5, seed=0)
    assert bool((wrong != labels).all())
    assert wrong.min() >= 0
    assert wrong.max() < 5
    order = torch.randperm(40, generator=generator)
    assert torch.equal(fixed_labels(inputs[order], labels[order], 5, seed=0), wrong[order]), "in any batch"
    assert torch.equal(fixed_labels(inputs[3:4], labels[3:4], 5, seed=0), wrong[3:4])
    assert not torch.equal(fixed_labels(inputs, labels, 5, seed=1), wrong)
    assert torch.equal(fixed_labels(inputs.double(), labels, 5, seed=0), wrong)


@pytest.mark.parametrize("kind", ["pixels", "tokens", "redrawn"])
def test_wrong_labels_are_uniform_over_the_other_classes(kind):
    """3000 draws over 5 classes: 600 each, within 5 standard deviations of 22."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.full((3000,), 2)
    if kind == "redrawn":
        torch.manual_seed(0)
        wrong = redrawn_labels(labels, 6)
    else:
        inputs = torch.randint(0, 17, (3000, 64), generator=generator)
        wrong = fixed_labels(inputs / 16 if kind == "pixels" else inputs, labels, 6, seed=3)
    counts = torch.bincount(wrong, minlength=6)
    assert counts[2] == 0
    assert bool(((counts[[0, 1, 3, 4, 5]] - 600).abs() < 110).all()), counts


def test_redrawn_labels_change():
    torch.manual_seed(0)
    labels = torch.arange(50) % 7
    first, second = redrawn_labels(labels, 7), redrawn_labels(labels, 7)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(redrawn_labels(labels, 7), first)


def test_one_class_has_no_other():
    with pytest.raises(InputError, match="two classes"):
        redrawn_labels(torch.zeros(2, dtype=torch.int64), 1)
    with pytest.raises(InputError, match="two classes"):
        fixed_labels(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), 1, 0)
