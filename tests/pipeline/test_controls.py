"""The further controls, the shadow pair and the fitted weights of a tiny audit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from retrace_pl.cli import main
from retrace_pl.errors import InputError, RunError
from retrace_pl.pipeline import train_stages
from retrace_pl.pipeline.control_models import control_pairs, inapplicable_controls
from retrace_pl.pipeline.needs import further_models, needs_shadow, retrained_models
from retrace_pl.pipeline.parsing import parse
from retrace_pl.pipeline.runner import AuditRun, stage_keys
from retrace_pl.pipeline.search_models import SearchModels
from retrace_pl.pipeline.search_plan import planned_searches
from retrace_pl.pipeline.shadow import load_shadow, shadow_records
from retrace_pl.pipeline.train_stages import UNLEARNED, load_classifier

TINY = str(Path(__file__).parents[1] / "conf" / "digits_tiny.yaml")
OPTIONS = ["--audit.controls", "[all]", "--traces.fit_weights", "true", "--rivals", "[]", "--queries", "128"]
OPTIONS += ["--searcher", "RandomSearcher"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("controls") / "run"
    assert main(["audit", "--config", TINY, "--output", str(out), "--quiet", *OPTIONS]) == 0
    return out


@pytest.fixture(scope="module")
def run(folder):
    return AuditRun.start(parse("audit", "", ["--config", TINY, "--output", str(folder), "--quiet", *OPTIONS]))


@pytest.fixture(scope="module")
def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def settings(tmp_path, *options):
    return parse("audit", "", ["--config", TINY, "--output", str(tmp_path), "--quiet", *options]).settings


def test_every_pair_was_searched_at_the_same_budget(folder):
    searches = json.loads((folder / "searches.json").read_text())
    for name, count in {"attack": 2, "matched_retrain": 2, "identity": 1, "null": 2, "never_trained": 2}.items():
        assert [f"{name}-{repeat}" in searches for repeat in range(3)] == [repeat < count for repeat in range(3)], name
    assert {search["queries"] for search in searches.values() if search["name"] != "prior"} == {128}


def test_pairs_are_what_the_controls_say(run):
    pairs = {(search.name, search.repeat): (search.first, search.second) for search in planned_searches(run)}
    assert pairs["attack", 1] == ("original", "unlearned")
    assert pairs["matched_retrain", 1] == ("original", "retrained-1")
    assert pairs["null", 1] == ("original", "reseeded-1")
    assert pairs["never_trained", 1] == ("retrained-1", "retrained-2")
    assert pairs["wrong_class", 0] == pairs["wrong_class", 1] == ("original", "wrong-class")


def test_models_of_the_controls_are_models_of_their_own(folder):
    names = ("original", "unlearned", "retrained-0", "retrained-1", "retrained-2", "reseeded-0", "reseeded-1")
    weights = [(folder / f"{name}.safetensors").read_bytes() for name in (*names, "wrong-class")]
    assert len(set(weights)) == len(weights)


def test_the_second_model_of_a_pair_is_not_compared_with_f_plus_where_the_control_has_another_first(run):
    models = SearchModels(run)
    inputs = run.data.split("test").inputs[:8]
    first = load_classifier(run, "retrained-0")
    values = models.scorer("retrained-1", "retrained-0").pair.outputs(inputs)
    torch.testing.assert_close(values.original, first(inputs).softmax(1))
    assert not torch.allclose(values.original, models.scorer("retrained-1").pair.outputs(inputs).original)


def test_controls_are_judged_and_compared(metrics):
    for name in ("null", "never_trained", "wrong_class"):
        assert 0 <= metrics["controls"][name]["distribution"]["sr_oracle"] <= 1
        leak = metrics["leakage"][f"excess_{name}"]
        assert leak["low"] <= leak["value"] <= leak["high"]
        assert leak["repeats"] == 2
    assert metrics["controls"]["wrong_class"]["own"]["class"] == "2", "the retained class nearest to 3, the lower one"
    assert metrics["leakage"]["over_forgetting"]["metric"] == "loss_nats"
    assert metrics["inapplicable_controls"] == {}
    assert list(metrics["controls"]) == [
        "prior", "matched_retrain", "identity", "null", "never_trained", "wrong_class", "holdout",
    ]  # fmt: skip


@pytest.mark.parametrize("by", ["score", "likeness"])
def test_p_values_compare_selections_with_selections(folder, metrics, by):
    tensors = load_file(folder / "evaluation.safetensors")
    facts = metrics["significance"][by]
    assert (facts["null_pairs"], facts["null_candidates"], facts["candidates"]) == (2, 32, 32)
    p, q = tensors[f"attack.{by}_p"], tensors[f"attack.{by}_q"]
    assert p.shape == (16,)
    assert float(p.min()) >= 1 / 33 - 1e-6
    assert bool((q >= p - 1e-6).all())
    assert facts["repeats"][0]["smallest_p"] == pytest.approx(float(p.min()))
    assert facts["pair_p"] in (pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0)


def test_groups_of_known_inputs_are_stored(folder, metrics):
    groups = metrics["calibration"]["groups"]
    assert list(groups) == ["forget", "retain", "unseen", "public", "noise", "mixup"]
    tensors = load_file(folder / "evaluation.safetensors")
    for name, facts in groups.items():
        assert facts["count"] == len(tensors[f"traces.{name}.score"])
        assert facts["mean"] == pytest.approx(float(tensors[f"traces.{name}.score"].mean()), abs=1e-5)
        assert facts["q05"] <= facts["q50"] <= facts["q95"]
    curve = metrics["calibration"]["reliability"]
    assert sum(curve["positives"]) == groups["forget"]["count"] + groups["unseen"]["count"]
    assert sum(curve["negatives"]) == groups["retain"]["count"] + groups["public"]["count"]


def test_the_shadow_pair_is_trained_on_one_half_and_forgets_there(run, metrics):
    shadow, records = load_shadow(run), shadow_records(run)
    assert str(shadow.pair.access) == "white"
    first, second = shadow.pair.networks()
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert len(shadow.deleted) + len(shadow.retained) + len(shadow.unseen) + len(shadow.unseen_retained) == 128
    torch.testing.assert_close(shadow.deleted, records.deleted.inputs)
    assert metrics["shadow"]["deletion"] == records.deletion
    assert metrics["shadow"]["deleted"] == len(shadow.deleted)
    assert 0 <= metrics["shadow"]["original_unseen_retained_acc"] <= 1


def test_fitted_weights_are_those_of_every_score(run, folder, metrics):
    stored = json.loads((folder / "trace_weights.json").read_text())
    assert stored == metrics["trace_weights"]
    assert sum(stored["weights"].values()) == pytest.approx(1.0)
    models = SearchModels(run)
    for pair in ((UNLEARNED,), ("reseeded-0",), ("retrained-1", "retrained-0")):
        weights = models.scorer(*pair).weights
        assert {name: getattr(weights, name) for name in stored["weights"]} == stored["weights"]


def test_a_lost_shadow_is_told(run, monkeypatch):
    monkeypatch.setattr("retrace_pl.pipeline.shadow.WEIGHTS", "nothing.safetensors")
    with pytest.raises(RunError, match="run `retrace unlearn` again"):
        load_shadow(run)


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it and tidy up."""


@pytest.mark.parametrize("name", ["shadow-original", "shadow-unlearned"])
def test_a_shadow_training_that_was_cut_off_goes_on(folder, tmp_path, monkeypatch, name):
    copy = Path(shutil.copytree(folder, tmp_path / "run"))
    for file in (*copy.glob("*.safetensors"), copy / "stages" / "unlearn.json"):
        if file.name not in ("original.safetensors", "evaluator.safetensors", "generator.safetensors"):
            file.unlink()
    real, trained = train_stages.fit, []
    bare = ["--audit.controls", "[prior]", "--traces.fit_weights", "true", "--rivals", "[]", "--queries", "128"]
    command = ["unlearn", "--config", TINY, "--output", str(copy), "--quiet", *bare, "--searcher", "RandomSearcher"]

    class Kill(Callback):
        def on_train_batch_end(self, trainer, *arguments):
            if trainer.current_epoch == 1:
                raise Killed

    def fit_and_die(*arguments, **options):
        return real(*arguments, **options | ({"callbacks": [Kill()]} if options["name"] == name else {}))

    def fit_and_watch(*arguments, **options):
        trainer = real(*arguments, **options)
        trained.append((options["name"], trainer.ckpt_path is not None))
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(train_stages, "fit", fit_and_die)
        with pytest.raises(Killed):
            main(command)
    monkeypatch.setattr(train_stages, "fit", fit_and_watch)
    assert main(command) == 0
    assert (name, True) in trained, "it goes on from its last epoch"
    assert (copy / "shadow.safetensors").read_bytes() == (folder / "shadow.safetensors").read_bytes()
    assert not (copy / "checkpoints").exists()


# --- Plans ------------------------------------------------------------------------------------------------------------


def test_an_audit_without_further_controls_trains_nothing_further(tmp_path):
    assert further_models(settings(tmp_path)) == []
    assert retrained_models(settings(tmp_path)) == 2
    assert not needs_shadow(settings(tmp_path))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--audit.controls", "[null]"], [{"reseeded": 2}]),
        (["--audit.controls", "[wrong_class]", "--audit.wrong_class", "7"], [{"wrong_class": [7]}]),
        (["--audit.controls", "[never_trained]"], []),
        (["--traces.fit_weights", "true"], [{"shadow": True}]),
        (["--inferences", '[{"class_path": "retrace_pl.attacks.UnlearningLeaks"}]'], [{"shadow": True}]),
        (["--inferences", '[{"class_path": "retrace_pl.attacks.ClassInference"}]'], []),
    ],
)
def test_further_models_follow_from_the_settings_and_change_the_stage_s_key(tmp_path, options, expected):
    changed = settings(tmp_path, *options)
    assert further_models(changed) == expected
    usual = stage_keys(settings(tmp_path))["unlearn"]
    assert (stage_keys(changed)["unlearn"] == usual) is (options[0] == "--inferences" and not expected)


def test_never_trained_needs_one_retrained_model_more_than_repeats(tmp_path):
    assert retrained_models(settings(tmp_path, "--audit.controls", "[never_trained]")) == 3
    assert retrained_models(settings(tmp_path, "--audit.controls", "[all]")) == 3
    assert retrained_models(settings(tmp_path, "--audit.controls", "[prior]")) == 0


@pytest.fixture
def records_run(tmp_path):
    config = yaml.safe_load(Path(TINY).read_text())
    del config["data"]["init_args"]["forget_class"]
    config["data"]["init_args"]["forget_fraction"] = 0.1
    file = tmp_path / "records.yaml"
    file.write_text(yaml.safe_dump(config))
    options = ["--config", str(file), "--output", str(tmp_path / "run"), "--quiet", "--audit.controls", "[all]"]
    return AuditRun.start(parse("audit", "", options))


def test_deleted_records_have_no_wrong_class_and_the_reason_is_recorded(records_run):
    [(name, reason)] = inapplicable_controls(records_run).items()
    assert name == "wrong_class"
    assert "no other class" in reason
    assert control_pairs(records_run, "wrong_class") == []
    assert "wrong_class" not in {search.name for search in planned_searches(records_run)}


def test_a_wrong_class_that_is_deleted_anyway_is_refused(tmp_path, capsys):
    options = ["--audit.controls", "[wrong_class]", "--audit.wrong_class", "3", "--classifier.epochs", "1"]
    command = ["audit", "--config", TINY, "--output", str(tmp_path / "run"), "--quiet", "--evaluator.epochs", "1"]
    assert main([*command, *options, "--generator.epochs", "1"]) == 2
    assert "audit.wrong_class: class '3' is deleted by the audit itself" in capsys.readouterr().err


def test_unknown_classes_are_refused(run):
    from retrace_pl.data.second_deletion import other_class

    with pytest.raises(InputError, match=r"audit\.wrong_class"):
        other_class(run.data, 77)
