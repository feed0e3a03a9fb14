import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from retrace_pl.data import LabelledTensors
from retrace_pl.metrics import membership_auc
from retrace_pl.mls_bench.scores import (
    COLLAPSED,
    NOT_FINITE,
    NOT_FORGOTTEN,
    UNKNOWN_CLASS,
    UNTRAINED,
    Measured,
    Validity,
    measure,
    mia_leakage,
    mls_bench_auc,
    positional_auc,
    score_fields,
    two_sided_score,
    unlearn_score,
)

# What argsort of numpy 2.0.2 returned for 600 and for 7000 equal scores on a processor with AVX-512
EQUAL = np.load(Path(__file__).parent / "argsort_of_equal_scores.npz")
PUBLISHED_TIES = [(500, 100, 0.3635), (6000, 1000, 0.0382)]


@pytest.mark.parametrize(("members", "others", "published"), PUBLISHED_TIES)
def test_equal_confidences_give_the_published_value_by_position_and_one_half_here(members, others, published):
    order = EQUAL[f"equal_{members + others}"]
    assert sorted(order) == list(range(members + others))
    assert round(positional_auc(order, members), 4) == published
    assert membership_auc(torch.ones(members), torch.ones(others)) == 0.5


@pytest.mark.parametrize(("members", "others", "published"), PUBLISHED_TIES)
def test_the_compatible_auc_is_the_published_one_where_numpy_sorts_as_it_did(members, others, published):
    scores = np.ones(members + others, dtype=np.float32)
    if not np.array_equal(np.argsort(scores), EQUAL[f"equal_{len(scores)}"]):
        pytest.skip("this numpy on this processor leaves equal scores in another order")
    assert round(mls_bench_auc(scores[:members], scores[members:]), 4) == published


def test_equal_confidences_by_position_depend_on_nothing_but_the_order():
    assert positional_auc(np.arange(600), 500) == 0.0
    assert positional_auc(np.arange(600)[::-1], 500) == 1.0
    assert mls_bench_auc(np.ones(500), np.ones(100)) == positional_auc(np.argsort(np.ones(600)), 500)


def test_a_model_without_finite_outputs_has_a_compatible_auc_and_no_true_one():
    nan = np.full(7000, np.nan, dtype=np.float32)
    assert 0 <= mls_bench_auc(nan[:6000], nan[6000:]) <= 1
    assert math.isnan(membership_auc(nan[:6000], nan[6000:]))


def test_without_ties_all_three_agree():
    rng = np.random.default_rng(0)
    members, others = rng.normal(0.3, 1, 200), rng.normal(0, 1, 90)
    truth = roc_auc_score(np.r_[np.ones(200), np.zeros(90)], np.r_[members, others])
    assert mls_bench_auc(members, others) == pytest.approx(truth)
    assert membership_auc(members, others) == pytest.approx(truth)


def test_scores():
    assert unlearn_score(0.876, 0.0, 0.451) == pytest.approx(0.808, abs=5e-4)
    assert two_sided_score(0.876, 0.0, 0.451) == pytest.approx((0.876 + 1 + 1 - 0.098) / 3)
    assert mia_leakage(0.038) == pytest.approx(0.924)
    assert mia_leakage(1 - 0.038) == pytest.approx(0.924)


class Lookup(nn.Module):
    """Logits that depend on the first pixel alone."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, inputs):
        return self.logits[(inputs[:, 0, 0, 0] * 255).round().long()]


def records(codes, labels):
    pixels = torch.tensor(codes, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2).contiguous()
    return LabelledTensors(pixels, torch.tensor(labels), torch.arange(len(labels)))


def test_measure_counts_by_hand():
    model = Lookup([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    test = records([0, 1, 1, 2, 2, 0], [0, 0, 1, 1, 2, 2])  # class 0 is forgotten: one of two right, others two of four
    found = measure(model, test, records([0, 2, 2], [0, 0, 0]), 0, batch_size=4)
    assert (found.retain_acc, found.forget_acc) == (0.5, 0.5)
    # confidences: members code 0 < code 2, code 2; non-members code 0 and code 1, which is the least sure
    assert found.forget_mia_auc == pytest.approx((0.5 + 1 + 1 + 1 + 1 + 1) / 6)
    assert found.finite


def test_measure_of_a_broken_model():
    model = Lookup([[float("nan")] * 3] * 3)
    found = measure(model, records([0, 1], [0, 1]), records([0], [0]), 0)
    assert not found.finite
    assert math.isnan(found.retain_acc)
    assert math.isnan(found.forget_mia_auc)


ORIGINAL = Measured(0.9, 0.9, 0.6, 0.6, finite=True)


@pytest.mark.parametrize(
    ("model", "original", "problems"),
    [
        (Measured(0.85, 0.0, 0.5, 0.5, finite=True), ORIGINAL, []),
        (Measured(0.44, 0.0, 0.5, 0.5, finite=True), ORIGINAL, [COLLAPSED]),
        (Measured(0.45, 0.45, 0.5, 0.5, finite=True), ORIGINAL, [NOT_FORGOTTEN]),
        (Measured(0.1, 0.9, 0.5, 0.5, finite=True), ORIGINAL, [COLLAPSED, NOT_FORGOTTEN]),
        (Measured(math.nan, math.nan, math.nan, 0.7, finite=False), ORIGINAL, [NOT_FINITE]),
        (None, ORIGINAL, [NOT_FINITE]),
        (Measured(0.9, 0.0, 0.5, 0.5, finite=True), Measured(0.9, 0.1, 0.5, 0.5, finite=True), [UNKNOWN_CLASS]),
        (Measured(0.19, 0.0, 0.5, 0.5, finite=True), Measured(0.19, 0.9, 0.5, 0.5, finite=True), [UNTRAINED]),
    ],
)
def test_validity(model, original, problems):
    assert Validity().problems(model, original, 10) == problems


def test_a_model_that_always_names_one_retained_class_has_collapsed():
    original = Measured(0.48, 0.9, 0.5, 0.5, finite=True)
    assert Validity().problems(Measured(0.25, 0.0, 0.5, 0.0, finite=True), original, 5) == [COLLAPSED]
    assert Validity().problems(Measured(0.26, 0.0, 0.5, 0.0, finite=True), original, 5) == []


def test_thresholds_can_be_set():
    model = Measured(0.8, 0.3, 0.5, 0.5, finite=True)
    assert Validity().problems(model, ORIGINAL, 10) == []
    assert Validity(min_retain=0.95, max_forget=0.1).problems(model, ORIGINAL, 10) == [COLLAPSED, NOT_FORGOTTEN]


def test_fields_of_a_result():
    fields = score_fields(Measured(0.9, 0.1, 0.3, 0.2, finite=True))
    assert fields["unlearn_score"] == pytest.approx((0.9 + 0.9 + 0.7) / 3)
    assert fields["mls_bench_compatible"] == {
        "forget_mia_auc": 0.2,
        "unlearn_score": pytest.approx((0.9 + 0.9 + 0.8) / 3),
    }
    assert fields["two_sided_score"] == pytest.approx((0.9 + 0.9 + 0.6) / 3)
    assert all(math.isnan(score_fields(None)[name]) for name in ("retain_acc", "unlearn_score", "mia_leakage"))
