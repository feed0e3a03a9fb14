"""A run that is cut off anywhere ends with the numbers of an uninterrupted one."""

import json

import pytest

from retrace_pl.cli import INTERRUPTED, main
from retrace_pl.pipeline import attack_stage, training


def numbers(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    return {key: metrics[key] for key in ("verdict", "unlearning", "calibration", "attack", "controls", "leakage")}


@pytest.mark.parametrize("training_number", [0, 2, 3])
def test_cut_off_in_the_middle_of_a_training(finished_run, tmp_path, tiny, monkeypatch, training_number):
    """Trainings in order: original, evaluator, generator, unlearned, ..."""
    count = 0
    original_fit = training.Trainer.fit

    def fit_and_die(self, model, **kwargs):
        nonlocal count
        count += 1
        if count == training_number + 1:
            self.fit_loop.max_epochs = max(1, self.max_epochs // 2)
            original_fit(self, model, **kwargs)
            raise KeyboardInterrupt
        return original_fit(self, model, **kwargs)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "fit", fit_and_die)
        assert main(["audit", "--config", tiny, "--output", str(out), "--quiet"]) == INTERRUPTED
    assert list((out / "checkpoints").rglob("last.ckpt"))
    assert main(["audit", "--config", tiny, "--output", str(out), "--quiet"]) == 0
    assert numbers(out) == numbers(finished_run)
    assert not (out / "checkpoints").exists()


def test_cut_off_during_the_attack(finished_run, run_copy, tiny, monkeypatch):
    (run_copy / "stages" / "attack.json").unlink()
    real = attack_stage.write_tensors

    def die(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(attack_stage, "write_tensors", die)
        assert main(["audit", "--config", tiny, "--output", str(run_copy), "--quiet"]) == INTERRUPTED
    assert attack_stage.write_tensors is real
    assert not (run_copy / "report.html").exists(), "an outdated report must not survive a newer, unfinished attack"
    assert main(["audit", "--config", tiny, "--output", str(run_copy), "--quiet"]) == 0
    assert numbers(run_copy) == numbers(finished_run)
