import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from retrace_pl.cli import main
from retrace_pl.errors import InputError
from retrace_pl.mls_bench import commands
from retrace_pl.mls_bench.commands import add_result, read_results
from retrace_pl.mls_bench.published import best_two_sided, published_problems, published_rows
from retrace_pl.mls_bench.scores import COLLAPSED, Validity
from retrace_pl.mls_bench.settings import SETTINGS, find_setting
from retrace_pl.mls_bench.table import print_results, results_table
from retrace_pl.unlearning import METHODS

from .conftest import TINY

OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
FIELDS = {
    "setting", "preset", "method", "seed", "forget_class", "retain_acc", "forget_acc", "forget_mia_auc",
    "unlearn_score", "mls_bench_compatible", "two_sided_score", "mia_leakage", "gap_to_retrain", "valid", "problems",
    "original", "retrained", "seconds", "versions", "sizes", "unlearning", "pretraining",
}  # fmt: skip

BROKEN = """
class UnlearningMethod:
    def unlearn_step(self, model, retain_batch, forget_batch, optimizer, step, epoch):
        return {"loss": float("nan")}
"""


def run(digits, trained, *arguments):
    common = ["--setting", digits, "--preset", "smoke", "--output", str(trained), *OPTIONS]
    return main(["mls-bench", *common, *arguments])


def test_all_baselines_and_a_broken_file(digits, trained, tmp_path, capsys):
    rows, rule = tmp_path / "results" / "rows.jsonl", tmp_path / "broken_rule.py"
    rule.write_text(BROKEN)
    assert run(digits, trained, "--method", "all", "--method", str(rule), "--json", str(rows)) == 0
    results = [json.loads(line) for line in rows.read_text().splitlines()]
    methods = ["retain_finetune", "negative_gradient", "bad_teacher", "scrub", "broken_rule"]
    assert [result["method"] for result in results] == methods
    assert all(result.keys() >= FIELDS for result in results)
    broken = results[-1]
    assert (broken["valid"], broken["problems"]) == (False, ["not finite"])
    assert broken["retain_acc"] is None
    assert broken["mls_bench_compatible"] == {"forget_mia_auc": None, "unlearn_score": None}
    shown = capsys.readouterr().out
    assert all(method in shown for method in methods)
    assert "no: not finite" in shown
    assert "diverged" in shown

    assert run(digits, trained, "--method", "scrub", "--json", str(rows)) == 0  # the same run: in its old place
    assert len(rows.read_text().splitlines()) == 5

    capsys.readouterr()
    assert run(digits, trained, "--method", "scrub", "--quiet", "--json") == 0
    printed = capsys.readouterr()
    assert [result["method"] for result in json.loads(printed.out)["results"]] == ["scrub"]
    assert printed.err == ""
    assert run(digits, trained, "--method", "scrub", "--json", str(rows), "--seed", "3", "--no-reference") == 0
    assert len(rows.read_text().splitlines()) == 6
    assert {path.name for path in rows.parent.iterdir()} == {rows.name, f".{rows.name}.lock"}, "nothing temporary left"


def test_one_run_is_one_object(digits, trained, tmp_path):
    assert run(digits, trained, "--method", "identity", "--json", str(tmp_path / "one.json")) == 0
    assert json.loads((tmp_path / "one.json").read_text())["problems"] == ["nothing forgotten"]


def test_own_settings_are_marked(digits, trained, tmp_path, capsys):
    arguments = ["--method", "identity", "--own-settings", "--json", str(tmp_path / "own.json")]
    assert run(digits, trained, *arguments) == 0
    assert json.loads((tmp_path / "own.json").read_text())["own_settings"] is True
    assert "(own settings)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "no_such"], "--method 'no_such'"),
        (["--method", "gone.py"], "no such file"),
        (["--method", "scrub", "--setting", "resnet20"], "--setting"),
        (["--method", "scrub", "--setting", "vgg16bn-cifar100-class100"], "0 to 99"),
        (["--method", "scrub", "--preset", "tiny"], "--preset"),
        (["--method", "scrub", "--unlearn-epochs", "0"], "--unlearn-epochs"),
        (["--method", "scrub", "--min-retain", "2"], "--min-retain"),
        (["--method", "scrub", "--devices", "2"], "--devices"),
        (["--method", "scrub", "--seed", "-1"], "--seed"),
        (["--method", "scrub", "--accelerator", "abacus"], "trainer"),
        (["--method", "scrub", "--precision", "16-mixed"], "--precision"),
        (["--method", "scrub", "--sed", "1"], "--sed"),
        (["--seed", "1"], "--method"),
    ],
)
def test_bad_input(digits, tmp_path, capsys, arguments, message):
    assert run(digits, tmp_path, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_refused_before_anything_runs(digits, trained, capsys):
    assert run(digits, trained, "--method", "identity", "--accelerator", "gpu") == 2
    assert "trainer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["mobilenetv2-fmnist", "mobilenetv2-fmnist-class0"], ["mobilenetv2-fmnist-class0"]),
        (["mobilenetv2-fmnist-class3", "all"], ["mobilenetv2-fmnist-class3", *SETTINGS]),
    ],
)
def test_every_setting_that_was_asked_for_is_run_once(given, names, monkeypatch):
    seen = []

    def prepare(name, **options):
        seen.append(name)
        return SimpleNamespace(run=lambda method, **options: result(setting=name))

    monkeypatch.setattr(commands, "prepare_benchmark", prepare)
    assert main(["mls-bench", "--method", "scrub", *(f"--setting={name}" for name in given)]) == 0
    assert seen == names


def test_help_names_every_method_as_it_must_be_typed(capsys):
    with pytest.raises(SystemExit):
        commands.make_parser().parse_args(["--help"])
    shown = set(capsys.readouterr().out.replace(",", " ").replace("(", " ").replace(")", " ").split())
    assert shown >= set(METHODS)


def test_a_file_of_something_else_is_not_overwritten(digits, tmp_path, capsys):
    for text in ("{}", "hello", "[1, 2"):
        other = tmp_path / "notes.json"
        other.write_text(text)
        assert run(digits, tmp_path, "--method", "scrub", "--json", str(other)) == 2
        assert "--json" in capsys.readouterr().err
        assert other.read_text() == text


def result(**changes):
    values = {
        "setting": "mobilenetv2-fmnist-class0", "preset": "full", "method": "mine", "file": None, "seed": 42,
        "own_settings": False, "overrides": {}, "retain_acc": 0.94, "forget_acc": 0.0, "forget_mia_auc": 0.499,
        "unlearn_score": 0.813, "mls_bench_compatible": {"forget_mia_auc": 0.499, "unlearn_score": 0.813},
        "two_sided_score": 0.979, "mia_leakage": 0.002, "gap_to_retrain": None, "valid": True, "problems": [],
        "error": None,
    }  # fmt: skip
    return values | changes


def test_published_rows_stand_beside_ours_and_invalid_ones_have_no_rank(capsys):
    print_results([result(), result(method="bad", valid=False, problems=[COLLAPSED])], Validity())
    shown = capsys.readouterr().out
    lines = {line.split("  ")[0]: line.split() for line in shown.splitlines() if " 42 " in line}
    assert lines["mine"][8] == "1"
    assert lines["bad"][8] == "-"
    assert lines["scrub (published)"][-1] == "yes"
    assert "no: retain accuracy collapsed" in shown
    assert "best agent" in shown


def test_short_runs_are_ranked_apart(capsys):
    print_results(
        [result(two_sided_score=0.1), result(preset="smoke", method="short", two_sided_score=0.2)], Validity()
    )
    lines = {line.split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines() if " 42 " in line}
    assert lines["short"][8] == "1"
    assert lines["mine"][8] == "5"  # after three valid baselines and the best published row


def test_a_narrow_terminal_gets_whole_numbers():
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(results_table([result()], Validity(), narrow=True))
    shown = console.export_text()
    assert "0.979" in shown
    assert "gap to retrain  " not in shown.split("retain, forget:")[0]
    assert all(len(line) <= 100 for line in shown.splitlines())


def test_another_class_has_no_published_rows(capsys):
    print_results([result(setting="mobilenetv2-fmnist-class5")], Validity())
    assert "published)" not in capsys.readouterr().out


@pytest.mark.parametrize(("task", "best"), [("resnet20-cifar10", 0.926), ("mobilenetv2-fmnist", 0.973)])
def test_published_scores_follow_from_their_metrics(task, best):
    rows = published_rows(find_setting(task))
    for row in rows:
        if row.retain_acc is not None:
            assert row.score == pytest.approx(
                (row.retain_acc + 1 - row.forget_acc + 1 - row.forget_mia_auc) / 3, abs=2e-3
            )
    judged = {row.method: published_problems(row, rows, 0.5) for row in rows}
    assert [method for method, problems in judged.items() if problems] == ["negative_gradient"]
    baselines = max(row.two_sided for row in rows if row.two_sided)
    assert baselines == pytest.approx(best, abs=5e-3)
    assert baselines < best_two_sided(find_setting(task))


def test_commands_that_share_a_file_lose_no_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: add_result(path, result(seed=seed)), range(40)))
    assert sorted(row["seed"] for row in read_results(path)) == list(range(40))


def test_a_file_that_cannot_be_written_is_refused_before_anything_runs(digits, tmp_path, capsys):
    (tmp_path / "taken").write_text("a file, no folder")
    assert run(digits, tmp_path / "runs", "--method", "scrub", "--json", str(tmp_path / "taken" / "rows.jsonl")) == 2
    assert "--json" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.timeout(60)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a file system that takes no new files")
def test_a_folder_without_room_for_a_lock_is_refused_at_once(digits, tmp_path, capsys):
    assert run(digits, tmp_path / "runs", "--method", "scrub", "--json", "/proc/rows.jsonl") == 2
    assert capsys.readouterr().err.splitlines() == [
        "retrace: error: --json /proc/rows.jsonl cannot be written and locked; give a file in another folder"
    ]
    assert not (tmp_path / "runs").exists()
    with pytest.raises(InputError, match="--json"):
        add_result(Path("/proc/rows.jsonl"), result())


def test_results_survive_line_by_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    add_result(path, result(retain_acc=float("nan")))
    add_result(path, result(seed=1))
    add_result(path, result(retain_acc=0.5))
    assert [(row["seed"], row["retain_acc"]) for row in read_results(path)] == [(1, 0.94), (42, 0.5)]
    path.write_text(path.read_text() + "half a li")
    with pytest.raises(InputError, match="--json"):
        read_results(path)
