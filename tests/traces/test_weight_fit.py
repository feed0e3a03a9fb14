import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from retrace_pl.errors import InputError, RunError
from retrace_pl.traces import BatchMinMax, ModelPair, TraceScorer, TraceWeights, fit_weights
from retrace_pl.traces.weight_fit import _regress


class Table(nn.Module):
    """Two-class probabilities read off the input: p+ in the first value, p- in the second."""

    def __init__(self, column):
        super().__init__()
        self.column = column

    def forward(self, x: Tensor) -> Tensor:
        p = x[:, self.column : self.column + 1].clamp(1e-4, 1 - 1e-4)
        return torch.cat((p, 1 - p), 1).log()


def pair(access="gray"):
    return ModelPair(Table(0), Table(1), access)


def records(gap, size, seed):
    random = torch.Generator().manual_seed(seed)
    first = 0.55 + 0.4 * torch.rand(size, 1, generator=random)
    return torch.cat((first, first - gap * torch.rand(size, 1, generator=random)), 1)


def fitted(access="gray", **settings):
    scorer = TraceScorer(pair(access), **settings)
    scorer.fit(records(0.3, 400, 9))
    return scorer


def test_signals_that_tell_deleted_records_get_the_weight():
    result = fit_weights(fitted(), records(0.5, 200, 1), records(0.05, 300, 2))
    assert result.auroc["prediction"] > 0.85
    assert result.weights.prediction + result.weights.loss == pytest.approx(1.0)
    assert result.weights.gradient == 0.0, "the access level does not allow it"
    assert min(result.coefficients.values()) >= 0
    assert (result.positives, result.negatives) == (200, 300)
    stored = json.loads(json.dumps(result.as_dict()))
    assert TraceWeights(**stored["weights"]) == result.weights


def test_the_own_weights_of_the_scorer_play_no_part():
    sides = records(0.5, 100, 1), records(0.05, 100, 2)
    plain = fit_weights(fitted(), *sides)
    scorer = TraceScorer(pair(), weights={"prediction": 1.0, "loss": 1e-9, "gradient": 0.0})
    scorer.fit(records(0.3, 400, 9))
    assert fit_weights(scorer, *sides).weights == plain.weights


def test_coefficients_are_those_of_an_unbounded_fit_where_none_is_negative():
    rng = np.random.default_rng(0)
    truth = np.repeat([1.0, 0.0], [300, 300])
    features = np.stack([rng.normal(truth, 1.0), rng.normal(0.5 * truth, 1.0)], 1)
    ours = _regress(features, truth, np.full(600, 1 / 600))
    reference = LogisticRegression(C=1 / (1e-3 * 600), tol=1e-8).fit(features, truth).coef_[0]
    assert ours == pytest.approx(reference, rel=1e-3)


def test_a_signal_that_points_away_gets_no_weight_instead_of_a_negative_one():
    rng = np.random.default_rng(1)
    truth = np.repeat([1.0, 0.0], [200, 200])
    features = np.stack([rng.normal(truth, 1.0), rng.normal(-2 * truth, 1.0)], 1)
    coefficients = _regress(features, truth, np.full(400, 1 / 400))
    assert coefficients[1] == 0.0
    assert coefficients[0] > 0.5


def test_rare_positives_count_as_much_as_common_negatives():
    rng = np.random.default_rng(2)
    truth = np.repeat([1.0, 0.0], [20, 2000])
    features = rng.normal(truth, 1.0)[:, None]
    mass = np.repeat([0.5 / 20, 0.5 / 2000], [20, 2000])
    balanced = _regress(features, truth, mass)
    reference = LogisticRegression(C=1e3, class_weight="balanced", tol=1e-8).fit(features, truth).coef_[0]
    assert balanced == pytest.approx(reference, rel=0.05)


def test_where_nothing_speaks_for_a_deletion_there_is_nothing_to_fit():
    with pytest.raises(RunError, match="no signal is higher"):
        fit_weights(fitted(), records(0.0, 100, 1), records(0.5, 100, 2))


def test_misuse():
    sides = records(0.5, 10, 1), records(0.05, 10, 2)
    with pytest.raises(RunError, match="no reference"):
        fit_weights(TraceScorer(pair()), *sides)
    with pytest.raises(InputError, match="sign=positive"):
        fit_weights(fitted(sign="paper_literal"), *sides)
    with pytest.raises(InputError, match="empty"):
        fit_weights(fitted(), sides[0][:0], sides[1])
    assert fit_weights(fitted(normaliser=BatchMinMax()), *sides).weights.prediction >= 0
