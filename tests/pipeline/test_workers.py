"""Worker processes: tasks side by side, errors and deaths, Ctrl-C, and a device for each."""

import multiprocessing
import os
import time

import pytest

from retrace_pl.errors import RunError
from retrace_pl.pipeline import workers
from retrace_pl.pipeline.workers import Task, WorkerDied, bound_to_device, work_off


def task(tmp_path, name, function, *arguments):
    return Task(name, function, arguments, tmp_path / f"{name}.txt")


def outcomes(tasks, jobs):
    ended = {}
    work_off(tasks, jobs, lambda task: None, lambda task, error: ended.__setitem__(task.name, error))
    return ended


def test_tasks_are_done_by_few_processes_and_deaths_take_no_other_along(tmp_path):
    tasks = [task(tmp_path, f"make{number}", os.mkdir, str(tmp_path / f"made{number}")) for number in range(4)]
    tasks.insert(1, task(tmp_path, "dies", os._exit, 3))
    tasks.insert(2, task(tmp_path, "fails", int, "many"))
    ended = outcomes(tasks, jobs=2)
    assert [name for name, error in ended.items() if error is None] == ["make0", "make1", "make2", "make3"]
    assert all((tmp_path / f"made{number}").is_dir() for number in range(4))
    assert isinstance(ended["dies"], WorkerDied)
    assert "(exit code 3), 2 times" in str(ended["dies"])
    assert isinstance(ended["fails"], RunError)
    assert "ValueError: invalid literal" in str(ended["fails"])
    assert "Traceback" in (tmp_path / "fails.txt").read_text()
    assert not (tmp_path / "make0.txt").exists()
    assert not multiprocessing.active_children()


def test_ctrl_c_ends_every_worker(tmp_path):
    seen = []

    def interrupt(begun):
        seen.append(begun.name)
        if len(seen) == 2:
            raise KeyboardInterrupt

    sleepers = [task(tmp_path, f"sleeper{number}", time.sleep, 600) for number in range(2)]
    with pytest.raises(KeyboardInterrupt):
        work_off(sleepers, 2, interrupt, lambda task, error: None)
    assert not multiprocessing.active_children()


def test_an_error_that_is_passed_on_ends_every_worker(tmp_path):
    def fail(done, error):
        raise error

    tasks = [task(tmp_path, "sleeper", time.sleep, 600), task(tmp_path, "fails", int, "many")]
    with pytest.raises(RunError, match="fails failed: ValueError"):
        work_off(tasks, 2, lambda task: None, fail)
    assert not multiprocessing.active_children()


def test_each_worker_gets_one_of_the_visible_gpus_in_turn(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert [bound_to_device(number)["CUDA_VISIBLE_DEVICES"] for number in range(3)] == ["2", "5", "2"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert [bound_to_device(number)["CUDA_VISIBLE_DEVICES"] for number in range(4)] == ["0", "1", "2", "0"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert bound_to_device(0) == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hides them all
    assert bound_to_device(0) == {}


def test_a_worker_inherits_its_device_and_no_place_in_a_launch(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    shown = task(tmp_path, "shows", os.system, "env > '{}'".format(tmp_path / "env"))
    assert outcomes([shown], jobs=1) == {"shows": None}
    lines = (tmp_path / "env").read_text().splitlines()
    assert {"CUDA_VISIBLE_DEVICES=7", "OMP_NUM_THREADS=1"} <= set(lines)
    assert not [line for line in lines if line.startswith(("RANK=", "WORLD_SIZE="))]
    assert os.environ["RANK"] == "0"
    assert "OMP_NUM_THREADS" not in os.environ


def test_workers_import_no_more_than_they_need():
    assert not {"torch", "numpy"} & set(vars(workers))
