"""How the metrics of one kind of data are called and read, in plain words for tables, verdicts and reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["CLASS_SUCCESS", "Glossary", "Metric"]

Direction = Literal["higher", "lower", "none"]


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Args:
        title: Short name.
        direction: Which way a reconstruction comes closer to the deleted data.
        definition: One or two sentences.
        percent: Whether it is a share, shown in percent.
        floors: Reference values shown beside it.
        found: What a verdict says of candidates that count; empty for what is no share of candidates.
    """

    title: str
    direction: Direction
    definition: str
    percent: bool = False
    floors: tuple[str, ...] = ()
    found: str = ""


@dataclass(frozen=True)
class Glossary:
    """Words for one kind of data.

    Args:
        domain: Name of the kind, as stored in ``metrics.json``.
        items: What its records are, in the plural.
        shown: What a reader sees of a candidate, in the plural.
        metrics: Name of a metric -> its words, in the order of a table.
        floors: Name of a reference value -> its words.
        closeness: The metric that compares a candidate with its nearest deleted record.
        closeness_title: That metric in a line of facts.
        closeness_short: The same below one candidate.
        columns: Metrics of the short table that compares other attacks.
        summary: Metrics of the table that ends a run on the terminal.
        legend: What stands beside and below each candidate.
        caution: How the closeness misleads: one item of the list of limits.
        caution_short: The same in a sentence or less.
    """

    domain: str
    items: str
    shown: str
    metrics: dict[str, Metric]
    floors: dict[str, str]
    closeness: str
    closeness_title: str
    closeness_short: str
    columns: tuple[str, ...]
    summary: tuple[str, ...]
    legend: str
    caution: str
    caution_short: str


CLASS_SUCCESS: dict[str, Metric] = {
    "sr_oracle": Metric(
        "Success (evaluator)",
        "higher",
        "Share of candidates that an independent classifier, which saw neither audited model, takes for deleted data.",
        percent=True,
        floors=("heldout_sr_oracle",),
        found="recognised as deleted data by the independent evaluator",
    ),
    "sr_original": Metric(
        "Success (original model)",
        "higher",
        "Share of candidates that the model before unlearning takes for deleted data. The search can fool this judge.",
        percent=True,
        found="recognised as deleted data by the original model",
    ),
}
"""Success rates that mean the same for every kind of data."""
