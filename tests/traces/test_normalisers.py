import json

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from retrace_pl.errors import InputError, RunError
from retrace_pl.traces import BatchMinMax, FixedQuantile, Rank


@pytest.fixture
def values():
    return torch.rand(501, generator=torch.Generator().manual_seed(3)) ** 3 * 8


def fitted(reference, **kwargs):
    normaliser = FixedQuantile(**kwargs)
    normaliser.fit({"loss": reference})
    return normaliser


@pytest.mark.parametrize(("low", "high"), [(0.01, 0.99), (0.0, 1.0), (0.25, 0.5)])
def test_quantiles_agree_with_numpy(values, low, high):
    a, b = np.quantile(values.double().numpy(), (low, high))
    scaled = np.maximum((values.numpy() - a) / (b - a), 0)
    clipped = fitted(values, low=low, high=high, tail="clip")("loss", values)
    np.testing.assert_allclose(clipped, np.minimum(scaled, 1), atol=1e-6)
    np.testing.assert_allclose(fitted(values, low=low, high=high)("loss", values), scaled / (1 + scaled), atol=1e-6)


def test_open_tail_keeps_the_order_where_clipping_ties(values):
    beyond = torch.tensor([8.0, 9.0, 50.0, 1e4])
    assert (fitted(values)("loss", beyond).diff() > 0).all()
    assert fitted(values, tail="clip")("loss", beyond).tolist() == [1.0] * 4
    assert fitted(values, low=0.0, high=1.0)("loss", values).max() == pytest.approx(0.5)


def test_fixed_quantile_does_not_look_at_the_batch(values):
    normaliser = fitted(values)
    whole = normaliser("loss", values)
    torch.testing.assert_close(torch.cat([normaliser("loss", value[None]) for value in values[:20]]), whole[:20])
    assert normaliser("loss", torch.tensor([-5.0, 1e9])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    "make", [fitted, lambda _: BatchMinMax(), lambda _: Rank()], ids=["quantile", "minmax", "rank"]
)
def test_every_normaliser_is_monotone_and_in_range(make, values):
    result = make(values)("loss", values)
    assert 0.0 <= result.min() < 0.05
    assert 0.5 <= result.max() <= 1.0
    assert (result[values.argsort()].diff() >= 0).all()


@pytest.mark.parametrize(
    "make", [fitted, lambda _: BatchMinMax(), lambda _: Rank()], ids=["quantile", "minmax", "rank"]
)
@pytest.mark.parametrize("value", [0.0, 4.0])
@pytest.mark.parametrize("count", [1, 5])
def test_no_spread_gives_zeros(make, value, count):
    constant = torch.full((count,), value)
    assert make(constant)("loss", constant).tolist() == [0.0] * count


def test_rounding_noise_counts_as_no_spread():
    noise = 1.0 + torch.tensor([0.0, 1.0, 2.0, 3.0]) * 1e-7
    for normaliser in (fitted(noise), BatchMinMax(), Rank()):
        assert normaliser("loss", noise).tolist() == [0.0] * 4


def test_degenerate_signals_are_named(values):
    normaliser = FixedQuantile()
    normaliser.fit({"prediction": torch.zeros(9), "loss": values})
    assert normaliser.degenerate == ("prediction",)
    assert normaliser.state_dict()["degenerate"] == ["prediction"]


def test_batch_minmax_by_hand():
    assert BatchMinMax()("loss", torch.tensor([2.0, 6.0, 3.0])).tolist() == [0.0, 1.0, 0.25]


def test_ties_share_their_mean_rank(values):
    assert Rank()("loss", torch.tensor([5.0, 1.0, 5.0, 9.0, 5.0])).tolist() == [0.5, 0.0, 0.5, 1.0, 0.5]
    coarse = (values * 3).round()
    expected = (rankdata(coarse.numpy()) - 1) / (len(coarse) - 1)
    np.testing.assert_allclose(Rank()("loss", coarse), expected, atol=1e-6)


def test_state_survives_json(values):
    normaliser = fitted(values, low=0.05, high=0.9, tail="clip")
    other = FixedQuantile()
    assert not other.fitted(["loss"])
    other.load_state_dict(json.loads(json.dumps(normaliser.state_dict())))
    assert other.fitted(["loss"])
    assert not other.fitted(["loss", "gradient"])
    assert torch.equal(other("loss", values), normaliser("loss", values))
    assert other.state_dict() == normaliser.state_dict()
    batchwise = BatchMinMax()
    batchwise.load_state_dict(json.loads(json.dumps(batchwise.state_dict())))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"normaliser": "Rank"}, "stored state is of 'Rank'"),
        ({"normaliser": "FixedQuantile", "low": 0.1}, "damaged"),
        ({"normaliser": "FixedQuantile", "low": 0.1, "high": 0.9, "reference": {"loss": [1]}}, "damaged"),
        (
            {"normaliser": "FixedQuantile", "low": 0.1, "high": 0.9, "reference": {"loss": [0, float("nan")]}},
            "not finite",
        ),
        ({"normaliser": "FixedQuantile", "low": 0.1, "high": 0.9, "reference": {"loss": [0, 1]}}, "names no tail"),
    ],
)
def test_foreign_or_damaged_state_is_refused(state, message):
    with pytest.raises(InputError, match=message):
        FixedQuantile().load_state_dict(state)


def test_misuse_has_clear_errors():
    with pytest.raises(RunError, match="no loss reference; call fit"):
        FixedQuantile()("loss", torch.rand(3))
    with pytest.raises(InputError, match=r"low=0.9 and high=0.1"):
        FixedQuantile(0.9, 0.1)
    with pytest.raises(InputError, match="tail='soft' must be open or clip"):
        FixedQuantile(tail="soft")
    with pytest.raises(InputError, match="no public inputs"):
        fitted(torch.zeros(0))
    with pytest.raises(RunError, match="loss differences on the public inputs are not all finite"):
        fitted(torch.tensor([1.0, float("inf")]))
