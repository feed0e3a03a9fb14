import json
import math

import pytest
import torch
from torch import nn

from retrace_pl.errors import AccessError, InputError, RunError
from retrace_pl.traces import (
    DifferentiableScorer,
    DirectionalScorer,
    ModelPair,
    SignedRange,
    TraceScorer,
    calibrate,
    directional_gradient,
    directional_loss,
    directional_prediction,
)


class Table(nn.Module):
    """A classifier whose probabilities are given per input: the input's first value is the row's number."""

    def __init__(self, rows):
        super().__init__()
        self.register_buffer("rows", torch.tensor(rows))

    def forward(self, x):
        return self.rows[x[:, 0].long()].clamp_min(1e-9).log()


ROWS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
BEFORE = [[0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.5, 0.4, 0.1], [0.2, 0.2, 0.6]]
AFTER = [[0.1, 0.5, 0.4], [0.1, 0.6, 0.3], [0.7, 0.1, 0.2], [0.2, 0.1, 0.7]]


def make(access="black", before=BEFORE, after=AFTER, **kwargs):
    return DirectionalScorer(ModelPair(Table(before), Table(after), access), **kwargs)


def log_scale(value):
    return (1 + math.asinh(value * 1e5) / math.asinh(1e5)) / 2


def rise(before, after):
    """v / (1 + |v|) for probabilities: v = max(p) log(before / after)."""
    v = max(before, after) * math.log(before / after)
    return v / (1 + abs(v))


LOST = [0.7, 0.0, -0.2, 0.0]
RISES = [rise(0.8, 0.1), 0.0, rise(0.5, 0.7), 0.0]


def test_prediction_by_hand_for_one_class():
    scorer = make(classes=[0])
    torch.testing.assert_close(scorer.deltas(ROWS).prediction, torch.tensor(LOST))
    torch.testing.assert_close(
        scorer(ROWS).score, torch.tensor([log_scale(value) for value in LOST]), atol=1e-4, rtol=0
    )
    linear = make(classes=[0], scale="linear")
    torch.testing.assert_close(linear(ROWS).score, (1 + torch.tensor(LOST)) / 2)


def test_loss_by_hand():
    scorer = make("gray", classes=[0], weights={"prediction": 0.0})
    assert scorer.signals == ("loss",)
    torch.testing.assert_close(scorer.deltas(ROWS).loss, torch.tensor(RISES))
    both = make("gray", classes=[0], weights={"prediction": 3.0, "loss": 1.0})
    expected = [0.75 * log_scale(a) + 0.25 * log_scale(b) for a, b in zip(LOST, RISES, strict=True)]
    torch.testing.assert_close(both(ROWS).score, torch.tensor(expected), atol=1e-4, rtol=0)


def test_the_log_scale_keeps_the_order_and_tells_small_differences_apart():
    grid = torch.linspace(-1, 1, 401)
    scale = SignedRange(("prediction",))
    assert (scale("prediction", grid).diff() > 0).all()
    tens = scale("prediction", torch.tensor([1e-4, 1e-3, 1e-2, 1e-1, 1.0])).diff()
    torch.testing.assert_close(tens, tens[:1].expand(4), atol=1e-3, rtol=0)  # one step for every factor of ten
    assert scale("prediction", torch.zeros(1)) == 0.5
    assert torch.equal(scale("gradient", grid), (1 + grid) / 2)
    torch.testing.assert_close(scale("prediction", -grid), 1 - scale("prediction", grid))


def test_gradient_by_hand(linear):
    # class 0 of logits W x: the loss has the gradient p_1 (w_1 - w_0)
    pair = ModelPair(linear([[1.0, 0.0], [-1.0, 0.0]]), linear([[0.0, 0.5], [0.0, -0.5]]), "white")
    scorer = DirectionalScorer(pair, {"prediction": 0, "loss": 0}, classes=[0])
    x = torch.tensor([[1.0, 1.0], [-1.0, 3.0]], dtype=torch.float64)
    before = 2 * torch.sigmoid(-2 * x[:, 0])
    after = torch.sigmoid(-x[:, 1])
    torch.testing.assert_close(scorer.deltas(x).gradient, (after - before) / (after + before), atol=1e-6, rtol=0)


def test_forms_are_antisymmetric_and_bounded(models, inputs):
    forward = DirectionalScorer(ModelPair(*models, "white"), classes=[1])
    backward = DirectionalScorer(ModelPair(*reversed(models), "white"), classes=[1])
    both = DirectionalScorer(ModelPair(*models, "white"), classes=[1], scale="linear")
    torch.testing.assert_close(both.deltas(inputs).loss, forward.deltas(inputs).loss)
    for name, value in forward.deltas(inputs).named().items():
        torch.testing.assert_close(value, -backward.deltas(inputs).named()[name], atol=1e-6, rtol=0)
        assert value.abs().max() <= 1
    torch.testing.assert_close(forward(inputs).score, 1 - backward(inputs).score, atol=1e-5, rtol=0)


def test_no_gradient_and_no_loss_make_no_nan():
    zero = torch.zeros(2, 3)
    assert directional_loss(zero[:, 0], zero[:, 0]).tolist() == [0, 0]
    value, tiny = directional_gradient(zero, zero)
    assert value.tolist() == [0, 0]
    assert tiny.all()
    assert directional_prediction(torch.eye(2), torch.eye(2), torch.tensor([0, 0])).tolist() == [0, 0]


def test_a_rise_of_a_loss_that_was_large_before_counts_little():
    both = directional_loss(torch.tensor([0.1, 8.0]), torch.tensor([4.0, 20.0]))
    assert both[0] > 0.7 > 0.01 > both[1] > 0  # the plain rises are 3.9 and 12


def test_several_classes_are_judged_by_the_most_probable_one():
    deltas = make(classes=[0, 1], scale="linear").deltas(ROWS).prediction
    torch.testing.assert_close(deltas, torch.tensor([0.7, 0.1, -0.2, 0.0]))
    # half one deleted class, half the other: worth half of a clear member of either, where the sum would be the same
    between, clear = (make(before=[row], after=[[0.0, 0.0, 1.0]], classes=[0, 1], scale="linear") for row in MIXED)
    torch.testing.assert_close(between(ROWS[:1]).score, torch.tensor([0.75]))
    torch.testing.assert_close(clear(ROWS[:1]).score, torch.tensor([1.0]))


MIXED = ([0.5, 0.5, 0.0], [1.0, 0.0, 0.0])


def test_fit_infers_the_class_from_public_inputs():
    scorer = make()
    with pytest.raises(RunError, match="does not know the deleted class"):
        scorer(ROWS)
    scorer.fit(ROWS)
    assert scorer.classes == (0,)
    assert scorer.evidence.ranking[0] == 0
    assert scorer.public_queries == 4
    torch.testing.assert_close(scorer(ROWS).score, make(classes=[0])(ROWS).score)


def test_nothing_is_inferred_for_known_classes_or_deleted_records():
    known, records = make(classes=[2]), make(deletion="records")
    for scorer in (known, records):
        scorer.fit(ROWS)
        assert scorer.evidence is None
        assert scorer.public_queries == 0
    assert known.classes == (2,)
    assert records.classes == ()


def test_deleted_records_keep_the_sign_of_the_original_label():
    deltas = make(deletion="records", scale="linear").deltas(ROWS).prediction
    torch.testing.assert_close(deltas, torch.tensor([0.7, 0.1, -0.2, -0.1]))


@pytest.mark.parametrize("access", ["black", "gray", "white"])
@pytest.mark.parametrize("deletion", ["class", "records"])
def test_an_identical_pair_scores_half_everywhere(mlp, inputs, access, deletion):
    model = mlp(1)
    scorer = DirectionalScorer(ModelPair(model, model, access), deletion=deletion)
    scorer.fit(inputs)
    assert scorer.classes == ()
    result = scorer(inputs)
    assert torch.equal(result.score, torch.full((len(inputs),), 0.5))
    for delta in scorer.deltas(inputs).named().values():
        assert not delta.any()


def test_access_is_enforced(models, inputs):
    scorer = DirectionalScorer(ModelPair(*models, "black"), classes=[1])
    assert scorer.signals == ("prediction",)
    with pytest.raises(AccessError):
        scorer(inputs, ("loss",))
    with pytest.raises(AccessError):
        DirectionalScorer(ModelPair(*models, "gray"), classes=[1]).deltas(inputs, ("gradient",))
    with pytest.raises(InputError, match="has weight 0"):
        DirectionalScorer(ModelPair(*models, "black"), {"prediction": 0.0}, classes=[1])


def test_a_score_does_not_depend_on_the_batch(models, inputs):
    scorer = DirectionalScorer(ModelPair(*models, "white"), classes=[0, 3])
    small = DirectionalScorer(ModelPair(*models, "white"), classes=[0, 3], batch_size=7)
    torch.testing.assert_close(scorer(inputs).score, small(inputs).score)
    torch.testing.assert_close(scorer(inputs).score[5:6], scorer(inputs[5:6]).score)


def test_state_restores_the_classes():
    fitted = make()
    fitted.fit(ROWS)
    state = json.loads(json.dumps(fitted.state_dict()))
    restored = make()
    restored.load_state_dict(state)
    assert restored.classes == (0,)
    assert restored.public_queries == 4
    assert torch.equal(restored(ROWS).score, fitted(ROWS).score)
    with pytest.raises(InputError, match="access=black, this run has gray"):
        make("gray").load_state_dict(state)
    with pytest.raises(InputError, match="scale=log, this run has linear"):
        make(scale="linear").load_state_dict(state)
    with pytest.raises(InputError, match="signal=None, this run has directional"):
        restored.load_state_dict(TraceScorer(fitted.pair).state_dict())
    with pytest.raises(InputError, match="normaliser"):
        TraceScorer(fitted.pair).load_state_dict(state | {"sign": "positive"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deletion": "all"}, "must be class or records"),
        ({"scale": "square"}, "must be log or linear"),
        ({"classes": []}, "classes"),
        ({"classes": [-1]}, "classes"),
        ({"classes": [1], "deletion": "records"}, "classes"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        make(**settings)


def test_a_class_that_the_models_do_not_have_is_refused():
    with pytest.raises(InputError, match="3 is none of the models' 3 classes"):
        make(classes=[3])(ROWS)


def test_only_class_probabilities_are_understood(models):
    class Grid(nn.Module):
        def forward(self, x):
            return x

    class Behaviour:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def forward(self, model, inputs, representation=None):
            return model(inputs)

        def probabilities(self, outputs):
            return outputs.softmax(-1)

    pair = ModelPair(Grid(), Grid(), "black", Behaviour(ModelPair(*models).behaviour))
    with pytest.raises(InputError, match="signal=gap"):
        DirectionalScorer(pair, deletion="records").deltas(torch.rand(4, 3, 5))


@pytest.mark.parametrize("access", ["black", "gray", "white"])
def test_calibration_measures_the_directional_forms(access):
    scorer = make(access, classes=[0], before=BEFORE, after=AFTER)
    if access == "white":  # a table has no input gradient
        with pytest.raises(RunError, match="no gradient"):
            calibrate(scorer, ROWS[:1], ROWS[1:])
        return
    result = calibrate(scorer, ROWS[:1], ROWS[1:])
    assert set(result.auroc.values()) == {1.0}


def test_the_gradient_of_the_score_can_be_climbed(models, inputs):
    scorer = DirectionalScorer(ModelPair(*models, "white"), classes=[1])
    assert isinstance(scorer, DifferentiableScorer)
    x = inputs.clone().requires_grad_()
    climbed = scorer.differentiable_score(x)
    torch.testing.assert_close(climbed.detach(), scorer(inputs).score, atol=1e-6, rtol=0)
    (gradient,) = torch.autograd.grad(climbed.sum(), x)
    better = scorer(inputs + 1e-2 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]).score
    assert (better > scorer(inputs).score).float().mean() > 0.9
