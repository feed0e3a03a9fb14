import math

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from retrace_pl.report import LatentMap, RunData, write_evaluation_log
from retrace_pl.report.evaluation_log import EVALUATION_LOG
from retrace_pl.report.tensorboard_tags import described

KINDS = {"scalars": "scalar", "histograms": "histogram", "tensors": "layout"}


def read(folder):
    """Every run below a folder by name."""
    root = folder / EVALUATION_LOG
    places = sorted({path.parent for path in root.rglob("events.*")})
    return {"/".join(place.relative_to(root).parts): EventAccumulator(str(place)).Reload() for place in places}


def last(events, tag):
    return [event.value for event in events.Scalars(tag)]


@pytest.fixture
def log(make_run):
    folder = make_run()
    files = write_evaluation_log(RunData.load(folder))
    return folder, files, read(folder)


def test_every_arm_and_every_model_is_a_run(log):
    _, files, runs = log
    arms = {"attack", "prior", "matched_retrain", "identity", "holdout", "random"}
    assert set(runs) == {"", *arms, "original", "unlearned", "retrained"}
    assert len(files) == len(runs)


def test_metrics_have_the_repeat_as_their_step(log):
    events = log[2]["attack"].Scalars("evaluate/sr_oracle")
    assert [event.step for event in events] == [0, 1, 2]
    assert events[0].value == pytest.approx(0.95)
    assert last(log[2]["prior"], "evaluate/sr_oracle")[0] == pytest.approx(0.08)
    assert not any("interval" in tag for tag in log[2]["attack"].Tags()["scalars"])


def test_leakage_calibration_and_quality(log):
    runs = log[2]
    assert [last(runs[""], f"leakage/excess/{end}") for end in ("value", "low", "high")] == [
        [pytest.approx(0.87)],
        [pytest.approx(0.79)],
        [pytest.approx(0.94)],
    ]
    assert last(runs[""], "calibration/auroc/gradient") == [pytest.approx(0.871)]
    assert last(runs["unlearned"], "quality/retain_acc") == [pytest.approx(0.981)]
    assert last(runs["original"], "quality/forget_acc") == [1.0]


def test_histograms_of_the_traces(log):
    events = log[2][""]
    assert len(events.Tags()["histograms"]) == 3 * 4
    histogram = events.Histograms("traces/loss/forget")[0].histogram_value
    assert histogram.num == 200
    assert histogram.sum / histogram.num == pytest.approx(9.0 * 0.8, rel=0.05)


def test_every_entry_is_described(log):
    for name, events in log[2].items():
        for group, kind in KINDS.items():
            for tag in events.Tags()[group]:
                assert described("evaluation" + (f"/{name}" if name else ""), tag, kind), (name, tag)


def test_what_is_missing_is_left_out_and_an_earlier_log_is_replaced(log, metrics):
    folder = log[0]
    metrics["attack"]["repeats"][0]["distribution"]["mse"] = math.nan
    metrics["attack"]["repeats"][1]["distribution"]["ssim"] = None
    metrics["leakage"] |= {"avoidable": None, "record": {"value": 0.1, "low": None, "high": None}}
    metrics["controls"] = {"prior": metrics["controls"]["prior"], "odd": "not a mapping"}
    metrics["rivals"] = {"sac": {"applicable": False, "reason": "no actions"}}
    metrics["retrained"] = None
    write_evaluation_log(RunData(folder, metrics))
    runs = read(folder)
    assert set(runs) == {"", "attack", "prior", "original", "unlearned"}
    assert [event.step for event in runs["attack"].Scalars("evaluate/mse")] == [1, 2]
    assert [event.step for event in runs["attack"].Scalars("evaluate/ssim")] == [0, 2]
    tags = runs[""].Tags()
    assert [tag for tag in tags["scalars"] if "record" in tag] == ["leakage/record/value"]
    assert not any("avoidable" in tag for tag in tags["scalars"])
    assert tags["histograms"] == []


def test_the_latents_lie_beside_the_event_file(make_run):
    folder = make_run()
    rows = (("attack-0", "queried", "0.5", "", "1", ""), ("prior-0", "selected", "", "1", "", ""))
    latents = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    files = write_evaluation_log(RunData.load(folder), LatentMap(latents, rows, torch.rand(2, 1, 8, 8)))
    root = folder / EVALUATION_LOG
    names = {path.name for path in files}
    assert {"projector_config.pbtxt", "tensors.tsv", "metadata.tsv", "sprite.png"} <= names
    config = (root / "projector_config.pbtxt").read_text()
    assert 'tensor_path: "00000/latents/tensors.tsv"' in config
    assert "single_image_dim: 8" in config
    place = root / "00000" / "latents"
    assert (place / "metadata.tsv").read_text().splitlines() == [
        "search\tkind\tscore\toutcome\tquery",
        "attack-0\tqueried\t0.5\t\t1",
        "prior-0\tselected\t\t1\t",
    ]
    points = [[float(cell) for cell in line.split("\t")] for line in (place / "tensors.tsv").read_text().splitlines()]
    assert points == latents.tolist()
    with Image.open(place / "sprite.png") as sheet:
        assert sheet.size == (16, 16)
