import copy
import json
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.nn.functional import cosine_similarity

from retrace_pl.attacks import UIA, AttackContext, LabelInference, NotApplicable
from retrace_pl.errors import AccessError, InputError
from retrace_pl.files import write_tensors
from retrace_pl.traces import ModelPair
from retrace_pl.unlearning import SSD

CONFIGS = Path(__file__).parents[2] / "configs" / "attack"


class CountingPair(ModelPair):
    """Counts every input shown to either network, copies of them included."""

    def __init__(self, original, unlearned, access="white"):
        super().__init__(copy.deepcopy(original), copy.deepcopy(unlearned), access)
        self.asked = []  # copies of the networks share it: a hook is copied by reference
        asked = self.asked
        self._original.register_forward_hook(lambda module, inputs, outputs: asked.append(len(outputs)))


def context(pair, digits, budget=20480, seed=0):
    return AttackContext(pair=pair, scorer=None, generator=None, public=digits[0][300:800], budget=budget, seed=seed)


def likeness(found, record):
    return float(cosine_similarity(found.flatten(), record.flatten(), dim=0))


def test_one_step_of_ascent_gives_the_record_away(digits, digits_mlp, ascent_pair):
    record, label = digits[0][[5]], digits[1][[5]]
    pair = ascent_pair(digits_mlp, record, label)
    found = UIA(steps=250, restarts=2).reconstruct(context(pair, digits))
    assert found.facts["labels"] == [int(label)]
    assert not found.facts["label_given"]
    assert found.facts["cosine"] > 0.999
    assert likeness(found.instance, record) > 0.99
    others = max(likeness(found.instance, other) for other in digits[0][300:])
    assert likeness(found.instance, record) > others
    json.dumps(found.facts)


def test_the_observer_watches_the_descents(digits, digits_mlp, ascent_pair, recorder, monkeypatch):
    watched = context(ascent_pair(digits_mlp, digits[0][[5]], digits[1][[5]]), digits)
    watched.observer = recorder
    found = UIA(steps=100, restarts=3, images=2).reconstruct(watched)
    assert recorder.budgets == [found.queries]
    assert 50 <= len(recorder.updates) <= 150
    assert [(queries, seen["score/best"], seen["score/top64"]) for queries, _, seen in recorder.updates] == found.curve
    assert {candidates for _, candidates, _ in recorder.updates} == {0}, "there are no latents"
    assert recorder.ends == 1
    monkeypatch.setattr("retrace_pl.attacks.uia.match_gradients", lambda *arguments, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        UIA(steps=100).reconstruct(watched)
    assert recorder.ends == 2, "also after an error"


def test_several_records_are_recovered_jointly(digits, digits_mlp, ascent_pair):
    rows = [0, 1]
    pair = ascent_pair(digits_mlp, digits[0][rows], digits[1][rows])
    attack = UIA(steps=400, restarts=1, images=2, label=digits[1][rows].tolist(), tv_weight=0.0)
    found = attack.reconstruct(context(pair, digits))
    assert found.queries == 800
    assert found.inputs.shape == (2, 1, 8, 8)
    for recovered, record in zip(found.inputs, digits[0][rows], strict=True):
        assert likeness(recovered, record) > 0.95


def test_the_result_holds_every_restart_best_first(digits, digits_mlp, ascent_pair):
    pair = ascent_pair(digits_mlp, digits[0][[5]], digits[1][[5]])
    found = UIA(steps=20, restarts=3, images=2, label=5).reconstruct(context(pair, digits))
    assert found.inputs.shape == (6, 1, 8, 8)
    cosines = found.facts["cosines"]
    assert cosines == sorted(cosines, reverse=True)
    assert len(set(cosines)) == 3
    assert found.scores.tolist() == pytest.approx([value for value in cosines for _ in range(2)])
    assert torch.equal(found.instance, found.inputs[:1])
    assert found.instance_score == cosines[0] == found.facts["cosine"]
    assert bool((found.inputs >= 0).all() & (found.inputs <= 1).all())
    assert found.curve[-1][0] == found.queries == 120
    best = [point[1] for point in found.curve]
    assert best == sorted(best)
    assert best[-1] >= cosines[0]


def test_batch_norm_models_are_attacked_in_eval_mode(digits, digits_cnn, ascent_pair):
    record, label = digits[0][[5]], digits[1][[5]]
    pair = ascent_pair(digits_cnn, record, label, lr=0.1)
    unlearned = pair.networks()[1]
    before = copy.deepcopy(pair.networks()[0].state_dict())
    for module in unlearned.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += 5.0  # buffers must not enter the direction
    found = UIA(steps=150, restarts=1, label=int(label)).reconstruct(context(pair, digits))
    assert found.facts["cosine"] > 0.6
    assert found.facts["parameters"] == sum(value.numel() for value in digits_cnn.parameters())
    after = pair.networks()[0].state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("access", ["black", "gray"])
def test_less_than_white_box_access_is_refused(digits, digits_mlp, ascent_pair, access):
    pair = ascent_pair(digits_mlp, digits[0][[5]], digits[1][[5]], access=access)
    with pytest.raises(AccessError, match="access=white"):
        UIA().reconstruct(context(pair, digits))


@pytest.mark.parametrize(
    ("budget", "label", "planned"), [(120, 5, (20, 3)), (119, 5, (20, 2)), (31, 5, (15, 1)), (1000, None, (20, 3))]
)
def test_the_budget_is_never_exceeded(digits, digits_mlp, ascent_pair, budget, label, planned):
    plain = ascent_pair(digits_mlp, digits[0][[5]], digits[1][[5]])
    pair = CountingPair(*plain.networks())
    attack = UIA(steps=20, restarts=3, images=2, label=label, label_inference=LabelInference(probes=1, used=1))
    found = attack.reconstruct(context(pair, digits, budget=budget))
    assert found.queries == sum(pair.asked) <= budget
    assert (found.facts["steps"], found.facts["restarts"]) == planned
    assert (found.facts["reduction"] is None) == (planned == (20, 3))
    if label is not None:
        assert found.queries == planned[0] * planned[1] * 2


def test_the_same_seed_gives_the_same_reconstruction(digits, digits_mlp, ascent_pair):
    pair = ascent_pair(digits_mlp, digits[0][[5]], digits[1][[5]])
    attack = UIA(steps=20, restarts=2, label_inference=LabelInference(probes=2, used=1))
    first, again, other = (attack.reconstruct(context(pair, digits, 4000, seed)) for seed in (1, 1, 2))
    assert torch.equal(first.inputs, again.inputs)
    assert first.facts == again.facts
    assert first.curve == again.curve
    assert not torch.equal(first.inputs, other.inputs)


def test_unrelated_models_leave_the_cosine_near_chance(digits, digits_mlp):
    with torch.random.fork_rng():
        torch.manual_seed(7)
        other = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    found = UIA(steps=100, restarts=2, label=5).reconstruct(context(ModelPair(digits_mlp, other, "white"), digits))
    assert found.facts["random_cosine"] == pytest.approx((64 / (64 * 32 + 32 + 32 * 10 + 10)) ** 0.5)
    assert found.facts["cosine"] < 2 * found.facts["random_cosine"]
    assert not found.facts["above_random"]
    assert found.facts["relative_difference"] > 0.5


def test_the_exact_direction_needs_the_initial_weights(digits, digits_mlp, gradients, tmp_path):
    """Both models one full-batch step away from theta_0: the difference misleads, the exact direction does not."""
    inputs, labels = (values[:4] for values in digits)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        initial = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))

    def stepped(rows):
        model, change = copy.deepcopy(initial), gradients(initial, inputs[rows], labels[rows])
        with torch.no_grad():
            for name, value in model.named_parameters():
                value -= 0.5 * change[name]
        return model

    pair = ModelPair(stepped(slice(None)), stepped(slice(1, None)), "white")
    file = tmp_path / "initial.safetensors"
    write_tensors(file, dict(initial.named_parameters()))
    settings = {"steps": 250, "restarts": 1, "label": int(labels[0]), "tv_weight": 0.0}
    exact = UIA(
        **settings, initial_weights=str(file), records=4, deleted_records=1, gradients_at="initial"
    ).reconstruct(context(pair, digits))
    plain = UIA(**settings).reconstruct(context(pair, digits))
    assert exact.facts["exact_direction"]
    assert not plain.facts["exact_direction"]
    assert likeness(exact.instance, inputs[0]) > 0.99
    assert likeness(plain.instance, inputs[0]) < 0.95


def test_dampening_has_no_direction(digits, digits_mlp):
    dampened = copy.deepcopy(digits_mlp)
    with torch.no_grad():
        for value in dampened.parameters():
            value.mul_(torch.where(value.abs() > 0.2, 0.5, 1.0))
    with pytest.raises(NotApplicable, match=r"shrank towards zero .* SSD"):
        UIA().reconstruct(context(ModelPair(digits_mlp, dampened, "white"), digits))


def test_selective_synaptic_dampening_is_recognised(digits, digits_mlp):
    rows = torch.arange(300)[digits[1][:300] == 3], torch.arange(300)[digits[1][:300] != 3]
    forget, retain = ([(digits[0][kept], digits[1][kept])] for kept in rows)
    unlearned = copy.deepcopy(digits_mlp).requires_grad_(True)
    SSD(alpha=2.0).edit(unlearned, retain, forget)
    with pytest.raises(NotApplicable, match="multiplicative dampening"):
        UIA(label=3).reconstruct(context(ModelPair(digits_mlp, unlearned, "white"), digits))


def test_a_pair_without_a_difference_is_not_applicable(digits, digits_mlp):
    with pytest.raises(NotApplicable, match="the same parameters"):
        UIA().reconstruct(context(ModelPair(digits_mlp, digits_mlp, "white"), digits))


def test_other_modalities_are_not_applicable(digits, digits_mlp, ascent_pair):
    class Tokens:
        """No classifier over one tensor of numbers."""

    pair = ascent_pair(digits_mlp, digits[0][[5]], digits[1][[5]])
    given = context(pair, digits)
    given.public = torch.zeros(5, 64, dtype=torch.int64)
    with pytest.raises(NotApplicable, match="no floating-point tensors"):
        UIA().reconstruct(given)
    given.public = digits[0]
    pair.behaviour = Tokens()
    with pytest.raises(NotApplicable, match="Tokens describes models of another kind"):
        UIA().reconstruct(given)
    given.pair = None
    with pytest.raises(InputError, match="needs a model pair"):
        UIA().reconstruct(given)


def test_inputs_that_are_no_images_are_matched_without_variation(digits, digits_mlp, ascent_pair):
    rows = digits[0].flatten(1)
    pair = ascent_pair(digits_mlp, rows[[5]], digits[1][[5]])
    given = AttackContext(pair=pair, scorer=None, generator=None, public=rows[300:], budget=4000)
    found = UIA(steps=250, restarts=1, label=5).reconstruct(given)
    assert found.inputs.shape == (1, 64)
    assert found.facts["total_variation"] == 0
    assert likeness(found.instance, rows[5]) > 0.99


@pytest.mark.parametrize(("name", "steps"), [("uia_500", 500), ("uia_2000", 2000), ("uia_10000", 10_000)])
def test_the_presets(name, steps):
    preset = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    assert preset["class_path"] == "retrace_pl.attacks.UIA"
    attack = UIA(**preset["init_args"])
    assert (attack.steps, attack.restarts, attack.lr, attack.tv_weight) == (steps, 5, 0.04, 1e-2)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"steps": 7}, "steps"),
        ({"restarts": 0}, "restarts"),
        ({"images": 0}, "images"),
        ({"lr": 0.0}, "lr"),
        ({"tv_weight": -1.0}, "tv_weight"),
        ({"box": (1.0, 0.0)}, "box"),
        ({"images": 2, "label": [1]}, "label"),
        ({"records": 10}, "records"),
        ({"gradients_at": "initial"}, "initial_weights"),
        ({"gradients_at": "unlearned"}, "gradients_at"),
    ],
)
def test_bad_settings_are_named(settings, named):
    with pytest.raises(InputError, match=named):
        UIA(**settings)


def test_labels_and_files_that_do_not_fit_are_named(digits, digits_mlp, ascent_pair, tmp_path):
    given = context(ascent_pair(digits_mlp, digits[0][[5]], digits[1][[5]]), digits)
    with pytest.raises(InputError, match="10 is no class of a model with 10 outputs"):
        UIA(label=10).reconstruct(given)
    with pytest.raises(InputError, match="must not be negative"):
        UIA(label=-1).reconstruct(given)
    counts = {"label": 5, "records": 10, "deleted_records": 1}
    with pytest.raises(InputError, match="there is no file"):
        UIA(initial_weights=str(tmp_path / "none.safetensors"), **counts).reconstruct(given)
    (tmp_path / "broken.safetensors").write_text("no weights")
    with pytest.raises(InputError, match="is no whole safetensors file"):
        UIA(initial_weights=str(tmp_path / "broken.safetensors"), **counts).reconstruct(given)
