"""Every attack of the package: three ways to forget, each attack beside itself on the matched retrain.

    python benchmarks/attacks.py --results benchmarks/results
    python benchmarks/attacks.py --data fashion_mnist --results benchmarks/results

One cell is one audit of the packaged configuration `digits` or `fashion_mnist` (white-box, 8,192 queries, one search of
each attack) with one seed and one unlearning preset. ``attacks_DATA.json`` is written after every cell, and a rerun
leaves finished cells alone; an interrupted cell continues in its run folder. ``attacks_DATA.md`` holds the means over
the seeds that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from retrace_pl.pipeline.api import Audit

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
DATA = {
    "digits": "scikit-learn digits, class 3 deleted and absent from the public data, small CNN",
    "fashion_mnist": "Fashion-MNIST, bags deleted and absent from the public data, ResNet-8",
}
UNLEARNING = {
    "negative gradient": "unlearning/{data}/negative_gradient",
    "fine-tuning": "unlearning/{data}/retain_finetune",
    "retraining": "unlearning/retrain",
}
QUERIES = 8192
TOP_K = 64
FIGURES = ("sr_oracle", "mse", "fid_oracle", "diversity")
STAGES = ("pretrain", "generator", "unlearn", "attack", "evaluate")
RETRACE, PRIOR, CONTROL = "ReTrace, PPO", "generator's own samples", "matched_retrain"
QUICK = {"queries": 1024, "classifier.epochs": 2, "evaluator.epochs": 2, "generator.epochs": 2}


def preset(name: str, **changes: Any) -> dict[str, Any]:
    """Class path and arguments of ``configs/NAME.yaml``, some of them replaced."""
    found: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    return {"class_path": found["class_path"], "init_args": {**found.get("init_args", {}), **changes}}


def retrace(searcher: str) -> dict[str, Any]:
    """ReTrace as the packaged audits set it, with another searcher."""
    settings = {"searcher": preset(f"searcher/{searcher}"), "top_k": TOP_K, "refinement_steps": 10}
    return {"class_path": "retrace_pl.attacks.ReTrace", "init_args": settings}


def baselines() -> dict[str, dict[str, Any]]:
    """The attacks beside ReTrace with PPO, by the name they have in the table."""
    return {
        "ReTrace, CEM": retrace("cem"),
        "ReTrace, CMA-ES": retrace("cma_es"),
        "ReTrace, gradient ascent": retrace("gradient"),
        "ReTrace, random": retrace("random"),
        "prior top-k": preset("attack/prior_top_k"),
        "MaxDiff": preset("attack/max_diff"),
        "HRec, generator": preset("attack/hrec"),
        "HRec, generator, `centre: false`": preset("attack/hrec", centre=False),
        "HRec, generator, `estimate: outputs`": preset("attack/hrec", estimate="outputs"),
        "HRec, pixels": preset("attack/hrec_pixels"),
        "UIA, 500 steps": preset("attack/uia_500"),
    }


def inferences() -> dict[str, dict[str, Any]]:
    """The attacks that answer a question, by the name they have in the table."""
    names = {"ClassInference": "class_inference", "LabelInference": "label_inference"}
    names["UnlearningLeaks"] = "unlearning_leaks"
    return {name: preset(f"attack/{file}") for name, file in names.items()}


def cell(data: str, unlearning: str, seed: int, runs: Path, quick: bool) -> dict[str, Any]:
    """The figures of one audit.

    Args:
        data: name of the packaged configuration.
        unlearning: name of a way to forget.
        seed: seed of the audit and of its splits.
        runs: where run folders and the models shared between them go.
        quick: small models and budgets.
    """
    # What retraining leaves behind is the control itself; another retrained model would say nothing new.
    controls = ["prior"] if unlearning == "retraining" else ["prior", CONTROL]
    overrides = {
        "seed": seed,
        "data.seed": seed,
        "access": "white",
        "queries": QUERIES,
        "attack.init_args.top_k": TOP_K,
        "attack.init_args.refinement_steps": 10,
        "rivals": [],
        "unlearning": preset(UNLEARNING[unlearning].format(data=data)),
        "baselines": list(baselines().values()),
        "inferences": list(inferences().values()),
        "audit.controls": controls,
        "audit.repeats": 1,
        "trainer.threads": 1,
        **(QUICK if quick else {}),
    }
    folder = runs / f"{data}-{unlearning.replace(' ', '_')}-seed{seed}"
    run = Audit.from_config(data, folder, overrides, cache=runs / "cache").run(STAGES)
    return summary(unlearning, seed, dict(run.metrics), searches=_read(folder / "searches.json"))


def summary(unlearning: str, seed: int, metrics: dict[str, Any], searches: dict[str, Any]) -> dict[str, Any]:
    """The part of an audit's metrics that the table needs."""
    deleted = {metrics["classes"].index(name) for name in metrics["setting"]["deleted_classes"]}
    control = metrics["controls"].get(CONTROL)
    own = {**metrics["attack"], "queries": searches["attack-0"]["queries"], "controls": {}}
    if control is not None:
        own["controls"] = {CONTROL: {**control, "queries": searches[f"{CONTROL}-0"]["queries"]}}
    prior = {**metrics["controls"]["prior"], "queries": 0, "controls": {}}
    others = dict(zip(baselines(), metrics["baselines"].values(), strict=True))
    asked = dict(zip(inferences(), metrics["inferences"].values(), strict=True))
    return {
        "unlearning": unlearning,
        "seed": seed,
        "quality": metrics["unlearning"],
        "attacks": {name: _pair(row, deleted, _row) for name, row in {PRIOR: prior, RETRACE: own, **others}.items()},
        "inferences": {name: _pair(row, deleted, _answer) for name, row in asked.items()},
        "seconds": metrics["seconds"],
        "versions": metrics["versions"],
    }


def _pair(row: dict[str, Any], deleted: set[int], read: Any) -> dict[str, Any]:
    control = row["controls"].get(CONTROL)
    return {**read(row, deleted), "control": None if control is None else read(control, deleted)}


def _row(row: dict[str, Any], deleted: set[int]) -> dict[str, Any]:
    """Figures of a reconstruction; an attack that names a class says whether it is right."""
    if not row.get("applicable", True):
        return {"reason": row["reason"]}
    label = (row.get("facts") or {}).get("inferred_label")
    right = None if label is None else {label} == deleted
    return {name: row["distribution"].get(name) for name in FIGURES} | {"queries": row["queries"], "right": right}


def _answer(row: dict[str, Any], deleted: set[int]) -> dict[str, Any]:
    """Whether an inference was right; of one that tells members from others, its AUROC."""
    if row.get("judged") is None:
        return {"reason": row["reason"]}
    judged = {name: row["judged"].get(name) for name in ("correct", "auroc")}
    return judged | {"queries": row["queries"]}


def markdown(result: dict[str, Any]) -> str:
    """The tables, one for each way to forget."""
    lines = [
        f"# Every attack on {result['data']}",
        "",
        f"`{result['command']}`, {result['date']}, {result['hardware']}. "
        f"{DATA[result['data']]}, white-box, {QUERIES:,} queries, {TOP_K} candidates (UIA: 5), one "
        "search of each attack and seed; means over the seeds. Higher is closer to the deleted data for sr_oracle, "
        "lower for mse (to the nearest deleted record) and fid_oracle. Columns `retrain: ...`: the same attack on the "
        "original and a model retrained without the class, its control: what it finds there, better unlearning would "
        "not have prevented.",
    ]
    for unlearning in UNLEARNING:
        cells = [one for one in result["cells"] if one["unlearning"] == unlearning]
        lines += ["", f"## {unlearning.capitalize()}", ""]
        if not cells:
            lines.append("Not run.")
            continue
        seeds = ", ".join(str(one["seed"]) for one in cells)
        lines += [f"Data and audit seeds: {seeds}.", "", *_attack_table(cells), "", *_inference_table(cells)]
    return "\n".join(lines) + "\n"


def _attack_table(cells: list[dict[str, Any]]) -> list[str]:
    controlled = any(row["control"] for row in cells[0]["attacks"].values())
    own = [*FIGURES, "queries"]
    others = [f"retrain: {name}" for name in FIGURES] if controlled else []
    heads = ["attack", *own, "sr_oracle by seed", *others, "names the class", *(["retrain: names it"] * controlled)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in cells[0]["attacks"]:
        rows = [one["attacks"][name] for one in cells]
        rows_of_control = [row["control"] or {} for row in rows]
        line = [name, *(_mean(rows, figure) for figure in own), _each(rows, "sr_oracle")]
        if controlled:
            line += [_mean(rows_of_control, figure) for figure in FIGURES]
        line += [_right(rows, "right"), *([_right(rows_of_control, "right")] * controlled)]
        lines.append(f"| {' | '.join(line)} |")
    return lines


def _inference_table(cells: list[dict[str, Any]]) -> list[str]:
    lines = ["| inference | queries | by seed | retrain: by seed |", "|---|---|---|---|"]
    for name in cells[0]["inferences"]:
        rows = [one["inferences"][name] for one in cells]
        control = [row["control"] or {} for row in rows]
        lines.append(f"| {name} | {_mean(rows, 'queries')} | {_verdicts(rows)} | {_verdicts(control)} |")
    return lines


def _mean(rows: Iterable[dict[str, Any]], figure: str) -> str:
    values = [row[figure] for row in rows if row.get(figure) is not None]
    if not values:
        return "-"
    mean = sum(values) / len(values)
    return f"{mean:,.0f}" if figure == "queries" else f"{mean:.3g}"


def _each(rows: Iterable[dict[str, Any]], figure: str) -> str:
    return ", ".join("-" if row.get(figure) is None else f"{row[figure]:.2f}" for row in rows)


def _right(rows: Iterable[dict[str, Any]], name: str) -> str:
    answers = [row[name] for row in rows if row.get(name) is not None]
    return f"{sum(answers)} of {len(answers)}" if answers else "-"


def _verdicts(rows: Iterable[dict[str, Any]]) -> str:
    words = []
    for row in rows:
        if row.get("auroc") is not None:
            words.append(f"AUROC {row['auroc']:.2f}")
        else:
            correct = row.get("correct")
            words.append("-" if correct is None else "right" if correct else "wrong")
    return ", ".join(words)


def hardware() -> str:
    """Number and name of this machine's processors."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else platform.processor() or platform.machine()}"


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _write(result: dict[str, Any], folder: Path) -> None:
    """Both files, each replaced at once so that an interruption leaves a whole one."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"json": json.dumps(result, indent=1) + "\n", "md": markdown(result)}
    for kind, text in texts.items():
        file = folder / f"attacks_{result['data']}.{kind}"
        part = file.with_suffix(".part")
        part.write_text(text, encoding="utf-8")
        part.replace(file)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="negative gradient, one seed, small models, 1,024 queries")
    parser.add_argument("--data", choices=DATA, default="digits", help="packaged configuration")
    parser.add_argument("--unlearning", nargs="+", choices=UNLEARNING, default=list(UNLEARNING))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of audits and of their splits")
    parser.add_argument("--runs", type=Path, default=Path("runs/attacks"), help="where run folders and models go")
    parser.add_argument("--results", type=Path, help="folder for the two files; without it the tables are printed")
    options = parser.parse_args()
    runs = options.runs / "quick" if options.quick else options.runs
    results = None if options.quick else options.results
    settings = {"queries": QUERIES, "attacks": baselines(), "inferences": inferences()}
    cells: list[dict[str, Any]] = []
    known = None if results is None else results / f"attacks_{options.data}.json"
    if known is not None and known.is_file():
        earlier = _read(known)
        cells = earlier["cells"] if earlier["settings"] == settings else []
    plan = [(seed, name) for seed in options.seeds for name in options.unlearning]
    for seed, name in plan[:1] if options.quick else plan:
        if any((one["seed"], one["unlearning"]) == (seed, name) for one in cells):
            continue
        cells.append(cell(options.data, name, seed, runs, options.quick))
        cells.sort(key=lambda one: (one["seed"], list(UNLEARNING).index(one["unlearning"])))
        result = {
            "command": f"python benchmarks/attacks.py --data {options.data} --results {options.results}",
            "data": options.data,
            "date": datetime.now(UTC).date().isoformat(),
            "hardware": hardware(),
            "settings": settings,
            "cells": cells,
        }
        print(f"{name}, seed {seed}: done", flush=True)
        if results is None:
            print(markdown(result))
        else:
            _write(result, results)


if __name__ == "__main__":
    main()
