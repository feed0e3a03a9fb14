"""A run that is cut off anywhere ends with the numbers of an uninterrupted one."""

import json

import pytest
from lightning.pytorch.callbacks import Callback

from retrace_pl.cli import INTERRUPTED, main
from retrace_pl.pipeline import attack_stage, train_stages


def numbers(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    return {key: metrics[key] for key in ("verdict", "unlearning", "calibration", "attack", "controls", "leakage")}


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it and tidy up."""


class KillAtEpoch(Callback):
    """Ends the process in the middle of a training."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_end(self, trainer, *arguments):
        if trainer.current_epoch == self.epoch:
            raise Killed


@pytest.mark.parametrize(
    ("stage", "name", "epoch"),
    [("pretrain", "original", 3), ("generator", "generator", 1), ("unlearn", "unlearned", 1)],
)
def test_killed_in_the_middle_of_a_training(finished_run, run_copy, tiny, monkeypatch, stage, name, epoch):
    original_fit = train_stages.fit
    resumed = []

    def fit_and_die(*arguments, **options):
        if options["name"] == name:
            options["callbacks"] = [KillAtEpoch(epoch)]
        return original_fit(*arguments, **options)

    def fit_and_watch(task, data, **options):
        trainer = original_fit(task, data, **options)
        if options["name"] == name:
            resumed.append(trainer.ckpt_path)
        return trainer

    products = json.loads((run_copy / "stages" / f"{stage}.json").read_text())["outputs"]
    assert f"{name}.safetensors" in products
    for file in (*products, f"stages/{stage}.json"):
        (run_copy / file).unlink()
    command = [stage, "--config", tiny, "--output", str(run_copy), "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(train_stages, "fit", fit_and_die)
        with pytest.raises(Killed):
            main(command)
    assert list((run_copy / "checkpoints").glob(f"{name}-*/last.ckpt"))
    monkeypatch.setattr(train_stages, "fit", fit_and_watch)
    assert main(command) == 0
    assert resumed[0] is not None, "the training began anew instead of going on from its last epoch"
    assert [file for file in products if (run_copy / file).read_bytes() != (finished_run / file).read_bytes()] == []
    assert not (run_copy / "checkpoints").exists()


def test_ctrl_c_in_a_training_is_told_in_one_line(tmp_path, tiny, monkeypatch, capsys):
    original_fit = train_stages.fit

    class Interrupt(Callback):
        def on_train_batch_end(self, trainer, *arguments):
            raise KeyboardInterrupt

    def fit_and_interrupt(*arguments, **options):
        return original_fit(*arguments, **options | {"callbacks": [Interrupt()]})

    monkeypatch.setattr(train_stages, "fit", fit_and_interrupt)
    assert main(["audit", "--config", tiny, "--output", str(tmp_path / "run"), "--quiet"]) == INTERRUPTED
    assert "run the same command again" in capsys.readouterr().err


def test_cut_off_during_the_attack(finished_run, run_copy, tiny, monkeypatch):
    black = ["audit", "--config", tiny, "--output", str(run_copy), "--quiet", "--access", "black"]
    real = attack_stage.write_tensors

    def die(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(attack_stage, "write_tensors", die)
        assert main(black) == INTERRUPTED
    assert attack_stage.write_tensors is real
    assert not (run_copy / "report.html").exists(), "an outdated report must not survive a newer, unfinished attack"
    assert main(["audit", "--config", tiny, "--output", str(run_copy), "--quiet"]) == 0
    assert numbers(run_copy) == numbers(finished_run)
    assert "access: white" in (run_copy / "config.yaml").read_text()
