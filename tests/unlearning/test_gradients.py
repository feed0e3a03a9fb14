"""Per-record gradients against a plain loop of backward passes."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from retrace_pl.models import ResNetCIFAR
from retrace_pl.unlearning import gradients
from retrace_pl.unlearning.gradients import first, fisher_diagonal, record_gradients, squared_gradients


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = ResNetCIFAR(1, 3, width=2)
    model(torch.rand(8, 1, 8, 8))  # statistics that are not 0 and 1
    model.head.bias.requires_grad_(False)
    return model.train()


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    inputs, labels = torch.rand(7, 1, 8, 8, generator=generator), torch.randint(3, (7,), generator=generator)
    return [(inputs[:4], labels[:4]), (inputs[4:], labels[4:])]


def loop(model, batches, loss):
    parameters = [p for p in model.parameters() if p.requires_grad]
    model.eval()
    records = [record for inputs, labels in batches for record in zip(inputs, labels, strict=True)]
    rows = [torch.autograd.grad(loss(model(x[None]), y[None]), parameters) for x, y in records]
    model.train()
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


def flat(weights):
    return torch.cat([value.flatten() for value in weights.values()])


@pytest.mark.parametrize("chunk", [2, 64])
def test_squares_are_taken_record_by_record(model, batches, chunk, monkeypatch):
    monkeypatch.setattr(gradients, "_CHUNK", chunk)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = loop(model, batches, functional.cross_entropy)
    squares, count = squared_gradients(model, batches)
    assert count == 7
    assert "head.bias" not in squares
    torch.testing.assert_close(flat(squares), expected.square().mean(0), rtol=1e-4, atol=1e-9)
    assert not torch.allclose(flat(squares), expected.mean(0).square(), rtol=1e-2)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_rows_are_the_gradients_in_order_up_to_the_number_asked_for(model, batches):
    expected = loop(model, batches, functional.cross_entropy)
    torch.testing.assert_close(record_gradients(model, batches, 6), expected[:6], rtol=1e-4, atol=1e-6)
    assert record_gradients(model, batches, 100).shape == expected.shape


def test_the_fisher_diagonal_takes_the_expectation_over_the_label(model, batches):
    expected = 0
    for k in range(3):
        rows = loop(model, batches, lambda logits, _, k=k: logits.log_softmax(1)[0, k])
        with torch.no_grad():
            p = torch.cat([model.eval()(xs).softmax(1)[:, k] for xs, _ in batches])
        expected = expected + (p[:, None] * rows.square()).mean(0)
    diagonal, count = fisher_diagonal(model, batches)
    assert count == 7
    torch.testing.assert_close(flat(diagonal), expected, rtol=1e-4, atol=1e-9)
    other_labels = [(inputs, (labels + 1) % 3) for inputs, labels in batches]
    torch.testing.assert_close(flat(fisher_diagonal(model, other_labels)[0]), flat(diagonal))


def test_no_records_give_zeros():
    model = nn.Linear(2, 2)
    for measure in (squared_gradients, fisher_diagonal):
        squares, count = measure(model, [])
        assert count == 0
        assert float(flat(squares).abs().sum()) == 0


def test_first_cuts_the_last_batch(batches):
    assert [len(labels) for _, labels in first(batches, 5)] == [4, 1]
    assert [len(labels) for _, labels in first(batches, 4)] == [4]
    assert [len(labels) for _, labels in first(batches, None)] == [4, 3]
