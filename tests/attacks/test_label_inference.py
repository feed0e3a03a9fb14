import copy

import pytest
import torch

from retrace_pl.attacks import AttackContext, Finding, LabelInference, NotApplicable, Truth
from retrace_pl.errors import InputError
from retrace_pl.traces import ModelPair


class CountingPair(ModelPair):
    """Counts inputs shown to both models, and those shown to f+ alone through the networks."""

    asked = 0

    def outputs(self, inputs):
        self.asked += len(inputs)
        return super().outputs(inputs)

    def networks(self):
        original, unlearned = super().networks()
        counted = copy.deepcopy(original)
        counted.register_forward_hook(self._count)
        return counted, unlearned

    def _count(self, module, inputs, outputs):
        self.asked += len(outputs)


def context(pair, digits, budget=6000, seed=0):
    return AttackContext(pair=pair, scorer=None, generator=None, public=digits[0][300:800], budget=budget, seed=seed)


@pytest.mark.parametrize("record", [3, 5])
def test_one_step_of_ascent_gives_its_class_away(digits, digits_mlp, ascent_pair, record):
    pair = ascent_pair(digits_mlp, digits[0][[record]], digits[1][[record]])
    found = LabelInference().infer(context(pair, digits))
    label = int(digits[1][record])
    assert found.answer["label"] == label
    assert min(found.answer["reached"]) >= 10
    assert min(found.answer["confidence"]) >= 0.9995
    assert found.answer["margin"] > 0
    assert found.answer["delta"][label] == min(found.answer["delta"])


def test_probabilities_alone_suffice(digits, digits_mlp, ascent_pair):
    rows = (digits[1][:300] == 4).nonzero().flatten()
    pair = ascent_pair(digits_mlp, digits[0][rows], digits[1][rows], lr=20.0, access="black")
    found = LabelInference(coordinates=16, block=1, black_lr=0.05).infer(context(pair, digits, budget=12_000))
    assert found.answer["label"] == 4
    assert found.answer["confident"]
    assert min(found.answer["reached"]) >= 1
    assert found.answer["access"] == "black"


@pytest.mark.parametrize("start", ["public", "noise"])
@pytest.mark.parametrize("access", ["white", "black"])
@pytest.mark.parametrize("budget", [700, 2001])
def test_the_budget_is_never_exceeded(digits, digits_mlp, ascent_pair, start, access, budget):
    plain = ascent_pair(digits_mlp, digits[0][:1], digits[1][:1])
    pair = CountingPair(plain._original, plain._unlearned, access)
    found = LabelInference(start=start, coordinates=4).infer(context(pair, digits, budget=budget))
    assert found.queries == pair.asked <= budget


def test_classes_that_stay_below_the_confidence_are_named(digits, digits_mlp, ascent_pair):
    pair = ascent_pair(digits_mlp, digits[0][:1], digits[1][:1])
    found = LabelInference(confidence=0.999999999, steps=2).infer(context(pair, digits, budget=300))
    assert not found.answer["confident"]
    assert min(found.answer["reached"]) == 0
    assert min(found.answer["confidence"]) < 0.9995


def test_the_same_seed_gives_the_same_answer(digits, digits_mlp, ascent_pair):
    pair = ascent_pair(digits_mlp, digits[0][:1], digits[1][:1])
    for access in ("white", "black"):
        pair.access = type(pair.access).parse(access)
        first, again, other = (
            LabelInference(start="noise", coordinates=4).infer(context(pair, digits, 2000, seed)) for seed in (0, 0, 1)
        )
        assert first == again
        assert first.answer["delta"] != other.answer["delta"]


def test_no_class_starts_from_its_own_inputs(digits, digits_mlp, ascent_pair):
    """Else a class that the public data lacks stands out, whatever was unlearned."""
    pair = ascent_pair(digits_mlp, digits[0][:1], digits[1][:1], access="black")
    shown = digits[0][300:800]
    labels = pair.outputs(shown).original.argmax(1)
    found = LabelInference(steps=1, probes=500, used=500, coordinates=1, difference=1e-9)
    seen = {}

    def remember(probes, label):
        rows = (probes.classes == label).nonzero().flatten()
        seen[label] = probes.inputs[rows]
        return rows

    found._choose = remember
    found.infer(context(pair, digits, budget=12_000))
    assert sorted(seen) == list(range(10))
    for label, starts in seen.items():
        nearest = torch.cdist(starts.flatten(1), shown.flatten(1)).argmin(1)
        assert not bool((labels[nearest] == label).any())


def test_models_that_agree_hold_no_answer(digits, digits_mlp):
    with pytest.raises(NotApplicable, match="the same probability"):
        LabelInference().infer(context(ModelPair(digits_mlp, digits_mlp, "white"), digits, 2000))


def test_too_small_a_budget_is_refused(digits, digits_mlp, ascent_pair):
    pair = ascent_pair(digits_mlp, digits[0][:1], digits[1][:1], access="black")
    with pytest.raises(NotApplicable, match=r"needs at least .* for 10 classes at black access"):
        LabelInference().infer(context(pair, digits, 300))
    white = ascent_pair(digits_mlp, digits[0][:1], digits[1][:1])
    with pytest.raises(NotApplicable, match="at white access"):
        LabelInference().infer(context(white, digits, 100))


def test_public_starts_need_public_inputs(digits, digits_mlp, ascent_pair):
    given = context(ascent_pair(digits_mlp, digits[0][:1], digits[1][:1]), digits)
    given.public = None
    with pytest.raises(InputError, match="shape of an input is unknown"):
        LabelInference().infer(given)
    given.public = digits[0][:0]
    given.generator = torch.nn.Module()
    given.generator.output_shape = (1, 8, 8)
    with pytest.raises(InputError, match="start is public but there are no public inputs"):
        LabelInference().infer(given)
    assert LabelInference(start="noise").infer(given).queries <= given.budget


def test_judging_a_deleted_class(digits, digits_mlp):
    pair = ModelPair(digits_mlp, digits_mlp, "black")
    finding = Finding({"label": 2, "delta": [0.0, -0.4, -0.9, -0.5]}, queries=1)
    truth = Truth(digits[0][:3], digits[0][:0], deleted_classes=(2,))
    assert LabelInference().judge(finding, pair, truth) == {"correct": True, "rank": 1, "found": 1.0}
    several = Truth(digits[0][:3], digits[0][:0], deleted_classes=(1, 3))
    assert LabelInference().judge(finding, pair, several) == {"correct": False, "rank": 2, "found": 0.5}


def test_judging_deleted_records_by_what_the_original_model_calls_them(digits, digits_mlp):
    pair = ModelPair(digits_mlp, digits_mlp, "black")
    records = digits[0][[3, 13, 5]]  # two threes and a five
    finding = Finding({"label": 3, "delta": [0.0] * 3 + [-0.5] + [0.0] * 6}, queries=1)
    judged = LabelInference().judge(finding, pair, Truth(records, digits[0][:0], ()))
    assert judged == {"correct": True, "rank": 1, "found": pytest.approx(2 / 3)}
    finding.answer["label"] = 5
    assert not LabelInference().judge(finding, pair, Truth(records, digits[0][:0], ()))["correct"]


@pytest.mark.parametrize(
    "settings",
    [
        {"confidence": 1.0},
        {"probes": 0},
        {"used": 0},
        {"steps": 0},
        {"coordinates": 0},
        {"block": 0},
        {"lr": 0.0},
        {"black_lr": -1.0},
        {"difference": 0.0},
        {"start": "generator"},
        {"box": (1.0, 0.0)},
    ],
)
def test_bad_settings_are_named(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        LabelInference(**settings)
