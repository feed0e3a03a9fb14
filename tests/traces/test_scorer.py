import json
import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from retrace_pl.errors import AccessError, InputError, RunError
from retrace_pl.models.behaviour import Behaviour, ClassifierBehaviour
from retrace_pl.traces import BatchMinMax, FixedQuantile, ModelPair, Rank, TraceDeltas, TraceScorer, TraceWeights


def make(models, access="white", public=None, **kwargs):
    scorer = TraceScorer(ModelPair(*models, access), **kwargs)
    if public is not None:
        scorer.fit(public)
    return scorer


def test_deltas_of_a_two_class_linear_pair_by_hand(linear):
    scorer = make((linear([[1.0, 0.0], [-1.0, 0.0]]), linear([[1.0, 1.0], [0.0, 0.0]])))
    deltas = scorer.deltas(torch.tensor([[1.0, 1.0], [-1.0, 3.0]]))
    high = 1 / (1 + math.exp(-2))
    low = 1 - high
    torch.testing.assert_close(deltas.prediction, torch.tensor([0.0, math.sqrt(2) * (high - low)]).double())
    torch.testing.assert_close(deltas.loss, torch.tensor([0.0, 2.0]).double())  # log(high / low) = 2
    # gradients (-2 low, 0) and (-low, -low): 45 degrees; (2 low, 0) and (high, high): 45 degrees
    torch.testing.assert_close(deltas.gradient, torch.full((2,), 1 - math.sqrt(0.5)).double())
    assert not deltas.tiny_gradient.any()


@pytest.mark.parametrize(
    ("access", "weights", "expected"),
    [
        ("white", None, {"prediction": 1 / 3, "loss": 1 / 3, "gradient": 1 / 3}),
        ("white", {"prediction": 1, "loss": 2, "gradient": 5}, {"prediction": 1 / 8, "loss": 2 / 8, "gradient": 5 / 8}),
        ("gray", {"prediction": 1, "loss": 3, "gradient": 5}, {"prediction": 1 / 4, "loss": 3 / 4}),
        ("black", {"prediction": 0.2, "loss": 3}, {"prediction": 1.0}),
        ("white", TraceWeights(0.0, 1.0, 0.0), {"loss": 1.0}),
    ],
)
def test_score_is_the_weighted_mean_of_the_normalised_allowed_signals(models, inputs, access, weights, expected):
    scorer = make(models, access, inputs, weights=weights)
    full = make(models, "white").deltas(inputs).named()
    result = scorer(inputs)
    reference = np.zeros(len(inputs))
    for signal, weight in expected.items():
        low, high = np.quantile(full[signal].numpy(), (0.01, 0.99))
        scaled = np.maximum((full[signal].numpy() - low) / (high - low), 0)
        reference += weight * scaled / (1 + scaled)
    np.testing.assert_allclose(result.score, reference, atol=1e-5)
    assert scorer.signals == tuple(expected)
    for signal in full:
        assert (getattr(result, signal) is not None) == (signal in expected)
    literal = make(models, access, inputs, weights=weights, sign="paper_literal")
    np.testing.assert_allclose(literal(inputs).score, 1 - reference, atol=1e-5)


def test_signals_outside_the_score_can_be_asked_for(models, inputs):
    scorer = make(models, "white", inputs, weights=TraceWeights(1.0, 0.0, 0.0))
    assert scorer(inputs).loss is None
    result = scorer(inputs, signals=("gradient",))
    assert result.loss is None
    torch.testing.assert_close(result.gradient, make(models).deltas(inputs).gradient)
    assert torch.equal(result.score, scorer(inputs).score)
    with pytest.raises(AccessError):
        make(models, "black", inputs)(inputs, signals=("loss",))
    with pytest.raises(InputError, match="'nope' is unknown"):
        scorer(inputs, signals=("nope",))


@pytest.mark.parametrize("access", ["black", "gray", "white"])
@pytest.mark.parametrize("normaliser", [FixedQuantile(), BatchMinMax(), Rank()], ids=lambda n: type(n).__name__)
def test_an_identical_pair_has_no_trace(mlp, inputs, access, normaliser):
    model = mlp(1)
    scorer = make((model, model), access, inputs, normaliser=normaliser)
    result = scorer(inputs)
    for delta in result[:3]:
        assert delta is None or torch.equal(delta, torch.zeros(len(inputs)))
    assert torch.equal(result.score, torch.zeros(len(inputs)))
    assert torch.equal(make((mlp(1), mlp(1)), access, inputs, normaliser=normaliser)(inputs).score, result.score)
    literal = make((model, model), access, inputs, normaliser=normaliser, sign="paper_literal")
    assert torch.equal(literal(inputs).score, torch.ones(len(inputs)))


def test_saturated_models_give_finite_scores(mlp, inputs):
    first, second = mlp(1), mlp(2)
    first[3].weight.data *= 1e4  # f+ is certain of everything: its loss and gradient vanish
    deltas = make((first, second)).deltas(inputs)
    assert deltas.tiny_gradient.all()
    assert all(delta.isfinite().all() for delta in deltas.named().values())
    assert make((first, first), "white", inputs)(inputs).score.max() == 0.0


@pytest.mark.parametrize("access", ["black", "gray", "white"])
def test_a_candidates_score_does_not_depend_on_its_batch(models, inputs, access):
    public = torch.rand(100, 3, 2, 2, generator=torch.Generator().manual_seed(9))
    scorer = make(models, access, public)
    whole = scorer(inputs)
    for i in (0, 17, 36):
        alone = scorer(inputs[i : i + 1])
        for one, many in zip(alone, whole, strict=True):
            if many is not None:
                torch.testing.assert_close(one[0], many[i], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normaliser", [FixedQuantile(), BatchMinMax(), Rank()], ids=lambda n: type(n).__name__)
def test_chunks_change_nothing_and_each_runs_once(models, inputs, normaliser):
    counts = Counter()
    models[0].register_forward_hook(lambda *_: counts.update(["forward"]))
    whole = make(models, "white", inputs, normaliser=normaliser)(inputs)
    scorer = make(models, "white", inputs, normaliser=normaliser, batch_size=8)
    counts.clear()
    result = scorer(inputs)
    assert counts["forward"] == 5  # 37 inputs in chunks of 8
    for one, other in zip(whole, result, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_finiteness_is_checked_in_every_chunk(mlp, inputs):
    class Fragile(nn.Sequential):
        def forward(self, x):
            return super().forward(x) + torch.where(x.amax((1, 2, 3)) > 5, torch.nan, 0.0)[:, None]

    inputs[20] += 10.0  # neither in the first nor in the last chunk
    with pytest.raises(RunError, match="the unlearned model returns NaN"):
        make((mlp(1), Fragile(*mlp(2))), "black", batch_size=8).deltas(inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models(mlp, inputs, dtype):
    models = mlp(1).to(dtype), mlp(2).to(dtype)
    result = make(models, "white", inputs)(inputs)
    exact = make((mlp(1), mlp(2)), "white", inputs)(inputs)
    assert all(value.dtype == torch.float32 for value in result)
    torch.testing.assert_close(result.prediction, exact.prediction, atol=0.05, rtol=0.05)
    assert np.corrcoef(result.score, exact.score)[0, 1] > 0.98
    assert torch.equal(make((models[0], models[0]), "white", inputs)(inputs).score, torch.zeros(len(inputs)))


def test_scoring_before_fit_is_refused_only_where_a_fit_is_needed(models, inputs):
    with pytest.raises(RunError, match=r"FixedQuantile has no reference yet; call fit\(public_inputs\)"):
        make(models)(inputs)
    assert make(models, normaliser=Rank())(inputs).score.max() <= 1.0


def test_scorers_do_not_share_a_normaliser(models, mlp, inputs):
    normaliser = FixedQuantile()
    first = make(models, "white", inputs, normaliser=normaliser)
    before = first(inputs).score
    make((mlp(5), mlp(6)), "white", inputs, normaliser=normaliser)
    assert torch.equal(first(inputs).score, before)
    normaliser.fit(first.deltas(inputs).named())
    assert torch.equal(make(models, normaliser=normaliser)(inputs).score, before)  # fitted before: kept


def test_state_survives_json_and_refuses_other_settings(models, inputs):
    scorer = make(models, "gray", inputs)
    state = json.loads(json.dumps(scorer.state_dict()))
    resumed = make(models, "gray")
    resumed.load_state_dict(state)
    assert torch.equal(resumed(inputs).score, scorer(inputs).score)
    with pytest.raises(InputError, match="stored state has access=gray, this run has white"):
        make(models, "white").load_state_dict(state)
    with pytest.raises(InputError, match="sign=positive"):
        make(models, "gray", sign="paper_literal").load_state_dict(state)
    with pytest.raises(InputError, match="stored state is of None"):
        make(models, "gray").load_state_dict({**state, "normaliser": None})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"weights": {"prediction": 0, "loss": 1}}, r"weights: every signal that access=black allows \(prediction\)"),
        ({"weights": {"prediction": -1}}, "weights: prediction=-1.0 must be"),
        ({"weights": {"loss": math.nan}}, "weights: loss=nan"),
        ({"weights": {"prediction": 0, "loss": 0, "gradient": 0}}, "weights: all are zero"),
        ({"weights": {"alpha": 1}}, "unknown signal 'alpha'"),
        ({"sign": "negative"}, "sign: 'negative' is unknown"),
        ({"batch_size": 0}, "batch_size: 0"),
    ],
)
def test_settings_out_of_range_are_refused(models, kwargs, message):
    with pytest.raises(InputError, match=message):
        make(models, "black", **kwargs)


def test_misuse_has_clear_errors(models, inputs):
    scorer = make(models, "gray", inputs)
    with pytest.raises(InputError, match="batch is empty"):
        scorer(inputs[:0])
    with pytest.raises(RunError, match="the score needs the loss differences"):
        scorer.combine(TraceDeltas(prediction=torch.rand(3)))


class TokenModel(nn.Module):
    """Mean of the attended embeddings, then a linear layer."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embedding = nn.Embedding(20, 6)
        self.head = nn.Linear(6, 3)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, embedded, mask):
        weights = mask / mask.sum(1, keepdim=True)
        return self.head((embedded * weights[:, :, None]).sum(1).tanh())


class TokenBehaviour(ClassifierBehaviour):
    """Inputs are dicts of token ids and attention masks; gradients are taken at the embedding output."""

    def size(self, inputs):
        return len(inputs["ids"])

    def select(self, inputs, start, stop):
        return {name: value[start:stop] for name, value in inputs.items()}

    def to(self, inputs, device):
        return {name: value.to(device) for name, value in inputs.items()}

    def differentiable(self, model, inputs):
        return model.embedding(inputs["ids"]).detach().requires_grad_(True)

    def forward(self, model, inputs, representation=None):
        embedded = model.embedding(inputs["ids"]) if representation is None else representation
        return model(embedded, inputs["mask"])


def test_tokens_need_nothing_but_a_behaviour():
    behaviour = TokenBehaviour()
    assert isinstance(behaviour, Behaviour)
    generator = torch.Generator().manual_seed(0)
    tokens = {
        "ids": torch.randint(0, 20, (11, 5), generator=generator),
        "mask": (torch.arange(5) < torch.randint(1, 6, (11, 1), generator=generator)).float(),
    }
    models = TokenModel(1), TokenModel(2)
    pair = ModelPair(*models, "white", behaviour)
    scorer = TraceScorer(pair, batch_size=4)
    scorer.fit(tokens)
    result = scorer(tokens)
    assert all(value.shape == (11,) and value.isfinite().all() for value in result)
    gradients = pair.input_gradients(tokens)
    assert gradients.original.shape == (11, 5, 6)
    assert (gradients.original[tokens["mask"] == 0] == 0).all()
    labels = pair.outputs(tokens).original.argmax(1)
    embedded = models[1].embedding(tokens["ids"]).detach().requires_grad_()
    loss = nn.functional.cross_entropy(models[1](embedded, tokens["mask"]), labels, reduction="sum")
    torch.testing.assert_close(gradients.unlearned, torch.autograd.grad(loss, embedded)[0])
    identity = TraceScorer(ModelPair(models[0], models[0], "white", behaviour))
    identity.fit(tokens)
    assert identity(tokens).score.max() == 0.0


class PolicyBehaviour(ClassifierBehaviour):
    """Inputs are states; the outputs are the mean of a Gaussian policy, the loss its squared error to f+'s action."""

    def forward(self, model, inputs, representation=None):
        return model(inputs if representation is None else representation)

    def probabilities(self, outputs):
        return outputs

    def pseudo_labels(self, probabilities):
        return probabilities

    def losses(self, outputs, labels):
        return (outputs - labels - 1.0).square().sum(1)


def test_continuous_actions_need_nothing_but_a_behaviour():
    states = torch.rand(9, 4, generator=torch.Generator().manual_seed(0))
    models = nn.Linear(4, 1), nn.Linear(4, 1)
    scorer = TraceScorer(ModelPair(*models, "white", PolicyBehaviour()))
    scorer.fit(states)
    result = scorer(states)
    expected = (models[0](states) - models[1](states)).abs().detach().squeeze(1)
    torch.testing.assert_close(result.prediction, expected)
    assert result.score.isfinite().all()
