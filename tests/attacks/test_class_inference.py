import json

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from retrace_pl.attacks import AttackContext, ClassInference, InferenceAttack, NotApplicable, Truth
from retrace_pl.envs.toys import IdentityGenerator
from retrace_pl.errors import InputError
from retrace_pl.traces import ModelPair, infer_classes


def trained(inputs, labels, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    inputs, labels = torch.as_tensor(data.data / 16, dtype=torch.float32), torch.as_tensor(data.target)
    return inputs[:900], labels[:900], inputs[900:], labels[900:]


@pytest.fixture(scope="module")
def before(digits):
    return trained(*digits[:2])


@pytest.fixture(scope="module")
def without_three(digits):
    inputs, labels = digits[:2]
    return trained(inputs[labels != 3], labels[labels != 3], seed=1)


def context(pair, public, **settings):
    return AttackContext(pair=pair, scorer=None, generator=IdentityGenerator(4), public=public, **settings)


def judged(finding, pair, classes):
    nothing = torch.empty(0, 64)
    return ClassInference().judge(finding, pair, Truth(nothing, nothing, classes))


@pytest.mark.parametrize("deleted", [(3,), (8,), (2, 7)])
def test_deleted_digits_are_named(digits, before, deleted):
    inputs, labels, public, public_labels = digits
    gone, away = torch.isin(labels, torch.tensor(deleted)), torch.isin(public_labels, torch.tensor(deleted))
    pair = ModelPair(before, trained(inputs[~gone], labels[~gone], seed=1))
    for seen in (public, public[~away]):  # whether or not the public set holds the deleted classes
        finding = ClassInference().infer(context(pair, seen))
        assert sorted(finding.answer["deleted_classes"]) == list(deleted)
        assert finding.answer["clear"]
        assert judged(finding, pair, deleted) == {"correct": True, "true_rank": len(deleted)}
        assert finding.queries == len(seen)
        assert not finding.tensors


def test_training_noise_is_no_clear_deletion(digits, before):
    inputs, labels, public, public_labels = digits
    pair = ModelPair(before, trained(inputs, labels, seed=1))
    for seen in (public, public[public_labels != 2]):
        finding = ClassInference().infer(context(pair, seen))
        assert not finding.answer["clear"]
        assert finding.answer["lost"] < 0.5
        assert judged(finding, pair, ())["correct"]
        assert not judged(finding, pair, tuple({0, 1} - set(finding.answer["deleted_classes"])))["correct"]


def test_the_answer_is_plain_and_complete(digits, before, without_three):
    _, _, public, public_labels = digits
    pair = ModelPair(before, without_three, "gray")
    finding = ClassInference(batch_size=50).infer(context(pair, public[public_labels < 4]))
    assert json.loads(json.dumps(finding.answer, allow_nan=False)) == finding.answer
    per_class = finding.answer["per_class"]
    expected = infer_classes(pair, public[public_labels < 4])
    assert per_class["counts"] == expected.counts.tolist()
    assert per_class["ranking"][0] == 3
    assert per_class["unknown"] == list(expected.unknown)
    assert [per_class["mean_trace"][label] for label in per_class["unknown"]] == [None] * len(per_class["unknown"])


def test_an_unknown_class_cannot_be_found(digits, before, without_three):
    _, _, public, public_labels = digits
    pair = ModelPair(before, without_three)
    zeros = public[public_labels == 0]
    finding = ClassInference().infer(context(pair, zeros[:20]))
    assert 3 in finding.answer["per_class"]["unknown"]
    assert judged(finding, pair, (3,)) == {"correct": False, "true_rank": None}


def test_the_budget_is_kept(digits, before, without_three):
    class Counting(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model, self.seen = model, 0

        def forward(self, inputs):
            self.seen += len(inputs)
            return self.model(inputs)

    public = digits[2]
    counting = Counting(before)
    pair = ModelPair(counting, without_three)
    first, again, other = (ClassInference().infer(context(pair, public, budget=200, seed=seed)) for seed in (0, 0, 1))
    assert first.queries == 200
    assert counting.seen == 600
    assert first.answer == again.answer
    assert first.answer["per_class"] != other.answer["per_class"]


def test_where_it_does_not_apply(digits):
    assert issubclass(ClassInference, InferenceAttack)
    pair = ModelPair(nn.Linear(64, 10), nn.Linear(64, 10))
    for public in (None, torch.empty(0, 64)):
        with pytest.raises(NotApplicable, match="there are none"):
            ClassInference().infer(context(pair, public))
    with pytest.raises(InputError, match="needs a model pair"):
        ClassInference().infer(context(None, digits[2]))
    with pytest.raises(InputError, match="batch_size"):
        ClassInference(batch_size=0)


def test_models_that_are_no_classifiers_are_refused(digits):
    class Sequences:
        """Behaviour of models with one distribution per position."""

        def size(self, inputs):
            return len(inputs)

        def select(self, inputs, start, stop):
            return inputs[start:stop]

        def to(self, inputs, device):
            return inputs.to(device)

        def forward(self, model, inputs, representation=None):
            return model(inputs).view(len(inputs), 2, 5)

        def probabilities(self, outputs):
            return outputs.softmax(-1)

        def pseudo_labels(self, probabilities):
            return probabilities.argmax(-1)

    pair = ModelPair(nn.Linear(64, 10), nn.Linear(64, 10), behaviour=Sequences())
    with pytest.raises(NotApplicable, match="one vector of class probabilities"):
        ClassInference().infer(context(pair, digits[2]))
