import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from torch import nn

from retrace_pl.attacks import AttackContext, NotApplicable, Shadow, Truth, UnlearningLeaks
from retrace_pl.attacks.membership import pair_features
from retrace_pl.attacks.membership_classifier import fit_membership, membership_probability
from retrace_pl.envs.toys import IdentityGenerator
from retrace_pl.errors import InputError
from retrace_pl.traces import ModelPair

NOTHING = torch.empty(0, 64)


def trained(inputs, labels, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def halves():
    """Two disjoint unlearnings of 40 of 160 digits with noisy labels, so that f+ memorises; with unseen digits."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    inputs, labels = torch.as_tensor(data.data / 16, dtype=torch.float32)[order], torch.as_tensor(data.target)[order]
    noisy = labels.clone()
    noisy[::3] = (noisy[::3] + 1) % 10
    made = []
    for start in (0, 800):
        train = slice(start, start + 160)
        kept = slice(start + 40, start + 160)
        pair = ModelPair(trained(inputs[train], noisy[train], start), trained(inputs[kept], noisy[kept], start + 1))
        made.append((pair, inputs[start : start + 40], inputs[start + 200 : start + 400], inputs[kept]))
    return made


@pytest.fixture(scope="module")
def shadow(halves):
    pair, deleted, unseen, retained = halves[0]
    return Shadow(pair, deleted, retained, unseen, unseen)


def context(shadow, **settings):
    return AttackContext(pair=None, scorer=None, generator=IdentityGenerator(4), shadow=shadow, **settings)


def probabilities(n, classes, seed):
    return torch.randn(n, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(1)


@pytest.mark.parametrize(
    ("features", "classifier"),
    [
        ("concatenation", "logistic_regression"),
        ("difference", "logistic_regression"),
        ("distance", "logistic_regression"),
        ("concatenation", "random_forest"),
        ("difference", "random_forest"),
    ],
)
def test_deleted_records_are_told_from_unseen_ones(halves, shadow, features, classifier):
    attack = UnlearningLeaks(features, classifier=classifier)
    finding = attack.infer(context(shadow))
    assert finding.queries == 0
    assert json.loads(json.dumps(finding.answer)) == finding.answer
    assert finding.answer["shadow_auroc"] > 0.6
    assert (finding.answer["shadow_deleted"], finding.answer["shadow_unseen"]) == (40, 200)
    pair, deleted, unseen, _ = halves[1]
    judged = attack.judge(finding, pair, Truth(deleted, unseen, ()))
    assert judged["auroc"] > 0.6
    assert judged["balanced_accuracy"] > 0.55
    assert 0 <= judged["tpr_at_1pct_fpr"] <= 1
    assert (judged["deleted"], judged["unseen"]) == (40, 200)
    assert json.loads(json.dumps(judged)) == judged


def test_two_versions_say_more_than_one(halves, shadow):
    pair, deleted, unseen, _ = halves[1]
    attack = UnlearningLeaks()
    judged = attack.judge(attack.infer(context(shadow)), pair, Truth(deleted, unseen, ()))
    assert judged["auroc"] > judged["auroc_before"]


def test_records_that_no_model_saw_are_not_told_apart(halves, shadow):
    pair, _, unseen, _ = halves[1]
    attack = UnlearningLeaks()
    judged = attack.judge(attack.infer(context(shadow)), pair, Truth(unseen[:100], unseen[100:], ()))
    assert judged["auroc"] == pytest.approx(0.5, abs=0.12)


def test_a_finding_survives_storage_as_plain_tensors(halves, shadow, tmp_path):
    pair, deleted, unseen, _ = halves[1]
    for classifier in ("logistic_regression", "random_forest"):
        attack = UnlearningLeaks(classifier=classifier)
        finding = attack.infer(context(shadow, seed=7))
        save_file(finding.tensors, tmp_path / "weights.safetensors")
        stored = load_file(tmp_path / "weights.safetensors")
        again = type(finding)(finding.answer, finding.queries, stored)
        truth = Truth(deleted, unseen, ())
        assert attack.judge(again, pair, truth) == attack.judge(finding, pair, truth)
        repeated = attack.infer(context(shadow, seed=7)).tensors
        assert all(torch.equal(repeated[name], value) for name, value in finding.tensors.items())


def test_the_features_are_those_of_the_paper():
    before = torch.tensor([[0.1, 0.7, 0.2]], dtype=torch.float64)
    after = torch.tensor([[0.5, 0.2, 0.3]], dtype=torch.float64)
    both = pair_features(before, after, "concatenation")
    assert both.tolist() == [[0.7, 0.2, 0.1, 0.2, 0.3, 0.5]]
    assert pair_features(before, after, "concatenation", sort=False).tolist() == [[0.1, 0.7, 0.2, 0.5, 0.2, 0.3]]
    assert pair_features(before, after, "difference").flatten().tolist() == pytest.approx([0.5, -0.1, -0.4])
    distance = (0.16 + 0.25 + 0.01) ** 0.5
    for sort in (True, False):
        assert pair_features(before, after, "distance", sort).flatten().tolist() == pytest.approx([distance])


def test_sorted_features_do_not_know_the_class():
    before, after = probabilities(30, 6, 0), probabilities(30, 6, 1)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(2))
    for features in ("concatenation", "difference"):
        moved = pair_features(before[:, order], after[:, order], features)
        assert torch.equal(moved, pair_features(before, after, features))


def test_the_stored_classifiers_are_scikit_learns():
    members, others, new = (probabilities(n, 5, seed) for n, seed in ((60, 0), (90, 1), (40, 2)))
    members[:, 0] += 0.2
    settings = {"inverse_regularisation": 0.5, "trees": 30, "seed": 3}
    features, labels = torch.cat([members, others]).numpy(), [1] * 60 + [0] * 90
    forest = RandomForestClassifier(30, class_weight="balanced", random_state=3).fit(features, labels)
    weights = fit_membership(members, others, "random_forest", **settings)
    expected = torch.as_tensor(forest.predict_proba(new.numpy())[:, 1])
    assert torch.allclose(membership_probability(weights, new), expected)
    assert expected.std() > 0.05
    mean, scale = features.mean(0), features.std(0)
    logistic = LogisticRegression(C=0.5, class_weight="balanced", max_iter=5000).fit((features - mean) / scale, labels)
    weights = fit_membership(members, others, "logistic_regression", **settings)
    expected = torch.as_tensor(logistic.predict_proba((new.numpy() - mean) / scale)[:, 1])
    assert torch.allclose(membership_probability(weights, new), expected)


def test_a_feature_that_never_varies_does_no_harm():
    members, others = probabilities(20, 3, 0), probabilities(20, 3, 1)
    members[:, 1] = others[:, 1] = 0.25
    weights = fit_membership(members, others, "logistic_regression", inverse_regularisation=1.0, trees=1, seed=0)
    assert membership_probability(weights, members).isfinite().all()


@pytest.mark.parametrize("classifier", ["logistic_regression", "random_forest"])
def test_another_number_of_classes_is_refused(classifier):
    weights = fit_membership(
        probabilities(20, 3, 0), probabilities(20, 3, 1), classifier, inverse_regularisation=1.0, trees=3, seed=0
    )
    with pytest.raises(InputError, match="takes 3 features"):
        membership_probability(weights, probabilities(5, 4, 2))


def test_where_it_does_not_apply(halves, shadow):
    assert UnlearningLeaks.needs_shadow
    with pytest.raises(NotApplicable, match="shadow unlearning"):
        UnlearningLeaks().infer(context(None))
    few = Shadow(shadow.pair, shadow.deleted, shadow.retained, NOTHING, NOTHING)
    with pytest.raises(NotApplicable, match="40 deleted and 0 unseen"):
        UnlearningLeaks().infer(context(few))
    pair, deleted, _, _ = halves[1]
    finding = UnlearningLeaks().infer(context(shadow))
    with pytest.raises(NotApplicable, match="no unseen records"):
        UnlearningLeaks().judge(finding, pair, Truth(deleted, NOTHING, ()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": "product"}, "inference.features"),
        ({"classifier": "mlp"}, "inference.classifier"),
        ({"inverse_regularisation": 0.0}, "inverse_regularisation must be positive"),
        ({"trees": 0}, "trees"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        UnlearningLeaks(**settings)
