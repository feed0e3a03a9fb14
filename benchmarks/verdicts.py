"""The verdict on several unlearning methods with every control: ``python benchmarks/verdicts.py [--results FOLDER]``.

The packaged digits audit, black-box, all controls, 3 repeats of the search: three methods that forget, retraining
itself, and two that must not be called a leak (identity: nothing was deleted; training again: the null pair as a
method). Models are shared between the audits. ``verdicts.md`` and ``verdicts.json`` are written after every audit; a
rerun continues.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attacks import hardware, preset
from retrace_pl.pipeline.api import Audit

UNLEARNING = {
    "negative gradient": "unlearning/digits/negative_gradient",
    "fine-tuning": "unlearning/digits/retain_finetune",
    "SCRUB": "unlearning/digits/scrub",
    "retraining": "unlearning/retrain",
    "identity": "unlearning/identity",
    "training again": None,
}
QUERIES = 8192
ARMS = ("prior", "identity", "null", "never_trained", "wrong_class", "matched_retrain")


def audit(name: str, seed: int, runs: Path, queries: int, repeats: int) -> dict[str, Any]:
    """Verdict, leakage and the success of the attack and of every control, of one audit."""
    file = UNLEARNING[name]
    overrides = {
        "seed": seed,
        "data.seed": seed,
        "access": "black",
        "queries": queries,
        "rivals": [],
        "baselines": [],
        "inferences": [],
        "audit.controls": ["all"],
        "audit.repeats": repeats,
        "unlearning": preset(file) if file else {"class_path": "retrace_pl.unlearning.train_again.TrainAgain"},
    }
    folder = runs / f"{name.replace(' ', '_')}-seed{seed}"
    metrics = dict(Audit.from_config("digits", folder, overrides, cache=runs / "cache").run().metrics)
    arms = {"attack": metrics["attack"], **{arm: metrics["controls"].get(arm) for arm in ARMS}}
    return {
        "unlearning": name,
        "seed": seed,
        "success": {arm: found and found["distribution"]["sr_oracle"] for arm, found in arms.items()},
        "leakage": metrics["leakage"],
        "quality": metrics["unlearning"],
        "verdict": metrics["verdict"],
        "verdict_reason": metrics["verdict_reason"],
        "seconds": metrics["seconds"],
        "versions": metrics["versions"],
    }


def markdown(result: dict[str, Any]) -> str:
    """The table, and the reason of every verdict."""
    lines = [
        "# Verdicts with every control",
        "",
        f"`{result['command']}`, {result['date']}, {result['hardware']}. scikit-learn digits, class 3 deleted and "
        f"absent from the public data, small CNN, black-box, {result['queries']:,} queries for every search, "
        f"{result['repeats']} repeats. Share of the 64 candidates that an independent evaluator takes for the deleted "
        "class, of the attack and of each control at the same budget; prior draws from the generator without asking "
        "any model.",
        "",
        f"| unlearning | seed | attack | {' | '.join(ARMS)} | excess [95 %] | avoidable [95 %] | verdict |",
        "|---" * (len(ARMS) + 6) + "|",
    ]
    for row in result["audits"]:
        shares = ["-" if share is None else f"{100 * share:.0f} %" for share in row["success"].values()]
        leaks = [_interval(row["leakage"].get(kind)) for kind in ("excess", "avoidable")]
        cells = [row["unlearning"], str(row["seed"]), *shares, *leaks, row["verdict"]]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    lines += [f"- {row['unlearning']}, seed {row['seed']}: {row['verdict_reason']}" for row in result["audits"]]
    return "\n".join(lines) + "\n"


def _interval(leak: dict[str, Any] | None) -> str:
    return "-" if leak is None else f"{leak['value']:+.2f} [{leak['low']:+.2f}, {leak['high']:+.2f}]"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="negative gradient, 1,024 queries, one repeat")
    parser.add_argument("--unlearning", nargs="+", choices=UNLEARNING, default=list(UNLEARNING))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/verdicts"), help="where run folders and models go")
    parser.add_argument("--results", type=Path, help="folder for the two files; without it the table is printed")
    options = parser.parse_args()
    queries, repeats = (1024, 1) if options.quick else (QUERIES, 3)
    names = ["negative gradient"] if options.quick else options.unlearning
    stored = None if options.results is None else options.results / "verdicts.json"
    audits = json.loads(stored.read_text(encoding="utf-8"))["audits"] if stored and stored.is_file() else []
    for seed in options.seeds:
        for name in names:
            if any((row["unlearning"], row["seed"]) == (name, seed) for row in audits):
                continue
            audits.append(audit(name, seed, options.runs, queries, repeats))
            result = {
                "command": "python benchmarks/verdicts.py --results benchmarks/results",
                "date": datetime.now(UTC).date().isoformat(),
                "hardware": hardware(),
                "queries": queries,
                "repeats": repeats,
                "audits": audits,
            }
            print(f"{name}, seed {seed}: {audits[-1]['verdict']}", flush=True)
            if stored is None:
                print(markdown(result))
                continue
            stored.parent.mkdir(parents=True, exist_ok=True)
            for file, text in (
                (stored, json.dumps(result, indent=1) + "\n"),
                (stored.with_suffix(".md"), markdown(result)),
            ):
                part = file.with_suffix(".part")
                part.write_text(text, encoding="utf-8")
                part.replace(file)


if __name__ == "__main__":
    main()
