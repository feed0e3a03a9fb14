"""The influence step against the explicit inverse of the Fisher matrix."""

import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError
from retrace_pl.unlearning import WoodFisherInfluence
from retrace_pl.unlearning.woodfisher import inverse_fisher_product


def stream(seed, n):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)


def explicit(gradients, vector, damping):
    rows = gradients.double()
    matrix = damping * torch.eye(rows.shape[1], dtype=torch.float64) + rows.T @ rows / max(1, len(rows))
    return torch.linalg.inv(matrix) @ vector.double()


def recursion(gradients, vector, damping):
    """WoodFisher one record at a time: Sherman-Morrison on the inverse of the matrix so far."""
    inverse = torch.eye(gradients.shape[1], dtype=torch.float64) / damping
    for g in gradients.double():
        product = inverse @ g
        inverse -= torch.outer(product, product) / (len(gradients) + g @ product)
    return inverse @ vector.double()


@pytest.mark.parametrize("records", [0, 1, 5, 40])
@pytest.mark.parametrize("damping", [1.0, 1e-2, 1e-3])
def test_the_product_is_that_of_the_explicit_inverse_and_of_the_recursion(records, damping):
    generator = torch.Generator().manual_seed(records)
    gradients, vector = torch.randn(records, 12, generator=generator), torch.randn(12, generator=generator)
    found = inverse_fisher_product(gradients, vector, damping).double()
    for expected in (explicit(gradients, vector, damping), recursion(gradients, vector, damping)):
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-4 / damping**0.5)


@pytest.mark.parametrize(("settings", "factor"), [({}, 1.0), ({"alpha": 3.0, "strength": 2.0}, 6.0)])
@pytest.mark.parametrize("records", [1000, 7])
def test_the_step_is_the_newton_step_away_from_the_forget_records(settings, factor, records):
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    retain, forget = stream(1, 15), stream(2, 5)

    def gradient(inputs, labels):
        """One row per record: the weight's gradient (p - onehot) x^T, then the bias's."""
        with torch.no_grad():
            error = model(inputs).softmax(1) - torch.eye(3)[labels]
        return torch.cat([(error[:, :, None] * inputs[:, None]).flatten(1), error], dim=1)

    rows = gradient(*retain)[:records]
    expected = before + factor * explicit(rows, gradient(*forget).sum(0) / 20, 0.1).float()
    method = WoodFisherInfluence(records=records, damping=0.1, **settings)
    batches = [(retain[0][:6], retain[1][:6]), (retain[0][6:], retain[1][6:])]
    method.edit(model, batches, [forget])
    found = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not model.weight.grad, "no gradient is left behind"


def test_a_small_step_raises_the_loss_on_the_forget_records():
    torch.manual_seed(0)
    model, forget = nn.Linear(4, 3), stream(2, 5)
    before = nn.functional.cross_entropy(model(forget[0]), forget[1])
    WoodFisherInfluence(alpha=0.1).edit(model, [stream(1, 15)], [forget])
    assert nn.functional.cross_entropy(model(forget[0]), forget[1]) > before


def test_double_precision_stays_double():
    model = nn.Linear(4, 3).double()
    before = model.weight.detach().clone()
    (inputs, labels), (forget, gone) = stream(1, 15), stream(2, 5)
    WoodFisherInfluence().edit(model, [(inputs.double(), labels)], [(forget.double(), gone)])
    assert model.weight.dtype == torch.float64
    assert not torch.equal(model.weight, before)


def test_strength_0_changes_nothing():
    model = nn.Linear(4, 3)
    before = model.weight.detach().clone()
    WoodFisherInfluence(strength=0.0).edit(model, [stream(1, 15)], [stream(2, 5)])
    assert torch.equal(model.weight, before)


def test_a_run_that_needs_too_much_memory_is_refused_before_it_starts():
    method = WoodFisherInfluence(memory_gib=10 * 15 * 4 / 2**30)  # ten records of 15 numbers
    with pytest.raises(InputError, match="lower it to 10"):
        method.edit(nn.Linear(4, 3), [stream(1, 15)], [stream(2, 5)])


@pytest.mark.parametrize(
    ("setting", "value"), [("alpha", -1.0), ("records", 0), ("damping", 0.0), ("memory_gib", float("inf"))]
)
def test_settings_out_of_range_are_named(setting, value):
    with pytest.raises(InputError, match=f"WoodFisherInfluence.{setting}"):
        WoodFisherInfluence(**{setting: value})
