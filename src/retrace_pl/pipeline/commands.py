"""The commands `retrace audit` and one per stage; all of them take the same configuration."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from retrace_pl.pipeline.config import STAGES
from retrace_pl.pipeline.parsing import parse
from retrace_pl.pipeline.runner import AuditRun, run_stages
from retrace_pl.pipeline.summary import print_summary
from retrace_pl.report.findings import result_alone


def audit(arguments: list[str]) -> None:
    """Run a whole audit: pretrain, generator, unlearn, attack, evaluate, report; finished stages are skipped."""
    _run("audit", audit.__doc__, arguments, STAGES)


def pretrain(arguments: list[str]) -> None:
    """Train the audited model f+ and the independent evaluator."""
    _run("pretrain", pretrain.__doc__, arguments, ("pretrain",))


def generator(arguments: list[str]) -> None:
    """Train the generator G on the public records."""
    _run("generator", generator.__doc__, arguments, ("generator",))


def unlearn(arguments: list[str]) -> None:
    """Make f+ forget the deleted records, and retrain the reference models of the controls."""
    _run("unlearn", unlearn.__doc__, arguments, ("unlearn",))


def attack(arguments: list[str]) -> None:
    """Search for the deleted records and run the controls at the same query budget."""
    _run("attack", attack.__doc__, arguments, ("attack",))


def evaluate(arguments: list[str]) -> None:
    """Compare what was found with the deleted records and write metrics.json with the verdict."""
    _run("evaluate", evaluate.__doc__, arguments, ("evaluate",))


def report(arguments: list[str]) -> None:
    """Write report.html from a run's metrics and candidates."""
    _run("report", report.__doc__, arguments, ("report",))


def _run(command: str, description: str | None, arguments: list[str], stages: tuple[str, ...]) -> None:
    request = parse(command, description or "", arguments)
    with result_alone(request.as_json):
        run = AuditRun.start(request)
        run_stages(run, stages, own_process=command != "audit")
    if not run.is_rank_zero:
        return
    if request.as_json:
        sys.stdout.write(json.dumps(_result(run, stages), indent=2) + "\n")
    elif not request.quiet:
        print_summary(run, stages)


def _result(run: AuditRun, stages: tuple[str, ...]) -> dict[str, Any]:
    metrics = run.folder.path("metrics.json")
    done = {"output": str(run.folder.root), "stages": list(stages)}
    if stages[-1] in ("evaluate", "report") and metrics.is_file():
        done["metrics"] = json.loads(metrics.read_text(encoding="utf-8"))
    page: Path = run.folder.path("report.html")
    if stages[-1] == "report" and page.is_file():
        done["report"] = str(page)
    return done
