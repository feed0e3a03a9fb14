import copy
import json

import pytest

from retrace_pl.audit import Kind, Status, VerdictThresholds, decide, lookup, not_finite

BASE = {
    "models": {"evaluator": {"test_acc": 0.97}},
    "original": {"forget_acc": 0.99},
    "calibration": {"auroc": {"prediction": 0.99, "loss": 0.98, "gradient": None, "score": 0.99}},
    "attack": {"instance": {"sr_oracle": 1.0}, "score_spread": 0.8},
    "floors": {"heldout_sr_oracle": 0.95},
    "controls": {"identity": {"max_trace": 0.0, "score_spread": 0.0}},
    "leakage": {
        "excess": {"value": 0.8, "low": 0.7, "high": 0.9, "metric": "sr_oracle"},
        "avoidable": {"value": 0.02, "low": -0.05, "high": 0.1, "metric": "sr_oracle"},
        "record": {"value": 0.01, "low": -0.02, "high": 0.04, "metric": "relative_nearest_mse"},
        "excess_null": {"value": 0.7, "low": 0.4, "high": 0.9, "metric": "sr_oracle", "repeats": 3},
        "excess_never_trained": {"value": 0.6, "low": 0.3, "high": 0.8, "metric": "sr_oracle", "repeats": 3},
        "excess_wrong_class": {"value": 0.5, "low": 0.2, "high": 0.7, "metric": "sr_oracle", "repeats": 3},
        "over_forgetting": {"value": 0.4, "low": -0.5, "high": 1.3, "metric": "loss_nats", "repeats": 3},
    },
}


def changed(**paths):
    metrics = copy.deepcopy(BASE)
    for path, value in paths.items():
        *parents, last = path.split("__")
        node = metrics
        for key in parents:
            node = node[key]
        node[last] = value
    return metrics


@pytest.mark.parametrize(
    ("metrics", "status", "words"),
    [
        (BASE, Status.LEAK, "a perfect retrain leaks as much"),
        (changed(leakage__avoidable__low=0.01), Status.LEAK, "avoidable by better unlearning"),
        (changed(leakage__avoidable__high=-0.01), Status.LEAK, "a perfect retrain leaks even more"),
        (changed(leakage__avoidable=None), Status.LEAK, "matched retrain did not run"),
        (changed(leakage__excess__low=0.0), Status.NO_EVIDENCE, "does not exceed"),
        (changed(leakage__excess__low=-0.2, leakage__excess__high=-0.1), Status.NO_EVIDENCE, "did worse"),
        (changed(attack__score_spread=0.0), Status.NO_EVIDENCE, "indistinguishable through this access"),
        (changed(leakage__excess_null__low=-0.1), Status.NO_EVIDENCE, "differ by their seeds alone"),
        (changed(leakage__excess_never_trained__low=0.0), Status.NO_EVIDENCE, "never saw the deleted data"),
        (changed(leakage__excess_wrong_class__low=-0.3), Status.NO_EVIDENCE, "nothing says which"),
        (changed(leakage__excess__low=-0.1, leakage__record__low=0.1), Status.NO_EVIDENCE, "does not exceed"),
        (
            changed(leakage__excess_null__low=-0.1, leakage__over_forgetting__low=2.0),
            Status.LEAK,
            "worse on the deleted records than models that never saw them",
        ),
        (changed(leakage__excess=None), Status.INVALID, "prior control did not run"),
        (changed(models__evaluator__test_acc=0.69), Status.INVALID, "only 69% of unseen images"),
        (changed(floors__heldout_sr_oracle=0.49), Status.INVALID, "recognises only 49%"),
        (changed(original__forget_acc=0.1), Status.INVALID, "nothing to forget"),
        (changed(controls__identity__max_trace=0.01), Status.INVALID, "instrument is at fault"),
        (changed(attack__instance__sr_oracle=float("nan")), Status.INVALID, "attack.instance.sr_oracle"),
        (changed(attack__instance__sr_oracle=float("inf")), Status.INVALID, "not a finite number"),
        ({}, Status.INVALID, "prior control did not run"),
    ],
)
def test_truth_table(metrics, status, words):
    verdict = decide(metrics)
    assert verdict.status is status
    assert words in verdict.reason
    assert verdict.reason.count("\n") == 0
    assert verdict.reason.endswith(".")


@pytest.mark.parametrize(
    ("metrics", "kinds"),
    [
        (BASE, [Kind.CLASS]),
        (changed(leakage__record__low=0.1), [Kind.CLASS, Kind.RECORD]),
        (changed(leakage__over_forgetting__low=0.1), [Kind.CLASS, Kind.OVER_FORGETTING]),
        (changed(leakage__over_forgetting__low=0.1, leakage__over_forgetting__repeats=1), [Kind.CLASS]),
        (changed(leakage__excess__low=-1.0, leakage__over_forgetting__low=0.1), [Kind.OVER_FORGETTING]),
        (BASE | {"setting": {"deletion": "records"}}, [Kind.DISTRIBUTION]),
        (
            changed(leakage__excess__low=-1.0, leakage__record__low=0.1) | {"setting": {"deletion": "records"}},
            [Kind.RECORD],
        ),
        (changed(leakage__excess__low=-1.0, leakage__record__low=0.1), []),
        (changed(leakage__excess_null=None, leakage__excess_wrong_class=None), [Kind.CLASS]),
        (changed(leakage__record__low=0.1, attack__score_spread=0.0), []),
        (changed(leakage__record__low=0.1, original__forget_acc=0.1), []),
    ],
)
def test_what_leaks(metrics, kinds):
    verdict = decide(metrics)
    assert list(verdict.kinds) == kinds
    assert (verdict.status is Status.LEAK) is bool(kinds)
    assert ("nearer to the deleted records" in verdict.reason) is (Kind.RECORD in kinds)


def test_without_a_null_pair_training_noise_is_not_ruled_out():
    assert "Training noise is not ruled out" in decide(changed(leakage__excess_null=None)).reason
    assert "than what training noise yields" in decide(BASE).reason


def test_thresholds_of_records_and_over_forgetting():
    metrics = changed(leakage__record__low=0.1, leakage__over_forgetting__low=2.0)
    strict = VerdictThresholds(min_record=0.2, min_over_forgetting=3.0)
    assert decide(metrics, strict).kinds == (Kind.CLASS,)
    assert decide(metrics | {"thresholds": {"min_record": 0.2}}).kinds == (Kind.CLASS, Kind.OVER_FORGETTING)


def test_a_broken_instrument_outranks_a_leak_and_a_constant_score():
    metrics = changed(controls__identity__max_trace=0.3, attack__score_spread=0.0)
    assert decide(metrics).status is Status.INVALID


def test_constant_calibration_stands_in_for_a_missing_spread():
    metrics = changed(calibration__auroc={"prediction": 0.5, "loss": 0.5, "gradient": None, "score": 0.5})
    del metrics["attack"]["score_spread"]
    assert decide(metrics).status is Status.NO_EVIDENCE
    metrics["calibration"]["auroc"]["loss"] = 0.51
    assert decide(metrics).status is Status.LEAK


def test_thresholds_can_be_set():
    strict = VerdictThresholds(min_excess=0.75, min_evaluator_accuracy=0.9)
    assert decide(BASE, strict).status is Status.NO_EVIDENCE
    assert decide(BASE, VerdictThresholds(min_evaluator_accuracy=0.98)).status is Status.INVALID


def test_reproducible_from_the_written_file():
    assert decide(json.loads(json.dumps(BASE))) == decide(BASE)


def test_sentence_gives_points_and_interval():
    reason = decide(BASE).reason
    assert "+80 percentage points" in reason
    assert "95% interval +70 to +90" in reason


def test_other_metrics_get_their_own_words():
    metrics = changed(leakage__excess={"value": 0.01, "low": 0.005, "high": 0.02, "metric": "mse"})
    assert "closer to the deleted data" in decide(metrics).reason


def test_checks_are_listed_with_values():
    checks = {check.name: check for check in decide(BASE).checks}
    assert checks["evaluator accuracy on unseen images"].value == 0.97
    assert checks["lower end of the excess over the null pair"].value == 0.4
    failed = [name for name, check in checks.items() if not check.passed]
    assert failed == [
        "lower end of the record leakage interval",
        "lower end of the over-forgetting interval, in nats",
    ], "they decide what leaks, not whether"
    assert all(check.passed is None or check.name for check in decide({}).checks)


def test_lookup():
    assert lookup({"a": {"b": 1}}, "a.b") == 1
    assert lookup({"a": {"b": 1}}, "a.c.d") is None
    assert lookup({"a": None}, "a.b") is None


def test_values_that_json_cannot_hold_are_remembered():
    metrics = changed(attack__instance__sr_oracle=float("nan"))
    assert not_finite(metrics) == ["attack.instance.sr_oracle"]
    assert not_finite(BASE) == []
    written = changed(attack__instance__sr_oracle=None) | {"not_finite": not_finite(metrics)}
    assert decide(json.loads(json.dumps(written))).reason == decide(metrics).reason
