import json
import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from retrace_pl.errors import InputError, RunError
from retrace_pl.traces import BatchMinMax, ModelPair, TraceScorer, TraceWeights, calibrate


class Lookup(nn.Module):
    """A two-class model whose first probability is the input's first value (or a constant)."""

    def __init__(self, constant=None):
        super().__init__()
        self.constant = constant

    def forward(self, x):
        p = x[:, :1] if self.constant is None else torch.full_like(x[:, :1], self.constant)
        return torch.cat((p, 1 - p), dim=1).log()


def pairwise_auroc(positives, negatives):
    wins = [(p > n) + 0.5 * (p == n) for p in positives for n in negatives]
    return sum(wins) / len(wins)


def fitted(access="gray", public=None, **kwargs):
    scorer = TraceScorer(ModelPair(Lookup(), Lookup(0.5), access), **kwargs)
    scorer.fit(torch.linspace(0.5, 0.95, 101)[:, None] if public is None else public)
    return scorer


def test_auroc_counts_ties_half():
    positives, negatives = [0.9, 0.8, 0.7, 0.7], [0.7, 0.6, 0.6, 0.8, 0.55]
    result = calibrate(fitted(), torch.tensor(positives)[:, None], torch.tensor(negatives)[:, None])
    expected = pairwise_auroc(positives, negatives)
    assert expected == 16.5 / 20
    assert set(result.auroc) == {"prediction", "loss", "score"}
    assert result.auroc == pytest.approx(dict.fromkeys(result.auroc, expected))
    assert (result.positives, result.negatives) == (4, 5)
    assert result.tiny_gradient_fraction is None
    assert result.tpr_at_1pct_fpr == 0.25  # only 0.9 lies above every negative


def test_tpr_admits_one_percent_of_the_negatives():
    negatives = torch.full((200, 1), 0.6)
    negatives[:2] = 0.9
    positives = torch.tensor([[0.8], [0.7], [0.6], [0.9]])
    result = calibrate(fitted(), positives, negatives)
    assert result.tpr_at_1pct_fpr == 0.75
    assert result.tpr_by_signal == {"prediction": 0.75, "loss": 0.75}
    negatives[2] = 0.9
    assert calibrate(fitted(), positives, negatives).tpr_at_1pct_fpr == 0.0


def test_batch_normalisers_put_both_sets_on_one_scale():
    scorer = fitted(normaliser=BatchMinMax())
    assert calibrate(scorer, torch.tensor([[0.9], [0.8]]), torch.tensor([[0.6], [0.55]])).auroc["score"] == 1.0


def test_paper_literal_warns_when_it_points_away():
    high, low = torch.tensor([[0.9], [0.8]]), torch.tensor([[0.6], [0.55]])
    scorer = fitted(sign="paper_literal")
    with pytest.warns(UserWarning, match=r"paper_literal.*AUROC 0\.000\); use sign=positive"):
        result = calibrate(scorer, high, low)
    assert result.auroc == {"prediction": 1.0, "loss": 1.0, "score": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert calibrate(scorer, low, high).auroc["score"] == 1.0  # here it points the right way
        assert calibrate(fitted(), low, high).auroc["score"] == 0.0  # the positive sign never warns


def test_identity_pair_is_at_chance():
    x = torch.linspace(0.5, 0.9, 20)[:, None]
    scorer = TraceScorer(ModelPair(Lookup(), Lookup(), "gray"))
    scorer.fit(x)
    result = calibrate(scorer, x[:5], x[5:])
    assert result.auroc == {"prediction": 0.5, "loss": 0.5, "score": 0.5}
    assert result.tpr_at_1pct_fpr == 0.0


def test_tiny_gradients_are_counted(mlp, inputs):
    first = mlp(1)
    first[3].weight.data *= 30
    scorer = TraceScorer(ModelPair(first, mlp(2), "white"), weights=TraceWeights(1.0, 0.0, 0.0))
    scorer.fit(inputs)
    result = calibrate(scorer, inputs[:10], inputs[10:])
    gradients = scorer.pair.input_gradients(inputs).original.flatten(1)
    expected = (gradients.double().norm(dim=1) < 1e-8).double().mean().item()
    assert 0.0 < expected < 1.0
    assert result.tiny_gradient_fraction == pytest.approx(expected)
    assert set(result.auroc) == {"prediction", "loss", "gradient", "score"}  # also those of weight zero


def test_result_is_plain_json():
    result = calibrate(fitted("black"), torch.tensor([[0.9]]), torch.tensor([[0.6]]))
    stored = json.loads(json.dumps(result.to_dict()))
    assert stored == {
        "auroc": {"prediction": 1.0, "loss": None, "gradient": None, "score": 1.0},
        "tpr_at_1pct_fpr": 1.0,
        "tpr_by_signal": {"prediction": 1.0, "loss": None, "gradient": None},
        "tiny_gradient_fraction": None,
        "positives": 1,
        "negatives": 1,
    }


def test_misuse_has_clear_errors():
    x = torch.tensor([[0.9], [0.8]])
    with pytest.raises(InputError, match="batch is empty"):
        calibrate(fitted(), x, x[:0])
    with pytest.raises(RunError, match="call fit"):
        calibrate(TraceScorer(ModelPair(Lookup(), Lookup(0.5))), x, x)


def train_mlp(x, y, seed):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    for layer in (model[1], model[3]):
        layer.weight.data = torch.randn(layer.weight.shape, generator=generator) / layer.in_features**0.5
        layer.bias.data.zero_()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(25):
        for batch in torch.randperm(len(x), generator=generator).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    return model


@pytest.fixture(scope="module")
def digits_pair():
    """Two classifiers on real digits, one that saw class 3 and one retrained without it, and images neither saw."""
    data, labels = load_digits(return_X_y=True)
    x = torch.tensor(data / 16.0, dtype=torch.float32).reshape(-1, 1, 8, 8)
    y = torch.tensor(labels)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    x_train, y_train, x_rest, y_rest = x[:900], y[:900], x[900:], y[900:]
    keep = y_train != 3
    return train_mlp(x_train, y_train, 1), train_mlp(x_train[keep], y_train[keep], 2), x_rest, y_rest


@pytest.mark.parametrize("access", ["black", "gray", "white"])
def test_on_real_digits_the_score_finds_the_deleted_class(digits_pair, access):
    original, unlearned, x, y = digits_pair
    accuracy = (ModelPair(original, unlearned).outputs(x).original.argmax(1) == y).float().mean()
    assert accuracy > 0.9
    scorer = TraceScorer(ModelPair(original, unlearned, access))
    scorer.fit(x[:400][y[:400] != 3])
    rest_x, rest_y = x[400:], y[400:]
    result = calibrate(scorer, rest_x[rest_y == 3], rest_x[rest_y != 3])
    assert result.auroc["score"] > 0.9
    assert result.auroc["prediction"] > 0.9
    scores = scorer(rest_x).score
    assert np.median(scores[rest_y == 3]) > 0.5, "above the 99th percentile of the public inputs"
    literal = TraceScorer(ModelPair(original, unlearned, access), sign="paper_literal")
    literal.fit(x[:400])
    with pytest.warns(UserWarning, match="paper_literal"):
        assert calibrate(literal, rest_x[rest_y == 3], rest_x[rest_y != 3]).auroc["score"] < 0.1
