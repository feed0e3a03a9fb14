import json

import pytest
import torch
from safetensors.torch import save_file

from retrace_pl.cli import main
from retrace_pl.errors import InputError
from retrace_pl.pipeline.pool import pool_runs

SETTING = {"data": "digits", "deletion": "class", "access": "black", "unlearning": "Retrain", "deleted_classes": ["3"]}


@pytest.fixture
def make_run(tmp_path):
    def make(seed, deleted, rate=0.8, controls=("prior", "null"), **changes):
        folder = tmp_path / f"{seed}-{deleted}"
        folder.mkdir(exist_ok=True)
        setting = SETTING | {"deleted_classes": [deleted]} | changes
        metrics = {"setting": setting, "seeds": {"audit": seed}, "outcome": "sr_oracle"}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        random = torch.Generator().manual_seed(seed)
        rates = {"attack": rate} | dict.fromkeys(controls, 0.1)
        save_file(
            {
                f"outcomes.{name}-{repeat}": (torch.rand(64, generator=random) < share).float()
                for name, share in rates.items()
                for repeat in range(2)
            },
            folder / "evaluation.safetensors",
        )
        return folder

    return make


def test_audits_of_several_seeds_and_classes_are_taken_together(make_run):
    folders = [make_run(seed, deleted) for seed in (0, 1) for deleted in ("3", "8")]
    found = pool_runs(folders)
    assert (found["audits"], found["seeds"], found["classes"]) == (4, [0, 1], ["3", "8"])
    assert list(found["leakage"]) == ["excess", "excess_null"], "what every audit has"
    excess = found["leakage"]["excess"]
    assert excess["value"] == pytest.approx(0.7, abs=0.06)
    assert 0.5 < excess["low"] < excess["high"] < 0.9
    assert excess["note"] == ""


def test_a_control_that_one_audit_lacks_is_left_out(make_run):
    folders = [make_run(0, "3"), make_run(1, "3", controls=("prior",))]
    found = pool_runs(folders)
    assert list(found["leakage"]) == ["excess"]
    assert "one class only" in found["leakage"]["excess"]["note"]


def test_the_command_prints_a_table_or_json(make_run, capsys):
    folders = [str(make_run(seed, "3")) for seed in (0, 1)]
    assert main(["pool", *folders]) == 0
    shown = capsys.readouterr().out
    assert "above zero" in shown
    assert "seeds 0, 1; deleted 3" in shown
    assert main(["pool", *folders, "--json", "--level", "0.9"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["leakage"]["excess"]["level"] == 0.9
    assert printed["setting"]["unlearning"] == "Retrain"


def test_what_cannot_be_pooled_is_refused(make_run, tmp_path):
    first = make_run(0, "3")
    with pytest.raises(InputError, match="seed 0 and deleted 3 too"):
        pool_runs([first, first])
    with pytest.raises(InputError, match=r"access is white, of .* black"):
        pool_runs([first, make_run(1, "3", access="white")])
    with pytest.raises(InputError, match=r"metrics\.json does not exist"):
        pool_runs([tmp_path / "nothing"])
    old = make_run(2, "3")
    save_file({"other": torch.zeros(1)}, old / "evaluation.safetensors")
    with pytest.raises(InputError, match="earlier version"):
        pool_runs([old])


def test_options_that_cannot_be_read_end_in_one_line(make_run, capsys):
    assert main(["pool", str(make_run(0, "3")), "--level", "high"]) == 2
    assert "--level" in capsys.readouterr().err
    assert main(["pool", str(make_run(0, "3")), "--level", "2"]) == 2
