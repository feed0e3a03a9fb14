"""Baselines and inferences beside the attack: same pair, same budget, same metrics, and their controls."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from retrace_pl.attacks import ReTrace
from retrace_pl.audit import CONTROLS
from retrace_pl.cli import INTERRUPTED, main
from retrace_pl.pipeline.api import Audit
from retrace_pl.pipeline.other_attacks import attack_names, distinguishing
from retrace_pl.pipeline.parsing import config_folders, parse
from retrace_pl.pipeline.parts import parts
from retrace_pl.pipeline.runner import stage_keys
from retrace_pl.searchers import CEMSearcher, RandomSearcher

CEM = {"class_path": "retrace_pl.attacks.ReTrace", "init_args": {"searcher": {"class_path": "CEMSearcher"}, "top_k": 4}}
OTHERS = {
    "baselines": [{"class_path": f"toy_attacks.{name}"} for name in ("BestPublic", "OneDirection", "Unsuited")] + [CEM],
    "inferences": [{"class_path": f"toy_attacks.{name}"} for name in ("LargestGap", "NeedsWhite")],
}
RUN = ("best_public", "one_direction", "retrace_cem")
SETTINGS = {"audit.repeats": 1, "rivals": [], "audit.controls": ["prior", "matched_retrain"]} | OTHERS


@pytest.fixture(scope="session")
def toys():
    """The toy attacks under the name that settings give them."""
    sys.path.insert(0, str(Path(__file__).parent))
    yield importlib.import_module("toy_attacks")
    sys.path.remove(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def with_others(finished_run, tmp_path_factory, toys):
    """The finished audit, attacked once more with other attacks beside; read only."""
    folder = tmp_path_factory.mktemp("others") / "run"
    shutil.copytree(finished_run, folder)
    Audit.from_config(folder / "config.yaml", folder, SETTINGS).run()
    return folder


@pytest.fixture(scope="session")
def metrics(with_others):
    return json.loads((with_others / "metrics.json").read_text())


def test_every_baseline_is_judged_like_the_attack_and_beside_its_control(metrics):
    assert list(metrics["baselines"]) == ["best_public", "one_direction", "unsuited", "retrace_cem"]
    for name in RUN:
        found = metrics["baselines"][name]
        for row in (found, found["controls"]["matched_retrain"]):
            assert row["applicable"] is True
            assert row["distribution"].keys() == metrics["attack"]["distribution"].keys()
            assert 0 <= row["distribution"]["sr_oracle"] <= 1
            assert row["queries"] <= metrics["budget"]["queries"]
        for kind in ("excess", "avoidable"):
            leak = found["leakage"][kind]
            assert leak["low"] <= leak["value"] <= leak["high"]
            assert leak["metric"] == metrics["leakage"]["excess"]["metric"]


def test_intervals_count_the_baselines_own_candidates(metrics):
    one, many = (metrics["baselines"][name]["distribution"] for name in ("one_direction", "best_public"))
    width = {id(row): row["intervals"]["sr_mse"][1] - row["intervals"]["sr_mse"][0] for row in (one, many)}
    assert width[id(one)] > 0.7, "one candidate says next to nothing"
    assert width[id(one)] > width[id(many)]


def test_what_does_not_apply_says_why_and_fails_nothing(metrics):
    found = metrics["baselines"]["unsuited"]
    assert found["applicable"] is False
    assert found["reason"] == "unsuited: the pair has no left <i>shoe</i>"
    assert found["controls"]["matched_retrain"]["applicable"] is False
    assert "distribution" not in found
    assert metrics["verdict"] in ("leak", "no_evidence", "invalid")
    assert metrics["not_finite"] == []
    assert metrics["classes"] == [str(digit) for digit in range(10)]


def test_what_each_attack_asked_for_is_noted(metrics):
    asked = {name: metrics["baselines"][name]["asked"] for name in RUN}
    signals = ["prediction", "loss", "gradient"]
    assert asked == {"best_public": signals, "one_direction": ["parameters"], "retrace_cem": signals}
    assert metrics["inferences"]["largest_gap"]["asked"] == ["prediction"]


def test_scores_in_the_metrics_are_the_traces_whatever_the_attack_climbed(with_others, metrics):
    candidates = load_file(with_others / "candidates.safetensors")
    own, trace = (candidates[f"baseline.one_direction-0/{name}"] for name in ("scores", "trace_scores"))
    assert float(own[0]) > 1
    assert 0 <= float(trace[0]) <= 1
    assert metrics["baselines"]["one_direction"]["distribution"]["score"] == pytest.approx(float(trace[0]))
    assert torch.allclose(
        candidates["baseline.best_public-0/scores"], candidates["baseline.best_public-0/trace_scores"], atol=1e-4
    )
    evaluation = load_file(with_others / "evaluation.safetensors")
    assert torch.equal(evaluation["baselines.one_direction.scores"], trace)
    assert evaluation["baselines.retrace_cem.nearest"].shape == (4, 1, 16, 16)


def test_curves_are_those_that_climb_the_trace(with_others):
    curves = json.loads((with_others / "curves.json").read_text())
    assert "baselines.retrace_cem" in curves
    for label in ("baseline.retrace_cem-0", "baseline.retrace_cem.matched_retrain-0"):
        log = EventAccumulator(str(with_others / "tensorboard" / "search" / label)).Reload().Tags()
        assert "search/topk_score" in log["scalars"]
    assert not any("one_direction" in name or "matched_retrain" in name[len("matched_retrain") :] for name in curves)


def test_inferences_are_judged_by_the_truth(with_others, metrics):
    found = metrics["inferences"]["largest_gap"]
    answer = found["answer"]["class"]
    assert found["judged"]["correct"] is (answer == 3)
    assert found["judged"]["unseen"] > 0
    assert found["controls"]["matched_retrain"]["judged"].keys() == found["judged"].keys()
    assert load_file(with_others / "inferences.safetensors")["inference.largest_gap-0/gaps"].shape == (10,)
    unjudged = metrics["inferences"]["needs_white"]
    assert unjudged["answer"] == {"models": 2}
    assert unjudged["judged"] is None
    assert unjudged["reason"] == "nothing to compare with"


def test_a_missing_access_level_is_a_reason_too(with_others, tmp_path, toys, capsys):
    folder = Path(shutil.copytree(with_others, tmp_path / "run"))
    rivals = [{"class_path": "toy_attacks.WhiteSearcher"}, {"class_path": "RandomSearcher"}]
    run = Audit.from_config(folder / "config.yaml", folder, {"access": "black", "rivals": rivals}, quiet=False).run()
    assert run.metrics["baselines"]["best_public"]["applicable"] is True
    assert "needs access=white" in run.metrics["rivals"]["white"]["reason"]
    assert "distribution" in run.metrics["rivals"]["random"]
    assert capsys.readouterr().err.count("does not apply: ") == 7, "three others on two pairs, and a rival"
    assert run.metrics["baselines"]["best_public"]["asked"] == ["prediction"]
    for found in (run.metrics["baselines"]["one_direction"], run.metrics["inferences"]["needs_white"]):
        assert found["applicable"] is False
        assert "needs access=white" in found["reason"]
    assert (folder / "report.html").is_file()


def test_an_attack_that_exceeds_the_budget_is_refused(run_copy, tiny, toys, capsys):
    command = ["attack", "--config", tiny, "--output", str(run_copy), "--quiet"]
    assert main([*command, '--baselines=[{"class_path": "toy_attacks.Greedy"}]']) == 1
    assert "baseline.greedy-0 used 257 queries of a budget of 256" in capsys.readouterr().err


def test_an_inference_that_learns_from_an_unlearning_of_its_own_gets_one(with_others, tmp_path, toys):
    folder = Path(shutil.copytree(with_others, tmp_path / "run"))
    leaks = [{"class_path": "retrace_pl.attacks.UnlearningLeaks"}]
    run = Audit.from_config(
        folder / "config.yaml", folder, {"baselines": [], "inferences": leaks, "queries": 128}
    ).run()
    found = run.metrics["inferences"]["unlearning_leaks"]
    assert found["applicable"] is True
    assert found["answer"]["shadow_deleted"] > 0
    for row in (found, found["controls"]["matched_retrain"]):
        assert 0 <= row["judged"]["auroc"] <= 1
    assert (folder / "shadow.safetensors").is_file()


def test_without_controls_the_baselines_run_once(with_others, tmp_path, toys):
    folder = Path(shutil.copytree(with_others, tmp_path / "run"))
    run = Audit.from_config(folder / "config.yaml", folder, {"audit.baseline_controls": False}).run()
    found = run.metrics["baselines"]["best_public"]
    assert found["controls"] == {}
    assert found["leakage"]["avoidable"] is None
    assert found["leakage"]["excess"] is not None


def test_an_audit_without_others_leaves_no_trace_of_earlier_ones(with_others, tmp_path, toys):
    folder = Path(shutil.copytree(with_others, tmp_path / "run"))
    run = Audit.from_config(folder / "config.yaml", folder, {"baselines": [], "inferences": []}).run()
    assert (run.metrics["baselines"], run.metrics["inferences"]) == ({}, {})
    assert not list(folder.glob("inferences*"))


def test_an_interruption_between_two_baselines_costs_only_the_second(
    with_others, finished_run, tmp_path, toys, monkeypatch, capsys
):
    folder = Path(shutil.copytree(finished_run, tmp_path / "run"))
    command = ["audit", "--config", str(with_others / "config.yaml"), "--output", str(folder)]
    searches, reconstruct = [], ReTrace.reconstruct

    def interrupt(self, context):
        raise KeyboardInterrupt

    def count(self, context):
        searches.append(context.seed)
        return reconstruct(self, context)

    monkeypatch.setattr(ReTrace, "reconstruct", count)
    with monkeypatch.context() as patch:
        patch.setattr(toys.OneDirection, "reconstruct", interrupt)
        assert main(command) == INTERRUPTED
    assert len(searches) == 2, "the audited pair and the matched retrain"
    capsys.readouterr()
    assert main(command) == 0
    shown = capsys.readouterr().err
    for label in ("attack-0", "matched_retrain-0", "baseline.best_public-0", "baseline.best_public.matched_retrain-0"):
        assert f"{label}: done before the interruption" in shown
    assert len(searches) == 4, "the baseline with CEM, on both pairs"
    for name in ("candidates.safetensors", "searches.json", "curves.json", "inferences.json", "inferences.safetensors"):
        assert (folder / name).read_bytes() == (with_others / name).read_bytes(), name


def test_another_method_takes_the_controls_of_the_baselines_from_the_cache(tmp_path, tiny, toys, capsys):
    settings = SETTINGS | {"queries": 128}
    Audit.from_config(tiny, tmp_path / "first", settings | {"unlearning": "Identity"}, cache=tmp_path / "cache").run()
    capsys.readouterr()
    Audit.from_config(tiny, tmp_path / "second", settings, cache=tmp_path / "cache", quiet=False).run()
    shown = capsys.readouterr().err
    kinds = [*(f"baseline.{name}" for name in (*RUN, "unsuited")), "inference.largest_gap", "inference.needs_white"]
    for kind in kinds:
        assert f"{kind}.matched_retrain-0: taken from the cache" in shown
        assert f"{kind}-0: taken from the cache" not in shown


def test_names_are_unique_and_fit_into_paths(toys):
    attacks = [toys.BestPublic(), toys.OneDirection(), toys.BestPublic(), ReTrace(CEMSearcher()), ReTrace()]
    attacks += [ReTrace(CEMSearcher()), ReTrace(RandomSearcher())]
    assert attack_names(attacks) == [
        *("best_public", "one_direction", "best_public_2", "retrace_cem", "retrace", "retrace_cem_2", "retrace_random")
    ]


def test_attacks_of_one_class_are_told_apart_by_their_settings():
    same = {"top_k": 4, "searcher": {"class_path": "CEMSearcher"}}
    settings = [{"class_path": "HRec", "init_args": same | {"space": space}} for space in ("pixels", "latents")]
    settings += [{"class_path": "UIA", "init_args": {"space": "pixels"}}, {"class_path": "MaxDiff"}]
    assert distinguishing(settings) == [{"space": "pixels"}, {"space": "latents"}, {}, {}]


def test_keys_of_audits_without_others_are_those_of_earlier_versions(tiny, tmp_path):
    def settings(*options):
        return parse("audit", "", ["--config", tiny, "--output", str(tmp_path), *options]).settings

    now = settings()
    before = {name: value for name, value in now.items() if name not in ("baselines", "inferences")}
    before["audit"] = {name: value for name, value in now["audit"].items() if name != "baseline_controls"}
    assert stage_keys(now) == stage_keys(before)
    other = settings("--baselines=[ReTrace]")
    first = [stage for stage in stage_keys(now) if stage_keys(now)[stage] != stage_keys(other)[stage]]
    assert first == ["attack", "evaluate", "report"]


def test_lists_of_files_are_found_beside_the_configuration(tiny, tmp_path):
    (tmp_path / "attack").mkdir()
    (tmp_path / "audit").mkdir()
    text = "class_path: retrace_pl.attacks.ReTrace\ninit_args: {top_k: 5, searcher: ../searcher.yaml}\n"
    (tmp_path / "attack" / "mine.yaml").write_text(text)
    (tmp_path / "searcher.yaml").write_text("class_path: retrace_pl.searchers.CEMSearcher\n")
    config = tmp_path / "audit" / "mine.yaml"
    config.write_text(Path(tiny).read_text() + "baselines: [../attack/mine.yaml]\n")
    request = parse("audit", "", ["--config", str(config), "--output", str(tmp_path / "run")])
    [attack] = request.config.baselines
    assert (attack.top_k, type(attack.searcher)) == (5, CEMSearcher)
    assert request.settings["baselines"][0]["init_args"]["searcher"]["class_path"].endswith("CEMSearcher")


def class_of(file):
    return yaml.safe_load(file.read_text())["class_path"].rpartition(".")[2]


def test_every_attack_of_the_package_has_a_preset_and_is_in_the_full_demo(tmp_path):
    config = parse("audit", "", ["--config", "digits_full", "--output", str(tmp_path)]).config
    known = {kind: {part["name"] for part in parts(kind)} for kind in ("attacks", "inferences")}
    on_images = known["attacks"] - {"ReversedGuidance"}  # wants a generator of texts
    assert {type(attack).__name__ for attack in (config.attack, *config.baselines)} == on_images
    assert {type(inference).__name__ for inference in config.inferences} == known["inferences"]
    assert set(config.audit.controls) == set(CONTROLS)
    files = sorted((config_folders()[0] / "attack").glob("*.yaml"))
    assert {class_of(file) for file in files} == known["attacks"] | known["inferences"]
    lists = {"baselines": "attacks", "inferences": "inferences"}
    options = [
        f"--{name}=[{','.join(str(f) for f in files if class_of(f) in known[kind])}]" for name, kind in lists.items()
    ]
    config = parse("audit", "", ["--config", "digits", "--output", str(tmp_path), *options]).config
    assert len(config.baselines) + len(config.inferences) == len(files)
