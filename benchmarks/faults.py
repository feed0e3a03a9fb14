"""Audits that are cut off and run again: ``python benchmarks/faults.py [--kills 50] [--results FOLDER]``.

A whole audit of ``--config`` runs once undisturbed. Then audits run in rounds: each is disturbed in its first stage at
a random point (``SIGKILL``, Ctrl-C, or a disk that takes no more), run again, disturbed in its second stage, and so on;
the last rerun of a round ends undisturbed. A disturbance is survived if no file that a rerun reads is partial, the
rerun finishes the stage with byte-identical tensors, and the round ends with the same ``metrics.json`` (but for
seconds). The point is a share of the processor time that the stage took undisturbed, so it does not depend on what else
the machine does. Each audit is a process of its own, forked from one that has imported the package: the seconds of the
imports, in which no stage runs, are left out.

``faults.md`` and ``faults.json`` are written after every round; a rerun continues.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

STAGES = ("pretrain", "generator", "unlearn", "attack", "evaluate", "report")
PRELOADED = [
    "retrace_pl.pipeline.commands",
    "retrace_pl.pipeline.train_stages",
    "retrace_pl.pipeline.unlearn_stage",
    "retrace_pl.pipeline.attack_stage",
    "retrace_pl.pipeline.evaluate_stage",
    "retrace_pl.pipeline.report_stage",
    "stable_baselines3",
]
CONFIG = Path(__file__).resolve().parent.parent / "tests" / "conf" / "digits_tiny.yaml"
POLL = 0.001
LOG = "faults.log"
INTERRUPTED = 130
SIGKILL, SIGINT, FULL = "SIGKILL", "Ctrl-C", "full disk"
ROOM = 1024
"""Bytes that a file may have on the disk that is full: enough for the error's line."""


def run_audit(config: str, folder: str) -> None:
    """One audit, in a process of its own; its output goes into a file beside the run folder."""
    from retrace_pl.cli import main

    log = os.open(f"{folder}.{LOG}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the process it was forked from ignores Ctrl-C
    code = main(["audit", "--config", config, "--output", folder, "--quiet"])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@dataclass
class Audits:
    """Starts audits of one configuration.

    Args:
        config: The configuration's file.
    """

    config: Path

    def __post_init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)

    def start(self, folder: Path) -> Any:
        """A process that runs the audit in a folder."""
        process = self._context.Process(target=run_audit, args=(str(self.config), str(folder)))
        process.start()
        return process


def processor_seconds(process: Any) -> float:
    """Seconds that a process has been on a processor, or the clock's where the system does not say."""
    try:
        return int(Path(f"/proc/{process.pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9
    except (OSError, IndexError):
        return time.monotonic()


def until(process: Any, happened: Callable[[], bool]) -> bool:
    """Waits; False where the process ends before."""
    while not happened():
        if process.exitcode is not None:
            return happened()
        time.sleep(POLL)
    return True


def undisturbed(audits: Audits, folder: Path) -> dict[str, float]:
    """Runs the audit once, and returns the processor seconds of each stage."""
    shutil.rmtree(folder, ignore_errors=True)
    process = audits.start(folder)
    seconds = {}
    until(process, lambda: (folder / "config.yaml").exists())
    before = processor_seconds(process)
    for stage in STAGES:
        until(process, lambda stage=stage: (folder / "stages" / f"{stage}.json").exists())
        now = processor_seconds(process) if process.exitcode is None else before
        seconds[stage], before = now - before, now
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"the undisturbed audit failed: {output(folder)}")
    return seconds


def output(folder: Path) -> str:
    """What an audit printed."""
    return Path(f"{folder}.{LOG}").read_text(encoding="utf-8").strip()


def take_back(folder: Path, stage: str) -> None:
    """Makes a run that went too far one in which `stage` is the next."""
    for name in STAGES[STAGES.index(stage) :]:
        marker = folder / "stages" / f"{name}.json"
        if marker.is_file():
            for product in json.loads(marker.read_text(encoding="utf-8"))["outputs"]:
                (folder / product).unlink()
            marker.unlink()


def disturb(audits: Audits, folder: Path, stage: str, fault: str, seconds: float) -> tuple[bool, str | None]:
    """Runs the audit, and lets something happen when a stage has had its processor seconds.

    Returns:
        Whether it came before the end, and what went wrong with the process.
    """
    config, earlier = folder / "config.yaml", STAGES[: STAGES.index(stage)]
    before = config.stat().st_ino if config.exists() else None
    process = audits.start(folder)
    try:

        def begun() -> bool:  # the configuration is written anew before the first stage of every process
            ready = config.exists() and config.stat().st_ino != before
            return ready and all((folder / "stages" / f"{name}.json").exists() for name in earlier[-1:])

        if not until(process, begun):
            process.join()
            return True, f"it ended with exit code {process.exitcode} before {stage}: {output(folder)}"
        start = processor_seconds(process)
        if not until(process, lambda: processor_seconds(process) - start >= seconds) or process.exitcode is not None:
            return False, None
        if fault == FULL:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))
        else:
            os.kill(process.pid, signal.SIGKILL if fault == SIGKILL else signal.SIGINT)
        process.join()
    finally:
        if process.is_alive():
            process.kill()
    said = output(folder)
    code, words = {SIGKILL: (-signal.SIGKILL, ""), SIGINT: (INTERRUPTED, "same command"), FULL: (1, "too large")}[fault]
    if process.exitcode == 0:
        return False, None
    fine = process.exitcode == code and words in said and (fault == SIGKILL or "\n" not in said)
    return True, None if fine else f"it ended with exit code {process.exitcode}: {said}"


def not_whole(folder: Path, finished: Path) -> str | None:
    """The first file that a rerun would read and that is not whole; files that are being written end in .part."""
    from retrace_pl.errors import RetraceError
    from retrace_pl.files import read_json, read_tensors
    from retrace_pl.pipeline.checkpoints import check_readable

    readers: dict[str, Callable[[Path], Any]] = {
        ".safetensors": read_tensors,
        ".json": read_json,
        ".ckpt": check_readable,
    }
    for path in sorted(folder.rglob("*")):
        if path.suffix not in readers:
            continue
        try:
            readers[path.suffix](path)
        except RetraceError as error:
            return str(error)
        twin = finished / path.relative_to(folder)
        if path.suffix == ".safetensors" and twin.is_file() and path.read_bytes() != twin.read_bytes():
            return f"{path} has other tensors than the undisturbed run"
    return None


def numbers(folder: Path) -> dict[str, Any]:
    """The metrics of a run without what time it took."""
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {name: value for name, value in metrics.items() if name != "seconds"}


def ended(audits: Audits, folder: Path, finished: Path) -> str | None:
    """Runs the audit to its end and compares; returns what is wrong."""
    process = audits.start(folder)
    process.join()
    if process.exitcode != 0:
        return f"the rerun ended with exit code {process.exitcode}: {output(folder)}"
    if numbers(folder) != numbers(finished):
        return "the rerun has other metrics"
    found, expected = (sorted(path.name for path in run.iterdir()) for run in (folder, finished))
    if found != expected:
        return f"the rerun left other files: {sorted(set(found) ^ set(expected))}"
    left = [path.name for path in folder.rglob("*.part")]
    return f"the rerun left {left}" if left else not_whole(folder, finished)


def one_round(
    audits: Audits, fault: str, first: int, count: int, seed: int, runs: Path, seconds: dict[str, float]
) -> list[dict[str, Any]]:
    """Disturbs one audit in each of its first `count` stages; what was tried, with what was lost."""
    finished, folder = runs / "undisturbed", runs / f"{fault.replace(' ', '_')}-{first}"
    shutil.rmtree(folder, ignore_errors=True)
    tries: list[dict[str, Any]] = []
    for index in range(first, first + count):
        stage, points, misses = STAGES[index - first], random.Random(f"{seed}/{fault}/{index}"), 0
        while True:
            point = points.random()
            hit, problem = disturb(audits, folder, stage, fault, point * seconds[stage])
            if hit:
                break
            misses += 1  # the audit was over before
            take_back(folder, stage)
        left = sorted(path.name for path in folder.rglob("*") if path.suffix in (".ckpt", ".part"))
        problem = problem or not_whole(folder, finished)
        facts = {"point": round(point, 4), "misses": misses, "left": left}
        tries.append({"fault": fault, "index": index, "stage": stage, **facts, "problem": problem})
    problem = ended(audits, folder, finished)
    if problem is None and all(row["problem"] is None for row in tries):
        shutil.rmtree(folder)
        Path(f"{folder}.{LOG}").unlink()
    return [{**row, "problem": row["problem"] or problem} for row in tries]


def markdown(result: dict[str, Any]) -> str:
    """The table of what was tried, and every loss."""
    tries = result["tries"]
    lines = [
        "# Faults",
        "",
        f"`{result['command']}`, {result['date']}, {result['hardware']}, seed {result['seed']}; audit: "
        f"`{result['config']}`. Each comes at a random point of the stage. Survived: no file that a rerun reads was "
        "partial, the rerun finished the stage with byte-identical tensors, and the audit ended with the metrics of an "
        f"undisturbed one. On the full disk no file may grow beyond {ROOM} bytes from that point on "
        "(`RLIMIT_FSIZE`); it and Ctrl-C must end in one line and with exit code 1 and 130.",
        "",
        "| stage | fault | tried | survived | lost | resumed from a checkpoint | killed in a write |",
        "|---|---|---|---|---|---|---|",
    ]
    for fault in dict.fromkeys(row["fault"] for row in tries):
        of_fault = [row for row in tries if row["fault"] == fault]
        for stage in STAGES:
            lines += _row(stage, fault, [row for row in of_fault if row["stage"] == stage])
        lines += _row("**all**", fault, of_fault)
    lost = [row for row in tries if row["problem"]]
    lines += ["", *(f"- lost: {row['fault']} in {row['stage']} (try {row['index']}): {row['problem']}" for row in lost)]
    return "\n".join(lines).rstrip() + "\n"


def _row(stage: str, fault: str, rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    lost = sum(row["problem"] is not None for row in rows)
    kept = sum(any(name.endswith(".ckpt") for name in row["left"]) for row in rows)
    cut = sum(any(name.endswith(".part") for name in row["left"]) for row in rows)
    return [f"| {stage} | {fault} | {len(rows)} | {len(rows) - lost} | {lost} | {kept} | {cut} |"]


def hardware() -> str:
    """Number and name of this machine's processors."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else platform.processor() or platform.machine()}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one try of each fault")
    parser.add_argument("--kills", type=int, default=50, help="tries of SIGKILL")
    parser.add_argument("--interrupts", type=int, default=6, help="tries of Ctrl-C")
    parser.add_argument("--full-disks", type=int, default=6, help="tries of a disk that fills up")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--runs", type=Path, default=Path("runs/faults"), help="where run folders go; lost ones stay")
    parser.add_argument("--results", type=Path, help="folder for the two files; without it the table is printed")
    options = parser.parse_args()
    wanted = {SIGKILL: options.kills, SIGINT: options.interrupts, FULL: options.full_disks}
    if options.quick:
        wanted = dict.fromkeys(wanted, 1)
    stored = None if options.results is None else options.results / "faults.json"
    tries = json.loads(stored.read_text(encoding="utf-8"))["tries"] if stored and stored.is_file() else []
    done = {(row["fault"], row["index"]) for row in tries}
    options.runs.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    audits = Audits(options.config)
    seconds = undisturbed(audits, options.runs / "undisturbed")
    print("processor seconds of the stages:", {stage: round(value, 2) for stage, value in seconds.items()}, flush=True)
    rounds = [(fault, first) for fault, count in wanted.items() for first in range(0, count, len(STAGES))]
    for fault, first in rounds:
        if (fault, first) in done:
            continue
        count = min(len(STAGES), wanted[fault] - first)
        fresh = one_round(audits, fault, first, count, options.seed, options.runs, seconds)
        tries += fresh
        for row in fresh:
            print(f"{fault} {row['index']}, {row['stage']}: {row['problem'] or 'survived'}", flush=True)
        result = {
            "command": "python benchmarks/faults.py --results benchmarks/results",
            "date": datetime.now(UTC).date().isoformat(),
            "hardware": hardware(),
            "seed": options.seed,
            "config": Path(os.path.relpath(options.config.resolve(), Path(__file__).resolve().parents[1])).as_posix(),
            "processor_seconds": {stage: round(value, 3) for stage, value in seconds.items()},
            "tries": sorted(tries, key=lambda row: ([SIGKILL, SIGINT, FULL].index(row["fault"]), row["index"])),
        }
        if stored is not None:
            stored.parent.mkdir(parents=True, exist_ok=True)
            for path, text in (
                (stored, json.dumps(result, indent=1) + "\n"),
                (stored.with_suffix(".md"), markdown(result)),
            ):
                part = path.with_suffix(".new")
                part.write_text(text, encoding="utf-8")
                part.replace(path)
    if stored is None:
        print(markdown(result))


if __name__ == "__main__":
    main()
