import json

import pytest
import torch
from torch import nn

from retrace_pl.cli import main
from retrace_pl.errors import InputError
from retrace_pl.pipeline.config import TraceSettings
from retrace_pl.pipeline.parsing import parse
from retrace_pl.pipeline.runner import stage_keys
from retrace_pl.pipeline.scoring import build_scorer, describe_scorer, trace_key, ways_to_run
from retrace_pl.traces import DirectionalScorer, FixedQuantile, ModelPair, TraceScorer, TraceWeights


class Fixed(nn.Module):
    """Always the logits of the input, with one class taken away."""

    def __init__(self, gone=None):
        super().__init__()
        self.gone = gone

    def forward(self, x):
        logits = 4 * x
        if self.gone is not None:
            logits = logits.index_fill(1, torch.tensor([self.gone]), -9.0)
        return logits


def scorer(gone=1, deletion="class", **settings):
    chosen = TraceSettings(normaliser=FixedQuantile(), **settings)
    built = build_scorer(chosen, ModelPair(Fixed(), Fixed(gone)), TraceWeights(), deletion)
    built.fit(torch.eye(3).repeat(5, 1))
    return built


def test_the_setting_chooses_the_score():
    assert type(scorer()) is TraceScorer
    found = scorer(signal="directional", batch_size=7)
    assert isinstance(found, DirectionalScorer)
    assert found.classes == (1,)
    assert found.batch_size == 7
    assert scorer(signal="directional", deletion="records").classes == ()


def test_every_score_says_what_it_measures():
    assert describe_scorer(scorer()) == "gap: any difference between the two models"
    names = ("shirt", "bag")
    directional = scorer(signal="directional")
    assert describe_scorer(directional, names) == "directional: towards bag, inferred from public records"
    assert "towards 1," in describe_scorer(directional)
    assert describe_scorer(scorer(gone=None, signal="directional")) == "directional: no class stands out"
    assert "own labels" in describe_scorer(scorer(signal="directional", deletion="records"))


def test_a_directional_score_has_no_other_sign():
    with pytest.raises(InputError, match=r"traces\.sign"):
        TraceSettings(signal="directional", sign="paper_literal")


def test_ways_to_run_the_models_are_those_of_a_pair():
    settings = TraceSettings(memory_format="channels_last", autocast="bfloat16")
    pair = ModelPair(nn.Conv2d(1, 3, 1), nn.Conv2d(1, 3, 1), **ways_to_run(settings))
    assert (pair._execution.memory_format, pair._execution.autocast, pair._execution.compile) == (
        "channels_last",
        "bfloat16",
        False,
    )


def test_a_way_that_rounds_has_results_of_its_own_and_the_default_those_of_earlier_versions(tiny, tmp_path):
    def settings(*options):
        return parse("audit", "", ["--config", tiny, "--output", str(tmp_path), *options]).settings

    usual = settings()
    earlier = usual | {
        "traces": {name: value for name, value in usual["traces"].items() if name not in ("autocast", "compile")}
    }
    assert trace_key(usual["traces"]) == earlier["traces"]
    assert stage_keys(usual) == stage_keys(earlier)
    for options in (("--traces.autocast", "bfloat16"), ("--traces.compile", "true")):
        changed = stage_keys(settings(*options))
        assert [stage for stage, key in stage_keys(usual).items() if key != changed[stage]] == [
            "attack",
            "evaluate",
            "report",
        ]


def test_an_audit_with_the_directional_score(tiny, tmp_path, capsys):
    arguments = ["audit", "--config", tiny, "--output", str(tmp_path), "--traces.signal", "directional"]
    assert main([*arguments, "--access", "black"]) == 0
    printed = " ".join(capsys.readouterr().err.split())
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["setting"]["signal"] == "directional"
    assert metrics["calibration"]["trace"].startswith("directional: towards 3, inferred from public records")
    assert f"trace calibration ({metrics['calibration']['trace']})" in printed
    assert metrics["calibration"]["trace"] in (tmp_path / "report.html").read_text()
    assert metrics["calibration"]["auroc"]["prediction"] == metrics["calibration"]["auroc"]["score"]
    identity = metrics["controls"]["identity"]
    assert identity["max_trace"] == identity["score_spread"] == 0
