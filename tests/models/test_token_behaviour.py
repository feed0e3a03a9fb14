import pytest
import torch
from torch import nn

from retrace_pl.errors import AccessError, InputError
from retrace_pl.models import Behaviour, ClassifierBehaviour, DistilBertClassifier, SmallCNN, TokenBehaviour
from retrace_pl.models.behaviour import behaviour_of
from retrace_pl.models.token_behaviour import token_lengths, token_mask
from retrace_pl.traces import ModelPair, TraceScorer, calibrate

VOCABULARY, LENGTH = 30, 40


def texts(lengths, seed=0, pad=0, width=LENGTH):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), width), pad)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(1, VOCABULARY, (length,), generator=generator)
    return ids


def classifier(seed=0, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = DistilBertClassifier(VOCABULARY, 3, **({"width": 16, "heads": 2, "window": LENGTH} | settings))
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.1 * torch.randn_like(weight))  # so that texts differ
    return model.eval()


def test_lengths_end_at_the_last_token_that_is_no_padding():
    ids = torch.tensor([[5, 6, 0, 0], [5, 0, 7, 0], [0, 0, 0, 0], [1, 2, 3, 4]])
    assert token_lengths(ids, 0).tolist() == [2, 3, 1, 4]
    assert token_mask(ids, 0).int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]]


def test_models_name_their_behaviour():
    text = classifier()
    assert isinstance(behaviour_of(text), TokenBehaviour)
    assert isinstance(text.behaviour, Behaviour)
    assert type(behaviour_of(SmallCNN(1, 2, width=4))) is ClassifierBehaviour
    assert type(behaviour_of(nn.Linear(2, 2))) is ClassifierBehaviour
    assert isinstance(ModelPair(text, classifier(1)).behaviour, TokenBehaviour)


@pytest.mark.parametrize("wrong", [torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), [[1, 2]]])
def test_inputs_that_are_no_token_ids_are_refused(wrong):
    with pytest.raises(InputError, match="token ids"):
        TokenBehaviour().size(wrong)


def test_no_text_depends_on_the_others_nor_on_the_padding():
    model, ids = classifier(), texts([3, 40, 17, 16, 1, 33])
    behaviour = model.behaviour
    together = behaviour.forward(model, ids)
    torch.testing.assert_close(together, model(ids))
    for row in range(len(ids)):
        torch.testing.assert_close(behaviour.forward(model, ids[row : row + 1]), together[row : row + 1])
    shorter = behaviour.forward(model, ids[[0, 2, 3, 4], :17])
    torch.testing.assert_close(shorter, together[[0, 2, 3, 4]])


def test_long_padding_costs_nothing():
    class Counting(DistilBertClassifier):
        widths = ()

        def embeddings(self, inputs):
            self.widths = (*self.widths, tuple(inputs.shape))
            return super().embeddings(inputs)

    model = Counting(VOCABULARY, 2, width=8, heads=1, layers=1, window=LENGTH).eval()
    model.behaviour.forward(model, texts([3, 4, 30, 5, 40]))
    assert model.widths == ((3, 16), (1, 32), (1, 40))


def test_gradients_are_taken_at_the_embeddings_sample_by_sample():
    model, ids = classifier(), texts([4, 20, 9])
    behaviour = model.behaviour
    leaf = behaviour.differentiable(model, ids)
    assert leaf.shape == (3, LENGTH, 16)
    assert leaf.is_leaf
    torch.testing.assert_close(behaviour.forward(model, ids, leaf), behaviour.forward(model, ids))
    pair = ModelPair(model, classifier(1), "white")
    together = pair.input_gradients(ids)
    alone = [pair.input_gradients(ids[row : row + 1]) for row in range(3)]
    for column in range(2):
        torch.testing.assert_close(together[column], torch.cat([one[column] for one in alone]))
    gradient = together.original
    assert bool((gradient[0, :4].abs().sum(1) > 0).all())
    assert float(gradient[0, 4:].abs().max()) == 0.0, "padding carries no gradient"
    # the definition, by a finite difference in double precision
    double = classifier().double()
    point, labels = double.embeddings(ids), double(ids).argmax(1)
    step = torch.randn(point.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mask = token_mask(ids, 0)

    def loss(at):
        return nn.functional.cross_entropy(double.head(double.features_at(at, mask)), labels, reduction="none")

    slope = (loss(point + 1e-7 * step) - loss(point - 1e-7 * step)) / 2e-7  # short: the head has kinks
    torch.testing.assert_close(slope, (gradient.double() * step).sum((1, 2)), rtol=1e-3, atol=1e-4)


def test_white_box_gradients_need_a_text_classifier():
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.bag = nn.EmbeddingBag(VOCABULARY, 3)

        def forward(self, inputs):
            return self.bag(inputs)

    pair = ModelPair(Bag(), Bag(), "white", TokenBehaviour())
    assert pair.outputs(texts([2, 3])).original.shape == (2, 3)
    with pytest.raises(InputError, match="TokenClassifier"):
        pair.input_gradients(texts([2, 3]))


def test_scores_of_texts_do_not_depend_on_the_batch_and_calibration_runs():
    first, second = classifier(0), classifier(1)
    scorer = TraceScorer(ModelPair(first, second, "white"))
    public = texts([5, 30, 12, 8, 25, 16, 3, 40])
    scorer.fit(public)
    scores = scorer(public)
    assert scores.score.shape == (8,)
    assert {"prediction", "loss", "gradient"} == set(scorer.deltas(public).named())
    small = TraceScorer(ModelPair(first, second, "white"), batch_size=3)
    small.fit(public)
    torch.testing.assert_close(small(public).score, scores.score, rtol=1e-4, atol=1e-5)
    found = calibrate(scorer, public[:4], public[4:])
    assert 0.0 <= found.auroc["score"] <= 1.0
    same = TraceScorer(ModelPair(first, first, "white"))
    assert float(same.deltas(public).gradient.abs().max()) == 0.0
    with pytest.raises(AccessError):
        ModelPair(first, second, "black").losses(public)


def test_batches_of_different_widths_are_joined_and_words_ignore_padding():
    behaviour = TokenBehaviour(pad_id=7)
    first, second = texts([2, 3], pad=7, width=3), texts([5], pad=7, width=5)
    joined = behaviour.join(first, second)
    assert joined.tolist() == [[*first[0].tolist(), 7, 7], [*first[1].tolist(), 7, 7], second[0].tolist()]
    assert behaviour.words(joined)[0].tolist() == [*(first[0] - 7).tolist(), 0, 0]


def test_steps_are_measured_in_the_size_of_the_embeddings():
    model, ids = classifier(), texts([4, 20])
    behaviour = model.behaviour
    leaf = behaviour.differentiable(model, ids).detach()
    moved = behaviour.moved(ids, leaf, torch.ones_like(leaf), 0.5)
    rms = torch.stack([leaf[0, :4].square().mean().sqrt(), leaf[1, :20].square().mean().sqrt()])
    torch.testing.assert_close((moved - leaf)[:, 0, 0], 0.5 * rms)
