"""Audits that share a cache do each piece of work once, and end with the numbers of an audit on its own."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from retrace_pl.attacks import ReTrace
from retrace_pl.cli import INTERRUPTED, main
from retrace_pl.errors import InputError
from retrace_pl.files import write_tensors
from retrace_pl.pipeline import shared_training, train_stages
from retrace_pl.pipeline.api import Audit
from retrace_pl.pipeline.artefacts import (
    classifier_artefact,
    generator_artefact,
    prior_artefact,
    search_artefact,
    search_inputs,
    unlearned_artefact,
)
from retrace_pl.pipeline.cache import Artefact, ArtefactCache
from retrace_pl.pipeline.config import STAGES
from retrace_pl.pipeline.parsing import parse
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.shared_training import TAKEN, Training, run_trainings

WITHOUT_REPORT = STAGES[:-1]
SEARCH_FILES = ("candidates.safetensors", "curves.json", "searches.json", "calibration.json")
POLICY_FILES = ("policy.safetensors", "policy.json")
SEARCHED = {"attack-0", "attack-1", "matched_retrain-0", "matched_retrain-1", "identity-0", "rival.random-0"}


@pytest.fixture
def work(monkeypatch):
    """Names of the models trained and the number of searches, counted while the real ones run."""
    done = {"trained": [], "searches": 0}
    fit, reconstruct = train_stages.fit, ReTrace.reconstruct

    def counted_fit(*arguments, **options):
        done["trained"].append(options["name"])
        return fit(*arguments, **options)

    def counted_search(self, context):
        done["searches"] += 1
        return reconstruct(self, context)

    monkeypatch.setattr(train_stages, "fit", counted_fit)
    monkeypatch.setattr(ReTrace, "reconstruct", counted_search)
    return done


@pytest.fixture(scope="session")
def filled_cache(tmp_path_factory, tiny_file):
    """What an audit of another unlearning method leaves in a cache."""
    folder = tmp_path_factory.mktemp("shared")
    Audit.from_config(tiny_file, folder / "run", {"unlearning": "Identity"}, cache=folder / "cache").run(WITHOUT_REPORT)
    return folder / "cache"


@pytest.fixture(scope="session")
def tiny_file():
    return str(Path(__file__).parents[1] / "conf" / "digits_tiny.yaml")


@pytest.fixture
def cache(filled_cache, tmp_path):
    return Path(shutil.copytree(filled_cache, tmp_path / "cache"))


def judged(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    left_out = ("seconds", "config_hash")
    return {name: value for name, value in metrics.items() if name not in left_out}


def same_files(first, second, names=SEARCH_FILES + POLICY_FILES):
    return [name for name in names if (first / name).read_bytes() != (second / name).read_bytes()] == []


def searches_in_the_log(folder):
    runs = (folder / "tensorboard" / "search").iterdir()
    return {run.name for run in runs if "search/topk_score" in EventAccumulator(str(run)).Reload().Tags()["scalars"]}


def test_another_method_trains_and_searches_only_what_is_its_own(cache, finished_run, tmp_path, tiny, work, capsys):
    out = tmp_path / "run"
    assert main(["audit", "--config", tiny, "--output", str(out), "--cache", str(cache)]) == 0
    assert work == {"trained": ["unlearned"], "searches": 3}, "two repeats of the audited pair, and the rival"
    assert judged(out) == judged(finished_run)
    assert same_files(out, finished_run)
    assert searches_in_the_log(out) == SEARCHED
    assert not list(cache.rglob("*tfevents*")), "TensorBoard would show them once more"
    shown = capsys.readouterr().err
    for name in ("original", "evaluator", "generator", "retrained-1", "matched_retrain-0", "identity-0", "prior-1"):
        assert f"{name}: taken from the cache" in shown
    assert "unlearned: taken" not in shown
    assert not (out / "searches").exists()


def test_a_damaged_model_is_trained_again(cache, finished_run, tmp_path, tiny, work):
    [weights] = cache.glob("retrained-1/*/weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-8])
    out = tmp_path / "run"
    Audit.from_config(tiny, out, cache=cache).run(WITHOUT_REPORT)
    assert work["trained"] == ["unlearned", "retrained-1"]
    assert judged(out) == judged(finished_run)


def test_what_is_switched_off_costs_nothing(tmp_path, tiny, work):
    bare = {"audit.controls": [], "rivals": [], "audit.repeats": 1}
    run = Audit.from_config(tiny, tmp_path / "run", bare).run(WITHOUT_REPORT)
    assert work == {"trained": ["original", "evaluator", "generator", "unlearned"], "searches": 1}
    assert run.metrics["controls"] == {}
    assert not (tmp_path / "run" / "report.html").exists()
    assert not list((tmp_path / "run").glob("retrained*"))


def test_unknown_stages_are_refused(tmp_path, tiny):
    with pytest.raises(InputError, match="there is no stage 'pretraining'"):
        Audit.from_config(tiny, tmp_path / "run").run(["pretraining"])
    assert not (tmp_path / "run").exists()


# --- Interruptions ----------------------------------------------------------------------------------------------------


@pytest.fixture
def before_the_attack(run_copy):
    """A run whose attack stage has not begun."""
    for name in ("attack", "evaluate", "report"):
        (run_copy / "stages" / f"{name}.json").unlink()
    for name in SEARCH_FILES + POLICY_FILES:
        (run_copy / name).unlink()
    return run_copy


def test_an_interrupted_attack_goes_on_with_the_search_it_was_in(
    before_the_attack, finished_run, tiny, work, monkeypatch, capsys
):
    command = ["attack", "--config", tiny, "--output", str(before_the_attack)]
    counted = ReTrace.reconstruct

    def interrupt(self, context):
        if work["searches"] == 2:
            context.observer.on_start(10)  # a log that is begun and not finished
            raise KeyboardInterrupt
        return counted(self, context)

    with monkeypatch.context() as patch:
        patch.setattr(ReTrace, "reconstruct", interrupt)
        assert main(command) == INTERRUPTED
    assert work["searches"] == 2
    assert not (before_the_attack / "candidates.safetensors").exists()
    capsys.readouterr()
    assert main(command) == 0
    assert work["searches"] == len(SEARCHED)
    assert capsys.readouterr().err.count("done before the interruption") == 2
    assert same_files(before_the_attack, finished_run)
    assert searches_in_the_log(before_the_attack) == SEARCHED
    files = list((before_the_attack / "tensorboard" / "search").rglob("events.*"))
    assert len(files) == len(SEARCHED), "one for each search, none of the unfinished one"
    assert not (before_the_attack / "searches").exists()


@pytest.mark.slow
def test_an_attack_killed_between_two_searches_goes_on(before_the_attack, finished_run, tiny, work):
    command = ["attack", "--config", tiny, "--output", str(before_the_attack), "--quiet"]
    process = subprocess.Popen([sys.executable, "-m", "retrace_pl", *command])
    end = time.monotonic() + 120
    while len(list((before_the_attack / "searches").glob("*/*/manifest.json"))) < 2:
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert main(command) == 0
    assert work["searches"] <= len(SEARCHED) - 2
    assert same_files(before_the_attack, finished_run)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_audits_at_once_do_every_shared_training_once(finished_run, tmp_path, tiny):
    folders = {name: tmp_path / name for name in ("NegativeGradient", "Identity")}
    processes = {}
    for method, folder in folders.items():
        command = [sys.executable, "-m", "retrace_pl", "audit", "--config", tiny, "--output", str(folder)]
        command += ["--cache", str(tmp_path / "cache")]
        command += ["--unlearning", method] if method == "Identity" else []
        processes[method] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    shown = {method: process.communicate()[0] for method, process in processes.items()}
    assert {process.returncode for process in processes.values()} == {0}, shown
    both = "\n".join(shown.values())
    for name in ("original", "evaluator", "generator", "retrained-0", "retrained-1"):
        assert both.count(f"training {name}: ") == 1, name
    for name in ("matched_retrain-0", "matched_retrain-1", "identity-0", "prior-0", "prior-1"):
        assert both.count(f"{name}: taken from the cache") == 1, name
    assert judged(folders["NegativeGradient"]) == judged(finished_run)


# --- Keys -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keys_of(tmp_path_factory, tiny_file):
    """Keys of all artefacts with some options, on made-up weights."""

    def keys(*options):
        folder = tmp_path_factory.mktemp("keys")
        run = AuditRun.start(parse("audit", "", ["--config", tiny_file, "--output", str(folder), "--quiet", *options]))
        weights = folder / "weights"
        write_tensors(weights, {})
        common = search_inputs(run, weights, weights)
        found = {
            "original": classifier_artefact(run, "original", "classifier", "train", 0),
            "evaluator": classifier_artefact(run, "evaluator", "evaluator", "evaluator", 0),
            "retrained": classifier_artefact(run, "retrained-0", "classifier", "retain", 0),
            "generator": generator_artefact(run, "generator", 0),
            "unlearned": unlearned_artefact(run, "unlearned", weights, 0),
            "search": search_artefact(common, "identity-0", weights, run.settings["searcher"], 0),
            "prior": prior_artefact(run, "prior-0", weights, 16, 0),
        }
        return {name: artefact.key for name, artefact in found.items()}

    return keys


@pytest.fixture(scope="module")
def usual_keys(keys_of):
    return keys_of()


EVERYTHING = {"original", "evaluator", "retrained", "generator", "unlearned", "search", "prior"}
TRAINED = EVERYTHING - {"search", "prior"}


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ([], set()),
        (["--name", "other", "--trainer.threads", "2", "--audit.repeats", "9", "--rivals", "[]"], set()),
        (["--data.batch_size", "7", "--data.num_workers", "1", "--audit.level", "0.9"], set()),
        (["--unlearning", "GradientAscent"], {"unlearned"}),
        (["--unlearning.strength", "2"], {"unlearned"}),
        (["--data.forget_class", "4"], {"retrained", "generator", "unlearned", "search"}),
        (["--data.public_includes_deleted", "true"], {"generator", "search"}),
        (["--data.seed", "1"], EVERYTHING - {"prior"}),
        (["--data.augmentation", "crop"], TRAINED),
        (["--data.image_size", "12"], EVERYTHING - {"prior"}),
        (["--classifier.epochs", "6"], {"original", "retrained"}),
        (["--classifier.optimizer.lr", "0.02"], {"original", "retrained"}),
        (["--classifier.model.width", "4"], {"original", "retrained", "unlearned", "search"}),
        (["--evaluator.epochs", "6"], {"evaluator"}),
        (["--generator.epochs", "6"], {"generator"}),
        (["--generator.model.latent_dim", "8"], {"generator", "search", "prior"}),
        (["--trainer.precision", "bf16-mixed"], TRAINED),
        (["--trainer.accumulate_grad_batches", "2"], TRAINED),
        (["--trainer.devices", "2"], TRAINED),
        (["--access", "gray"], {"search"}),
        (["--queries", "512"], {"search", "prior"}),
        (["--latent.tau", "0.5"], {"search", "prior"}),
        (["--traces.normaliser.high", "0.9"], {"search"}),
        (["--traces.weights.loss", "0"], {"search"}),
        (["--searcher.num_envs", "16"], {"search"}),
        (["--attack.top_k", "8"], {"search"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_keys_change_with_what_the_result_depends_on_and_nothing_else(keys_of, usual_keys, options, changed):
    keys = keys_of(*options)
    assert {name for name in usual_keys if keys[name] != usual_keys[name]} == changed


def test_seeds_and_weights_and_libraries_are_in_the_keys(keys_of, tmp_path, tiny, monkeypatch):
    run = AuditRun.start(parse("audit", "", ["--config", tiny, "--output", str(tmp_path), "--quiet"]))
    weights = {}
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
        weights[name] = tmp_path / name
    common = search_inputs(run, weights["one"], weights["one"])
    others = [search_inputs(run, weights["two"], weights["one"]), search_inputs(run, weights["one"], weights["two"])]
    searcher = run.settings["searcher"]
    keys = [
        search_artefact(common, "identity-0", weights["one"], searcher, 0).key,
        search_artefact(common, "identity-0", weights["one"], searcher, 1).key,
        search_artefact(common, "identity-0", weights["two"], searcher, 0).key,
        search_artefact(common, "identity-1", weights["one"], searcher, 0).key,
        *(search_artefact(other, "identity-0", weights["one"], searcher, 0).key for other in others),
        unlearned_artefact(run, "unlearned", weights["one"], 0).key,
        unlearned_artefact(run, "unlearned", weights["one"], 1).key,
        unlearned_artefact(run, "unlearned", weights["two"], 0).key,
        classifier_artefact(run, "original", "classifier", "train", 0).key,
        classifier_artefact(run, "original", "classifier", "train", 1).key,
        generator_artefact(run, "generator", 0).key,
        generator_artefact(run, "generator", 1).key,
        prior_artefact(run, "prior-0", weights["one"], 16, 0).key,
        prior_artefact(run, "prior-0", weights["one"], 8, 0).key,
        prior_artefact(run, "prior-0", weights["one"], 16, 1).key,
        prior_artefact(run, "prior-0", weights["two"], 16, 0).key,
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    monkeypatch.setattr("retrace_pl.pipeline.artefacts.__version__", "9.9.9")
    assert generator_artefact(run, "generator", 0).key not in keys


def test_a_curve_of_the_deleted_class_is_not_that_of_another(keys_of):
    public = ["--data.public_includes_deleted", "true"]
    three, four = keys_of(*public), keys_of(*public, "--data.forget_class", "4")
    assert three["generator"] == four["generator"]
    assert three["search"] != four["search"]


# --- Several devices --------------------------------------------------------------------------------------------------


def trainings_of(run, cache, trained):
    def training(name):
        def train():
            trained.append(name)
            run.folder.path(f"{name}.safetensors").write_text(name)

        return Training(name, f"{name}.safetensors", lambda: Artefact(name, {}), train)

    run.cache = cache
    return [training(name) for name in ("original", "evaluator")]


@pytest.fixture
def on_two_devices(tmp_path, tiny, monkeypatch):
    monkeypatch.delenv(TAKEN, raising=False)
    options = ["--config", tiny, "--output", str(tmp_path / "run"), "--quiet", "--trainer.devices", "2"]
    yield AuditRun.start(parse("pretrain", "", options))
    monkeypatch.delenv(TAKEN, raising=False)


def test_processes_of_one_training_train_what_the_first_one_decided(on_two_devices, tmp_path, monkeypatch):
    cache = ArtefactCache(tmp_path / "cache")
    trained = []
    trainings = trainings_of(on_two_devices, cache, trained)
    shared_training.complete([shared_training._job(on_two_devices, cache, trainings[0])])
    assert trained == ["original"]
    run_trainings(on_two_devices, trainings)
    assert trained == ["original", "evaluator"]
    monkeypatch.setattr("retrace_pl.pipeline.runner.is_rank_zero", lambda: False)
    run_trainings(on_two_devices, trainings)  # the cache holds both by now, but the first process trained the second
    assert trained == ["original", "evaluator", "evaluator"]


def test_processes_started_by_something_else_are_refused(on_two_devices, tmp_path, monkeypatch):
    trainings = trainings_of(on_two_devices, ArtefactCache(tmp_path / "cache"), [])
    monkeypatch.setattr("retrace_pl.pipeline.runner.is_rank_zero", lambda: False)
    with pytest.raises(InputError, match="--cache: with several devices"):
        run_trainings(on_two_devices, trainings)
