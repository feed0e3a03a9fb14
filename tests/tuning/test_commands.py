"""`retrace tune` as users run it."""

import json

import pytest
import yaml

from retrace_pl.cli import main
from retrace_pl.tuning import commands
from retrace_pl.tuning.objective import WORST
from retrace_pl.tuning.setting import open_settings
from retrace_pl.tuning.target import build_method, read_preset
from retrace_pl.unlearning import NegativeGradient, UnlearningMethod

NEGGRAD = {"class_path": "NegativeGradient", "init_args": {"epochs": 2, "lr": 0.01, "batch_size": 64}}


class Hopeless(UnlearningMethod):
    """Always fails."""

    def edit(self, model, retain_loader, forget_loader):
        raise ZeroDivisionError("as always")


@pytest.fixture
def arguments(tiny, tuning_folder, tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(NEGGRAD))
    (tmp_path / "hopeless.yaml").write_text(yaml.safe_dump({"class_path": f"{__name__}.Hopeless"}))
    base = ["tune", "--config", tiny, "--audit.repeats", "1", "--seeds", "[100,101]", "--folder", str(tuning_folder)]
    return [*base, "--trials", "2"]


def test_the_preset_builds_the_method_and_repeats_what_its_comment_says(
    arguments, tiny, tuning_folder, tmp_path, capsys
):
    file = tmp_path / "new" / "tuned.yaml"
    options = [*arguments, "--method", str(tmp_path / "mine.yaml"), "--output", str(file), "--json"]
    assert main(options) == 0
    report = json.loads(capsys.readouterr().out)
    row = report["methods"]["mine"]
    assert (report["config"], report["seeds"], row["preset"]) == ("digits_tiny", [100, 101], str(file))
    method = build_method(read_preset(file), "tuned")
    assert isinstance(method, NegativeGradient)
    assert {knob: getattr(method, knob) for knob in row["knobs"]} == row["knobs"]
    assert method.batch_size == 64
    (first, second) = open_settings([f"--config={tiny}", "--audit.repeats=1"], [100, 101], tuning_folder, quiet=True)
    rows = [setting.quality(setting.unlearn(method)) for setting in (first, second)]
    assert {name: (rows[0][name] + rows[1][name]) / 2 for name in rows[0]} == pytest.approx(row["quality"])
    comment = " ".join(line.lstrip("# ") for line in file.read_text().splitlines() if line.startswith("#"))
    assert "digits_tiny: digits, SmallCNN width 8, deleted: class 3" in comment
    assert "2 trials; seeds 100, 101" in comment
    assert f"mean over the seeds: {row['distance']:.3f}" in comment
    assert f"retain_acc {row['quality']['retain_acc']:.3f} / {row['reference']['retain_acc']:.3f}" in comment
    before = file.read_text()
    assert main(options) == 0
    assert file.read_text() == before, "a finished search only writes its preset again"


def test_several_methods_give_a_table_and_one_that_fails_spares_the_others(arguments, tmp_path, capsys):
    methods = ["--method", str(tmp_path / "hopeless.yaml"), "--method", str(tmp_path / "mine.yaml")]
    assert main([*arguments, *methods, "--output", str(tmp_path / "presets")]) == 0
    shown = capsys.readouterr().out
    assert [path.name for path in (tmp_path / "presets").iterdir()] == ["mine.yaml"]
    assert "as always" in shown
    assert "distance" in shown
    assert "retrained" in shown
    assert str(tmp_path / "presets" / "mine.yaml") in shown.replace("\n", "")


def test_a_single_method_that_always_fails_is_a_failed_run(arguments, tmp_path, capsys):
    code = main([*arguments, "--method", str(tmp_path / "hopeless.yaml"), "--output", str(tmp_path)])
    shown = capsys.readouterr().err
    assert code == 1
    assert shown.count("\n") == 1
    assert "none of 2 trials succeeded" in shown
    assert "as always" in shown


def test_all_is_every_method_with_a_knob(arguments, tmp_path, monkeypatch, capsys):
    tuned = []

    def record(target, settings, folder, **options):
        tuned.append(target.name)
        raise commands.RunError("not now")

    monkeypatch.setattr(commands, "search", record)
    assert main([*arguments, "--method", "all", "--output", str(tmp_path)]) == 1
    assert {"negative_gradient", "gradient_ascent", "retain_finetune"} <= set(tuned)
    assert not {"identity", "retrain"} & set(tuned)
    assert len(set(tuned)) == len(tuned)
    capsys.readouterr()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([], "--method salun"),
        (["--method", "salum"], "choose all or one of"),
        (["--method", "identity"], "nothing to tune"),
        (["--method", "negative_gradient", "--trials", "0"], "--trials is 0"),
        (["--method", "negative_gradient", "--trials", "few"], "--trials"),
        (["--method", "negative_gradient", "--timeout", "0"], "--timeout is 0"),
        (["--method", "negative_gradient", "--timeout", "nan"], "--timeout is nan"),
        (["--method", "negative_gradient", "--seeds", "[1, 1]"], "different whole numbers"),
        (["--method", "negative_gradient", "--seeds", "[]"], "different whole numbers"),
        (["--method", "negative_gradient", "--seeds", "[-1]"], "different whole numbers"),
        (["--method", "negative_gradient", "--seed", "3"], "--seeds"),
        (["--method", "negative_gradient", "--classifier.epoochs", "3"], "--classifier.epoochs"),
        (["--method", "negative_gradient", "--method", "gradient_ascent", "--output", "one.yaml"], "one.yaml"),
        (["--method", "negative_gradient", "--folder", "/dev/null/here"], "--folder /dev/null/here cannot be created"),
        (["--method", "negative_gradient", "--config", "nothing"], "--config nothing"),
        (["--method", "negative_gradient", "--output", "/dev/null/a/b.yaml"], "--output /dev/null/a cannot be created"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(options, named, arguments, capsys):
    code = main([*arguments, *options])
    shown = capsys.readouterr().err
    assert code == 2, shown
    assert named in shown
    assert shown.count("\n") == 1


def test_without_a_configuration(capsys):
    assert main(["tune", "--method", "negative_gradient"]) == 2
    assert "--config digits" in capsys.readouterr().err


def test_help_explains_the_options(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["tune", "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "--trials" in shown
    assert "retrace audit --help" in " ".join(shown.split())


def test_the_worst_distance_is_never_written_as_a_preset(arguments, tmp_path, capsys):
    main([*arguments, "--method", str(tmp_path / "mine.yaml"), "--output", str(tmp_path / "out"), "--json"])
    assert json.loads(capsys.readouterr().out)["methods"]["mine"]["distance"] < WORST
