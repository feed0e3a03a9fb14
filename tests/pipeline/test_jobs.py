"""`--jobs`: searches side by side give what one search after the other gives."""

import json

import pytest
import torch

from retrace_pl.cli import main
from retrace_pl.files import read_tensors

UNTOUCHED = ("candidates.safetensors", "curves.json", "searches.json", "policy.safetensors", "policy.json")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_at_a_time_find_the_same(finished_run, run_copy, tiny, capsys):
    (run_copy / "stages" / "attack.json").unlink()
    for name in UNTOUCHED:
        (run_copy / name).unlink()
    assert main(["attack", "--config", tiny, "--output", str(run_copy), "--jobs", "2"]) == 0
    shown = capsys.readouterr().err
    assert "searches, 2 at a time" in shown
    assert "interruption" not in shown
    found, expected = (read_tensors(folder / UNTOUCHED[0]) for folder in (run_copy, finished_run))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    for name in UNTOUCHED[1:]:
        assert (run_copy / name).read_bytes() == (finished_run / name).read_bytes(), name
    assert not (run_copy / "searches").exists()
    searched = [label for label in json.loads((finished_run / "searches.json").read_text()) if "prior" not in label]
    for label in searched:
        assert list((run_copy / "tensorboard" / "search" / label).glob("events.*")), "its curves are in the log"


@pytest.mark.parametrize("jobs", ["0", "-2"])
def test_there_is_at_least_one(tiny, jobs, tmp_path, capsys):
    assert main(["audit", "--config", tiny, "--output", str(tmp_path / "run"), "--jobs", jobs]) == 2
    assert f"--jobs is {jobs}; set it to 1 or more" in capsys.readouterr().err
