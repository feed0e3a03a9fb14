import dataclasses
import importlib.util
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from retrace_pl.attacks import Attack, NotApplicable, ReversedGuidance
from retrace_pl.errors import InputError
from retrace_pl.models import DCGAN

spec = importlib.util.spec_from_file_location("attack_text_pairs", Path(__file__).parent / "text_pairs.py")
pairs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pairs)
BEGIN, END, LENGTH, OWN, PAD, VOCABULARY = (
    pairs.BEGIN,
    pairs.END,
    pairs.LENGTH,
    pairs.OWN,
    pairs.PAD,
    pairs.VOCABULARY,
)
context = pairs.context

CONFIG = Path(__file__).parents[2] / "configs" / "attack" / "reversed_guidance.yaml"
DELETED = 1


@pytest.fixture(scope="module")
def made():
    ids, labels = pairs.records()
    model = pairs.fitted(ids, labels)
    public, _ = pairs.records(seed=1)
    forgotten = pairs.ascended(model, ids[labels == DELETED], labels[labels == DELETED], lr=3.0)
    return model, forgotten, public


def pair_of(made, access="black"):
    return pairs.Counted(made[0], made[1], access)


def share_of(texts, label):
    """How many of the words are those of a class."""
    words = texts[(texts != PAD) & (texts != BEGIN) & (texts != END)]
    return float(torch.isin(words, OWN[label]).float().mean())


def test_texts_speak_of_the_class_that_they_are_guided_to(made):
    pair = pair_of(made)
    given = dataclasses.replace(context(pair, made[2], budget=2000), generator=pairs.text_generator(loud=4.0))
    shares = {}
    for label in range(3):
        found = ReversedGuidance(label=label, weight=1.0, candidates=12).reconstruct(given)
        shares[label] = share_of(found.inputs, label)
        probabilities = pair.outputs(found.inputs).original.mean(0)
        assert int(probabilities.argmax()) == label
    unguided = given.generator(torch.randn(64, 4, generator=torch.Generator().manual_seed(0)))
    assert sum(shares.values()) > sum(share_of(unguided, label) for label in shares) + 0.5, "of three"


def test_the_weight_turns_towards_what_was_unlearned(made):
    pair = pair_of(made)
    given = dataclasses.replace(context(pair, made[2]), generator=pairs.text_generator(loud=4.0))

    def ratio(weight):
        texts = ReversedGuidance(label=DELETED, weight=weight, candidates=12, top_k=16).reconstruct(given).inputs
        outputs = pair.outputs(texts)
        return float((outputs.original[:, DELETED].log() - outputs.unlearned[:, DELETED].log()).mean())

    assert ratio(50.0) > ratio(0.0)


def test_the_result_is_texts_of_the_data_within_the_budget(made, recorder):
    pair = pair_of(made)
    given = dataclasses.replace(context(pair, made[2], budget=1000), observer=recorder)
    pair.seen = 0
    found = ReversedGuidance(candidates=4, top_k=7).reconstruct(given)
    assert found.inputs.shape == (7, LENGTH)
    assert found.inputs.dtype == torch.int64
    assert bool((found.inputs[:, 0] == BEGIN).all())
    assert 0 <= int(found.inputs.min()) <= int(found.inputs.max()) < VOCABULARY
    assert torch.equal(found.instance, found.inputs[:1])
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)
    assert found.instance_score == float(found.scores[0])
    assert pair.seen <= found.queries <= 1000, "the models are not shown more than is counted"
    assert found.queries > 1000 - 41 - 1, "the budget is used"
    assert found.curve[-1][0] == found.queries
    assert recorder.ends == 1
    assert recorder.updates
    assert found.facts["label_given"] is False
    assert found.facts["labels"] == [DELETED]
    again = ReversedGuidance(candidates=4, top_k=7).reconstruct(given)
    assert torch.equal(again.inputs, found.inputs)
    other = ReversedGuidance(candidates=4, top_k=7).reconstruct(dataclasses.replace(given, seed=1))
    assert not torch.equal(other.inputs, found.inputs)


def test_one_candidate_is_the_generator_s_own_text(made):
    given = context(pair_of(made), made[2], budget=400)
    found = ReversedGuidance(label=0, candidates=1, top_k=400).reconstruct(given)
    latents = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    seen = []

    def rank(samples, numbers):
        seen.append((samples, numbers))
        return torch.zeros(len(samples))

    generator = given.generator
    assert torch.equal(generator.guided(latents, rank, 5), generator(latents)), "a guide that says nothing"
    assert len(found.inputs) >= 400 // (generator.guided_steps + 1)
    for samples, numbers in seen:
        assert len(samples) == len(numbers)
        ends = samples.eq(END).sum(1)
        assert bool((ends == 1).all()), "every begun text ends once"
        assert bool((samples.ne(PAD).long().diff(dim=1) <= 0).all()), "and is padded on the right"


def test_what_does_not_apply_says_why(made):
    given = context(pair_of(made), made[2])
    images = dataclasses.replace(given, generator=DCGAN((1, 8, 8), latent_dim=4, width=4))
    with pytest.raises(NotApplicable, match="no step to guide"):
        ReversedGuidance().reconstruct(images)
    with pytest.raises(NotApplicable, match=r"up to 81 queries for one text and has 50 of 50"):
        ReversedGuidance(label=0).reconstruct(dataclasses.replace(given, budget=50))
    with pytest.raises(NotApplicable, match="both models"):
        ReversedGuidance().reconstruct(dataclasses.replace(given, pair=None))
    with pytest.raises(InputError, match="3 is no class of a model with 3 outputs"):
        ReversedGuidance(label=3).reconstruct(given)


@pytest.mark.parametrize(
    "wrong", [{"label": -1}, {"label": []}, {"weight": -1.0}, {"candidates": 0}, {"top_k": 0}, {"batch_size": 0}]
)
def test_settings_are_checked(wrong):
    with pytest.raises(InputError, match=f"reversed_guidance.{next(iter(wrong))} must"):
        ReversedGuidance(**wrong)


def test_the_preset_is_an_attack():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--attack", type=Attack)
    parsed = parser.parse_object({"attack": yaml.safe_load(CONFIG.read_text())})
    assert isinstance(parser.instantiate(parsed).attack, ReversedGuidance)
