"""EvaluationTask on real digits: what is known about the candidates must come back as numbers."""

import copy
import warnings

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from retrace_pl.metrics import Diversity, FeatureFID, nearest_records, wilson_interval
from retrace_pl.tasks import EvaluationTask, Reference, evaluate_candidates
from retrace_pl.tasks.evaluation import METRICS

FORGOTTEN = 3
ONE_IS_TOO_FEW = ("fid_oracle", "kid_oracle", "kl", "label_kl", "diversity", "precision", "recall")


def test_the_deleted_records_themselves_are_perfect(reference, evaluator):
    results = evaluate_candidates(reference.deleted_inputs, reference, evaluator, evaluator)
    assert set(results) == {*METRICS, "score", "intervals"}
    assert results["mse"] == 0.0
    assert results["ssim"] == pytest.approx(1, abs=1e-5)
    assert results["cs"] == pytest.approx(1)
    assert results["sr_mse"] == 1.0
    assert results["sr_oracle"] > 0.8
    assert results["sr_original"] == results["sr_oracle"]
    assert results["fid_oracle"] == pytest.approx(0, abs=1e-9)
    assert results["kl"] == pytest.approx(0, abs=1e-9)
    assert results["label_kl"] == pytest.approx(0, abs=1e-9)
    assert (results["precision"], results["recall"]) == (1.0, 1.0)
    assert results["intervals"]["sr_mse"] == pytest.approx(wilson_interval(60, 60))
    assert results["score"] is None


def test_unseen_images_of_the_class_come_next_and_other_classes_last(reference, evaluator):
    unseen = evaluate_candidates(reference.heldout_inputs, reference, evaluator, evaluator)
    others = evaluate_candidates(reference.other_inputs[:60], reference, evaluator, evaluator)
    assert unseen["sr_oracle"] > 0.7  # nearest class mean is a modest classifier
    assert others["sr_oracle"] < 0.1
    assert others["intervals"]["sr_oracle"][1] < unseen["intervals"]["sr_oracle"][0]
    for name in ("mse", "pairwise_mse", "fid_oracle", "kid_oracle", "kl", "label_kl"):
        assert 0 < unseen[name] < others[name], name
    for name in ("ssim", "cs", "sr_mse", "precision"):
        assert others[name] < unseen[name] < 1.0001, name


def test_values_are_those_of_the_metrics(reference, evaluator):
    inputs = reference.other_inputs[:37]
    results = evaluate_candidates(inputs, reference, evaluator, evaluator)
    diversity, fid = Diversity(), FeatureFID(reference.deleted_inputs.flatten(1))
    diversity.update(inputs)
    fid.update(inputs.flatten(1))
    nearest = nearest_records(inputs, reference.deleted_inputs)
    assert results["diversity"] == pytest.approx(float(diversity.compute()))
    assert results["fid_oracle"] == pytest.approx(float(fid.compute()), rel=1e-6)
    assert results["mse"] == pytest.approx(float(nearest.mse.mean()))
    assert results["sr_mse"] == float((nearest.mse <= reference.success_threshold).double().mean())
    hits = int((evaluator(inputs).argmax(dim=1) == FORGOTTEN).sum())
    assert results["sr_oracle"] == hits / 37
    assert results["intervals"]["sr_oracle"] == pytest.approx(wilson_interval(hits, 37))


def test_batch_size_does_not_matter(reference, evaluator):
    inputs = reference.heldout_inputs[:23]
    first = evaluate_candidates(inputs, reference, evaluator, evaluator, batch_size=5)
    second = evaluate_candidates(inputs, reference, evaluator, evaluator, batch_size=64)
    for name in METRICS:
        assert first[name] == pytest.approx(second[name], rel=1e-6, abs=1e-9), name


def test_one_candidate_has_no_distribution(reference, evaluator):
    results = evaluate_candidates(
        reference.heldout_inputs[:1], reference, evaluator, evaluator, scores=torch.tensor([0.75])
    )
    assert {name for name in METRICS if results[name] is None} == set(ONE_IS_TOO_FEW)
    assert results["sr_oracle"] in (0.0, 1.0)
    assert results["score"] == 0.75
    assert set(results["intervals"]) == {"sr_oracle", "sr_original", "sr_mse"}


@pytest.mark.parametrize("targets", [(), tuple(range(10))], ids=["no class", "every class"])
def test_class_success_needs_a_class(reference, evaluator, targets):
    bare = Reference(reference.deleted_inputs, reference.deleted_labels, targets, 10)
    results = evaluate_candidates(reference.heldout_inputs, bare, evaluator, evaluator)
    assert results["sr_oracle"] is None
    assert results["sr_original"] is None
    assert list(results["intervals"]) == ["sr_mse"]


def test_an_original_model_is_optional(reference, evaluator):
    results = evaluate_candidates(reference.heldout_inputs, reference, evaluator, None)
    assert results["sr_original"] is None
    assert results["sr_oracle"] is not None


def test_original_and_evaluator_are_asked_separately(reference, evaluator):
    blind = copy.deepcopy(evaluator)
    blind.means.data = blind.means.data.roll(1, dims=0)
    results = evaluate_candidates(reference.deleted_inputs, reference, evaluator, blind)
    assert results["sr_oracle"] > 0.8
    assert results["sr_original"] < 0.1


def test_what_is_no_image_has_no_ssim(evaluator, reference):
    rows = Reference(reference.deleted_inputs.flatten(1), reference.deleted_labels, (FORGOTTEN,), 10)
    results = evaluate_candidates(reference.heldout_inputs.flatten(1), rows, evaluator, evaluator)
    assert results["ssim"] is None
    assert results["mse"] is not None


def test_one_deleted_record_has_no_distribution_either(reference, evaluator):
    lone = Reference(reference.deleted_inputs[:1], reference.deleted_labels[:1], (FORGOTTEN,), 10)
    results = evaluate_candidates(reference.heldout_inputs, lone, evaluator, evaluator)
    assert {n for n in METRICS if results[n] is None} == {
        "fid_oracle",
        "kid_oracle",
        "kl",
        "precision",
        "recall",
        "sr_mse",
    }


def test_features_are_remembered_until_the_weights_change(reference, evaluator, monkeypatch):
    calls = []
    plain = type(evaluator).features
    monkeypatch.setattr(type(evaluator), "features", lambda self, x: calls.append(len(x)) or plain(self, x))
    model = copy.deepcopy(evaluator)
    fresh = Reference(reference.deleted_inputs, reference.deleted_labels, (FORGOTTEN,), 10)
    first = evaluate_candidates(reference.heldout_inputs[:7], fresh, model, None)
    assert calls.count(60) == 2  # features and logits
    assert evaluate_candidates(reference.heldout_inputs[:7], fresh, model, None) == first
    assert calls.count(60) == 2
    with torch.no_grad():
        model.means.copy_(model.means.roll(1, dims=0) + 0.5)
    changed = evaluate_candidates(reference.heldout_inputs[:7], fresh, model, None)
    assert calls.count(60) == 4
    assert changed["sr_oracle"] != first["sr_oracle"]


def test_a_large_reference_is_drawn_from_for_feature_metrics_only(reference, evaluator):
    def run(**settings):
        return evaluate_candidates(reference.other_inputs[:40], reference, evaluator, evaluator, **settings)

    whole, some, again, other = run(), run(max_records=20), run(max_records=20), run(max_records=20, seed=1)
    assert some == again
    for name in METRICS:
        drawn = name in ("fid_oracle", "kid_oracle", "kl", "precision", "recall")
        assert drawn or some[name] == whole[name], name
    assert len({run["kid_oracle"] for run in (whole, some, other)}) == 3


def test_a_task_can_be_run_again_and_takes_labelled_batches(reference, evaluator):
    task = EvaluationTask(evaluator, evaluator, reference)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
    )
    images = reference.heldout_inputs
    batches = [(images[:9], torch.zeros(9)), (images[9:], torch.zeros(len(images) - 9))]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        trainer.test(task, DataLoader(batches, batch_size=None), verbose=False)
        first = task.results
        trainer.test(task, DataLoader(batches, batch_size=None), verbose=False)
    assert task.results == first
    assert first["diversity"] == evaluate_candidates(images, reference, evaluator, evaluator)["diversity"]
