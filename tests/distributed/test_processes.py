"""Who started several processes, what they may do together, and what one of them does alone."""

import pytest
import torch
from torch import distributed

from retrace_pl.cli import main
from retrace_pl.errors import InputError
from retrace_pl.pipeline.config import TrainerSettings
from retrace_pl.pipeline.processes import LAUNCH_VARIABLES, Launch, alone, check_launch, devices_here, launched

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}
SRUN = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2", "SLURM_STEP_NUM_NODES": "2", "SLURM_NTASKS": "4"}


@pytest.fixture
def started_by(monkeypatch):
    for name in (*LAUNCH_VARIABLES, "SLURM_STEP_NUM_NODES"):
        monkeypatch.delenv(name, raising=False)
    return lambda variables: [monkeypatch.setenv(name, value) for name, value in variables.items()]


def test_a_single_process_was_launched_by_nobody(started_by):
    assert launched() is None
    started_by(TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"})
    assert launched() is None


def test_torchrun_and_srun_say_who_this_is(started_by):
    started_by(SRUN)
    assert launched() == Launch("srun", rank=2, size=4, per_node=2)
    started_by(TORCHRUN)
    assert launched() == Launch("torchrun", rank=3, size=4, per_node=2)


def test_a_batch_script_that_runs_one_process_of_a_larger_job_is_no_launch(started_by):
    started_by({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"})
    assert launched() is None


@pytest.mark.parametrize("settings", [{}, {"devices": 2}, {"devices": 4}, {"devices": 1, "num_nodes": 4}])
def test_other_processes_than_the_settings_ask_for_are_refused_with_the_remedy(started_by, settings):
    started_by(TORCHRUN)
    with pytest.raises(InputError, match=r"add --trainer\.devices 2 --trainer\.num_nodes 2"):
        check_launch(TrainerSettings(**settings))


def test_the_processes_that_the_settings_ask_for_are_taken(started_by):
    started_by(TORCHRUN)
    check_launch(TrainerSettings(devices=2, num_nodes=2))
    assert devices_here("cpu") == 2


@pytest.mark.parametrize("command", [["list"], ["arena", "--config", "digits"], ["attack", "--original", "x"]])
def test_commands_that_would_do_everything_twice_are_refused(started_by, command, capsys):
    started_by(TORCHRUN)
    assert main(command) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("retrace: error: torchrun started 4 processes")
    assert shown.count("\n") == 1


def test_nothing_is_divided_inside_work_of_one_process(tmp_path):
    with alone():
        assert not distributed.is_initialized()
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        with alone():
            assert not distributed.is_initialized()
        with pytest.raises(ZeroDivisionError), alone():
            raise ZeroDivisionError
        value = torch.ones(1)
        distributed.all_reduce(value)  # the group is there again, and works
        assert value == 1
    finally:
        distributed.destroy_process_group()
