"""Judging in one call: models, files, logs and random numbers stay as they were."""

import copy
import logging
import math
import warnings

import pytest
import torch
from lightning.pytorch import Trainer

from retrace_pl.errors import InputError, RunError
from retrace_pl.tasks import evaluate_candidates
from retrace_pl.tasks.evaluation import METRICS


def test_models_come_back_as_they_were_and_are_judged_in_eval_mode(reference, evaluator):
    expected = evaluate_candidates(reference.heldout_inputs, reference, evaluator, evaluator)
    training = copy.deepcopy(evaluator).train()
    results = evaluate_candidates(reference.heldout_inputs, reference, training, training)
    assert results["fid_oracle"] == pytest.approx(
        expected["fid_oracle"]
    )  # dropout .9 would change it beyond recognition
    assert results["sr_original"] == expected["sr_original"]
    assert training.training
    assert training.dropout.training
    assert not evaluator.training
    assert evaluator.means.requires_grad
    assert evaluator.means.grad is None


def test_it_is_quiet_and_leaves_no_files(reference, evaluator, capfd, caplog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_candidates(reference.heldout_inputs, reference, evaluator, evaluator)
    out = capfd.readouterr()
    assert (out.out, out.err) == ("", "")
    assert not caplog.records
    assert not list(tmp_path.iterdir())
    assert logging.getLogger("lightning.pytorch").level != logging.ERROR


def test_global_random_state_is_left_alone(reference, evaluator):
    before = torch.random.get_rng_state()
    evaluate_candidates(reference.heldout_inputs, reference, evaluator, evaluator)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_trainer_of_ones_own_gets_the_logged_numbers(reference, evaluator, tmp_path):
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    results = evaluate_candidates(reference.heldout_inputs, reference, evaluator, evaluator, trainer=trainer)
    logged = {key: float(value) for key, value in trainer.logged_metrics.items()}
    assert logged == pytest.approx({f"test/{n}": results[n] for n in METRICS if results[n] is not None}, rel=1e-5)


def test_bad_candidates_are_refused_and_models_restored(reference, evaluator):
    model = copy.deepcopy(evaluator).train()
    broken = reference.heldout_inputs.clone()
    broken[2, 0, 0, 0] = math.nan
    with pytest.raises(RunError, match="NaN"):
        evaluate_candidates(broken, reference, model, None)
    assert model.training
    with pytest.raises(InputError, match="shape"):
        evaluate_candidates(broken[:, :, :4], reference, evaluator, None)
    with pytest.raises(InputError, match="no candidates"):
        evaluate_candidates(broken[:0], reference, evaluator, None)
    with pytest.raises(InputError, match="scores"):
        evaluate_candidates(broken, reference, evaluator, None, scores=torch.zeros(2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_numbers_and_keeps_the_models(reference, evaluator):
    inputs = reference.heldout_inputs
    expected = evaluate_candidates(inputs, reference, evaluator, evaluator)
    moved = copy.deepcopy(evaluator).cuda()
    results = evaluate_candidates(inputs.cuda(), reference, moved, moved)
    assert moved.means.is_cuda
    for name in METRICS:
        assert results[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-6), name
