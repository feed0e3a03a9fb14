"""The command `retrace arena`."""

from __future__ import annotations

import json
import sys

from rich.markup import escape

from retrace_pl.arena.cells import Plan, make_plan
from retrace_pl.arena.config import ArenaRequest, parse
from retrace_pl.arena.ranking import rank_records
from retrace_pl.arena.runner import Outcome, open_folders, run_arena, state
from retrace_pl.arena.summary import print_ranking
from retrace_pl.arena.worker import run_cell
from retrace_pl.errors import RunError
from retrace_pl.report.findings import output_console, result_alone


def arena(arguments: list[str]) -> None:
    """Audit many unlearning methods side by side; finished cells are skipped, failed ones tried again."""
    request = parse(arena.__doc__ or "", arguments)
    plan = make_plan(request.config, request.folder)
    if request.dry_run:
        _list(request, plan)
    elif request.cell is not None:
        _one(request, plan, request.cell)
    else:
        _all(request, plan)


def _list(request: ArenaRequest, plan: Plan) -> None:
    cells = plan.cells if request.cell is None else [plan.find(request.cell)]
    states = {cell.id: state(cell, request.output) for cell in cells}
    if request.as_json:
        rows = [{"cell": name, "state": found} for name, found in states.items()]
        sys.stdout.write(json.dumps({"output": str(request.output), "cells": rows}, indent=2) + "\n")
        return
    for name, found in states.items():
        sys.stdout.write(f"{found:<6} {name}\n")
    counts = [f"{list(states.values()).count(found)} {found}" for found in ("done", "failed", "to do")]
    sys.stderr.write(f"{len(states)} cells: {', '.join(counts)}; nothing was run\n")


def _one(request: ArenaRequest, plan: Plan, name: str) -> None:
    cell = plan.find(name)
    with result_alone(request.as_json):
        record = run_cell(cell, open_folders(request, plan.audit))
    if not record.done:
        raise RunError(f"cell {cell.id} failed: {record.error}")
    folder = request.output / cell.run
    if request.as_json:
        sys.stdout.write(json.dumps({"cell": cell.id, "status": record.status, "run": str(folder)}, indent=2) + "\n")
    elif not request.quiet:
        output_console().print(f"{cell.id}: {record.verdict}; files are in {folder}", soft_wrap=True, markup=False)


def _all(request: ArenaRequest, plan: Plan) -> None:
    with result_alone(request.as_json):
        outcome = run_arena(request, plan)
    if request.as_json:
        sys.stdout.write(json.dumps(_result(request, outcome), indent=2) + "\n")
    elif not request.quiet:
        _print(request, outcome)
    if outcome.records and len(outcome.failed) == len(outcome.records):
        raise RunError(f"all {len(outcome.failed)} cells failed; the first: {outcome.failed[0].error}")


def _result(request: ArenaRequest, outcome: Outcome) -> dict[str, object]:
    return {
        "output": str(request.output),
        "cells": len(outcome.records) + len(outcome.missing),
        "done": len(outcome.records) - len(outcome.failed),
        "failed": {record.id: record.error for record in outcome.failed},
        "files": [str(path) for path in outcome.files],
    }


def _print(request: ArenaRequest, outcome: Outcome) -> None:
    console = output_console()
    print_ranking(console, rank_records(outcome.records, request.settings, outcome.missing))
    for record in outcome.failed:
        console.print(f"[red]failed[/red] {escape(record.id)}: {escape(record.error or '')}", soft_wrap=True)
    for path in outcome.files:
        console.print(f"written: {escape(str(path))}", soft_wrap=True)
