"""The verdict on pairs whose answer is known: a leak on digits, and nothing on an identity pair and on a null pair."""

from pathlib import Path

import pytest

from retrace_pl.audit import Status, decide
from retrace_pl.pipeline.api import Audit
from retrace_pl.pipeline.config import STAGES

pytestmark = pytest.mark.timeout(900)  # the first test trains what all of them share

CONFIG = Path(__file__).parents[2] / "configs" / "audit" / "digits.yaml"
SETTINGS = {
    "access": "black",
    "queries": 4096,
    "rivals": [],
    "baselines": [],
    "inferences": [],
    "classifier.epochs": 10,
    "evaluator.epochs": 10,
    "generator.epochs": 20,
    "attack.refinement_steps": 0,
    "audit.controls": ["identity", "prior", "null"],
    "audit.bootstrap_samples": 1000,
}
METHODS = {
    "leak": {},
    "identity": {"unlearning": "Identity"},
    "null": {"unlearning": "retrace_pl.unlearning.train_again.TrainAgain"},
}


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """Runs an audit, with models and searches shared by all of them."""
    folder, done = tmp_path_factory.mktemp("digits"), {}

    def audit(name):
        if name not in done:
            settings = SETTINGS | METHODS[name]
            done[name] = (
                Audit.from_config(CONFIG, folder / name, settings, cache=folder / "cache").run(STAGES[:-1]).metrics
            )
        return done[name]

    return audit


def test_a_class_deleted_by_negative_gradient_leaks(audited):
    metrics = audited("leak")
    assert metrics["verdict"] == Status.LEAK
    assert metrics["verdict_kinds"] == ["class"]
    assert metrics["leakage"]["excess"]["low"] > 0.1
    assert metrics["leakage"]["excess_null"]["low"] > 0
    assert "than what training noise yields" in metrics["verdict_reason"]
    assert metrics["unlearning"]["forget_acc"] < 0.1, "the method did forget"
    assert metrics["unlearning"]["retain_acc"] > 0.85


def test_the_leak_shows_candidate_by_candidate(audited):
    likeness = audited("leak")["significance"]["likeness"]
    assert likeness["significant"] > 0.04 * likeness["candidates"]
    assert likeness["significant_and_recognised"] > 0.6 * likeness["significant"]
    assert likeness["pair_p"] == 0.25, "above all three null pairs"


def test_a_model_compared_with_itself_is_no_evidence(audited):
    metrics = audited("identity")
    assert metrics["verdict"] == Status.NO_EVIDENCE
    assert metrics["verdict_kinds"] == []
    assert metrics["attack"]["score_spread"] == 0
    assert metrics["significance"]["score"]["significant"] == 0


def test_two_models_that_differ_by_their_seeds_are_no_evidence(audited):
    metrics = audited("null")
    assert metrics["setting"]["unlearning"] == "TrainAgain"
    assert metrics["unlearning"]["forget_acc"] > 0.9, "nothing was forgotten"
    assert metrics["attack"]["score_spread"] > 0.1, "the two models do differ"
    assert metrics["verdict"] == Status.NO_EVIDENCE
    assert metrics["leakage"]["excess_null"]["low"] <= 0
    for by in ("score", "likeness"):
        facts = metrics["significance"][by]
        assert facts["significant"] <= 0.05 * facts["candidates"], by


@pytest.mark.parametrize("name", METHODS)
def test_the_verdict_follows_from_the_stored_numbers(audited, name):
    metrics = audited(name)
    again = decide(metrics)
    assert (str(again.status), again.reason) == (metrics["verdict"], metrics["verdict_reason"])
    assert [str(kind) for kind in again.kinds] == metrics["verdict_kinds"]
