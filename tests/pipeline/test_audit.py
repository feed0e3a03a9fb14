import json
import math
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from retrace_pl.audit import decide
from retrace_pl.cli import main
from retrace_pl.pipeline.config import STAGES
from retrace_pl.searchers import load_policy


@pytest.fixture(scope="session")
def metrics(finished_run):
    return json.loads((finished_run / "metrics.json").read_text())


def test_run_folder_holds_every_artefact(finished_run):
    expected = {
        "config.yaml",
        "original.safetensors",
        "unlearned.safetensors",
        "evaluator.safetensors",
        "generator.safetensors",
        "candidates.safetensors",
        "policy.safetensors",
        "policy.json",
        "metrics.json",
        "report.html",
        "tensorboard",
    }
    assert expected <= {path.name for path in finished_run.iterdir()}
    assert not (finished_run / "checkpoints").exists()
    assert not list(finished_run.rglob(".*"))


def test_metrics_have_the_documented_keys(metrics):
    assert metrics["verdict"] in ("leak", "no_evidence", "invalid")
    assert metrics["verdict_reason"]
    for key in ("retain_acc", "forget_acc", "mia_auc"):
        assert 0 <= metrics["unlearning"][key] <= 1
    for key in ("prediction", "loss", "gradient", "score"):
        assert 0 <= metrics["calibration"]["auroc"][key] <= 1
    for key in ("mse", "cs", "sr_oracle"):
        assert math.isfinite(metrics["attack"]["instance"][key])
    for key in ("sr_oracle", "fid_oracle", "kid_oracle", "kl", "diversity"):
        assert math.isfinite(metrics["attack"]["distribution"][key])
    for control in ("prior", "matched_retrain", "identity", "holdout"):
        assert math.isfinite(metrics["controls"][control]["distribution"]["fid_oracle"])
    for kind in ("excess", "avoidable", "record"):
        leak = metrics["leakage"][kind]
        assert leak["low"] <= leak["value"] <= leak["high"]
    assert metrics["budget"]["queries"] == 256
    assert metrics["seeds"]["audit"] == 0
    assert "torch" in metrics["versions"]


def test_verdict_follows_from_the_stored_numbers(metrics):
    again = decide(metrics)
    assert (str(again.status), again.reason) == (metrics["verdict"], metrics["verdict_reason"])


def test_identity_control_shows_no_trace(metrics):
    assert metrics["controls"]["identity"]["max_trace"] == 0
    assert metrics["controls"]["identity"]["score_spread"] == 0


def test_every_search_used_the_same_budget(finished_run):
    searches = json.loads((finished_run / "searches.json").read_text())
    queries = {label: search["queries"] for label, search in searches.items() if search["name"] != "prior"}
    assert set(queries.values()) == {256}
    assert {"attack-0", "attack-1", "matched_retrain-0", "matched_retrain-1", "identity-0", "rival.random-0"} == set(
        queries
    )


def test_pool_keeps_every_query(finished_run):
    candidates = load_file(finished_run / "candidates.safetensors")
    assert candidates["attack-0/pool_latents"].shape == (256, 16)
    assert candidates["attack-0/pool_scores"].shape == (256,)
    assert float(candidates["attack-0/scores"].max()) <= float(candidates["attack-0/pool_scores"].max())


def test_finished_stages_are_skipped(run_copy, tiny, capsys):
    before = {path: path.stat().st_mtime_ns for path in run_copy.glob("*.safetensors")}
    assert main(["audit", "--config", tiny, "--output", str(run_copy)]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in run_copy.glob("*.safetensors")}
    assert capsys.readouterr().err.count("done already") == len(STAGES)


def test_other_access_repeats_the_attack_alone(run_copy, tiny, capsys):
    assert main(["audit", "--config", tiny, "--output", str(run_copy), "--access", "black"]) == 0
    shown = capsys.readouterr().err
    assert shown.count("done already") == 3
    metrics = json.loads((run_copy / "metrics.json").read_text())
    assert metrics["setting"]["access"] == "black"
    assert metrics["setting"]["signals"] == ["prediction"]
    assert metrics["calibration"]["auroc"]["gradient"] is None


def test_a_searcher_without_a_policy_leaves_no_trace_of_an_earlier_one(run_copy, tiny):
    log = run_copy / "tensorboard" / "search"
    before = set(log.rglob("events.*"))
    options = ["--searcher", "CEMSearcher", "--audit.repeats", "1", "--quiet"]
    assert main(["audit", "--config", tiny, "--output", str(run_copy), *options]) == 0
    assert not (run_copy / "policy.safetensors").exists()
    assert not (run_copy / "policy.json").exists()
    assert before
    assert not before & set(log.rglob("events.*"))


def test_identity_unlearning_gives_no_evidence(tmp_path, tiny):
    options = [
        "--unlearning",
        "Identity",
        "--classifier.epochs",
        "25",
        "--evaluator.epochs",
        "25",
        "--audit.repeats",
        "1",
        "--rivals",
        "[]",
    ]
    out = tmp_path / "run"
    assert main(["audit", "--config", tiny, "--output", str(out), "--quiet", *options]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["setting"]["unlearning"] == "Identity"
    assert metrics["attack"]["score_spread"] == 0
    assert metrics["verdict"] == "no_evidence"


def test_record_deletion_and_retraining_run_too(tmp_path, tiny):
    config = yaml.safe_load(Path(tiny).read_text())
    settings = config["data"]["init_args"]
    del settings["forget_class"]
    settings["forget_fraction"] = 0.1
    file = tmp_path / "records.yaml"
    file.write_text(yaml.safe_dump(config))
    out = tmp_path / "run"
    options = ["--unlearning", "Retrain", "--searcher", "CEMSearcher", "--audit.repeats", "1", "--quiet"]
    assert main(["audit", "--config", str(file), "--output", str(out), *options]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["setting"]["deletion"] == "records"
    assert metrics["setting"]["searcher"] == "CEMSearcher"
    assert metrics["attack"]["distribution"]["sr_oracle"] is None
    assert metrics["leakage"]["excess"]["metric"] == "sr_mse"
    assert not (out / "policy.safetensors").exists()


def test_json_output_is_only_json(run_copy, tiny, capsys):
    assert main(["audit", "--config", tiny, "--output", str(run_copy), "--json", "--quiet"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["metrics"]["schema"] == 1
    assert result["report"].endswith("report.html")
    assert printed.err == ""


def test_summary_shows_controls_beside_the_attack(run_copy, tiny, capsys):
    assert main(["audit", "--config", tiny, "--output", str(run_copy)]) == 0
    shown = capsys.readouterr().out
    for words in ("attack ", "prior ", "matched_retrain ", "16 candidates, 256 queries each", "Excess ", "verdict: "):
        assert f"\n{words}" in shown
    assert f"report: {run_copy / 'report.html'}\n" in shown
    assert f"tensorboard: tensorboard --logdir {run_copy / 'tensorboard'}\n" in shown


def test_quiet_prints_nothing_but_errors(run_copy, tiny, capsys):
    command = ["audit", "--config", tiny, "--output", str(run_copy), "--quiet"]
    assert main(command) == 0
    assert capsys.readouterr() == ("", "")
    assert main([*command, "--queries", "0"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("retrace: error: ")


def test_stored_policy_can_be_sampled_again(finished_run):
    policy = load_policy(finished_run / "policy.safetensors")
    assert policy.sample(8, seed=0).shape == (8, 16)


def test_another_name_reaches_metrics_and_report(run_copy, tiny):
    assert main(["audit", "--config", tiny, "--output", str(run_copy), "--quiet", "--name", "Renamed & audited"]) == 0
    assert json.loads((run_copy / "metrics.json").read_text())["name"] == "Renamed & audited"
    assert "Renamed &amp; audited" in (run_copy / "report.html").read_text()


def test_refused_stage_leaves_the_run_as_it_was(run_copy, tiny, capsys):
    before = (run_copy / "config.yaml").read_text()
    assert main(["evaluate", "--config", tiny, "--output", str(run_copy), "--access", "black"]) == 1
    assert "needs stage attack" in capsys.readouterr().err
    assert (run_copy / "config.yaml").read_text() == before
    assert (run_copy / "report.html").exists()


def test_thresholds_are_settings_and_stored(run_copy, tiny):
    strict = ["--audit.thresholds.min_evaluator_accuracy", "1.0"]
    assert main(["audit", "--config", tiny, "--output", str(run_copy), "--quiet", *strict]) == 0
    metrics = json.loads((run_copy / "metrics.json").read_text())
    assert metrics["verdict"] == "invalid"
    assert metrics["thresholds"]["min_evaluator_accuracy"] == 1.0
    assert str(decide(metrics).status) == "invalid"


def test_other_generator_keeps_the_unlearned_model(run_copy, tiny, capsys):
    assert main(["generator", "--config", tiny, "--output", str(run_copy), "--generator.epochs", "1"]) == 0
    assert (run_copy / "unlearned.safetensors").exists()
    assert not (run_copy / "report.html").exists()
    capsys.readouterr()
    assert main(["unlearn", "--config", tiny, "--output", str(run_copy), "--generator.epochs", "1"]) == 0
    assert "done already" in capsys.readouterr().err
