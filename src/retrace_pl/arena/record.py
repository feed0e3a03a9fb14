"""What one cell of an arena leaves behind: `cells/ID/cell.json`, every figure beside its controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from retrace_pl.errors import RunError
from retrace_pl.files import read_json, write_json

SCHEMA = 1
"""Raised whenever a field changes its meaning; cells of another schema are run again."""

CELLS, RECORD, RUN = "cells", "cell.json", "run"
"""Names inside the arena's folder: `cells/ID/cell.json`, `cells/ID/run/`."""

QUALITY = ("retain_acc", "forget_acc", "test_acc", "mia_auc")
"""What is recorded of a model: accuracies in [0, 1], and the AUC of a membership attack on the deleted records."""

NO_METRICS = ("intervals", "score")
"""What stands beside the metrics of an arm; which metrics there are depends on the kind of data."""

SPREAD = ("fid_oracle", "kid_oracle", "kl", "label_kl", "diversity", "precision", "recall")
"""Metrics that a single candidate does not have."""


@dataclass
class CellRecord:
    """The result of one cell; a failed cell has a status and an error, and no figures.

    Args:
        id: name of the cell, and of its folder.
        method: name of the unlearning method in the arena: a preset or a name of the user's.
        class_name: class of the method.
        strength: factor on the preset's own strength.
        seed: seed of the audit and of its splits.
        forget_class: the deleted class; None where the arena keeps the deletion of its base audit.
        access: what the auditor may see.
        attack: name of the attack in the arena.
        status: `done`, or `failed` with a one-line `error`.
        settings_hash: hash of every setting behind the figures; a cell whose hash differs is run again.
        error: why the cell failed, in one line.
        seconds: those of each stage of this cell, little where the artefact cache had its outputs; `total`, their sum;
            `unlearning`, where known: those of the method alone, when it ran.
        unlearning: `retain_acc`, `forget_acc`, `test_acc`, `mia_auc` of the unlearned model f-.
        original: the same of the original model f+.
        retrained: the same of the model retrained without the deleted records; what f- is measured against.
        attack_result: what the attack found through (f+, f-), at distribution level: success rates in [0, 1], `mse` to
            the nearest deleted record, `ssim`, `cs`, `fid_oracle`, `diversity` and so on, as in `metrics.json`;
            `instance` holds those of the single best candidate, `intervals` those of the success rates.
        prior: the same of the generator's own samples, at the same number of candidates.
        matched_retrain: the same of the attack on (f+, retrained), at the same budget.
        leakage: `excess`, `avoidable` and `record` with value, low, high, level, repeats, note and metric.
        verdict: `leak`, `no_evidence` or `invalid`.
        verdict_reason: the sentence behind it.
        queries: candidates each search showed to both models.
        top_k: candidates behind the distribution-level figures.
        repeats: repetitions of the search inside the cell.
        run: run folder of the audit, relative to the arena's folder.
        schema: version of this format.
    """

    id: str
    method: str
    class_name: str
    strength: float
    seed: int
    forget_class: int | str | None
    access: str
    attack: str
    status: Literal["done", "failed"]
    settings_hash: str
    error: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    unlearning: dict[str, float | None] | None = None
    original: dict[str, float | None] | None = None
    retrained: dict[str, float | None] | None = None
    attack_result: dict[str, Any] | None = None
    prior: dict[str, Any] | None = None
    matched_retrain: dict[str, Any] | None = None
    leakage: dict[str, Any] | None = None
    verdict: str | None = None
    verdict_reason: str | None = None
    queries: int | None = None
    top_k: int | None = None
    repeats: int | None = None
    run: str | None = None
    schema: int = SCHEMA

    def take(self, metrics: Mapping[str, Any]) -> CellRecord:
        """Takes the figures of a finished audit.

        Args:
            metrics: the content of its `metrics.json`.

        Returns:
            This record.

        Raises:
            RunError: the audit did not run the controls that every figure is shown with.
        """
        controls = metrics["controls"]
        missing = [name for name in ("prior", "matched_retrain") if name not in controls]
        if missing:
            raise RunError(f"cell {self.id}: the audit ran no control {missing[0]}; add it to audit.controls")
        self.unlearning, self.original, self.retrained = (
            {name: metrics[model][name] for name in QUALITY} for model in ("unlearning", "original", "retrained")
        )
        self.attack_result = figures(metrics["attack"])
        self.prior = figures(controls["prior"])
        self.matched_retrain = figures(controls["matched_retrain"])
        self.leakage = dict(metrics["leakage"])
        self.verdict, self.verdict_reason = metrics["verdict"], metrics["verdict_reason"]
        budget = metrics["budget"]
        self.queries, self.top_k, self.repeats = budget["queries"], budget["top_k"], budget["repeats"]
        return self

    @property
    def done(self) -> bool:
        """Whether the cell has figures."""
        return self.status == "done"

    def write(self, output: Path) -> None:
        """Writes `cells/ID/cell.json` atomically.

        Args:
            output: the arena's folder.
        """
        write_json(record_path(output, self.id), asdict(self))

    @classmethod
    def read(cls, path: Path) -> CellRecord:
        """Reads a `cell.json`.

        Raises:
            RunError: the file is damaged, or of another schema.
        """
        return cls.parse(read_json(path), str(path))

    @classmethod
    def parse(cls, values: Any, source: str) -> CellRecord:
        """Makes a record of the plain values of a `cell.json` or of a row of `arena.json`.

        Args:
            values: the plain values.
            source: where they come from, for the message.

        Raises:
            RunError: they are no record of this schema.
        """
        names = {item.name for item in fields(cls)}
        if not isinstance(values, dict) or values.get("schema") != SCHEMA or set(values) != names:
            raise RunError(f"{source} is no cell of schema {SCHEMA}; run the cell again with `retrace arena`")
        return cls(**values)


def figures(arm: Mapping[str, Any]) -> dict[str, Any]:
    """Distribution-level figures of an attack or control, with those of its best candidate under `instance`.

    Args:
        arm: an entry of `metrics.json` with `distribution` and `instance`.
    """
    whole, best = arm["distribution"], arm["instance"]
    names = [name for name in whole if name not in NO_METRICS]
    return {
        **{name: whole[name] for name in names},
        "instance": {name: best.get(name) for name in names if name not in SPREAD},
        "intervals": whole["intervals"],
    }


def record_path(output: Path, cell: str) -> Path:
    """Where the record of a cell lies.

    Args:
        output: the arena's folder.
        cell: id of the cell.
    """
    return output / CELLS / cell / RECORD


def collect(output: Path) -> list[CellRecord]:
    """Every record in an arena's folder, by id, whatever run or machine wrote it.

    A damaged record, or one of another schema, is left out: its cell counts as not run.

    Args:
        output: the arena's folder.
    """
    found = []
    for path in sorted((output / CELLS).glob(f"*/{RECORD}")):
        record = read_if_whole(path)
        if record is not None:
            found.append(record)
    return found


def read_if_whole(path: Path) -> CellRecord | None:
    """The record at a path, or None where there is none, a damaged one or one of another schema."""
    try:
        return CellRecord.read(path)
    except RunError:
        return None
