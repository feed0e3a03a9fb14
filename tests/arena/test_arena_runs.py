import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import submitit

from retrace_pl.arena import launchers, runner
from retrace_pl.arena.cells import make_plan
from retrace_pl.arena.config import parse
from retrace_pl.arena.record import RECORD, CellRecord, collect, record_path
from retrace_pl.arena.worker import Work, run_cell
from retrace_pl.errors import RunError

GOOD = "--methods=[retain_finetune, {name: mild, class_path: retrace_pl.unlearning.NegativeGradient, init_args: "
GOOD += "{epochs: 1, lr: 0.01, batch_size: 64}}]"
CELL = "{}-x1-seed0-class3-black-random"


def results(folder):
    return json.loads((folder / "arena.json").read_text())


def figures(record):
    return {name: value for name, value in vars(record).items() if name != "seconds"}


@pytest.fixture
def ran(monkeypatch):
    """Replaces the processes: which cells would have run."""
    cells = []
    monkeypatch.setattr(runner, "run_local", lambda to_do, work, jobs, observer: cells.extend(to_do))
    return cells


def test_every_cell_has_a_record_whatever_became_of_it(finished_arena):
    status = {cell["method"]: cell["status"] for cell in results(finished_arena)["cells"]}
    failed = {"deadly": "failed", "raising": "failed", "diverging": "failed"}
    assert status == {"retain_finetune": "done", "mild": "done", **failed}
    assert results(finished_arena)["missing"] == []
    assert [record.id for record in collect(finished_arena)] == sorted(CELL.format(name) for name in status)


def test_a_killed_worker_takes_no_other_cell_with_it(finished_arena):
    record = CellRecord.read(record_path(finished_arena, CELL.format("deadly")))
    assert "killed by SIGKILL" in record.error
    assert "2 times" in record.error
    assert record.unlearning is record.leakage is None


def test_a_failed_cell_says_why_in_one_line_and_keeps_its_traceback(finished_arena):
    record = CellRecord.read(record_path(finished_arena, CELL.format("raising")))
    assert record.error == "ZeroDivisionError: the method's own mistake"
    assert "in prepare" in (finished_arena / "cells" / record.id / "error.txt").read_text()
    diverging = CellRecord.read(record_path(finished_arena, CELL.format("diverging")))
    assert "\n" not in diverging.error
    assert "diverged" in diverging.error


def test_two_workers_find_the_same_as_cells_run_by_hand(finished_arena, arena, tmp_path, capsys):
    for name in ("mild", "retain_finetune"):
        assert arena("--output", tmp_path, GOOD, "--cell", CELL.format(name), quiet=False) == 0
        assert CELL.format(name) in capsys.readouterr().out
        alone, beside = (
            CellRecord.read(record_path(folder, CELL.format(name))) for folder in (tmp_path, finished_arena)
        )
        assert figures(alone) == figures(beside)
        assert alone.seconds["total"] > alone.seconds["unlearning"] > 0
    assert not (tmp_path / "arena.json").exists()


def test_a_record_shows_every_figure_beside_its_controls(finished_arena):
    record = CellRecord.read(record_path(finished_arena, CELL.format("mild")))
    metrics = json.loads((finished_arena / record.run / "metrics.json").read_text())
    assert record.attack_result["sr_oracle"] == metrics["attack"]["distribution"]["sr_oracle"]
    assert record.prior["mse"] == metrics["controls"]["prior"]["distribution"]["mse"]
    assert record.matched_retrain["instance"]["cs"] == metrics["controls"]["matched_retrain"]["instance"]["cs"]
    assert record.leakage == metrics["leakage"]
    assert record.unlearning == metrics["unlearning"]
    assert (record.queries, record.top_k, record.repeats) == (128, 16, 1)
    assert record.class_name == "NegativeGradient"


def test_finished_cells_are_skipped_and_failed_ones_tried_again(arena_copy, arena, mixed, ran):
    before = results(arena_copy)
    assert arena("--output", arena_copy, mixed) == 0
    assert {cell.method for cell in ran} == {"deadly", "raising", "diverging"}
    after = results(arena_copy)
    assert "--jobs" in before.pop("command")
    assert "--jobs" not in after.pop("command")
    assert after == before


def test_changed_settings_run_again_and_old_figures_are_not_mixed_in(arena_copy, arena, ran):
    assert arena("--output", arena_copy, GOOD) == 0
    assert ran == []
    assert arena("--output", arena_copy, GOOD, "--overrides.queries=64") == 0
    assert len(ran) == 2
    assert results(arena_copy)["cells"] == []
    assert len(results(arena_copy)["missing"]) == 2


def test_a_damaged_record_counts_as_not_run(arena_copy, arena, ran):
    record_path(arena_copy, CELL.format("mild")).write_text("{")
    assert arena("--output", arena_copy, GOOD) == 0
    assert [cell.method for cell in ran] == ["mild"]


def test_only_an_arena_of_failures_exits_with_1(arena_copy, arena, ran, user_methods, capsys):
    assert arena("--output", arena_copy, f"--methods={json.dumps([user_methods['raising']])}") == 1
    shown = capsys.readouterr().err
    assert "all 1 cells failed; the first: ZeroDivisionError" in shown
    assert shown.count("\n") == 1


def test_dry_run_lists_states_and_runs_nothing(arena_copy, arena, mixed, ran, capsys):
    record_path(arena_copy, CELL.format("mild")).unlink()
    assert arena("--output", arena_copy, mixed, "--dry-run") == 0
    shown = capsys.readouterr()
    assert f"to do  {CELL.format('mild')}" in shown.out
    assert f"failed {CELL.format('raising')}" in shown.out
    assert "5 cells: 1 done, 3 failed, 1 to do" in shown.err
    assert ran == []


def test_json_names_files_and_failures(arena_copy, arena, mixed, ran, capsys):
    assert arena("--output", arena_copy, mixed, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["cells"], shown["done"], len(shown["failed"])) == (5, 2, 3)
    assert str(arena_copy / "arena.json") in shown["files"]


def test_the_table_shows_methods_and_failures(arena_copy, arena, mixed, ran, capsys):
    assert arena("--output", arena_copy, mixed, quiet=False) == 0
    shown = capsys.readouterr().out
    assert "retain_finetune" in shown
    assert "0/1" in shown
    assert "ZeroDivisionError" in shown


def test_a_cell_that_fails_by_hand_exits_with_1(finished_arena, arena, tmp_path, user_methods, capsys):
    options = [f"--methods={json.dumps([user_methods['raising']])}", "--cache", finished_arena / "cache"]
    assert arena("--output", tmp_path, *options, "--cell", CELL.format("raising")) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert not CellRecord.read(record_path(tmp_path, CELL.format("raising"))).done


class Watch:
    def __init__(self):
        self.seen = []

    def started(self, cell):
        self.seen.append(("started", cell.method))

    def finished(self, record):
        self.seen.append((record.status, record.method))


@pytest.fixture
def one_cell(finished_arena, tiny, tmp_path):
    request = parse("", ["--config", str(tiny), "--output", str(tmp_path / "out"), "--methods=[retain_finetune]"])
    plan = make_plan(request.config, request.folder)
    return plan.cells[0], Work(plan.audit, request.output, finished_arena / "cache")


def test_a_job_of_submitit_finds_the_same(one_cell, finished_arena):
    cell, work = one_cell
    watch = Watch()
    executor = submitit.LocalExecutor(folder=work.output / "submitit")
    executor.update_parameters(timeout_min=5)
    launchers.run_submitit(executor, [cell], work, jobs=1, observer=watch, poll=0.2)
    assert watch.seen == [("started", "retain_finetune"), ("done", "retain_finetune")]
    [mine] = collect(work.output)
    assert figures(mine) == figures(CellRecord.read(record_path(finished_arena, cell.id)))


class Job:
    job_id, state = "17", "OUT_OF_MEMORY"

    def __init__(self, folder):
        self.paths = submitit.core.utils.JobPaths(folder, self.job_id)

    def done(self):
        return True


class LosingExecutor:
    """Every job dies without a word."""

    submitted = 0

    def submit(self, function, cell, work):
        self.submitted += 1
        return Job(work.output)


def test_a_job_that_dies_is_submitted_once_more_then_recorded(one_cell):
    cell, work = one_cell
    watch, executor = Watch(), LosingExecutor()
    cell.record("failed", "an earlier run's").write(work.output)
    launchers.run_submitit(executor, [cell], work, jobs=1, observer=watch, poll=0)
    assert executor.submitted == 2
    assert watch.seen[-1] == ("failed", "retain_finetune")
    assert "job 17 ended (OUT_OF_MEMORY)" in collect(work.output)[0].error


class RefusingExecutor:
    """A cluster that knows no such partition."""

    def submit(self, function, cell, work):
        raise submitit.core.utils.FailedJobError("sbatch: error: invalid partition specified: gpuu")


def test_a_cluster_that_refuses_is_one_line(one_cell):
    cell, work = one_cell
    with pytest.raises(RunError, match=r"slurm: no job could be submitted \(sbatch: error: invalid partition"):
        launchers.run_submitit(RefusingExecutor(), [cell], work, jobs=1, observer=Watch(), poll=0)


def test_a_slurm_job_asks_for_what_is_set(one_cell, tiny, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "srun"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    options = ["--slurm.partition=gpus", "--slurm.gpus=1", "--slurm.time=30", "--slurm.extra={qos: low}"]
    settings = parse("", ["--config", str(tiny), *options]).config.slurm
    executor = launchers.slurm_executor(one_cell[1], settings)
    script = executor._make_submission_file_text("python x.py", "id")
    for asked in ("partition=gpus", "gpus-per-node=1", "time=30", "qos=low", "mem=8192MB", "cpus-per-task=1"):
        assert f"#SBATCH --{asked}" in script


def test_a_finished_cell_is_not_run_twice(arena_copy, tiny, monkeypatch):
    request = parse("", ["--config", str(tiny), "--output", str(arena_copy), GOOD])
    plan = make_plan(request.config, request.folder)
    monkeypatch.setattr("retrace_pl.pipeline.api.Audit", None)
    record = run_cell(plan.cells[0], Work(plan.audit, arena_copy, arena_copy / "cache"))
    assert record.done


def workers_of(process):
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    return [int(pid) for pid, parent, command in rows if parent == str(process) and "spawn_main" in command]


def test_ctrl_c_stops_and_leaves_a_folder_to_resume(arena_copy, tiny):
    for folder in ("cells/" + CELL.format("mild"), "cache"):  # the cell has to train everything
        shutil.rmtree(arena_copy / folder)
    command = [sys.executable, "-m", "retrace_pl", "arena", "--config", tiny, "--output", arena_copy, GOOD]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits to ignore it
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    signal.signal(signal.SIGINT, previous)
    log = arena_copy / "cells" / CELL.format("mild") / "log.txt"
    try:
        while not log.exists() and process.poll() is None:  # the worker has the cell
            time.sleep(0.05)
        [worker] = workers_of(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        _, shown = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert process.returncode == 130
    assert "run the same command again" in shown
    assert "Traceback" not in shown
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    assert [cell["method"] for cell in results(arena_copy)["cells"]] == ["retain_finetune"]
    assert results(arena_copy)["missing"] == [CELL.format("mild")]
    assert not (arena_copy / "cells" / CELL.format("mild") / RECORD).exists()
