import importlib.util
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from retrace_pl.arena.tensorboard import FOLDER, write_hparams

spec = importlib.util.spec_from_file_location("arena_synthetic", Path(__file__).parent / "synthetic.py")
synthetic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(synthetic)
record, cell_id = synthetic.record, synthetic.cell_id


def iterate(domain):
    return [getattr(value, value.WhichOneof("kind")) for value in domain.values]


def read(folder):
    """Hyperparameters and metrics that TensorBoard finds in a run."""
    events = EventAccumulator(str(folder))
    events.Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    settings = {
        name: getattr(value, value.WhichOneof("kind")) if value.WhichOneof("kind") else None
        for name, value in start.hparams.items()
    }
    content = events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment
    named = {info.name.tag for info in experiment.metric_infos}
    scalars = {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert named >= set(scalars)
    described = {info.name: info for info in experiment.hparam_infos}
    assert all(value in iterate(described[name].domain_discrete) for name, value in settings.items())
    return settings, scalars, named


def test_hyperparameters_and_metrics_of_a_cell(tmp_path):
    write_hparams(tmp_path, [record("scrub", 2, "white", strength=0.5, avoidable=0.25)])
    settings, scalars, _ = read(tmp_path / FOLDER / cell_id("scrub", 0.5, 2, access="white"))
    assert settings == {
        "method": "scrub",
        "strength": 0.5,
        "seed": 2,
        "forget_class": "3",
        "access": "white",
        "attack": "ppo",
        "status": "done",
    }
    assert scalars["arena/avoidable"] == [pytest.approx(0.25)]
    assert scalars["arena/excess"] == [pytest.approx(0.75)]
    assert scalars["arena/retain_acc"] == [pytest.approx(0.97)]
    assert scalars["arena/utility_gap"] == [pytest.approx(0.01)]
    assert scalars["arena/prior_success"] == [pytest.approx(0.1)]
    assert "arena/cost" not in scalars


def test_figures_that_are_missing_are_left_out_and_failed_cells_are_there(tmp_path):
    odd = record("odd", avoidable=None, forget_class=None)
    odd.unlearning["retain_acc"] = float("nan")
    write_hparams(tmp_path, [odd, record("gone", error="broke")])
    settings, scalars, _ = read(tmp_path / FOLDER / odd.id)
    assert settings["forget_class"] == ""
    assert not {"arena/avoidable", "arena/retain_acc", "arena/utility_gap"} & set(scalars)
    assert scalars["arena/forget_acc"] == [0.0]
    settings, scalars, _ = read(tmp_path / FOLDER / cell_id("gone"))
    assert (settings["status"], scalars) == ("failed", {})


def test_every_run_describes_the_columns_of_all(tmp_path):
    write_hparams(tmp_path, [record("gone", error="broke"), record("a")])
    assert len(read(tmp_path / FOLDER / cell_id("gone"))[2]) == len(read(tmp_path / FOLDER / cell_id("a"))[1]) > 20


def test_a_second_call_replaces_the_first_and_touches_nothing_else(tmp_path):
    write_hparams(tmp_path, [record("a", avoidable=0.1), record("b")])
    other = tmp_path / FOLDER / cell_id("b") / "notes.txt"
    other.write_text("mine")
    write_hparams(tmp_path, [record("a", avoidable=0.4)])
    files = sorted(path.relative_to(tmp_path / FOLDER) for path in (tmp_path / FOLDER).rglob("*") if path.is_file())
    assert len(files) == 2
    assert other.read_text() == "mine"
    _, scalars, _ = read(tmp_path / FOLDER / cell_id("a"))
    assert scalars["arena/avoidable"] == [pytest.approx(0.4)]
