"""The last lines of an attack on two models: what was found beside its controls, and where the report is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from retrace_pl.external.run import PairRun
from retrace_pl.files import read_json
from retrace_pl.report.findings import leakage_table, output_console, print_arms, print_places, print_verdict
from retrace_pl.report.gaps import seen_as
from retrace_pl.report.glossary import arm_title

__all__ = ["print_pair_summary"]

SHOWN = ("sr_oracle", "sr_mse", "mse", "diversity", "sr_rouge", "rouge_l", "bleu", "distinct_2")


def print_pair_summary(run: PairRun) -> None:
    """Prints the result on standard output."""
    console = output_console()
    metrics = read_json(run.folder.path("metrics.json"))
    shown = [name for name in SHOWN if metrics["attack"]["distribution"].get(name) is not None]
    print_arms(console, metrics, ["gap", "seen as", *shown], list(_rows(metrics, shown)))
    leakage = leakage_table(metrics)
    if leakage is not None:
        console.print()
        console.print(leakage)
        console.print()
    print_verdict(console, metrics)
    print_places(console, run.folder.root)


def _rows(metrics: dict[str, Any], shown: list[str]) -> Iterator[tuple[str, list[str]]]:
    for name, row in {"attack": metrics["attack"], **metrics["controls"], **metrics["rivals"]}.items():
        if not row.get("applicable", True):
            yield arm_title(name), ["does not apply"]
            continue
        gap = metrics["gaps"].get(name) or metrics["gaps"][f"rival.{name}"]
        figures = [_number(row["distribution"].get(metric)) for metric in shown]
        yield arm_title(name), [_number(gap["gap"]), seen_as(gap["labels"], metrics["classes"]), *figures]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
