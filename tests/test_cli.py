import errno
import json
import subprocess
import sys
import threading

import pytest

from retrace_pl import __version__
from retrace_pl.cli import COMMANDS, main
from retrace_pl.pipeline.parts import KINDS

HEAVY = ("torch", "lightning", "stable_baselines3", "numpy", "jsonargparse", "rich")


def thread_that_fails(error):
    """A command that ends well while one of its threads does not."""

    def work():
        raise error

    def command(_):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    return command


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from retrace_pl.cli import main; main(['--help']); "
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    for command in COMMANDS:
        assert f"  {command} " in done.stdout


def test_module_runs_like_the_console_command():
    done = subprocess.run([sys.executable, "-m", "retrace_pl", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"retrace {__version__}"


def test_unknown_command_names_the_known_ones(capsys):
    assert main(["audt"]) == 2
    assert "audit" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_list_describes_every_part(kind, capsys):
    assert main(["list", kind, "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)
    assert parts
    for part in parts:
        assert part["name"]
        assert part["description"].endswith((".", ":")), part


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("data", {"DigitsSource", "TorchvisionSource", "HuggingFaceSource", "MedMNISTSource", "ImageFolderSource"}),
        ("data", {"HuggingFaceTextSource", "PretrainedTokenizer", "TrainedTokenizer"}),
        ("models", {"SmallCNN", "ResNet20", "ResNet18", "VGG16BN", "MobileNetV2", "TorchvisionClassifier", "DCGAN"}),
        ("unlearning", {"Retrain", "RetainFineTune", "GradientAscent", "NegativeGradient", "Identity"}),
        ("searchers", {"SB3Searcher", "RandomSearcher", "CEMSearcher"}),
        ("attacks", {"ReTrace"}),
        ("metrics", {"BestBLEU", "MeanROUGE", "DistinctN", "CopiedSpan", "Perplexity"}),
        ("metrics", {"NearestMSE", "SSIM", "CentredCosine", "SuccessRate", "FeatureFID", "FeatureKID", "Diversity"}),
    ],
)
def test_list_has_the_parts_of_this_version(kind, names, capsys):
    assert main(["list", kind, "--json"]) == 0
    assert names <= {part["name"] for part in json.loads(capsys.readouterr().out)}


def test_list_for_people(capsys):
    assert main(["list", "unlearning"]) == 0
    shown = capsys.readouterr().out
    assert "Retrain" in shown
    assert "boundary_shrink" in shown  # what tune, arena and mls-bench call it


def test_list_of_an_unknown_kind(capsys):
    assert main(["list", "colours"]) == 2
    assert "searchers" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["audit", "attack"])
def test_command_help_comes_from_the_docstrings(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "--access" in shown
    assert "what the auditor may see" in shown


def test_a_thread_that_finds_the_disk_full_is_one_line(monkeypatch, capsys):
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr("retrace_pl.pipeline.doctor.doctor", thread_that_fails(full))
    before = threading.excepthook
    assert main(["doctor"]) == 1
    assert threading.excepthook is before
    said = capsys.readouterr().err
    assert said.startswith("retrace: error: a file cannot be used: No space left on device; free some space")
    assert said.count("\n") == 1


def test_other_failures_of_threads_are_left_to_python(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    monkeypatch.setattr("retrace_pl.pipeline.doctor.doctor", thread_that_fails(ValueError("a bug")))
    assert main(["doctor"]) == 0
    assert [str(failed.exc_value) for failed in seen] == ["a bug"]
