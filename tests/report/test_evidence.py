"""Calibration, p-values, kinds of leak and further controls in the report."""

import re

import pytest
import torch

from retrace_pl.audit import Status
from retrace_pl.report import RunData, write_report
from retrace_pl.report.calibration import calibration_page
from retrace_pl.report.significance import kind_words, significance_sentences
from retrace_pl.report.tables import leakage_rows
from retrace_pl.traces import reliability, score_groups

from .conftest import make_metrics, make_tensors


def evidence(metrics):
    draws = torch.rand(400, generator=torch.Generator().manual_seed(0))
    groups = {"noise": 0.2 * draws, "forget": 0.6 + 0.4 * draws, "retain": 0.5 * draws, "public": 0.4 * draws}
    curve = reliability(groups["forget"], groups["retain"]).as_dict()
    metrics["calibration"] |= {"groups": score_groups(groups), "reliability": curve}
    metrics["calibration"]["tpr_by_signal"] = {"prediction": 0.91, "loss": 0.9, "gradient": None}
    counts = {"level": 0.05, "candidates": 192, "null_candidates": 192, "null_pairs": 3}
    metrics["significance"] = {
        "score": counts | {"significant": 0, "significant_and_recognised": 0, "pair_p": 0.5},
        "likeness": counts | {"significant": 120, "significant_and_recognised": 113, "pair_p": 0.25},
    }
    metrics["verdict_kinds"] = ["class", "over_forgetting"]
    leak = {"value": 0.7, "low": 0.4, "high": 0.9, "metric": "sr_oracle", "level": 0.95, "repeats": 3, "note": ""}
    metrics["leakage"] |= {"excess_null": leak, "excess_wrong_class": None}
    metrics["controls"]["never_trained"] = metrics["controls"]["identity"]
    metrics["inapplicable_controls"] = {"wrong_class": "single records were deleted"}
    return metrics


@pytest.fixture
def full(make_run):
    tensors = make_tensors() | {
        "attack.score_p": torch.full((64,), 0.42),
        "attack.likeness_p": torch.full((64,), 0.0052),
    }
    return make_run(metrics=evidence(make_metrics()), tensors=tensors)


def test_everything_is_on_the_page(full):
    text = write_report(full).read_text(encoding="utf-8")
    visible = " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL).split())
    for words in (
        "Leak: the deleted class, forgotten too much",
        "Candidate by candidate",
        "120 of 192 candidates resemble the deleted data more than training noise explains",
        "the evaluator recognises 113 of them. Pair as a whole: p = 0.25.",
        "0 of 192 candidates have a trace larger than training noise explains (q ≤ 0.05, Benjamini and Hochberg). Pair",
        "no p-value below 0.25 is possible with 3 null pairs",
        "p(s) 0.42",
        "p(like) 0.005",
        "Excess over null",
        "(does not apply: single records were deleted)",
        "The score on inputs whose answer is known.",
        "Retained records",
        "Noise",
        "Found at 1% false alarms",
    ):
        assert words in visible, words
    assert "Fitted weight" not in visible
    assert "Excess over wrong class" not in visible


def test_a_run_without_evidence_has_none_of_it(make_run):
    text = write_report(make_run()).read_text(encoding="utf-8")
    for words in ("Candidate by candidate", "Calibration</h3>", "Excess over null", "does not apply"):
        assert words not in text
    run = RunData.load(make_run())
    assert calibration_page(run) is None
    assert significance_sentences(run) == []
    assert kind_words(run) == ""


def test_groups_come_in_the_order_of_the_page_with_their_numbers(full):
    page = calibration_page(RunData.load(full))
    assert [row.title for row in page.groups] == ["Deleted records", "Retained records", "Public records", "Noise"]
    assert page.groups[0].count == "400"
    assert float(page.groups[0].quantiles[2]) == pytest.approx(0.8, abs=0.03)
    assert [row.tpr for row in page.signals] == ["91%", "90%", "not applicable", "93%"]
    assert len(page.figures) == 2
    assert "0.9 to 1.0: 100%" in page.figures[1].alt


def test_fitted_weights_and_the_shadow_are_told(full):
    run = RunData.load(full)
    run.metrics["trace_weights"] = {"weights": {"prediction": 0.2, "loss": 0.0, "gradient": 0.8}}
    run.metrics["shadow"] = {"deletion": "class 8, drawn at random", "deleted": 20, "retained": 180, "unseen": 19}
    page = calibration_page(run)
    assert page.fitted
    assert [row.weight for row in page.signals] == ["0.20", "0.00", "0.80", ""]
    assert "deleted class 8, drawn at random: 20 records of 200" in page.shadow


def test_without_a_judge_the_score_s_p_values_stand_alone(full):
    run = RunData.load(full)
    del run.metrics["significance"]["likeness"]
    first, second = significance_sentences(run)
    assert first.startswith("0 of 192 candidates have a trace larger")
    assert "compared with the 192 candidates" in second


def test_kinds_are_shown_only_for_a_leak(make_run):
    metrics = evidence(make_metrics()) | {"verdict": Status.NO_EVIDENCE.value}
    text = write_report(make_run(metrics=metrics)).read_text(encoding="utf-8")
    assert "<strong>No evidence of a leak</strong>" in text


def test_the_wrong_class_is_named_with_how_often_it_was_found(make_run):
    metrics = evidence(make_metrics()) | {"inapplicable_controls": {}}
    own = {"class": "2", "sr_oracle": 0.97, "interval": [0.93, 0.99]}
    metrics["controls"]["wrong_class"] = metrics["controls"]["identity"] | {"own": own}
    text = write_report(make_run(metrics=metrics)).read_text(encoding="utf-8")
    assert "It deleted 2, which 97% of its own candidates show." in text


def test_leakage_rows_name_what_each_excess_is_over(full):
    rows = {row.title: row for row in leakage_rows(RunData.load(full))}
    assert rows["Excess over null"].value == "+0.700"
    assert rows["Excess over null"].reading == "above zero"
    assert "Over-forgetting" not in rows
