"""Attacks that were made for images, on token ids: they run, or they say why not."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest
import torch

from retrace_pl.attacks import (
    UIA,
    ClassInference,
    HRec,
    LabelInference,
    MaxDiff,
    NotApplicable,
    PriorTopK,
    Shadow,
    Truth,
    UnlearningLeaks,
)
from retrace_pl.attacks.linear_head import HeadReader, find_head
from retrace_pl.errors import AccessError
from retrace_pl.models import SmallCNN
from retrace_pl.models.behaviour import DiscreteBehaviour

spec = importlib.util.spec_from_file_location("attack_text_pairs", Path(__file__).parent / "text_pairs.py")
pairs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pairs)
context = pairs.context

DELETED = 1


@pytest.fixture(scope="module")
def made():
    ids, labels = pairs.records()
    model = pairs.fitted(ids, labels)
    gone = labels == DELETED
    after = pairs.ascended(model, ids[gone], labels[gone], lr=0.5)
    head = pairs.ascended(model, ids[gone], labels[gone], lr=0.5, only="head")
    return {
        "model": model,
        "after": after,
        "head": head,
        "ids": ids,
        "labels": labels,
        "public": pairs.records(seed=1)[0],
    }


def pair_of(made, after="after", access="white"):
    return pairs.Counted(made["model"], made[after], access)


def check_texts(found, budget):
    assert found.inputs.dtype == found.instance.dtype == torch.int64
    assert found.inputs.shape[1:] == found.instance.shape[1:] == (pairs.LENGTH,)
    assert len(found.scores) == len(found.inputs)
    assert found.queries <= budget


def test_features_are_read_in_the_order_of_the_texts(made):
    model = made["model"]
    behaviour = narrow_behaviour(model)
    reader = HeadReader(model, behaviour, find_head(model, behaviour, made["public"][:1]))
    features, logits = reader.read(made["public"], 16)
    with torch.no_grad():
        torch.testing.assert_close(features.float(), model.features(made["public"]))
        torch.testing.assert_close(logits.float(), model(made["public"]))


def narrow_behaviour(model):
    """Narrow groups, so that a batch is run in several parts."""
    return type(model.behaviour)(pairs.PAD, bucket=2)


def test_hrec_names_the_class_and_seeks_its_features_through_the_generator(made, recorder):
    given = dataclasses.replace(context(pair_of(made, "head"), made["public"], budget=600), observer=recorder)
    found = HRec(starts=16, estimate="difference", public_records=60).reconstruct(given)
    check_texts(found, 600)
    assert found.facts["inferred_label"] == DELETED
    assert found.facts["inversion"] == "generator, by search"
    assert found.facts["scope"].startswith("head only")
    assert len(found.inputs) == len(found.latents) == 16
    assert torch.equal(given.generator(found.latents), found.inputs), "within the generator's range"
    assert found.queries == 600 - (600 - 61) % 16
    assert found.curve[-1][0] == found.queries
    assert recorder.budgets == [found.queries]
    drawn = given.generator(given.latent.project(torch.randn(300, 4, generator=torch.Generator().manual_seed(0))))
    model = made["model"]
    with torch.no_grad():
        centre = model.features(made["public"]).mean(0)
        mine = torch.cosine_similarity(
            model.features(found.instance) - centre,
            model.features(made["ids"][made["labels"] == DELETED]).mean(0) - centre,
        )
        prior = torch.cosine_similarity(
            model.features(drawn) - centre, model.features(made["ids"][made["labels"] == DELETED]).mean(0) - centre
        )
    assert float(mine) > float(prior.mean()) + 0.2


def test_hrec_in_pixels_is_not_for_texts(made):
    with pytest.raises(NotApplicable, match="int64 have no gradient; use inversion: generator"):
        HRec(inversion="pixels", starts=4).reconstruct(context(pair_of(made), made["public"]))


@pytest.mark.parametrize("attack", [MaxDiff(top_k=5), PriorTopK(top_k=5, batch_size=64)])
def test_attacks_without_a_search_return_texts(made, attack):
    found = attack.reconstruct(context(pair_of(made, access="black"), made["public"], budget=128))
    check_texts(found, 128)
    assert len(found.inputs) == 5


def test_class_inference_names_the_class(made):
    pair = pair_of(made, access="black")
    finding = ClassInference().infer(context(pair, made["public"]))
    assert finding.answer["deleted_classes"] == [DELETED]
    truth = Truth(made["ids"][made["labels"] == DELETED], made["public"][:4], (DELETED,))
    assert ClassInference().judge(finding, pair, truth)["correct"]


def test_label_inference_moves_numbers_and_texts_have_none(made):
    with pytest.raises(NotApplicable, match="TokenBehaviour describes models of another kind"):
        LabelInference().infer(context(pair_of(made), made["public"]))


def test_unlearning_leaks_learns_from_texts(made):
    pair = pair_of(made, access="black")
    ids, labels, public = made["ids"], made["labels"], made["public"]
    shadow = Shadow(pair, ids[labels == DELETED], ids[labels != DELETED], public[1::3], public[0::3])
    finding = UnlearningLeaks().infer(dataclasses.replace(context(pair, public), shadow=shadow))
    judged = UnlearningLeaks().judge(finding, pair, Truth(ids[labels == DELETED], public[1::3], (DELETED,)))
    assert 0 <= judged["auroc"] <= 1
    assert finding.answer["shadow_deleted"] == 24


def test_uia_finds_tokens_whose_gradient_unlearning_followed(made):
    text, label = made["ids"][1:2], made["labels"][1:2]
    pair = pairs.Counted(made["model"], pairs.ascended(made["model"], text, label, lr=1.0), "white")
    given = context(pair, made["public"], budget=400)
    found = UIA(steps=60, restarts=2, label=int(label)).reconstruct(given)
    check_texts(found, 400)
    assert found.queries == 2 * 60 + 3, "the last three read tokens and look for the parameters behind the embeddings"
    facts = found.facts
    assert facts["embedding_cosines"][0] > 2 * facts["random_cosine"]
    assert facts["cosine"] == found.instance_score > 0.9
    assert bool((found.inputs[:, 0] == pairs.BEGIN).all())
    lengths = found.inputs.ne(pairs.PAD).sum(1)
    assert bool((found.inputs.gather(1, lengths[:, None] - 1) == pairs.END).all())
    assert not bool(
        torch.isin(found.inputs[0, 1 : lengths[0] - 1], torch.tensor([pairs.PAD, pairs.BEGIN, pairs.END])).any()
    )
    assert torch.equal(UIA(steps=60, restarts=2, label=int(label)).reconstruct(given).inputs, found.inputs)


def test_uia_asks_class_inference_for_the_label(made):
    found = UIA(steps=8, restarts=1).reconstruct(context(pair_of(made), made["public"], budget=400))
    assert found.facts["labels"] == [DELETED]
    assert found.queries == len(made["public"]) + 8 + 2


def test_uia_on_texts_says_what_it_lacks(made):
    given = context(pair_of(made), made["public"], budget=10)
    with pytest.raises(NotApplicable, match="needs at least 8 queries"):
        UIA(label=0).reconstruct(given)
    with pytest.raises(NotApplicable, match="public ones"):
        UIA(label=0).reconstruct(dataclasses.replace(given, public=None))
    with pytest.raises(AccessError):
        UIA(label=0).reconstruct(dataclasses.replace(given, pair=pair_of(made, access="black")))


def test_tokens_are_read_back_from_their_embeddings(made):
    model = made["model"]
    behaviour, ids = model.behaviour, made["ids"]
    assert isinstance(behaviour, DiscreteBehaviour)
    assert not isinstance(SmallCNN(1, 2, width=4).behaviour, DiscreteBehaviour)
    blanks, free = behaviour.blanks(ids, 3)
    assert blanks.shape == free.shape == (3, pairs.LENGTH)
    assert int(free[0].sum()) == int(ids.ne(pairs.PAD).sum(1).median()) - 2
    points = 1.7 * model.embeddings(blanks)
    assert torch.equal(behaviour.nearest(model, blanks, free, points), blanks)
