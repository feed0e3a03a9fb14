"""The search itself on tiny digits: seeds, pruning, failures, resumption, reproducibility."""

import json
import math
from typing import ClassVar

import pytest
import torch

from retrace_pl.cli import main
from retrace_pl.errors import InputError, RunError
from retrace_pl.files import read_tensors
from retrace_pl.tasks import unlearning_quality
from retrace_pl.tuning import search as module
from retrace_pl.tuning.objective import MEASURES, WORST, differences, distance, mean_measures
from retrace_pl.tuning.search import tune
from retrace_pl.tuning.setting import open_settings
from retrace_pl.tuning.target import Target, make_target
from retrace_pl.unlearning import NegativeGradient, Retrain, Span, UnlearningMethod


class Scripted(UnlearningMethod):
    """Fails, breaks the weights or does nothing, as `mode` says; what it was built with is in `seen`."""

    search_space: ClassVar = {"mode": Span(0, 1)}
    seen: ClassVar[list[float]] = []

    def __init__(self, mode: float = 0, **kwargs):
        super().__init__(epochs=0, **kwargs)
        self.mode = mode
        Scripted.seen.append(mode)

    def edit(self, model, retain_loader, forget_loader):
        if self.mode == 1:
            raise ZeroDivisionError("as asked")


def scripted(*starts, low=0, high=1):
    Scripted.seen.clear()
    space = {"mode": Span(low, high)}
    return Target("scripted", f"{__name__}.Scripted", {}, space, [{"mode": mode} for mode in starts])


@pytest.fixture
def neggrad():
    base = {"class_path": "retrace_pl.unlearning.NegativeGradient", "init_args": {"epochs": 2, "lr": 0.01}}
    target = make_target("neggrad", base, [])
    space = {"lr": Span(1e-3, 1e-1, log=True), "epochs": Span(1, 4)}
    return Target(target.name, target.class_path, target.init_args, space, [{"lr": 0.01, "epochs": 2}])


def read_study(folder):
    (file,) = folder.glob("*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def trial_values(folder):
    """What the study's file holds of every trial, in order: knobs and runs."""
    merged = {}
    for line in read_study(folder):
        if "user_attr" in line and "trial_id" in line:
            merged.setdefault(line["trial_id"], {}).update(line["user_attr"])
    return [merged[trial] for trial in sorted(merged)]


def without_time(trials):
    return [{**trial, "runs": [{**run, "seconds": 0} for run in trial["runs"]]} for trial in trials]


def test_each_seed_has_its_own_splits_and_its_models_are_those_of_an_audit(settings, tiny, tmp_path):
    first, second = settings
    assert not torch.equal(first.data.split("forget").pixels, second.data.split("forget").pixels)
    assert first.reference.keys() == set(MEASURES)
    assert first.reference["forget_acc"] == 0
    options = ["--config", tiny, "--output", str(tmp_path / "run"), "--quiet", "--audit.repeats", "1"]
    assert main(["pretrain", *options, "--seed", "100", "--data.seed", "100"]) == 0
    theirs = read_tensors(tmp_path / "run" / "original.safetensors")
    ours = first.original.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_models_are_trained_once(settings, tuning_folder, tiny):
    reference = settings[0].reference
    files = {path: path.stat().st_mtime_ns for path in tuning_folder.rglob("*.safetensors")}
    (again,) = open_settings([f"--config={tiny}", "--audit.repeats=1"], [100], tuning_folder, quiet=True)
    assert again.reference == reference
    assert {path: path.stat().st_mtime_ns for path in tuning_folder.rglob("*.safetensors")} == files


def test_a_run_is_the_audits_unlearning_stage(settings, tiny, tmp_path):
    options = ["--config", tiny, "--output", str(tmp_path / "run"), "--quiet", "--audit.repeats", "1"]
    options += ["--seed", "100", "--data.seed", "100", "--generator.epochs", "1"]
    for stage in ("pretrain", "generator", "unlearn"):
        assert main([stage, *options]) == 0
    theirs = read_tensors(tmp_path / "run" / "unlearned.safetensors")
    method = NegativeGradient(epochs=2, lr=0.01, batch_size=64)
    ours = settings[0].unlearn(method).state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_retraining_is_the_first_reference(settings):
    quality = settings[0].quality(settings[0].unlearn(Retrain()))
    assert quality == settings[0].reference


def test_the_best_trial_is_the_one_nearest_to_retraining(settings, neggrad, tmp_path):
    shown = []
    outcome = tune(neggrad, settings, tmp_path, trials=5, on_trial=lambda done, best: shown.append((done, best)))
    trials = trial_values(tmp_path)
    assert trials[0]["knobs"] == {"lr": 0.01, "epochs": 2}, "the start comes first"
    assert [done for done, _ in shown] == [0, 1, 2, 3, 4, 5]
    assert shown[-1][1] == outcome.value
    complete = [trial for trial in trials if len(trial["runs"]) == 2]
    assert outcome.failed == 0
    assert outcome.value == pytest.approx(min(sum(r["distance"] for r in t["runs"]) / 2 for t in complete))
    for trial in trials:
        for run, setting in zip(trial["runs"], settings, strict=False):
            assert run["reference"] == setting.reference
            assert run["differences"] == differences(run["quality"], setting.reference)
            assert run["distance"] == distance(run["differences"])
    built = neggrad.build(outcome.knobs)
    again = [setting.quality(setting.unlearn(built)) for setting in settings]
    assert mean_measures(again) == outcome.quality
    assert unlearning_quality(settings[0].original, settings[0].data) == settings[0].original_quality


def test_a_start_is_tried_exactly_also_where_no_range_holds_it(settings, tmp_path):
    space = {"lr": Span(1e-3, 1e-1, log=True), "weight_decay": Span(1e-5, 1e-2, log=True)}
    start = {"lr": 0.0123456, "weight_decay": 0.0}
    target = Target("exact", "retrace_pl.unlearning.NegativeGradient", {"epochs": 1}, space, [start])
    tune(target, settings[:1], tmp_path, trials=2)
    first, second = (trial["knobs"] for trial in trial_values(tmp_path))
    assert first == start
    assert second["weight_decay"] >= 1e-5
    assert second["lr"] == float(f"{second['lr']:.3g}")


def test_a_trial_is_cut_short_only_once_it_cannot_win(settings, neggrad, tmp_path):
    tune(neggrad, settings, tmp_path, trials=6)
    best = math.inf
    for trial in trial_values(tmp_path):
        distances = [run["distance"] for run in trial["runs"]]
        assert (len(distances) == 1) == (distances[0] > 2 * best)
        if len(distances) == 2:
            best = min(best, sum(distances) / 2)


def test_the_same_search_tries_the_same(settings, neggrad, tmp_path):
    first = tune(neggrad, settings, tmp_path / "a", trials=4)
    second = tune(neggrad, settings, tmp_path / "b", trials=4)
    assert without_time(trial_values(tmp_path / "a")) == without_time(trial_values(tmp_path / "b"))
    assert (first.knobs, first.value) == (second.knobs, second.value)


def test_an_interrupted_search_goes_on_as_if_nothing_had_happened(settings, neggrad, tmp_path, monkeypatch):
    whole = tune(neggrad, settings, tmp_path / "whole", trials=4)
    evaluated = []
    original = module.evaluate_seed

    def interrupted(*arguments):
        evaluated.append(arguments)
        if len(evaluated) == 4:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(module, "evaluate_seed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune(neggrad, settings, tmp_path / "cut", trials=4)
    with next((tmp_path / "cut").glob("*.jsonl")).open("a") as file:
        file.write('{"op_code": 4, "worker')  # as a kill in the middle of a write would leave it
    outcome = tune(neggrad, settings, tmp_path / "cut", trials=4)
    assert (outcome.knobs, outcome.value, outcome.trials) == (whole.knobs, whole.value, 4)
    finished = [trial for trial in trial_values(tmp_path / "cut") if "runs" in trial]
    knobs = [trial["knobs"] for trial in trial_values(tmp_path / "whole")]
    assert [trial["knobs"] for trial in finished if trial["runs"]] != []
    assert [k for k in knobs if k not in [trial["knobs"] for trial in finished]] == []
    count = len(evaluated)
    assert tune(neggrad, settings, tmp_path / "cut", trials=4).value == whole.value
    assert len(evaluated) == count, "a finished search is only read"


def test_another_search_does_not_mix_with_it(settings, neggrad, tmp_path):
    tune(neggrad, settings, tmp_path, trials=1)
    other = Target(neggrad.name, neggrad.class_path, {"a": 0.9}, neggrad.space, neggrad.starts)
    tune(other, settings, tmp_path, trials=1)
    tune(neggrad, settings[:1], tmp_path, trials=1)
    assert len(list(tmp_path.glob("*.jsonl"))) == 3


def test_a_trial_that_fails_counts_as_the_worst_and_the_search_goes_on(settings, tmp_path):
    outcome = tune(scripted(1, 0), settings, tmp_path, trials=2)
    assert (outcome.knobs, outcome.failed, outcome.start) == ({"mode": 0}, 1, WORST)
    first = trial_values(tmp_path)[0]["runs"]
    assert [run["failure"] for run in first] == ["ZeroDivisionError: as asked"]


def test_a_diverging_method_counts_as_the_worst(settings, tmp_path):
    base = {"class_path": "retrace_pl.unlearning.NegativeGradient", "init_args": {"form": "mls_bench"}}
    space = {"lr": Span(1e-3, 1e20, log=True)}
    target = Target("diverging", base["class_path"], base["init_args"], space, [{"lr": 1e20}, {"lr": 1e-3}])
    outcome = tune(target, settings[:1], tmp_path, trials=2)
    assert outcome.knobs == {"lr": 1e-3}
    assert outcome.failed == 1
    assert "diverged" in trial_values(tmp_path)[0]["runs"][0]["failure"]


def test_outputs_that_are_not_finite_count_as_the_worst(settings, tmp_path, monkeypatch):
    original = type(settings[0]).quality

    def broken(self, model):
        quality = original(self, model)
        return quality if Scripted.seen[-1] == 0 else quality | {"mia_auc": math.nan}

    measured = settings[0].reference, settings[0].original_quality
    assert all(measured)
    monkeypatch.setattr(type(settings[0]), "quality", broken)
    outcome = tune(scripted(2, 0, high=2), settings[:1], tmp_path, trials=2)
    assert (outcome.knobs, outcome.failed, outcome.start) == ({"mode": 0}, 1, WORST)


def test_settings_that_are_refused_count_as_the_worst(settings, tmp_path):
    target = Target(
        "refused", "retrace_pl.unlearning.NegativeGradient", {}, {"a": Span(0.5, 3.0)}, [{"a": 2.0}, {"a": 0.9}]
    )
    outcome = tune(target, settings[:1], tmp_path, trials=2)
    assert outcome.knobs == {"a": 0.9}
    assert "a is 2.0" in trial_values(tmp_path)[0]["runs"][0]["failure"]


def test_a_search_without_success_says_why(settings, tmp_path):
    with pytest.raises(RunError, match=r"none of 2 trials succeeded; the last one: ZeroDivisionError: as asked"):
        tune(scripted(1, low=1), settings[:1], tmp_path, trials=2)


def test_the_timeout_ends_the_search_after_the_first_trial(settings, tmp_path):
    outcome = tune(scripted(0), settings[:1], tmp_path, trials=50, timeout=1e-9)
    assert outcome.trials == 1


def test_a_damaged_study_is_named(settings, tmp_path):
    tune(scripted(0), settings[:1], tmp_path, trials=1)
    (file,) = tmp_path.glob("*.jsonl")
    file.write_text("no JSON\nat all\n" + file.read_text())
    with pytest.raises(RunError, match=r"scripted-.*jsonl cannot be read .*; delete it"):
        tune(scripted(0), settings[:1], tmp_path, trials=2)


def test_two_processes_do_not_share_a_study(settings, tmp_path):
    tune(scripted(0), settings[:1], tmp_path, trials=1)
    (file,) = tmp_path.glob("*.jsonl")
    with module._locked(file), pytest.raises(RunError, match=r"another process tunes .*jsonl right now; wait"):
        tune(scripted(0), settings[:1], tmp_path, trials=2)
    assert tune(scripted(0), settings[:1], tmp_path, trials=1).trials == 1


def test_a_study_is_never_unpickled(settings, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("unpickled")

    tune(scripted(0), settings[:1], tmp_path, trials=2)
    monkeypatch.setattr("pickle.loads", refuse)
    monkeypatch.setattr("pickle.load", refuse)
    assert tune(scripted(0), settings[:1], tmp_path, trials=3).trials == 3
    assert all(isinstance(line, dict) for line in read_study(tmp_path)), "plain JSON lines"


@pytest.mark.parametrize("option", ["--seed=3", "--data.seed=3", "--data.init_args.seed=3"])
def test_the_seeds_are_those_of_the_option(option, tiny, tmp_path):
    with pytest.raises(InputError, match="--seeds"):
        open_settings([f"--config={tiny}", option], [100], tmp_path, quiet=True)
