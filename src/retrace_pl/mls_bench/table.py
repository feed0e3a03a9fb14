"""The results for people: ours and the published rows of a setting in one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.text import Text

from retrace_pl.mls_bench.published import best_two_sided, published_problems, published_rows
from retrace_pl.mls_bench.scores import Validity
from retrace_pl.mls_bench.settings import PUBLISHED_SEED, find_setting
from retrace_pl.report.findings import fitting_table, output_console

_COLUMNS = (
    "method", "preset", "seed", "retain", "forget", "MIA AUC", "leakage", "two-sided", "rank",
    "score", "AUC*", "score*", "gap to retrain", "valid",
)  # fmt: skip

_WIDE = 150
"""Characters that all columns need; a narrower terminal gets those of _NARROW."""

_FILE_WIDTH = 180
"""Characters of a line where standard output is no terminal."""

_NARROW = ("method", "preset", "seed", "retain", "forget", "MIA AUC", "two-sided", "rank", "score*", "valid")

_LEGEND = (
    "retain, forget: test accuracy on the other classes and on the forgotten class. MIA AUC: tie-corrected; 0.5 leaks "
    "nothing. leakage: 2|AUC - 0.5|. two-sided: (retain + (1 - forget) + (1 - leakage)) / 3, the column that ranks. "
    "score: (retain + (1 - forget) + (1 - AUC)) / 3. AUC*, score*: as MLS-Bench computes them, ties ranked by position "
    "(mls_bench_compatible); compare published rows with these. gap to retrain: retain / forget / AUC minus those of "
    "the model retrained without the class."
)


def results_table(
    results: Sequence[dict[str, Any]], validity: Validity, *, narrow: bool = False, width: int = _FILE_WIDTH
) -> Group:
    """One table per setting, published rows first, and what the columns mean.

    Valid rows are ranked by the two-sided score among those of the same preset; published rows count as `full`. A run
    with other numbers than its preset's, or with a method's own settings, is marked and ranked apart.

    Args:
        results: What `Benchmark.run` returned.
        validity: The thresholds the runs were judged by; they are applied to published rows too.
        narrow: Leave out the columns that a terminal of 80 characters has no room for.
        width: Characters that there are; further columns are left out where they do not fit.

    Returns:
        Something that rich prints.
    """
    settings = dict.fromkeys(result["setting"] for result in results)
    parts: list[Any] = []
    for setting in settings:
        rows = [*_published(setting, validity), *(_ours(r) for r in results if r["setting"] == setting)]
        shown = [column for column in _COLUMNS if column in _NARROW or not narrow]
        lines: list[tuple[list[str], str | None]] = []
        for row, rank in zip(rows, _ranks(rows), strict=True):
            cells = dict(zip(_COLUMNS, [*row["cells"][:8], rank, *row["cells"][8:]], strict=True))
            lines.append(([cells[column] for column in shown], None if row["valid"] else "yellow"))
        parts += [Text(setting, style="italic"), fitting_table(shown, lines, width), Text()]
    parts.append(Text(_LEGEND, style="dim"))
    if narrow:
        parts.append(Text(f"A terminal of {_WIDE} characters shows all columns; --json has every number.", style="dim"))
    parts.append(
        Text(
            f"invalid (never ranked): outputs or loss not finite; retain below {validity.min_retain:g} of the original "
            f"model's, or no better than always naming one class; forget at or above {validity.max_forget:g} of it. "
            "Published rows are judged against published retain_finetune.",
            style="dim",
        )
    )
    return Group(*parts)


def print_results(results: Sequence[dict[str, Any]], validity: Validity) -> None:
    """Prints the tables on standard output; wide enough for all columns where that is no terminal."""
    console = output_console()
    if not console.is_terminal:
        console.width = max(console.width, _FILE_WIDTH)
    console.print(results_table(results, validity, narrow=console.width < _WIDE, width=console.width))
    for result in results:
        if result["error"]:
            console.print(f"{escape(result['method'])}: {escape(result['error'])}", style="yellow", soft_wrap=True)


def _published(name: str, validity: Validity) -> list[dict[str, Any]]:
    rows = published_rows(find_setting(name))
    found: list[dict[str, Any]] = []
    for row in rows:
        problems = published_problems(row, rows, validity.min_retain)
        leakage = None if row.forget_mia_auc is None else 2 * abs(row.forget_mia_auc - 0.5)
        cells = [
            f"{row.method} (published)", "full", str(PUBLISHED_SEED), _number(row.retain_acc), _number(row.forget_acc),
            "-", _number(leakage), _number(row.two_sided), "-", _number(row.forget_mia_auc), _number(row.score), "-",
            _verdict(problems) if row.retain_acc is not None else "-",
        ]  # fmt: skip
        found.append({"cells": cells, "group": "full", "valid": not problems, "two_sided": row.two_sided})
    best = best_two_sided(find_setting(name))
    if best is not None:
        cells = ["best by two-sided (published)", "full", str(PUBLISHED_SEED), *"----", _number(best), *"-----"]
        found.append({"cells": cells, "group": "full", "valid": True, "two_sided": best})
    return found


def _ours(result: dict[str, Any]) -> dict[str, Any]:
    group = result["preset"] + (" changed" if result["overrides"] else "")
    compatible, gap = result["mls_bench_compatible"], result["gap_to_retrain"]
    gaps = (
        " / ".join(_number(gap[name], signed=True) for name in ("retain_acc", "forget_acc", "forget_mia_auc"))
        if gap
        else "-"
    )
    cells = [
        escape(result["method"]) + (" (own settings)" if result["own_settings"] else ""), group, str(result["seed"]),
        _number(result["retain_acc"]), _number(result["forget_acc"]), _number(result["forget_mia_auc"]),
        _number(result["mia_leakage"]), _number(result["two_sided_score"]), _number(result["unlearn_score"]),
        _number(compatible["forget_mia_auc"]), _number(compatible["unlearn_score"]), gaps,
        _verdict(result["problems"]),
    ]  # fmt: skip
    group += " own" if result["own_settings"] else ""
    return {"cells": cells, "group": group, "valid": result["valid"], "two_sided": result["two_sided_score"]}


def _ranks(rows: list[dict[str, Any]]) -> list[str]:
    ranks = []
    for row in rows:
        if not row["valid"] or row["two_sided"] is None:
            ranks.append("-")
            continue
        rivals = [r["two_sided"] for r in rows if r["valid"] and r["group"] == row["group"] and r["two_sided"]]
        ranks.append(str(1 + sum(score > row["two_sided"] for score in rivals)))
    return ranks


def _verdict(problems: list[str]) -> str:
    return "yes" if not problems else f"no: {', '.join(problems)}"


def _number(value: float | None, *, signed: bool = False) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:+.3f}" if signed else f"{value:.3f}"
