"""What goes wrong around an audit, one thing at a time: each ends in one line that names the cause and the remedy."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from retrace_pl.cli import INTERRUPTED, main
from retrace_pl.models import SmallCNN
from retrace_pl.pipeline import attack_stage, evaluate_stage
from retrace_pl.pipeline.config import STAGES
from retrace_pl.searchers import SB3Searcher

ROOM = 1024
NOBODY = 65534


@pytest.fixture
def line(capsys):
    """What the last command said, which must be one line."""

    def read():
        said = capsys.readouterr().err
        assert said.count("\n") == 1, said
        assert said.startswith("retrace: error: ")
        return said

    return read


@pytest.fixture
def toys():
    sys.path.insert(0, str(Path(__file__).parent))
    yield
    sys.path.remove(str(Path(__file__).parent))


def command(stage, config, folder, *options):
    return [stage, "--config", str(config), "--output", str(folder), "--quiet", *options]


def undo(folder, stage):
    """Makes a finished run one whose stage has not begun; returns the names of the stage's tensors."""
    marker = folder / "stages" / f"{stage}.json"
    products = json.loads(marker.read_text())["outputs"]
    for name in (*products, f"stages/{stage}.json"):
        (folder / name).unlink()
    return [name for name in products if name.endswith(".safetensors")]


@contextmanager
def full_disk():
    """No file may grow beyond a kilobyte: writes fail in the kernel, wherever they come from."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("stage", STAGES)
def test_a_disk_that_takes_no_more(stage, finished_run, run_copy, tiny, line):
    tensors = undo(run_copy, stage)
    with full_disk():
        assert main(command(stage, tiny, run_copy)) == 1
    said = line()
    assert "File too large; raise the limit" in said
    assert "--output" in said
    assert str(run_copy) in said
    assert not list(run_copy.rglob("*.part"))
    assert main(command(stage, tiny, run_copy)) == 0
    assert [name for name in tensors if (run_copy / name).read_bytes() != (finished_run / name).read_bytes()] == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KB of its own, and a function that mounts it anew with other options."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if not made or made.returncode != 0:
        pytest.skip("this machine lets nobody mount a file system of their own")
    yield disk, lambda options: subprocess.run([mount, "-o", f"remount,{options}", str(disk)], check=True)
    subprocess.run([shutil.which("umount"), str(disk)], check=True)


def test_a_small_disk_and_one_that_may_only_be_read(small_disk, finished_run, tiny, line):
    disk, remount = small_disk
    assert main(command("pretrain", tiny, disk / "run")) == 1
    assert "No space left on device; free some space or choose another folder with --output" in line()
    remount("size=64m")
    assert main(command("pretrain", tiny, disk / "run")) == 0
    for name in ("original.safetensors", "evaluator.safetensors"):
        assert (disk / "run" / name).read_bytes() == (finished_run / name).read_bytes()
    remount("ro")
    assert main(command("generator", tiny, disk / "run")) in (1, 2)
    assert "--output" in line()
    assert main(command("pretrain", tiny, disk / "new")) == 2
    assert "cannot be created: Read-only file system" in line()
    remount("rw")


@contextmanager
def without_privileges():
    """Root may write anywhere: its place is taken by nobody, and given back."""
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def open_run(finished_run, tiny):
    """A copy of a finished run and its configuration where every user can read them."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    shutil.copytree(finished_run, folder / "run")
    shutil.copy(tiny, folder / "audit.yaml")
    for path in (folder / "run", *(folder / "run").rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    yield folder / "run", folder / "audit.yaml"
    for path in (folder / "run", folder / "run" / "stages"):
        path.chmod(0o755)
    shutil.rmtree(folder)


def hand_over(folder):
    """Makes the user of `without_privileges` the owner of a folder and what is in it."""
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)


def test_a_folder_without_permission_to_write(open_run, line):
    folder, config = open_run
    hand_over(folder)
    folder.chmod(0o555)
    with without_privileges():
        code = main(command("attack", config, folder, "--access", "black"))
    assert code == 2
    assert f"--output {folder} is not writable; choose another folder" in line()


def test_a_part_of_the_folder_without_permission_to_write(open_run, line):
    folder, config = open_run
    hand_over(folder)
    (folder / "stages").chmod(0o555)
    with without_privileges():
        code = main(command("attack", config, folder, "--access", "black"))
    assert code == 1
    said = line()
    assert "stages" in said
    assert "Permission denied; get permission to write there or choose another folder with --output" in said


def test_a_file_without_permission_to_read(open_run, line):
    folder, config = open_run
    hand_over(folder)
    (folder / "generator.safetensors").chmod(0)
    with without_privileges():
        code = main(command("attack", config, folder, "--access", "black"))
    assert code == 1
    said = line()
    assert "generator.safetensors cannot be read" in said
    assert "ermission denied" in said


@pytest.mark.parametrize("name", ["original.safetensors", "generator.safetensors"])
def test_damaged_weights_are_named_and_made_again(name, run_copy, tiny, finished_run, line):
    weights = run_copy / name
    weights.write_bytes(b"\xff" * weights.stat().st_size)
    assert main(command("attack", tiny, run_copy, "--access", "black")) == 1
    assert f"{name} cannot be read" in (said := line())
    assert "delete it and run the stage again" in said
    weights.unlink()
    stage = "pretrain" if name.startswith("original") else "generator"
    assert main(command(stage, tiny, run_copy)) == 0
    assert weights.read_bytes() == (finished_run / name).read_bytes()


def test_a_truncated_file_is_made_again(run_copy, tiny, finished_run, line):
    weights = run_copy / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert main(command("attack", tiny, run_copy, "--access", "black")) == 1
    assert "needs stage generator" in line()
    assert main(command("generator", tiny, run_copy)) == 0
    assert weights.read_bytes() == (finished_run / "generator.safetensors").read_bytes()


def test_weights_of_another_architecture_are_named(run_copy, tiny, line):
    weights = run_copy / "unlearned.safetensors"
    save_file(SmallCNN(1, 10, width=4).state_dict(), weights)
    marker = run_copy / "stages" / "unlearn.json"
    record = json.loads(marker.read_text())
    record["outputs"][weights.name] = weights.stat().st_size
    marker.write_text(json.dumps(record))
    assert main(command("attack", tiny, run_copy, "--access", "black")) == 2
    assert "holds the weights of another architecture than SmallCNN" in line()


def test_weights_that_hide_a_pickle_are_refused_unread(run_copy, tiny, tmp_path, line):
    trap = tmp_path / "trap"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(trap),)

    weights = run_copy / "generator.safetensors"
    torch.save({"a": Evil()}, weights)
    marker = run_copy / "stages" / "generator.json"
    record = json.loads(marker.read_text())
    record["outputs"][weights.name] = weights.stat().st_size
    marker.write_text(json.dumps(record))
    assert main(command("attack", tiny, run_copy, "--access", "black")) == 1
    assert "generator.safetensors cannot be read" in line()
    assert not trap.exists()


def test_a_training_that_diverges_keeps_its_last_good_epoch(tmp_path, tiny, line):
    step = "--classifier.scheduler"
    options = [step, "StepLR", f"{step}.step_size", "2", f"{step}.gamma", "1e36"]
    assert main(command("pretrain", tiny, tmp_path, *options)) == 1
    said = line()
    assert "training of original stopped: diverged in epoch 3" in said
    assert "lower its learning rate or set trainer.gradient_clip_val" in said
    (kept,) = tmp_path.glob("checkpoints/original-*/last.ckpt")
    assert f"its last good epoch is kept in {kept}" in said
    checkpoint = torch.load(kept, weights_only=True)
    assert checkpoint["epoch"] == 1
    assert all(bool(value.isfinite().all()) for value in checkpoint["state_dict"].values())
    assert not (tmp_path / "original.safetensors").exists()


@pytest.mark.parametrize(
    ("stage", "options", "words"),
    [
        ("generator", ["--generator.task.lr", "1e35"], "training of generator stopped: diverged in epoch"),
        ("unlearn", ["--unlearning.lr", "1e35"], "training of unlearned stopped"),
    ],
)
def test_what_diverges_at_once_has_no_epoch_to_keep(stage, options, words, run_copy, tiny, line):
    assert main(command(stage, tiny, run_copy, *options)) == 1
    said = line()
    assert words in said
    assert "diverged" in said
    assert "lower" in said
    assert "no epoch of it was finished" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--classifier.model", "toy_models.OneTooMany"], "classifier.model: OneTooMany returns 11 logits"),
        (["--classifier.model", "toy_models.Flat"], r"classifier.model: model: Flat returns shape [2] for 2 inputs"),
        (
            ["--classifier.model", "toy_models.ForSixteen", "--data.image_size", "8"],
            "classifier.model: ForSixteen cannot be run on records [1, 8, 8]",
        ),
    ],
)
def test_classifiers_that_do_not_fit_are_refused_before_they_are_trained(options, words, tmp_path, tiny, line, toys):
    assert main(command("pretrain", tiny, tmp_path / "run", *options)) == 2
    assert words in line()
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_a_generator_of_another_size_is_refused_before_it_is_trained(run_copy, tiny, line, toys):
    options = ["--generator.model", "toy_models.HalfSize"]
    assert main(command("generator", tiny, run_copy, *options)) == 2
    assert "generator.model: HalfSize makes samples of shape [1, 8, 8]" in (said := line())
    assert "[1, 16, 16]" in said


@pytest.mark.parametrize("section", ["classifier", "evaluator"])
def test_a_classifier_that_ignores_its_input_is_named(section, tmp_path, tiny, toys, line):
    options = [f"--{section}.model", "toy_models.Constant"]
    assert main(command("audit", tiny, tmp_path / "run", *options)) == 1
    said = line()
    name = "original" if section == "classifier" else "evaluator"
    assert f"training of {name} ended with the same scores for 32 different records" in said
    assert f"see that {section}.model (Constant) uses its input, or lower its learning rate" in said
    assert not (tmp_path / "run" / f"{name}.safetensors").exists()


def test_a_classifier_that_learns_nothing_makes_an_audit_invalid(tmp_path, tiny):
    options = ["--classifier.optimizer.lr", "1e-9", "--audit.repeats", "1", "--access", "black"]
    assert main(command("audit", tiny, tmp_path / "run", *options)) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["verdict"] == "invalid"
    assert "The original model is right on only" in metrics["verdict_reason"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--clasifier.epochs", "3"], "--clasifier.epochs"),
        (["--classifier.epoch", "3"], "--classifier.epoch"),
        (["--searcher", "CEMSearchr"], "--searcher CEMSearchr is neither a file nor a class"),
        (["--unlearning.learning_rat", "1"], "learning_rat"),
    ],
)
def test_a_typo_is_named(options, named, tiny, tmp_path, line):
    assert main(command("audit", tiny, tmp_path, *options)) == 2
    assert named in line()


def test_a_typo_in_a_file_is_named(tiny, tmp_path, line):
    file = tmp_path / "audit.yaml"
    file.write_text(Path(tiny).read_text().replace("epochs: 5", "epoch: 5"))
    assert main(command("audit", file, tmp_path / "run")) == 2
    assert "epoch" in line()
    assert not (tmp_path / "run").exists()


def interrupt_in(patch, owner, name):
    """Has Ctrl-C pressed when something is first called: a signal to this process, as from a terminal."""
    real = getattr(owner, name)

    def pressed(*arguments, **options):
        patch.setattr(owner, name, real)
        signal.raise_signal(signal.SIGINT)
        return real(*arguments, **options)

    patch.setattr(owner, name, pressed)


@pytest.mark.parametrize(
    ("stage", "owner", "name"),
    [
        ("pretrain", SmallCNN, "embed"),
        ("attack", SB3Searcher, "_search"),
        ("attack", attack_stage, "write_tensors"),
        ("evaluate", evaluate_stage, "write_tensors"),
    ],
)
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_leaves_a_run_that_goes_on(stage, owner, name, finished_run, run_copy, tiny, line, monkeypatch):
    tensors = undo(run_copy, stage)
    with monkeypatch.context() as patch:
        interrupt_in(patch, owner, name)
        assert main(command(stage, tiny, run_copy)) == INTERRUPTED
    assert "interrupted; run the same command again" in line()
    assert not (run_copy / "stages" / f"{stage}.json").exists()
    assert main(command(stage, tiny, run_copy)) == 0
    assert [file for file in tensors if (run_copy / file).read_bytes() != (finished_run / file).read_bytes()] == []
