import pytest

from retrace_pl.errors import RunError
from retrace_pl.tuning.evaluation import evaluate_seed, summarise
from retrace_pl.tuning.objective import WORST, differences, distance

RETRAINED = {"retain_acc": 0.95, "forget_acc": 0.0, "test_acc": 0.85, "mia_auc": 0.5}


def row(seed, failure=None, **measures):
    quality = RETRAINED | measures
    gaps = differences(quality, RETRAINED)
    result = {"seed": seed, "reference": RETRAINED, "failure": failure}
    return result | {"quality": quality, "differences": gaps, "distance": distance(gaps), "seconds": float(seed)}


def test_the_verdict_is_that_of_the_mean():
    summary = summarise([row(1, forget_acc=0.15), row(3, forget_acc=0.03)])
    assert summary["quality"]["forget_acc"] == pytest.approx(0.09)
    assert summary["distance"] == pytest.approx(0.09)
    assert summary["seconds"] == 2
    assert summary["reaches"]
    assert not summarise([row(1, forget_acc=0.15), row(3, forget_acc=0.15)])["reaches"]


def test_gaps_of_opposite_sign_do_not_cancel_in_the_distance():
    summary = summarise([row(0, mia_auc=0.4), row(1, mia_auc=0.6)])
    assert summary["differences"]["mia_auc"] == pytest.approx(0)
    assert summary["distance"] == pytest.approx(0.1)


def test_a_seed_that_failed_fails_the_whole():
    summary = summarise([row(0), row(1, failure="RunError: diverged")])
    assert not summary["reaches"]
    assert summary["shortcomings"] == ["seed 1: RunError: diverged"]
    assert summary["distance"] == WORST
    assert "quality" not in summary


class Unlucky:
    """Its original model cannot be trained."""

    seed, reference = 0, RETRAINED

    @property
    def original(self):
        raise RunError("no space left")


def test_models_that_cannot_be_trained_are_no_failure_of_the_method():
    with pytest.raises(RunError, match="no space left"):
        evaluate_seed({"class_path": "Identity"}, "identity", Unlucky())


def test_one_run(settings):
    result = evaluate_seed({"class_path": "Identity"}, "identity", settings[0])
    assert result["quality"] == settings[0].original_quality
    assert result["failure"] is None
    broken = evaluate_seed({"class_path": "NoSuchMethod"}, "none", settings[0])
    assert "NoSuchMethod" in broken["failure"]
